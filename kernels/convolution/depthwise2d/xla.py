"""Depthwise convolution of images in plain XLA: h w shifted multiply-adds, summed in float32.

On a CPU, XLA's grouped convolution runs in plain loops on one element after the other, and its
gradients with it, in a loop or a map slower still; h w multiply-adds of shifted images become one
loop over vectors of channels (measured: README). The result is kept apart, as that of
``depthwise_conv1d`` and for its reason.

Axes: B rows, H by W pixels, C channels, h by w taps, U by V pixels of the result; filters and bias
have G rows, a divisor of B.
"""

import functools
import operator

import jax
import jax.numpy as jnp
from jax import lax

from kernels.apart import apart
from kernels.convolution.activations import ACTIVATIONS
from kernels.convolution.windows import Window
from kernels.dispatch import Implementation
from kernels.precision import wide
from kernels.rows import by_rows, of_rows

# Results per step of the loop that sums the filters' gradient. XLA moves the cuts of a step into
# its sum where that has fewer than 16 terms, and computes each one's place for every element.
FEWEST, MOST = 16, 32
NO_PADDING = ((0, 0), (0, 0))


def forward(inputs, filters, bias, *, activation, **window):
    """(B, H, W, C), (G, h, w, C), (G, C) -> (B, U, V, C)."""

    def computed(inputs, filters, bias):
        z = _convolved(Window(**window), inputs, filters, bias)
        return (ACTIVATIONS[activation](z).astype(inputs.dtype),)

    return apart(computed, inputs, filters, bias)


def gradient(operands, outputs, cotangents, wanted, *, activation, **window):
    """The convolution's adjoints, with the activation's slope taken at a recomputed z."""
    del outputs
    window, (inputs, filters, bias), (dz,) = Window(**window), operands, cotangents
    if activation is not None:
        z = _convolved(window, inputs, filters, bias)
        dz = jax.vjp(ACTIVATIONS[activation], z)[1](dz.astype(z.dtype))[0]
    wants_inputs, wants_filters, wants_bias = wanted
    gradients = []
    if wants_inputs:
        gradients.append(_inputs_gradient(window, inputs, filters, dz))
    if wants_filters:
        gradients.append(_filters_gradient(window, inputs, filters, dz))
    if wants_bias:
        by_bias = by_rows(dz, bias.shape[0])
        gradients.append(jnp.sum(by_bias, (1, 2, 3), dtype=wide(dz.dtype)).astype(bias.dtype))
    return tuple(gradients)


def _convolved(window, inputs, filters, bias):
    size = filters.shape[1:3]
    # Without the barrier XLA reads taps that need no padding from the image itself, and loses time.
    padded = lax.optimization_barrier(_pad(inputs.astype(wide(inputs.dtype)), window.padding))
    pixels = window._replace(padding=NO_PADDING).taps(padded, size)
    places = [(i, j) for i in range(size[0]) for j in range(size[1])]
    z = _sum_of_products(zip(pixels, places, strict=True), filters)
    return z if bias is None else z + of_rows(bias, len(z)).astype(z.dtype)[:, None, None]


def _inputs_gradient(window, inputs, filters, dz):
    """sum_ij dz[u, v] filters[i, j] over the results that a pixel has a part in: (B, H, W, C).

    Pixels that are a multiple of the strides apart meet the same taps. Each of these phases is a
    convolution of dz with its taps, so that no zeros between results are multiplied.
    """
    rows, height, width, channels = inputs.shape
    spans = zip(filters.shape[1:3], *window[:3], strict=True)
    axes = [_phases(taps, stride, before, reach) for taps, stride, (before, _), reach in spans]
    count = [-(-n // stride) for n, stride in zip((height, width), window.strides, strict=True)]
    first = [min(result for phase in phases for _, result in phase) for phases in axes]
    last = [max(result for phase in phases for _, result in phase) for phases in axes]
    ends = zip(dz.shape[1:3], count, first, last, strict=True)
    pads = [(-low, n + high - results) for results, n, low, high in ends]
    dz = lax.optimization_barrier(_pad(dz.astype(wide(dz.dtype)), pads))

    def of_phase(down, across):
        terms = [
            (dz[:, u - first[0] :, v - first[1] :][:, : count[0], : count[1]], (i, j))
            for i, u in down
            for j, v in across
        ]
        if not terms:
            return jnp.zeros((rows, *count, channels), dz.dtype)
        return _sum_of_products(terms, filters)

    grid = [jnp.stack([of_phase(down, across) for across in axes[1]], 3) for down in axes[0]]
    dx = jnp.stack(grid, 2)  # (B, H / s, s, W / s', s', C)
    dx = dx.reshape(rows, dx.shape[1] * dx.shape[2], dx.shape[3] * dx.shape[4], channels)
    return dx[:, :height, :width].astype(inputs.dtype)


def _phases(taps, stride, before, dilation):
    """Of pixels p, p + stride, ... for each p below: the taps they meet, and where p does.

    Example:
        >>> _phases(taps=3, stride=2, before=1, dilation=1)
        [[(1, 0)], [(0, 1), (2, 0)]]
    """
    return [
        [
            (tap, (pixel + before - tap * dilation) // stride)
            for tap in range(taps)
            if (pixel + before - tap * dilation) % stride == 0
        ]
        for pixel in range(stride)
    ]


def _filters_gradient(window, inputs, filters, dz):
    """sum_buv x[b, u s + i d - top, v s' + j d' - left] dz[b, u, v] for each tap: (G, h, w, C).

    One pass over the results, in steps, that keeps every tap's sum. In a step the taps lie beside
    one another as results do elsewhere, so strides and dilation change places.
    """
    groups, *size, channels = filters.shape
    rows, *results, _ = dz.shape
    step = _step(*results)
    steps = [-(-count // each) for count, each in zip(results, step, strict=True)]
    spans = [
        ((each - 1) * stride + (taps - 1) * reach + 1, (many - 1) * each * stride)
        for each, many, taps, stride, reach in zip(
            step, steps, size, window.strides, window.dilation, strict=True
        )
    ]
    sums = wide(inputs.dtype)
    behind = [(0, n * e - count) for n, e, count in zip(steps, step, results, strict=True)]
    pads = [
        (before, span + start - before - pixels)
        for (span, start), (before, _), pixels in zip(
            spans, window.padding, inputs.shape[1:3], strict=True
        )
    ]
    x, dz = _pad(inputs.astype(sums), pads), _pad(dz.astype(sums), behind)
    turned = Window(window.dilation, NO_PADDING, window.strides)

    def add(k, total):
        u, v = k // steps[1] * step[0], k % steps[1] * step[1]
        corner = (0, u * window.strides[0], v * window.strides[1], 0)
        pixels = lax.dynamic_slice(x, corner, (rows, spans[0][0], spans[1][0], channels))
        slopes = lax.dynamic_slice(dz, (0, u, v, 0), (rows, *step, channels))
        slopes = [slopes[:, y : y + 1, z : z + 1] for y in range(step[0]) for z in range(step[1])]
        return total + functools.reduce(
            operator.add, map(operator.mul, turned.taps(pixels, step), slopes)
        )

    total = lax.fori_loop(0, steps[0] * steps[1], add, jnp.zeros((rows, *size, channels), sums))
    return by_rows(total, groups).sum(1).astype(filters.dtype)


def _step(height, width):
    """Results in a step of the loop, rows and columns, of so many.

    Example:
        >>> _step(56, 56), _step(14, 14), _step(7, 7), _step(1, 100)
        ((1, 28), (2, 14), (4, 7), (1, 25))
    """
    columns = -(-width // -(-width // MOST))
    steps = max(1, height // -(-FEWEST // columns))
    return -(-height // steps), columns


def _sum_of_products(terms, filters):
    """Of pixels (B, U, V, C) and the tap (i, j) that each is multiplied with."""
    products = (
        pixels * of_rows(filters[:, i, j], len(pixels)).astype(pixels.dtype)[:, None, None]
        for pixels, (i, j) in terms
    )
    return functools.reduce(operator.add, products)


def _pad(x, pads):
    """Zeros around the pixels; a negative number cuts off instead."""
    zero = jnp.zeros((), x.dtype)
    return lax.pad(x, zero, ((0, 0, 0), *((a, b, 0) for a, b in pads), (0, 0, 0)))


depthwise_conv2d = Implementation(forward, gradient)
