"""The gradients of inputs and filters.

That of the inputs does on dz what the value does on the image. Pixels that are a multiple of the
strides apart meet the same taps: a program has pixels of one such phase, and no tap without a
result.

That of the filters is deterministic: each program writes its own partial sums, and XLA adds them up
in a second stage. No atomics.

Axes: B rows, H by W pixels, U by V results, C channels, h by w taps, K blocks of pixels.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false

import triton
import triton.language as tl

from kernels.convolution.depthwise2d.forward import down, finish, places


@triton.jit
def _met(
    pixel, STRIDE: tl.constexpr, BEFORE: tl.constexpr, DILATION: tl.constexpr,
    RESIDUES: tl.constexpr, INVERSE: tl.constexpr,
):  # fmt: skip
    """Whether pixel, pixel + STRIDE, ... meet any tap, the first, and where pixel meets that.

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
    u, v = places(tl.program_id(0) % BLOCKS, BLOCK, COLUMNS, APART_Y)
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
        z0, z1, z2, z3 = down(
            z0, z1, z2, z3, dz + (across * C)[:, None] + channel[None, :],
            filters + (j + n * RESIDUES_X) * C + channel, channel,
            u + row - (COUNT - 1) * APART_Y, (across >= 0) & (across < V),
            i + (COUNT - 1) * RESIDUES_Y, U, V * C, C, TAPS_Y, TAPS_X * C, COUNT, -RESIDUES_Y,
            APART_Y, UNROLL, BLOCK_C,
        )  # fmt: skip
    out += image * H * W * C
    x = v * STRIDE_X + left
    finish(z0, u * STRIDE_Y + top, x, channel, out, out, H, W, C, "", False)
    finish(z1, (u + APART_Y) * STRIDE_Y + top, x, channel, out, out, H, W, C, "", False)
    finish(z2, (u + 2 * APART_Y) * STRIDE_Y + top, x, channel, out, out, H, W, C, "", False)
    finish(z3, (u + 3 * APART_Y) * STRIDE_Y + top, x, channel, out, out, H, W, C, "", False)


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
    u, v = places(tl.program_id(0) % BLOCKS, BLOCK, V, APART)
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
