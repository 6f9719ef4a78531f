"""What a peer is, and torch if it is here."""

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from kernels.problems import Problem


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


def find_torch() -> Any:
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


def cores() -> int:
    """Cores that this process may use; JAX uses all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def torch_device(torch: Any) -> str:
    """Where torch computes as JAX does, and how: all cores, or the GPU without TensorFloat-32."""
    if jax.default_backend() == "gpu":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        return "cuda"
    torch.set_num_threads(cores())
    return "cpu"


def torch_activation(torch: Any, name: str | None) -> Callable[[Any], Any]:
    """What follows a convolution, by the name that ours has for it."""
    return {
        None: lambda z: z,
        "relu": torch.relu,
        "silu": torch.nn.functional.silu,
        "gelu": lambda z: torch.nn.functional.gelu(z, approximate="tanh"),
    }[name]


def torch_call(
    torch: Any, forward: Callable[..., Any], leaves: list[Any], direction: Any, gradient: bool
) -> Callable[[], tuple[Any, ...]]:
    """The value of ``forward`` of the leaves, or that and each one's gradient along a direction."""

    def value():
        with torch.no_grad():
            return (forward(*leaves),)

    def value_and_gradients():
        y = forward(*leaves)
        return (y.detach(), *torch.autograd.grad(y, leaves, direction))

    if not gradient:
        return value
    for leaf in leaves:
        leaf.requires_grad_()
    return value_and_gradients


def torch_threads(torch: Any, device: str) -> str:
    """How torch computes, for the note."""
    on_gpu = "cuDNN's autotuning on, TF32 off"
    return on_gpu if device == "cuda" else f"{torch.get_num_threads()} threads"


def waiting(torch: Any, device: str) -> Callable[[Any], Any]:
    """What returns when all work on the device is done."""
    return (lambda _: torch.cuda.synchronize()) if device == "cuda" else (lambda _: None)
