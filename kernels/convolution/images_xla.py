"""Convolutions of images in XLA; on a CPU by matrix products or multiply-adds where these win.

XLA's own convolution is what other platforms run. On a CPU its value is fast, but not with filters
of their own for some rows, as ``vmap`` over models has, nor the filters' gradient then or inside a
loop. There the patches of an image, side by side, are one factor of a product (im2col).

Axes: B rows, H by W pixels, I channels, h by w taps, O features, U by V pixels of the result;
filters and bias have G rows, a divisor of B. K = h w I is the length of a patch.
"""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from kernels.convolution.reference import ACTIVATIONS
from kernels.dispatch import Implementation


class Window(NamedTuple):
    """Where the filters are laid on the image.

    Attributes:
        strides: pixels between neighbouring results.
        padding: zeros above and below, left and right; negative numbers cut off.
        dilation: pixels between neighbouring taps.
        groups: of channels, each with filters of its own.
    """

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int]
    groups: int

    def taps(self, inputs: Any, size: tuple[int, int]) -> list[Any]:
        """What each tap meets, (B, U, V, I), row by row."""
        zero = jnp.zeros((), inputs.dtype)
        padded = lax.pad(
            inputs, zero, ((0, 0, 0), *((a, b, 0) for a, b in self.padding), (0, 0, 0))
        )
        spans = [
            [range(tap * d, length - (taps - 1 - tap) * d, s) for tap in range(taps)]
            for length, taps, d, s in zip(
                padded.shape[1:3], size, self.dilation, self.strides, strict=True
            )
        ]
        rows, columns, channels = padded.shape[0], spans[1], padded.shape[3]
        return [
            lax.slice(
                padded,
                (0, y.start, x.start, 0),
                (rows, y.stop, x.stop, channels),
                (1, y.step, x.step, 1),
            )
            for y in spans[0]
            for x in columns
        ]


def forward(inputs, filters, bias, *, activation, **window):
    """(B, H, W, I), (G, h, w, I / groups, O), (G, O) -> (B, U, V, O)."""
    z = _for_platform(_by_cpu, _by_lax, Window(**window), inputs, filters)
    return (_finished(z, bias, activation).astype(inputs.dtype),)


def gradient(operands, outputs, cotangents, wanted, *, activation, **window):
    """The convolution's adjoints, with the activation's slope taken at a recomputed z."""
    del outputs
    window, (inputs, filters, bias) = Window(**window), operands
    (dz,) = cotangents
    if activation is not None:
        z = _for_platform(_by_cpu, _by_lax, window, inputs, filters)
        z = z if bias is None else z + _of_rows(bias, len(z)).astype(z.dtype)
        dz = jax.vjp(ACTIVATIONS[activation], z)[1](dz.astype(z.dtype))[0]
    wants_inputs, wants_filters, wants_bias = wanted
    gradients = []
    if wants_inputs:
        gradients.append(
            _for_platform(_inputs_by_cpu, _inputs_by_lax, window, inputs, filters, dz).astype(
                inputs.dtype
            )
        )
    if wants_filters:
        gradients.append(
            _for_platform(_filters_by_cpu, _filters_by_lax, window, inputs, filters, dz).astype(
                filters.dtype
            )
        )
    if wants_bias:
        by_bias = dz.reshape(len(bias), -1, dz.shape[3])
        gradients.append(jnp.sum(by_bias, 1, dtype=_wide(dz.dtype)).astype(bias.dtype))
    return tuple(gradients)


def _for_platform(cpu, others, window, *arrays):
    wide = _wide(arrays[0].dtype)

    def on_cpu(*arrays):
        return cpu(window, *(array.astype(wide) for array in arrays))

    def elsewhere(*arrays):
        narrow = (array.astype(arrays[0].dtype) for array in arrays)
        return others(window, *narrow).astype(wide)

    return lax.platform_dependent(*arrays, cpu=on_cpu, default=elsewhere)


def _finished(z, bias, activation):
    z = z if bias is None else z + _of_rows(bias, len(z)).astype(z.dtype)
    return ACTIVATIONS[activation](z)


def _of_rows(bias, rows):
    groups, features = bias.shape
    each = jnp.broadcast_to(bias[:, None], (groups, rows // groups, features))
    return each.reshape(rows, 1, 1, features)


# ---------------------------------------------------------------------- XLA's convolution


def _by_lax(window, inputs, filters):
    """(B, H, W, I), (G, h, w, I / groups, O) -> (B, U, V, O)."""
    if len(filters) > 1:
        by_filter = inputs.reshape(len(filters), -1, *inputs.shape[1:])
        z = jax.vmap(functools.partial(_by_lax, window))(by_filter, filters[:, None])
        return z.reshape(-1, *z.shape[2:])
    return lax.conv_general_dilated(
        inputs,
        filters[0],
        window.strides,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=window.groups,
        precision=None if inputs.dtype in (jnp.bfloat16, jnp.float16) else lax.Precision.HIGHEST,
    )


def _inputs_by_lax(window, inputs, filters, dz):
    return jax.linear_transpose(lambda x: _by_lax(window, x, filters), inputs)(dz)[0]


def _filters_by_lax(window, inputs, filters, dz):
    return jax.linear_transpose(lambda f: _by_lax(window, inputs, f), filters)(dz)[0]


# ---------------------------------------------------------------------- On a CPU


def _by_cpu(window, inputs, filters):
    groups, height, width, channels, features = filters.shape
    if window.groups > 1:
        return _by_lax(window, inputs, filters)
    if channels == 1:
        by_tap = filters.reshape(groups, -1, features)
        terms = (
            tap * _of_rows(by_tap[:, k], len(tap))
            for k, tap in enumerate(window.taps(inputs, (height, width)))
        )
        return functools.reduce(operator.add, terms)
    if groups == 1 and height * width > 1:
        return _by_lax(window, inputs, filters)
    patches = _patches(window, inputs, filters)
    z = _product("gpk,gko->gpo", patches.reshape(groups, -1, patches.shape[3]), _matrix(filters))
    return z.reshape(*patches.shape[:3], features)


def _inputs_by_cpu(window, inputs, filters, dz):
    groups, height, width, _, features = filters.shape
    if window.groups > 1 or (groups == 1 and height * width > 1):
        return _inputs_by_lax(window, inputs, filters, dz)
    of_patches = _product("gpo,gko->gpk", dz.reshape(groups, -1, features), _matrix(filters))
    of_patches = of_patches.reshape(*dz.shape[:3], -1)
    return jax.linear_transpose(lambda x: _patches(window, x, filters), inputs)(of_patches)[0]


def _filters_by_cpu(window, inputs, filters, dz):
    groups, *_, features = filters.shape
    if window.groups > 1:
        return _filters_by_lax(window, inputs, filters, dz)
    patches = _patches(window, inputs, filters)
    patches = patches.reshape(groups, -1, patches.shape[3])
    return _product("gpk,gpo->gko", patches, dz.reshape(groups, -1, features)).reshape(
        filters.shape
    )


def _patches(window, inputs, filters):
    """(B, U, V, K): a patch has its channels together."""
    return jnp.concatenate(window.taps(inputs, filters.shape[1:3]), 3)


def _matrix(filters):
    return filters.reshape(len(filters), -1, filters.shape[4])


def _product(axes, a, b):
    return jnp.einsum(axes, a, b, precision=lax.Precision.HIGHEST)


def _wide(dtype):
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


conv2d = Implementation(forward, gradient)
