"""Convolution of images by lax and by torch."""

import dataclasses

import jax
import numpy as np

from kernels.convolution.activations import ACTIVATIONS
from kernels.convolution.windows import window
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


def lax_conv2d(
    inputs, filters, bias=None, *, strides=(1, 1), padding="SAME", dilation=(1, 1), activation=None
):
    """What a JAX user writes today: ``lax.conv_general_dilated``."""
    z = jax.lax.conv_general_dilated(
        inputs,
        filters,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,  # no TF32, as ours
    )
    return ACTIVATIONS[activation](z if bias is None else z + bias[None, None, None, :])


def lax_peer(problem: Problem, gradient: bool) -> JaxPeer:
    """``lax_conv2d`` in place of the operation."""
    del gradient
    return JaxPeer(dataclasses.replace(problem, definition=lax_conv2d).plain())


def torch_peer(problem: Problem, gradient: bool) -> LibraryPeer | str:
    """``torch.nn.functional.conv2d`` on operands with channels last, as ours have them."""
    torch = find_torch()
    if isinstance(torch, str):
        return torch
    device, dtype = torch_device(torch), getattr(torch, problem.dtype)

    def tensor(array, stored, seen):
        wide = np.array(np.asarray(array, np.float32).transpose(stored), order="C")
        return torch.from_numpy(wide).to(device=device, dtype=dtype).permute(seen)

    operands, options = problem.operands, problem.options
    pixels, size = operands["inputs"].shape[1:3], operands["filters"].shape[:2]
    last, first = (0, 1, 2, 3), (0, 3, 1, 2)
    leaves = [
        tensor(operands["inputs"], last, first),
        tensor(operands["filters"], (3, 0, 1, 2), first),
        tensor(operands["bias"], (0,), (0,)),
    ]
    where = window(pixels, size, options["strides"], options["padding"], options["dilation"])
    (top, bottom), (left, right) = where.padding
    even = top == bottom >= 0 and left == right >= 0
    activate = torch_activation(torch, options["activation"])

    def forward(x, filters, bias):
        x = x if even else torch.nn.functional.pad(x, (left, right, top, bottom))
        pads = (top, left) if even else 0
        z = torch.nn.functional.conv2d(x, filters, bias, where.strides, pads, where.dilation)
        return activate(z)

    shape = (len(operands["inputs"]), *where.results(pixels, size), operands["filters"].shape[3])
    direction = tensor(cotangent(shape, problem.dtype), last, first)

    def read(results):
        axes = ((0, 2, 3, 1), (0, 2, 3, 1), (2, 3, 1, 0), (0,))
        arrays = [np.asarray(part.float().cpu().numpy()) for part in results]
        return tuple(part.transpose(a) for part, a in zip(arrays, axes, strict=False))

    how = torch_threads(torch, device)
    return LibraryPeer(
        torch_call(torch, forward, leaves, direction, gradient),
        waiting(torch, device),
        read,
        f"torch: eager conv2d on operands with channels last; {how}",
    )
