"""The middle of the Conformer's convolution module, as users of JAX and of torch write it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.convolution.frames import padding_frames
from kernels.peers.common import (
    JaxPeer,
    LibraryPeer,
    find_torch,
    torch_call,
    torch_device,
    torch_threads,
    waiting,
)
from kernels.peers.depthwise1d import lax_depthwise_conv1d, zero_after
from kernels.problems import Problem, cotangent

EPSILON = 1e-5


def lax_conformer_convolution(
    inputs,
    filters,
    scale,
    offset,
    *,
    norm="layer",
    mean: Any = None,
    variance: Any = None,
    bias=None,
    padding="SAME",
    lengths=None,
    initial_state=None,
):
    """``jax.nn.glu``, ``lax``'s convolution with a group for each channel, the norm, the swish."""
    if initial_state is not None:
        inputs, padding = jnp.concatenate([initial_state, inputs], 1), (0, 0)
        lengths = None if lengths is None else lengths + initial_state.shape[1]
    h = jax.nn.glu(inputs)
    z = lax_depthwise_conv1d(h, filters, bias, padding=padding, lengths=lengths)
    if norm == "layer":
        mean, variance = jnp.mean(z, -1, keepdims=True), jnp.var(z, -1, keepdims=True)
    else:
        mean, variance = mean[None, None, :], variance[None, None, :]
    factor = jax.lax.rsqrt(variance + EPSILON) * scale[None, None, :]
    y = jax.nn.silu((z - mean) * factor + offset[None, None, :])
    return zero_after(y, None if lengths is None else lengths + (y.shape[1] - inputs.shape[1]))


def lax_peer(problem: Problem, gradient: bool) -> JaxPeer:
    """``lax_conformer_convolution`` in place of the operation."""
    del gradient
    return JaxPeer(dataclasses.replace(problem, definition=lax_conformer_convolution).plain())


def torch_peer(problem: Problem, gradient: bool) -> LibraryPeer | str:
    """``glu``, ``conv1d``, ``layer_norm`` or ``batch_norm``, and ``silu`` of torch."""
    torch = find_torch()
    if isinstance(torch, str):
        return torch
    device, dtype = torch_device(torch), getattr(torch, problem.dtype)
    functional = torch.nn.functional
    operands, options = problem.operands, problem.options
    lengths = operands.get("lengths")
    if lengths is not None:
        lengths = torch.from_numpy(np.array(lengths)).to(device)

    def tensor(array):
        wide = np.array(np.asarray(array, np.float32))
        return torch.from_numpy(wide).to(device=device, dtype=dtype)

    names, leaves = problem.differentiable, [tensor(array) for array in problem.arguments]
    channels, reach = operands["filters"].shape[1], operands["filters"].shape[0] - 1

    def masked(array, valid):
        if valid is None:
            return array
        t = torch.arange(array.shape[1], device=device)
        return torch.where((t < valid[:, None])[:, :, None], array, 0.0)

    def forward(*leaves):
        given = dict(zip(names, leaves, strict=True))
        x, valid, (left, right) = (
            given["inputs"],
            lengths,
            padding_frames(options["padding"], reach),
        )
        if "initial_state" in given:
            x, left = torch.cat([given["initial_state"], x], 1), 0
            valid = None if lengths is None else lengths + reach
        h = masked(functional.glu(x), valid).transpose(1, 2)
        z = functional.conv1d(
            functional.pad(h, (left, right)),
            given["filters"].T[:, None, :],
            given.get("bias"),
            groups=channels,
        )
        scale, offset = given["scale"], given["offset"]
        if options["norm"] == "layer":
            n = functional.layer_norm(z.transpose(1, 2), (channels,), scale, offset, EPSILON)
        else:
            factor = (given["variance"] + EPSILON).rsqrt() * scale
            n = (z.transpose(1, 2) - given["mean"]) * factor + offset
        y = functional.silu(n)
        return masked(y, None if valid is None else valid + (y.shape[1] - x.shape[1]))

    shape = jax.eval_shape(problem.plain(), *problem.arguments).shape
    direction = tensor(cotangent(shape, problem.dtype))

    where = torch_threads(torch, device)
    return LibraryPeer(
        torch_call(torch, forward, leaves, direction, gradient),
        waiting(torch, device),
        lambda results: tuple(np.asarray(part.float().cpu().numpy()) for part in results),
        f"torch: eager glu, conv1d, norm, silu on operands laid out (B, T, 2C); {where}",
    )
