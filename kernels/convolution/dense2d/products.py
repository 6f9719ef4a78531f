"""Patches of images times filters as products of tiles, in Triton.

Rows of the product are results, columns features; the sums run over taps and channels, in the
order in which filters have them. A tile of patches is gathered from the image itself: nothing as
large as all patches is ever stored. In the filters' gradient rows are taps and channels, and the
sums run over results.

``F`` is a ``kernels.convolution.dense2d.form.Form``. Its axes are named before they are handed on:
Triton 3.6 takes an attribute of a constant for a constant only where it is used.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false, reportAssignmentType=false

import triton
import triton.language as tl

from kernels.convolution.tile import activate, slope_of


@triton.jit
def _phase(phase, A: tl.constexpr):
    """Of a phase along an axis: its first result, the first tap's pixel, that tap, how many."""
    result = 0
    pixel = -A.before
    tap = 0
    count = A.taps
    if A.turned:
        tap = phase // A.common * A.inverse % A.every
        count = tl.where(phase % A.common == 0, (A.taps - tap + A.every - 1) // A.every, 0)
        result = (phase + A.ahead) % A.stride
        pixel = (result + A.before - tap * A.dilation) // A.stride  # exact where there are taps
    return result, pixel, tap, count


@triton.jit
def _within(pixel, A: tl.constexpr):
    return (pixel >= 0) & (pixel < A.pixels)


@triton.jit
def _load_patches(
    image, row, y, x, present, dy, dx, channel, counts, F: tl.constexpr, ONE_TAP: tl.constexpr,
):  # fmt: skip
    """(positions, channels): pixels (y + dy, x + dx) of the rows, zero outside of the image.

    With ONE_TAP ``dy`` and ``dx`` are numbers, and every channel counts; else each channel has a
    distance of its own.
    """
    DOWN: tl.constexpr = F.down
    RIGHT: tl.constexpr = F.right
    first = ((row * DOWN.pixels + y) * RIGHT.pixels + x) * F.channels
    further = (dy * RIGHT.pixels + dx) * F.channels + channel
    if ONE_TAP:
        if not DOWN.inside:
            present = present & _within(y + dy, DOWN)
        if not RIGHT.inside:
            present = present & _within(x + dx, RIGHT)
        mask = present[:, None]
    else:
        mask = present[:, None] & counts[None, :]
        if not DOWN.inside:
            mask = mask & _within(y[:, None] + dy[None, :], DOWN)
        if not RIGHT.inside:
            mask = mask & _within(x[:, None] + dx[None, :], RIGHT)
    return tl.load(image + (first[:, None] + further[None, :]), mask=mask, other=0.0)


@triton.jit
def convolve(
    image, filters, bias, cotangent, out,
    F: tl.constexpr, HAS_BIAS: tl.constexpr, ROWS_PER_BIAS: tl.constexpr, SLOPE: tl.constexpr,
    ACTIVATION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Out = act(bias + patches × filters), or the cotangent times act'; or the transpose.

    A program has BM results of a phase and BN features. Programs of the same results follow each
    other, so that the image comes from memory once.
    """
    DOWN: tl.constexpr = F.down
    RIGHT: tl.constexpr = F.right
    C: tl.constexpr = F.channels
    N: tl.constexpr = F.features
    POSITIONS: tl.constexpr = F.positions
    COLUMNS: tl.constexpr = (N + BN - 1) // BN
    BLOCKS: tl.constexpr = (POSITIONS + BM - 1) // BM
    PHASES: tl.constexpr = F.phases
    ONE_TAP: tl.constexpr = C % BK == 0
    # Filters lie as the convolution's (h, w, C, O), of which the transpose has O as its channels.
    CHANNEL: tl.constexpr = 1 if F.turned else N
    FEATURE: tl.constexpr = C if F.turned else 1
    pid = tl.program_id(0)
    block = pid // COLUMNS % BLOCKS
    phase = pid // (COLUMNS * BLOCKS) % PHASES
    group = pid // (COLUMNS * BLOCKS * PHASES)
    n = pid % COLUMNS * BN + tl.arange(0, BN)
    p = block * BM + tl.arange(0, BM)
    u = p // RIGHT.positions % DOWN.positions
    v = p % RIGHT.positions
    row = group * F.rows + p // (RIGHT.positions * DOWN.positions)
    result_y, first_y, tap_y, taps_y = _phase(phase // RIGHT.phases, DOWN)
    result_x, first_x, tap_x, taps_x = _phase(phase % RIGHT.phases, RIGHT)
    present = (p < POSITIONS) if POSITIONS % BM else tl.full((BM,), True, tl.int1)
    kept = (n < N) if N % BN else tl.full((BN,), True, tl.int1)
    y = u * DOWN.pace + first_y
    x = v * RIGHT.pace + first_x
    filters += group * (DOWN.taps * RIGHT.taps * C * N)
    z = tl.zeros((BM, BN), tl.float32)
    inner = taps_y * taps_x * C
    for start in tl.range(0, inner, BK):
        k = start + tl.arange(0, BK)
        # Where a block of channels lies within one tap, the tap is a number. A difference, and not
        # a remainder, is seen to be a multiple of the block: loads are wide.
        tap = start // C if ONE_TAP else k // C
        channel = start - tap * C + tl.arange(0, BK) if ONE_TAP else k % C
        i = tap // taps_x
        j = tap % taps_x
        counts = k < inner
        a = _load_patches(
            image, row, y, x, present, i * DOWN.reach, j * RIGHT.reach, channel, counts, F,
            ONE_TAP,
        )  # fmt: skip
        of_filter = (tap_y + i * DOWN.every) * RIGHT.taps + (tap_x + j * RIGHT.every)
        places = (of_filter * (C * N) + channel * CHANNEL)[:, None] + (n * FEATURE)[None, :]
        used = kept[None, :] if ONE_TAP else counts[:, None] & kept[None, :]
        b = tl.load(filters + places, mask=used, other=0.0)
        z = tl.dot(a, b, z, input_precision="ieee")
    if HAS_BIAS:
        if ROWS_PER_BIAS % F.rows == 0:
            of_group = bias + group * F.rows // ROWS_PER_BIAS * N
            z += tl.load(of_group + n, mask=kept, other=0.0).to(tl.float32)[None, :]
        else:
            of_rows = (row // ROWS_PER_BIAS * N)[:, None] + n[None, :]
            mask = present[:, None] & kept[None, :]
            z += tl.load(bias + of_rows, mask=mask, other=0.0).to(tl.float32)
    result_y += u * DOWN.phases
    result_x += v * RIGHT.phases
    if DOWN.results % DOWN.phases:
        present = present & (result_y < DOWN.results)
    if RIGHT.results % RIGHT.phases:
        present = present & (result_x < RIGHT.results)
    places = ((row * DOWN.results + result_y) * RIGHT.results + result_x) * N
    places = places[:, None] + n[None, :]
    stored = present[:, None] & kept[None, :]
    if SLOPE:
        slope = slope_of(z, ACTIVATION)
        z = slope * tl.load(cotangent + places, mask=stored, other=0.0).to(tl.float32)
    else:
        z = activate(z, ACTIVATION)
    tl.store(out + places, z.to(out.dtype.element_ty), mask=stored)


@triton.jit
def filter_gradient(
    image, dz, partial,
    F: tl.constexpr, PARTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """partial[g, part] = the sum over a part of the results of patch × dz: (G, PARTS, h w C, O).

    A program has BK taps and channels and BN features, and goes through its part BM results at a
    time. Programs of the same part follow each other.
    """
    C: tl.constexpr = F.channels
    N: tl.constexpr = F.features
    K: tl.constexpr = F.inner
    POSITIONS: tl.constexpr = F.positions
    COLUMNS: tl.constexpr = (N + BN - 1) // BN
    TILES: tl.constexpr = COLUMNS * ((K + BK - 1) // BK)
    BLOCKS: tl.constexpr = (POSITIONS + BM - 1) // BM
    SHARE: tl.constexpr = (BLOCKS + PARTS - 1) // PARTS
    ONE_TAP: tl.constexpr = C % BK == 0
    pid = tl.program_id(0)
    n = pid % COLUMNS * BN + tl.arange(0, BN)
    start = pid // COLUMNS % (TILES // COLUMNS) * BK
    part = pid // TILES % PARTS
    group = pid // (TILES * PARTS)
    k = start + tl.arange(0, BK)
    tap = start // C if ONE_TAP else k // C
    channel = start - tap * C + tl.arange(0, BK) if ONE_TAP else k % C
    dy = tap // F.right.taps * F.down.dilation
    dx = tap % F.right.taps * F.right.dilation
    counts = k < K
    kept = (n < N) if N % BN else tl.full((BN,), True, tl.int1)
    total = tl.zeros((BK, BN), tl.float32)
    for block in tl.range(part * SHARE, tl.minimum((part + 1) * SHARE, BLOCKS)):
        p = block * BM + tl.arange(0, BM)
        y = p // F.right.results % F.down.results * F.down.stride - F.down.before
        x = p % F.right.results * F.right.stride - F.right.before
        row = group * F.rows + p // (F.right.results * F.down.results)
        present = (p < POSITIONS) if POSITIONS % BM else tl.full((BM,), True, tl.int1)
        a = _load_patches(image, row, y, x, present, dy, dx, channel, counts, F, ONE_TAP)
        places = ((group * POSITIONS + p) * N)[:, None] + n[None, :]
        b = tl.load(dz + places, mask=present[:, None] & kept[None, :], other=0.0)
        total = tl.dot(tl.trans(a), b, total, input_precision="ieee")
    places = (((group * PARTS + part) * K + k) * N)[:, None] + n[None, :]
    tl.store(partial + places, total, mask=counts[:, None] & kept[None, :])
