"""Depthwise convolution by lax and by torch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from kernels.convolution.activations import ACTIVATIONS
from kernels.convolution.frames import padding_frames
from kernels.peers.common import (
    JaxPeer,
    LibraryPeer,
    find_torch,
    torch_activation,
    torch_call,
    torch_device,
    torch_threads,
    waiting,
)
from kernels.problems import Problem, cotangent


def lax_depthwise_conv1d(
    inputs, filters, bias=None, *, padding, dilation=1, activation=None, lengths=None
):
    """What a JAX user writes today: ``lax.conv_general_dilated`` with a group for each channel."""
    width, channels = filters.shape
    left, right = padding_frames(padding, (width - 1) * dilation)
    lost = (width - 1) * dilation - left - right
    z = jax.lax.conv_general_dilated(
        zero_after(inputs, lengths),
        filters[:, None, :],
        window_strides=(1,),
        padding=[(left, right)],
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=channels,
        precision=jax.lax.Precision.HIGHEST,  # no TF32, as ours
    )
    z = z if bias is None else z + bias[None, None, :]
    return zero_after(ACTIVATIONS[activation](z), None if lengths is None else lengths - lost)


def zero_after(array, lengths):
    """(B, T, C) with zeros from lengths[b] on."""
    if lengths is None:
        return array
    t = jnp.arange(array.shape[1], dtype=lengths.dtype)
    return jnp.where((t[None, :] < lengths[:, None])[:, :, None], array, jnp.zeros((), array.dtype))


def lax_peer(problem: Problem, gradient: bool) -> JaxPeer:
    """``lax_depthwise_conv1d`` in place of the operation."""
    del gradient
    return JaxPeer(dataclasses.replace(problem, definition=lax_depthwise_conv1d).plain())


def torch_peer(problem: Problem, gradient: bool) -> LibraryPeer | str:
    """``torch.nn.functional.conv1d`` with a group for each channel."""
    torch = find_torch()
    if isinstance(torch, str):
        return torch
    device, dtype = torch_device(torch), getattr(torch, problem.dtype)

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
    activate = torch_activation(torch, options.get("activation"))

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

    shape = (x.shape[0], frames, channels)
    direction = tensor(cotangent(shape, problem.dtype), 0, 2, 1)

    def read(results):
        axes = ((0, 2, 1), (0, 2, 1), (2, 1, 0), (0,))
        arrays = [np.asarray(part.float().cpu().numpy()) for part in results]
        arrays = [part.transpose(a) for part, a in zip(arrays, axes, strict=False)]
        return tuple(part[:, 0] if i == 2 else part for i, part in enumerate(arrays))

    where = torch_threads(torch, device)
    return LibraryPeer(
        torch_call(torch, forward, leaves, direction, gradient),
        waiting(torch, device),
        read,
        f"torch: eager conv1d on operands laid out (B, C, T), its own order; {where}",
    )
