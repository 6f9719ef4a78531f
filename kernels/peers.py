"""What others offer for the same operations: who the benchmark measures beside ours.

``PEERS`` has one entry per operation. A peer is made for a problem, and for its value alone or its
value and every gradient; it is a function that JAX compiles, or a call of another library, which is
imported here and nowhere else in ``kernels``, and only when it is asked for.
"""

import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.convolution.reference import ACTIVATIONS, padding_frames
from kernels.problems import Problem, cotangent


class JaxPeer(NamedTuple):
    """A peer in JAX.

    Attributes:
        function: of the problem's differentiable operands; the benchmark differentiates it.
        note: what a reader of the result must know.
    """

    function: Callable[..., Any]
    note: str = ""


class LibraryPeer(NamedTuple):
    """A peer in another library, ready to be called.

    Attributes:
        start: begins the work and returns its results; operands are in place already.
        wait: returns when the results are there.
        read: results -> the value, then every gradient if wanted, laid out as ours.
        note: what a reader of the result must know.
    """

    start: Callable[[], Any]
    wait: Callable[[Any], Any]
    read: Callable[[Any], tuple[np.ndarray, ...]]
    note: str = ""


Factory = Callable[[Problem, bool], JaxPeer | LibraryPeer | str]
"""(problem, whether gradients are wanted) -> the peer, or the reason why it cannot do this."""


def lax_depthwise_conv1d(
    inputs, filters, bias=None, *, padding, dilation=1, activation=None, lengths=None
):
    """What a JAX user writes today: ``lax.conv_general_dilated`` with a group for each channel."""
    width, channels = filters.shape
    left, right = padding_frames(padding, (width - 1) * dilation)
    lost = (width - 1) * dilation - left - right
    z = jax.lax.conv_general_dilated(
        _zero_after(inputs, lengths),
        filters[:, None, :],
        window_strides=(1,),
        padding=[(left, right)],
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=channels,
        precision=jax.lax.Precision.HIGHEST,  # no TF32, as ours
    )
    z = z if bias is None else z + bias[None, None, :]
    return _zero_after(ACTIVATIONS[activation](z), None if lengths is None else lengths - lost)


def _zero_after(array, lengths):
    if lengths is None:
        return array
    t = jnp.arange(array.shape[1], dtype=lengths.dtype)
    return jnp.where((t[None, :] < lengths[:, None])[:, :, None], array, jnp.zeros((), array.dtype))


def _lax_depthwise_conv1d(problem: Problem, gradient: bool) -> JaxPeer:
    del gradient
    return JaxPeer(dataclasses.replace(problem, definition=lax_depthwise_conv1d).plain())


def _torch() -> Any:
    """The library on the device that JAX uses, or the reason why not."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed (pip install torch)"
    torch = importlib.import_module("torch")
    platform = jax.default_backend()
    if platform not in ("cpu", "gpu"):
        return f"torch runs here on a CPU or a GPU, and JAX uses the {platform}"
    if platform == "gpu" and not torch.cuda.is_available():
        return "JAX uses the GPU, and this torch cannot"
    return torch


def _cores() -> int:
    """Cores that this process may use; JAX uses all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _torch_depthwise_conv1d(problem: Problem, gradient: bool) -> LibraryPeer | str:
    torch = _torch()
    if isinstance(torch, str):
        return torch
    on_gpu = jax.default_backend() == "gpu"
    device, dtype = "cuda" if on_gpu else "cpu", getattr(torch, problem.dtype)
    if on_gpu:
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
    else:
        torch.set_num_threads(_cores())

    def tensor(array, *axes):
        wide = np.array(np.asarray(array, np.float32).transpose(axes), order="C")
        return torch.from_numpy(wide).to(device=device, dtype=dtype)

    operands, options = problem.operands, problem.options
    x = tensor(operands["inputs"], 0, 2, 1)
    leaves = [x, tensor(operands["filters"], 1, 0)[:, None, :]]
    if "bias" in operands:
        leaves.append(tensor(operands["bias"], 0))
    channels, _, width = leaves[1].shape
    dilation = options.get("dilation", 1)
    reach = (width - 1) * dilation
    left, right = padding_frames(options["padding"], reach)
    most, frames = max(left, right), x.shape[2] + left + right - reach
    lengths = operands.get("lengths")
    if lengths is not None:
        lengths = torch.from_numpy(np.array(lengths)).to(device)
    activate = {
        None: lambda z: z,
        "relu": torch.relu,
        "silu": torch.nn.functional.silu,
        "gelu": lambda z: torch.nn.functional.gelu(z, approximate="tanh"),
    }[options.get("activation")]

    def masked(array, valid):
        if valid is None:
            return array
        t = torch.arange(array.shape[2], device=device)
        return array * (t < valid[:, None])[:, None, :]

    def forward(x, filters, bias=None):
        z = torch.nn.functional.conv1d(
            masked(x, lengths), filters, bias, padding=most, dilation=dilation, groups=channels
        )
        y = activate(z[:, :, most - left : most - left + frames])
        return masked(y, None if lengths is None else lengths + (frames - x.shape[2]))

    def value():
        with torch.no_grad():
            return (forward(*leaves),)

    shape = (x.shape[0], frames, channels)
    direction = tensor(cotangent(shape, problem.dtype), 0, 2, 1)

    def value_and_gradients():
        y = forward(*leaves)
        return (y.detach(), *torch.autograd.grad(y, leaves, direction))

    def read(results):
        axes = ((0, 2, 1), (0, 2, 1), (2, 1, 0), (0,))
        arrays = [np.asarray(part.float().cpu().numpy()) for part in results]
        arrays = [part.transpose(a) for part, a in zip(arrays, axes, strict=False)]
        return tuple(part[:, 0] if i == 2 else part for i, part in enumerate(arrays))

    if gradient:
        for leaf in leaves:
            leaf.requires_grad_()
    where = "cuDNN's autotuning on, TF32 off" if on_gpu else f"{torch.get_num_threads()} threads"
    return LibraryPeer(
        value_and_gradients if gradient else value,
        (lambda _: torch.cuda.synchronize()) if on_gpu else (lambda _: None),
        read,
        f"torch: eager conv1d on operands laid out (B, C, T), its own order; {where}",
    )


PEERS: Mapping[str, Mapping[str, Factory]] = {
    "depthwise_conv1d": {"lax": _lax_depthwise_conv1d, "torch": _torch_depthwise_conv1d},
}


def peers(operation: str) -> Mapping[str, Factory]:
    """The peers of an operation, by name; none, if nobody else has it.

    Example:
        >>> sorted(peers("depthwise_conv1d"))
        ['lax', 'torch']
    """
    return PEERS.get(operation, {})
