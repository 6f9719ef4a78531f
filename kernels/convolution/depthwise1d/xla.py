"""Depthwise convolution in plain XLA: W shifted multiply-adds, accumulated in float32.

On a CPU, XLA's grouped convolution costs as much as a dense one, and its gradient more; W
multiply-adds of shifted frames become one loop (measured: README). The result is kept apart: where
XLA computes such a sum again it may round it otherwise, and the gradient of a maximum, which asks
which element is the largest, would find none.

Axes: B rows, T frames, C channels, W width; filters and bias have G rows, a divisor of B.
"""

import functools
import operator

import jax
import jax.numpy as jnp

from kernels.apart import apart
from kernels.convolution.activations import ACTIVATIONS
from kernels.convolution.frames import output_lengths, zero_after
from kernels.dispatch import Implementation
from kernels.precision import wide
from kernels.rows import by_rows, of_rows, rejoined

STEP = 16  # frames per step of the loop that sums the filters' gradient


def forward(inputs, filters, bias, lengths, **options):
    """(B, T, C), (G, W, C), (G, C), (B,) -> (B, T + left + right - (W - 1) dilation, C)."""
    return apart(functools.partial(_forward, **options), inputs, filters, bias, lengths)


def _forward(inputs, filters, bias, lengths, *, left, right, dilation, activation):
    z = _convolve(zero_after(inputs, lengths), filters, left, right, dilation)
    y = ACTIVATIONS[activation](_add(z, bias)).astype(inputs.dtype)
    return (zero_after(y, output_lengths(inputs, y, lengths)),)


def gradient(operands, outputs, cotangents, wanted, *, left, right, dilation, activation):
    """The convolution's adjoints, with the activation's slope taken at a recomputed z."""
    inputs, filters, bias, lengths = operands
    reach = (filters.shape[1] - 1) * dilation
    x = zero_after(inputs, lengths)
    dz = zero_after(cotangents[0], output_lengths(inputs, cotangents[0], lengths))
    if activation is not None:
        z = _add(_convolve(x, filters, left, right, dilation), bias)
        dz = jax.vjp(ACTIVATIONS[activation], z)[1](dz.astype(z.dtype))[0]
    wants_inputs, wants_filters, wants_bias, _ = wanted
    gradients = []
    if wants_inputs:
        dx = _convolve(dz, filters[:, ::-1], reach - left, reach - right, dilation)
        gradients.append(zero_after(dx, lengths).astype(inputs.dtype))
    if wants_filters:
        gradients.append(_filter_gradient(x, dz, filters, left, right, dilation))
    if wants_bias:
        by_bias = by_rows(dz, bias.shape[0])
        gradients.append(jnp.sum(by_bias, (1, 2), dtype=wide(dz.dtype)).astype(bias.dtype))
    return tuple(gradients)


def _convolve(x, filters, left, right, dilation):
    """sum_w x[t + w dilation - left] filters[w], in float32 or wider; padding may be negative."""
    groups, width, _ = filters.shape
    frames = x.shape[1] + left + right - (width - 1) * dilation
    x = by_rows(_pad(x, left, right), groups)
    sums = wide(x.dtype)
    terms = (
        x[:, :, w * dilation : w * dilation + frames].astype(sums)
        * filters[:, w].astype(sums)[:, None, None, :]
        for w in range(width)
    )
    return rejoined(functools.reduce(operator.add, terms))


def _filter_gradient(x, dz, filters, left, right, dilation):
    """sum_bt x[t + w dilation - left] dz[t] for each w: (G, W, C).

    One pass over the frames that keeps every tap's sum, in steps long enough to hide the loop; W
    sums over all frames took up to ten times as long on a CPU.
    """
    groups, width, _ = filters.shape
    steps = -(-dz.shape[1] // STEP)
    behind = steps * STEP - dz.shape[1]
    x, dz = _pad(x, left, right + behind), _pad(dz, 0, behind)
    sums, reach = wide(x.dtype), (width - 1) * dilation

    def taps(step):
        window = jax.lax.dynamic_slice_in_dim(x, step * STEP, STEP + reach, 1).astype(sums)
        dz_step = jax.lax.dynamic_slice_in_dim(dz, step * STEP, STEP, 1).astype(sums)
        terms = (
            window[:, t : t + reach + 1 : dilation] * dz_step[:, t : t + 1] for t in range(STEP)
        )
        return functools.reduce(operator.add, terms)

    total = jax.lax.fori_loop(1, steps, lambda step, so_far: so_far + taps(step), taps(0))
    return by_rows(total, groups).sum(1).astype(filters.dtype)


def _add(z, bias):
    return z if bias is None else z + of_rows(bias, z.shape[0]).astype(z.dtype)[:, None, :]


def _pad(x, left, right):
    """Zeros before and after; a negative number cuts frames off instead."""
    zero = jnp.zeros((), x.dtype)
    return jax.lax.pad(x, zero, ((0, 0, 0), (left, right, 0), (0, 0, 0)))


depthwise_conv1d = Implementation(forward, gradient)
