"""Convolutions of images in XLA.

On a CPU, XLA hands a convolution to a fast library only where its operands lie as (B, H, W, I) and
(h, w, I, O) do. It turns the others so, but in a program's main computation only: the gradients in
a loop, and those with filters of their own for some rows, as ``vmap`` over models has, run in plain
loops instead, up to 79 times as long. So gradients are written here as convolutions that lie so,
filters that differ between rows take their turns, and where a product or sums over taps are faster
still, these are taken (measured: README). Elsewhere it is XLA's convolution and JAX's derivative.

Axes: B rows, H by W pixels, I channels, h by w taps, O features, U by V pixels of the result;
filters and bias have G rows, a divisor of B.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
from jax import lax

from kernels.apart import apart
from kernels.convolution.activations import ACTIVATIONS
from kernels.convolution.windows import Window
from kernels.dispatch import Implementation
from kernels.precision import wide
from kernels.rows import by_rows, of_rows, rejoined

NARROW = 16  # channels, or features
MANY_TAPS = 32


def forward(inputs, filters, bias, *, activation, **window):
    """(B, H, W, I), (G, h, w, I / groups, O), (G, O) -> (B, U, V, O)."""
    z = _convolved(Window(**window), inputs, filters, bias)
    return (ACTIVATIONS[activation](z).astype(inputs.dtype),)


def gradient(operands, outputs, cotangents, wanted, *, activation, **window):
    """The convolution's adjoints, with the activation's slope taken at a recomputed z."""
    del outputs
    window, (inputs, filters, bias), (dz,) = Window(**window), operands, cotangents
    if activation is not None:
        z = _convolved(window, inputs, filters, bias)
        dz = jax.vjp(ACTIVATIONS[activation], z)[1](dz.astype(z.dtype))[0]
    *wanted, wants_bias = wanted
    ways = ((_inputs_by_cpu, _inputs_by_lax, inputs), (_filters_by_cpu, _filters_by_lax, filters))
    gradients = [
        _for_platform(cpu, others, window, inputs, filters, dz).astype(like.dtype)
        for wants, (cpu, others, like) in zip(wanted, ways, strict=True)
        if wants
    ]
    if wants_bias:
        by_bias = by_rows(dz, bias.shape[0])
        gradients.append(jnp.sum(by_bias, (1, 2, 3), dtype=wide(dz.dtype)).astype(bias.dtype))
    return tuple(gradients)


def _convolved(window, inputs, filters, bias):
    z = _for_platform(_by_cpu, _by_lax, window, inputs, filters)
    return z if bias is None else z + of_rows(bias, z.shape[0]).astype(z.dtype)[:, None, None]


def _for_platform(cpu, others, window, *arrays):
    sums = wide(arrays[0].dtype)

    def on_cpu(*arrays):
        return cpu(window, *(array.astype(sums) for array in arrays))

    def elsewhere(*arrays):
        narrow = (array.astype(arrays[0].dtype) for array in arrays)
        return others(window, *narrow).astype(sums)

    return lax.platform_dependent(*arrays, cpu=on_cpu, default=elsewhere)


# ---------------------------------------------------------------------- XLA's convolution


def _by_lax(window, inputs, filters):
    """(B, H, W, I), (G, h, w, I / groups, O) -> (B, U, V, O)."""
    if len(filters) > 1:
        by_filter = by_rows(inputs, len(filters))
        return rejoined(jax.vmap(functools.partial(_by_lax, window))(by_filter, filters[:, None]))
    return _convolution(
        inputs,
        filters[0],
        window.padding,
        strides=window.strides,
        dilation=window.dilation,
        groups=window.groups,
    )


def _inputs_by_lax(window, inputs, filters, dz):
    return jax.linear_transpose(lambda x: _by_lax(window, x, filters), inputs)(dz)[0]


def _filters_by_lax(window, inputs, filters, dz):
    return jax.linear_transpose(lambda f: _by_lax(window, inputs, f), filters)(dz)[0]


def _convolution(
    inputs, filters, padding, *, strides=(1, 1), dilation=(1, 1), spread=(1, 1), groups=1
):
    """``spread`` is the distance between the pixels of the inputs, with zeros in between."""
    return lax.conv_general_dilated(
        inputs,
        filters,
        strides,
        padding,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=None if inputs.dtype in (jnp.bfloat16, jnp.float16) else lax.Precision.HIGHEST,
    )


# ---------------------------------------------------------------------- On a CPU


def _laid_on(inputs, filters, padding, *, spread=(1, 1), **spacing):
    """``_convolution``; around images of fewer pixels than the filters have taps it stores zeros.

    XLA would lay such images on the filters instead of the filters on them, up to 25 times as long.
    """
    pixels = math.prod(inputs.shape[1:3])
    if 1 < pixels < math.prod(filters.shape[:2]):
        edges = (
            (before, after, step - 1) for (before, after), step in zip(padding, spread, strict=True)
        )
        zero = jnp.zeros((), inputs.dtype)
        inputs = lax.pad(inputs, zero, ((0, 0, 0), *edges, (0, 0, 0)))
        inputs, padding, spread = lax.optimization_barrier(inputs), ((0, 0), (0, 0)), (1, 1)
    return _convolution(inputs, filters, padding, spread=spread, **spacing)


def _by_cpu(window, inputs, filters):
    _, *size, channels, features = filters.shape
    if window.groups > 1:
        return _by_lax(window, inputs, filters)
    if channels == 1 and features <= NARROW:
        # XLA would compute it again, and round it otherwise, where the gradient of a maximum asks
        # which element that was.
        return apart(functools.partial(_sum_of_taps, window), inputs, filters)
    if size == [1, 1]:
        (pixels,) = window.taps(inputs, size)
        return _product("gpi,gio->gpo", pixels, filters).reshape(*pixels.shape[:3], features)
    spacing = {"strides": window.strides, "dilation": window.dilation}
    return _in_turn(lambda x, f: _laid_on(x, f, window.padding, **spacing), filters, inputs)


def _inputs_by_cpu(window, inputs, filters, dz):
    _, *size, channels, _ = filters.shape
    if window.groups > 1:
        return _inputs_by_lax(window, inputs, filters, dz)
    overlap = channels <= NARROW or max(window.strides) > 1
    if size == [1, 1] or (overlap and size[0] * size[1] <= MANY_TAPS):
        of_taps = _product("gpo,gko->gpk", dz, filters)
        of_taps = of_taps.reshape(*dz.shape[:3], size[0] * size[1] * channels)
        patches = functools.partial(_patches, window, size)
        return jax.linear_transpose(patches, inputs)(of_taps)[0]

    def of_one(dz, f):
        turned = f[::-1, ::-1].swapaxes(2, 3)
        spans = zip(inputs.shape[1:3], size, dz.shape[1:3], *window[:3], strict=True)
        pads = []
        for pixels, taps, results, stride, (before, _), dilation in spans:
            reach = (taps - 1) * dilation
            after = pixels - (results - 1) * stride - 1 + before
            pads.append((reach - before, after))
        return _laid_on(dz, turned, pads, dilation=window.dilation, spread=window.strides)

    return _in_turn(of_one, filters, dz)


def _filters_by_cpu(window, inputs, filters, dz):
    _, *size, _, _ = filters.shape
    if window.groups > 1:
        return _filters_by_lax(window, inputs, filters, dz)
    if size == [1, 1]:
        (pixels,) = window.taps(inputs, size)
        pixels, dz = (_in_line(a, len(filters)) for a in (pixels, dz))
        found = jnp.einsum("gpi,gpo->gio", pixels, dz, precision=lax.Precision.HIGHEST)
        return found.reshape(filters.shape)

    def of_one(x, dz, f):
        spans = zip(x.shape[1:3], f.shape[:2], dz.shape[1:3], *window[:3], strict=True)
        pads = []
        for pixels, taps, results, stride, (before, _), dilation in spans:
            needed = (taps - 1) * dilation + (results - 1) * stride + 1
            pads.append((before, needed - pixels - before))
        turned = x.transpose(3, 1, 2, 0), dz.transpose(1, 2, 0, 3)
        found = _laid_on(*turned, pads, strides=window.dilation, dilation=window.strides)
        return found.transpose(1, 2, 0, 3)[None]

    found = _in_turn(of_one, filters, inputs, dz)
    return found.reshape(filters.shape)


def _in_turn(function, filters, *arrays):
    """(B', ...) of the rows (B, ...) of arrays that each filter has, and the filter."""
    if len(filters) == 1:
        return function(*arrays, filters[0])
    by_filter = (by_rows(a, len(filters)) for a in arrays)
    return rejoined(lax.map(lambda given: function(*given), (*by_filter, filters)))


def _sum_of_taps(window, inputs, filters):
    groups, height, width, _, features = filters.shape
    by_tap = filters.reshape(groups, height * width, features)
    terms = (
        tap * of_rows(by_tap[:, k], len(tap))[:, None, None]
        for k, tap in enumerate(window.taps(inputs, (height, width)))
    )
    return functools.reduce(operator.add, terms)


def _in_line(array, groups):
    """(B, U, V, n) -> (G, B U V / G, n)."""
    by_group = by_rows(array, groups)
    return by_group.reshape(groups, math.prod(by_group.shape[1:4]), array.shape[3])


def _patches(window, size, inputs):
    """(B, U, V, h w I): a patch has the channels of a tap together."""
    return jnp.concatenate(window.taps(inputs, size), 3)


def _product(axes, pixels, filters):
    """(B, U, V, n) with (G, h, w, I, O), whose taps and channels are one axis."""
    groups, *sizes, features = filters.shape
    pixels = _in_line(pixels, groups)
    matrix = filters.reshape(groups, math.prod(sizes), features)
    return jnp.einsum(axes, pixels, matrix, precision=lax.Precision.HIGHEST)


conv2d = Implementation(forward, gradient)
