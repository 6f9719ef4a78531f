"""The value: a column of taps makes four tiles of results from tiles that are loaded once.

A program holds four tiles of pixels by channels, each some rows below the one before, at the
distance at which neighbouring taps of a column meet the same row of the image. A tile of the image
then serves four taps: a column of h taps takes h + 3 loads, not 4 h. Where strides s and dilation
have no common divisor, only every s-th tap meets the same rows, and a column is walked down once
for each of these s residues.

Axes: B rows, H by W pixels, U by V results, C channels, h by w taps.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl

from kernels.convolution.tile import activate, slope_of


@triton.jit
def places(block, BLOCK: tl.constexpr, COLUMNS: tl.constexpr, APART: tl.constexpr):
    """Row and column of each pixel of the first tile; the others are APART rows below."""
    i = block * BLOCK + tl.arange(0, BLOCK)
    row = i // COLUMNS
    return (row // APART) * (4 * APART) + row % APART, i % COLUMNS


@triton.jit
def down(
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
def finish(
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
    u, v = places(tl.program_id(0) % BLOCKS, BLOCK, V, APART)
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
        z0, z1, z2, z3 = down(
            z0, z1, z2, z3, x + (column * C)[:, None] + channel[None, :],
            filters + j * C + channel, channel, u * STRIDE_Y + i * DILATION_Y - TOP,
            (column >= 0) & (column < W), i, H, W * C, C, TAPS_Y, TAPS_X * C,
            (TAPS_Y + RESIDUES - 1) // RESIDUES, RESIDUES, RESIDUES * DILATION_Y, UNROLL, BLOCK_C,
        )  # fmt: skip
    out += image * U * V * C
    cotangent += image * U * V * C
    finish(z0, u, v, channel, cotangent, out, U, V, C, ACTIVATION, SLOPE)
    finish(z1, u + APART, v, channel, cotangent, out, U, V, C, ACTIVATION, SLOPE)
    finish(z2, u + 2 * APART, v, channel, cotangent, out, U, V, C, ACTIVATION, SLOPE)
    finish(z3, u + 3 * APART, v, channel, cotangent, out, U, V, C, ACTIVATION, SLOPE)
