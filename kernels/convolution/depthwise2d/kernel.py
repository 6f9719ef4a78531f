"""Depthwise convolution of images in Triton: the value, and the gradients of inputs and filters.

A program holds REUSE = 4 tiles of pixels by channels, each some rows below the one before, at the
distance at which a row of the image is met by neighbouring taps of a column. A tile of the image
that is loaded once then serves four taps: a column of h taps takes h + 3 loads, not 4 h, to make
four tiles of results. Where strides and dilation have no common divisor, only every s-th tap of a
column meets the same rows, so a column is walked once for each of these residues.

The inputs' gradient does the same on dz. Pixels that are a multiple of the strides apart meet the
same taps: a program has pixels of one such phase, and no tap without a result. The filters'
gradient is deterministic: each program writes its own partial sums, and XLA adds them up in a
second stage. No atomics. Products and sums are in float32.

Axes: B rows, H by W pixels, U by V results, C channels, h by w taps, K blocks of pixels.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false

import math
from typing import Any

import jax
import jax.numpy as jnp
import triton
import triton.language as tl

from kernels import launch
from kernels.configurations import Choices
from kernels.convolution.depthwise2d import tuning
from kernels.convolution.tile import activate, slope_of
from kernels.convolution.windows import Window
from kernels.dispatch import Implementation

REUSE = 4


@triton.jit
def _places(block, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, APART: tl.constexpr):
    """Row and column of each pixel of the first tile; the others are APART rows below."""
    i = block * BLOCK + tl.arange(0, BLOCK)
    row = i // COLUMNS
    return (row // APART) * (4 * APART) + row % APART, i % COLUMNS


@triton.jit
def _down(
    z0, z1, z2, z3, image, filters, channel, row, within, tap,
    H: tl.constexpr, PITCH: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr,
    TAP_PITCH: tl.constexpr, COUNT: tl.constexpr, TAP_STEP: tl.constexpr, ROW_STEP: tl.constexpr,
    UNROLL: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add what four tiles meet in a column of taps; ``image`` and ``filters`` point at row 0 of it.

    In step p, tile r is multiplied with the tap ``tap + (p - r) TAP_STEP``.
    """
    here = channel < C
    f1 = tl.zeros((BLOCK_C,), tl.float32)
    f2 = f1
    f3 = f1
    for p in tl.range(0, COUNT + 3, loop_unroll_factor=UNROLL):
        i = tap + p * TAP_STEP
        f0 = tl.load(filters + i * TAP_PITCH, mask=here & (i >= 0) & (i < TAPS), other=0.0)
        f0 = f0.to(tl.float32)
        y = row + p * ROW_STEP
        present = (within & (y >= 0) & (y < H))[:, None] & here[None, :]
        v = tl.load(image + (y * PITCH)[:, None], mask=present, other=0.0).to(tl.float32)
        z0 += v * f0[None, :]
        z1 += v * f1[None, :]
        z2 += v * f2[None, :]
        z3 += v * f3[None, :]
        f3 = f2
        f2 = f1
        f1 = f0
    return z0, z1, z2, z3


@triton.jit
def _finish(
    z, row, column, channel, cotangent, out, U: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
    ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
):  # fmt: skip
    """Store one tile: the activation, or the cotangent times its slope."""
    place = ((row * V + column) * C)[:, None] + channel[None, :]
    stored = ((row < U) & (column < V))[:, None] & (channel < C)[None, :]
    if SLOPE:
        dy = tl.load(cotangent + place, mask=stored, other=0.0).to(tl.float32)
        z = slope_of(z, ACTIVATION) * dy
    else:
        z = activate(z, ACTIVATION)
    tl.store(out + place, z.to(out.dtype.element_ty), mask=stored)


@triton.jit
def convolve(
    x, filters, bias, cotangent, out,
    H: tl.constexpr, W: tl.constexpr, U: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
    TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
    TOP: tl.constexpr, LEFT: tl.constexpr, DILATION_Y: tl.constexpr, DILATION_X: tl.constexpr,
    RESIDUES: tl.constexpr, APART: tl.constexpr, ROWS_PER_FILTER: tl.constexpr,
    ROWS_PER_BIAS: tl.constexpr, HAS_BIAS: tl.constexpr, SLOPE: tl.constexpr,
    ACTIVATION: tl.constexpr, BLOCKS: tl.constexpr, UNROLL: tl.constexpr, BLOCK: tl.constexpr,
    BLOCK_C: tl.constexpr,
):  # fmt: skip
    """out[u, v] = act(bias + sum_ij x[u s + i d - TOP, v s' + j d' - LEFT] filters[i, j]).

    With SLOPE, the cotangent times the derivative of act.
    """
    image = (tl.program_id(0) // BLOCKS).to(tl.int64)
    u, v = _places(tl.program_id(0) % BLOCKS, BLOCK, V, APART)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    z0 = tl.zeros((BLOCK, BLOCK_C), tl.float32)
    if HAS_BIAS:
        b = tl.load(bias + (image // ROWS_PER_BIAS) * C + channel, mask=channel < C, other=0.0)
        z0 += b.to(tl.float32)[None, :]
    z1 = z0
    z2 = z0
    z3 = z0
    x += image * H * W * C
    filters += (image // ROWS_PER_FILTER) * TAPS_Y * TAPS_X * C
    for n in tl.range(0, TAPS_X * RESIDUES):
        j = n // RESIDUES
        i = n % RESIDUES
        column = v * STRIDE_X + j * DILATION_X - LEFT
        z0, z1, z2, z3 = _down(
            z0, z1, z2, z3, x + (column * C)[:, None] + channel[None, :],
            filters + j * C + channel, channel, u * STRIDE_Y + i * DILATION_Y - TOP,
            (column >= 0) & (column < W), i, H, W * C, C, TAPS_Y, TAPS_X * C,
            (TAPS_Y + RESIDUES - 1) // RESIDUES, RESIDUES, RESIDUES * DILATION_Y, UNROLL, BLOCK_C,
        )  # fmt: skip
    out += image * U * V * C
    cotangent += image * U * V * C
    _finish(z0, u, v, channel, cotangent, out, U, V, C, ACTIVATION, SLOPE)
    _finish(z1, u + APART, v, channel, cotangent, out, U, V, C, ACTIVATION, SLOPE)
    _finish(z2, u + 2 * APART, v, channel, cotangent, out, U, V, C, ACTIVATION, SLOPE)
    _finish(z3, u + 3 * APART, v, channel, cotangent, out, U, V, C, ACTIVATION, SLOPE)


@triton.jit
def _met(
    pixel, STRIDE: tl.constexpr, BEFORE: tl.constexpr, DILATION: tl.constexpr,
    RESIDUES: tl.constexpr, INVERSE: tl.constexpr,
):  # fmt: skip
    """Whether pixel, pixel + STRIDE, ... meet any tap, the first, and the result in which pixel does.

    Every RESIDUES-th tap from the first is met; INVERSE solves tap * DILATION = place for it.
    """
    place = pixel + BEFORE % STRIDE
    common = STRIDE // RESIDUES
    tap = (place // common * INVERSE) % RESIDUES
    return place % common == 0, tap, (place - tap * DILATION) // STRIDE + BEFORE // STRIDE


@triton.jit
def inputs_gradient(
    dz, filters, out,
    H: tl.constexpr, W: tl.constexpr, U: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
    TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
    TOP: tl.constexpr, LEFT: tl.constexpr, DILATION_Y: tl.constexpr, DILATION_X: tl.constexpr,
    RESIDUES_Y: tl.constexpr, RESIDUES_X: tl.constexpr, INVERSE_Y: tl.constexpr,
    INVERSE_X: tl.constexpr, APART_Y: tl.constexpr, APART_X: tl.constexpr,
    ROWS_PER_FILTER: tl.constexpr, BLOCKS: tl.constexpr, UNROLL: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """out[y, x] = sum of dz[u, v] filters[i, j] over all with u s + i d - TOP = y, likewise x."""
    image = (tl.program_id(0) // (BLOCKS * STRIDE_Y * STRIDE_X)).to(tl.int64)
    phase = tl.program_id(0) // BLOCKS % (STRIDE_Y * STRIDE_X)
    COLUMNS: tl.constexpr = (W + STRIDE_X - 1) // STRIDE_X
    u, v = _places(tl.program_id(0) % BLOCKS, BLOCK, COLUMNS, APART_Y)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    top, left = phase // STRIDE_X, phase % STRIDE_X
    met_y, i, row = _met(top, STRIDE_Y, TOP, DILATION_Y, RESIDUES_Y, INVERSE_Y)
    met_x, j, column = _met(left, STRIDE_X, LEFT, DILATION_X, RESIDUES_X, INVERSE_X)
    taps = tl.where(met_y & met_x, (TAPS_X - j + RESIDUES_X - 1) // RESIDUES_X, 0)
    COUNT: tl.constexpr = (TAPS_Y + RESIDUES_Y - 1) // RESIDUES_Y
    z0 = tl.zeros((BLOCK, BLOCK_C), tl.float32)
    z1 = z0
    z2 = z0
    z3 = z0
    dz += image * U * V * C
    filters += (image // ROWS_PER_FILTER) * TAPS_Y * TAPS_X * C
    for n in tl.range(0, taps):
        across = v + column - n * APART_X
        z0, z1, z2, z3 = _down(
            z0, z1, z2, z3, dz + (across * C)[:, None] + channel[None, :],
            filters + (j + n * RESIDUES_X) * C + channel, channel,
            u + row - (COUNT - 1) * APART_Y, (across >= 0) & (across < V),
            i + (COUNT - 1) * RESIDUES_Y, U, V * C, C, TAPS_Y, TAPS_X * C, COUNT, -RESIDUES_Y,
            APART_Y, UNROLL, BLOCK_C,
        )  # fmt: skip
    out += image * H * W * C
    x = v * STRIDE_X + left
    _finish(z0, u * STRIDE_Y + top, x, channel, out, out, H, W, C, "", False)
    _finish(z1, (u + APART_Y) * STRIDE_Y + top, x, channel, out, out, H, W, C, "", False)
    _finish(z2, (u + 2 * APART_Y) * STRIDE_Y + top, x, channel, out, out, H, W, C, "", False)
    _finish(z3, (u + 3 * APART_Y) * STRIDE_Y + top, x, channel, out, out, H, W, C, "", False)


@triton.jit
def _cotangent_tile(dz, u, v, channel, U: tl.constexpr, V: tl.constexpr, C: tl.constexpr):
    present = (u < U)[:, None] & (channel < C)[None, :]
    place = ((u * V + v) * C)[:, None] + channel[None, :]
    return tl.load(dz + place, mask=present, other=0.0).to(tl.float32)


@triton.jit
def filter_gradient(
    x, dz, partial_filters, partial_bias,
    H: tl.constexpr, W: tl.constexpr, U: tl.constexpr, V: tl.constexpr, C: tl.constexpr,
    TAPS_Y: tl.constexpr, TAPS_X: tl.constexpr, STRIDE_Y: tl.constexpr, STRIDE_X: tl.constexpr,
    TOP: tl.constexpr, LEFT: tl.constexpr, DILATION_Y: tl.constexpr, DILATION_X: tl.constexpr,
    RESIDUES: tl.constexpr, APART: tl.constexpr, BLOCKS: tl.constexpr, UNROLL: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """partial[b, k, i, j] = sum over results of block k of the pixel that i, j meets times dz."""
    program = tl.program_id(0).to(tl.int64)
    u, v = _places(tl.program_id(0) % BLOCKS, BLOCK, V, APART)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    here = channel < C
    dz += (program // BLOCKS) * U * V * C
    x += (program // BLOCKS) * H * W * C
    d0 = _cotangent_tile(dz, u, v, channel, U, V, C)
    d1 = _cotangent_tile(dz, u + APART, v, channel, U, V, C)
    d2 = _cotangent_tile(dz, u + 2 * APART, v, channel, U, V, C)
    d3 = _cotangent_tile(dz, u + 3 * APART, v, channel, U, V, C)
    total = tl.sum((d0 + d1) + (d2 + d3), 0)
    tl.store(partial_bias + program * C + channel, total, mask=here)
    partial_filters += program * TAPS_Y * TAPS_X * C
    for n in tl.range(0, TAPS_X * RESIDUES):
        j = n // RESIDUES
        column = v * STRIDE_X + j * DILATION_X - LEFT
        within = (column >= 0) & (column < W)
        row = u * STRIDE_Y + (n % RESIDUES) * DILATION_Y - TOP
        pixels = x + (column * C)[:, None] + channel[None, :]
        # The tap that tile 0 meets in step p meets tile r in step p + r: four steps make its sum.
        a0 = tl.zeros((BLOCK, BLOCK_C), tl.float32)
        a1 = a0
        a2 = a0
        COUNT: tl.constexpr = (TAPS_Y + RESIDUES - 1) // RESIDUES
        for p in tl.range(0, COUNT + 3, loop_unroll_factor=UNROLL):
            y = row + p * RESIDUES * DILATION_Y
            present = (within & (y >= 0) & (y < H))[:, None] & here[None, :]
            t = tl.load(pixels + (y * W * C)[:, None], mask=present, other=0.0).to(tl.float32)
            i = n % RESIDUES + (p - 3) * RESIDUES
            tap = tl.sum(a2 + t * d3, 0)
            place = partial_filters + (i * TAPS_X + j) * C + channel
            tl.store(place, tap, mask=here & (i >= 0) & (i < TAPS_Y))
            a2 = a1 + t * d2
            a1 = a0 + t * d1
            a0 = t * d0


def _forward(inputs, filters, bias, *, activation, **window):
    return (_convolve(Window(**window), inputs, filters, bias, None, activation),)


def _gradient(operands, outputs, cotangents, wanted, *, activation, **window):
    del outputs
    window, (inputs, filters, bias), (dz,) = Window(**window), operands, cotangents
    if activation is not None:
        dz = _convolve(window, inputs, filters, bias, dz, activation)
    wants_inputs, wants_filters, wants_bias = wanted
    gradients = []
    if wants_inputs:
        gradients.append(_inputs_gradient(window, inputs, filters, dz))
    if wants_filters or wants_bias:
        taps, sums = _partial_sums(window, inputs, filters, dz)
        if wants_filters:
            by_filter = taps.reshape(filters.shape[0], -1, *filters.shape[1:])
            gradients.append(by_filter.sum(1).astype(filters.dtype))
        if wants_bias:
            by_bias = sums.reshape(bias.shape[0], -1, bias.shape[1])
            gradients.append(by_bias.sum(1).astype(bias.dtype))
    return tuple(gradients)


def _convolve(window, x, filters, bias, cotangent, activation):
    results = window.results(x.shape[1:3], filters.shape[1:3])
    tunable = tuning.CONVOLVE if cotangent is None else tuning.SLOPE

    def local(x, filters, *rest):
        optional = iter(rest)
        parts = [None if part is None else next(optional) for part in (bias, cotangent)]
        rows, _, _, channels = x.shape
        config = _chosen(tunable, window, x.shape, filters.shape[1:3], x.dtype).config
        constants = constants_of(window, x.shape, filters.shape[1:3], results, config)
        return launch.kernel_call(
            convolve,
            x,
            filters,
            *(x if part is None else part for part in parts),
            out=jax.ShapeDtypeStruct((rows, *results, channels), x.dtype),
            grid=(rows * constants["BLOCKS"], triton.cdiv(channels, config.block_channels)),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            ROWS_PER_FILTER=rows // filters.shape[0],
            ROWS_PER_BIAS=1 if parts[0] is None else rows // parts[0].shape[0],
            HAS_BIAS=parts[0] is not None,
            SLOPE=parts[1] is not None,
            ACTIVATION=activation or "",
            **constants,
        )

    rules = ["b y x c", launch.row_axis("g", filters, x) + " i j c"]
    rules += [] if bias is None else [launch.row_axis("h", bias, x) + " c"]
    rules += [] if cotangent is None else ["b u v c"]
    arrays = [array for array in (x, filters, bias, cotangent) if array is not None]
    return _sharded(local, rules, "b u v c", *arrays)


def _inputs_gradient(window, inputs, filters, dz):
    def local(dz, filters):
        rows, *results, channels = dz.shape
        shape = (rows, *inputs.shape[1:3], channels)
        taps = filters.shape[1:3]
        config = _chosen(tuning.INPUTS_GRADIENT, window, shape, taps, dz.dtype).config
        constants = turned_constants(window, shape, taps, results, config)
        programs = rows * math.prod(window.strides) * constants["BLOCKS"]
        return launch.kernel_call(
            inputs_gradient,
            dz,
            filters,
            out=jax.ShapeDtypeStruct(shape, inputs.dtype),
            grid=(programs, triton.cdiv(channels, config.block_channels)),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            ROWS_PER_FILTER=rows // filters.shape[0],
            **constants,
        )

    rules = ["b u v c", launch.row_axis("g", filters, dz) + " i j c"]
    return _sharded(local, rules, "b y x c", dz, filters)


def _partial_sums(window, x, filters, dz):
    taps = filters.shape[1:3]
    # Of the whole arrays: the number of partial sums must be the same on every device.
    config = _chosen(tuning.FILTER_GRADIENT, window, x.shape, taps, x.dtype).config
    constants = constants_of(window, x.shape, taps, dz.shape[1:3], config)
    blocks = constants["BLOCKS"]

    def local(x, dz):
        rows, _, _, channels = x.shape
        return launch.kernel_call(
            filter_gradient,
            x,
            dz,
            out=(
                jax.ShapeDtypeStruct((rows, blocks, *taps, channels), jnp.float32),
                jax.ShapeDtypeStruct((rows, blocks, channels), jnp.float32),
            ),
            grid=(rows * blocks, triton.cdiv(channels, config.block_channels)),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            **constants | {"C": channels},
        )

    return _sharded(local, ["b y x c", "b u v c"], "b k i j c, b k c", x, dz)


def _sharded(function, rules, results, *arrays):
    """Images and channels may be cut; a device has its pixels and taps whole."""
    rule = ", ".join(rules) + " -> " + results
    whole = [axis for axis in "yxuvijghk" if axis in rule.replace(",", "").split()]
    whole += ["b"] if launch.shares_rows(*arrays) else []
    return launch.sharded(function, rule, *arrays, whole=whole)


def _axes(window):
    """(residues, distance of the tiles) down and across: see the top of this file."""
    pairs = list(zip(window.strides, window.dilation, strict=True))
    return [(stride // math.gcd(stride, d), d // math.gcd(stride, d)) for stride, d in pairs]


def _sizes(window, shape, taps, results, config):
    (top, _), (left, _) = window.padding
    return {
        "H": shape[1], "W": shape[2], "U": results[0], "V": results[1], "C": shape[3],
        "TAPS_Y": taps[0], "TAPS_X": taps[1],
        "STRIDE_Y": window.strides[0], "STRIDE_X": window.strides[1], "TOP": top, "LEFT": left,
        "DILATION_Y": window.dilation[0], "DILATION_X": window.dilation[1],
        "UNROLL": config.unroll, "BLOCK": config.block_pixels, "BLOCK_C": config.block_channels,
    }  # fmt: skip


def constants_of(window, shape, taps, results, config):
    """Of the kernels whose programs have results."""
    (residues, apart), _ = _axes(window)
    blocks = _blocks(results[0], results[1], apart, config)
    sizes = _sizes(window, shape, taps, results, config)
    return sizes | {"RESIDUES": residues, "APART": apart, "BLOCKS": blocks}


def turned_constants(window, shape, taps, results, config):
    """Of the kernel whose programs have pixels of a phase."""
    down, across = _axes(window)
    (pad_y, _), (pad_x, _) = window.padding
    lengths = zip(shape[1:3], window.strides, strict=True)
    blocks = _blocks(*(triton.cdiv(length, stride) for length, stride in lengths), down[1], config)
    return _sizes(window, shape, taps, results, config) | {
        "RESIDUES_Y": down[0], "RESIDUES_X": across[0], "APART_Y": down[1], "APART_X": across[1],
        "INVERSE_Y": pow(down[1], -1, down[0]), "INVERSE_X": pow(across[1], -1, across[0]),
        "BLOCKS": blocks,
    }  # fmt: skip


def _blocks(rows, columns, apart, config):
    """Blocks of pixels that cover so many: tiles are ``apart`` rows from one another."""
    return triton.cdiv(triton.cdiv(rows, REUSE * apart) * apart * columns, config.block_pixels)


def _chosen(tunable, window, shape, taps, dtype):
    results = window.results(shape[1:3], taps)
    return tunable.choose(
        **tuning.chosen_by(shape, taps, results, window.strides, window.dilation, dtype.name)
    )


def _refusal(inputs, filters, bias, *, activation, **window):
    del activation
    arrays = [array for array in (inputs, filters, bias) if array is not None]
    if any(array.dtype == jnp.float64 for array in arrays):
        return "its sums are in float32, and float64 was given"
    rows, *pixels, channels = inputs.shape
    results = Window(**window).results(pixels, filters.shape[1:3])
    if rows * channels * max(math.prod(pixels), math.prod(results)) >= 2**31:
        return "it counts pixels times channels in 32 bits"
    return None


def _tuning(inputs, filters, bias, *, activation, **window):
    del bias
    launched = [t for t in tuning.TUNABLES if activation is not None or t is not tuning.SLOPE]
    taps = filters.shape[1:3]
    return Choices(
        _chosen(kernel, Window(**window), inputs.shape, taps, inputs.dtype) for kernel in launched
    )


depthwise_conv2d = Implementation(_forward, _gradient, refusal=_refusal, tuning=_tuning)
