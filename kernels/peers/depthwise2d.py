"""Depthwise convolution of images by lax and by torch."""

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


def lax_depthwise_conv2d(
    inputs, filters, bias=None, *, strides=(1, 1), padding="SAME", dilation=(1, 1), activation=None
):
    """What a JAX user writes today: ``lax.conv_general_dilated`` with a group for each channel."""
    z = jax.lax.conv_general_dilated(
        inputs,
        filters[:, :, None, :],
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=inputs.shape[3],
        precision=jax.lax.Precision.HIGHEST,  # no TF32, as ours
    )
    return ACTIVATIONS[activation](z if bias is None else z + bias[None, None, None, :])


def lax_peer(problem: Problem, gradient: bool) -> JaxPeer:
    """``lax_depthwise_conv2d`` in place of the operation."""
    del gradient
    return JaxPeer(dataclasses.replace(problem, definition=lax_depthwise_conv2d).plain())


def torch_peer(problem: Problem, gradient: bool) -> LibraryPeer | str:
    """``torch.nn.functional.conv2d`` with a group for each channel."""
    torch = find_torch()
    if isinstance(torch, str):
        return torch
    device, dtype = torch_device(torch), getattr(torch, problem.dtype)

    def tensor(array, *axes):
        wide = np.array(np.asarray(array, np.float32).transpose(axes), order="C")
        return torch.from_numpy(wide).to(device=device, dtype=dtype)

    operands, options = problem.operands, problem.options
    names = ("strides", "padding", "dilation")
    pixels, taps = operands["inputs"].shape[1:3], operands["filters"].shape[:2]
    where = window(pixels, taps, *(options[name] for name in names))
    leaves = [
        tensor(operands["inputs"], 0, 3, 1, 2),
        tensor(operands["filters"], 2, 0, 1)[:, None],
        tensor(operands["bias"], 0),
    ]
    rows, channels = leaves[0].shape[:2]
    even = all(before == after >= 0 for before, after in where.padding)
    outside = [pad for pads in reversed(where.padding) for pad in pads]
    activate = torch_activation(torch, options["activation"])

    def forward(x, filters, bias):
        z = torch.nn.functional.conv2d(
            x if even else torch.nn.functional.pad(x, outside),
            filters,
            bias,
            where.strides,
            tuple(before for before, _ in where.padding) if even else 0,
            where.dilation,
            channels,
        )
        return activate(z)

    shape = (rows, *where.results(pixels, taps), channels)
    direction = tensor(cotangent(shape, problem.dtype), 0, 3, 1, 2)

    def read(results):
        arrays = [np.asarray(part.float().cpu().numpy()) for part in results]
        axes = ((0, 2, 3, 1), (0, 2, 3, 1), (2, 3, 1, 0), (0,))
        arrays = [part.transpose(order) for part, order in zip(arrays, axes, strict=False)]
        return tuple(part[:, :, 0] if i == 2 else part for i, part in enumerate(arrays))

    threads = torch_threads(torch, device)
    return LibraryPeer(
        torch_call(torch, forward, leaves, direction, gradient),
        waiting(torch, device),
        read,
        f"torch: eager conv2d on operands laid out (B, C, H, W), its own order; {threads}",
    )
