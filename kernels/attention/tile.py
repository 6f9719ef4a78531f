"""One tile of scores, as every kernel of attention has it: what is added, who sees whom, dropout.

A tile has a block of BM queries and one of BN keys: (BM, BN), or turned, (BN, BM), where the sums
run over queries. Logits are natural scores times ``F.base``, less a constant factor ``F.unit`` that
the exponential supplies. What a query does not see has a logit of -inf.

``F`` is a ``kernels.attention.form.Form``.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false, reportAssignmentType=false
# pyright: reportOptionalOperand=false

import triton
import triton.language as tl
from triton.language.extra import libdevice

from kernels.attention.dropout import MULTIPLIERS, ROUNDS, WEYL

_ROUNDS = tl.constexpr(ROUNDS)
_M0, _M1 = (tl.constexpr(word) for word in MULTIPLIERS)
_W0, _W1 = (tl.constexpr(word) for word in WEYL)


@triton.jit
def load_rows(
    pointer, first, end, STRIDE: tl.constexpr, WIDTH: tl.constexpr, CHECK: tl.constexpr,
    BLOCK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """(BLOCK, PADDED) from row ``first`` on; with CHECK zeros from row ``end`` on."""
    i = tl.arange(0, BLOCK)
    h = tl.arange(0, PADDED)
    places = pointer + first * STRIDE + (i[:, None] * STRIDE + h[None, :])
    if CHECK:
        present = (first + i < end)[:, None]
        if PADDED != WIDTH:
            present = present & (h < WIDTH)[None, :]
        tile = tl.load(places, mask=present, other=0.0)
    elif PADDED != WIDTH:
        tile = tl.load(places, mask=(h < WIDTH)[None, :], other=0.0)
    else:
        tile = tl.load(places)
    return tile


@triton.jit
def load_keys(
    key, key_filter, first, end, F: tl.constexpr, CHECK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(BLOCK, padded dimensions) of keys, filtered along the sequence where there is a filter."""
    P: tl.constexpr = F.padded
    if not F.taps:
        tile = load_rows(key, first, end, F.key_stride, F.width, CHECK, BLOCK, P)
    else:
        s = first + tl.arange(0, BLOCK)
        h = tl.arange(0, P)
        total = tl.zeros((BLOCK, P), tl.float32)
        TAPS: tl.constexpr = F.taps
        for j in tl.static_range(TAPS):
            source = s + (j - F.before)
            counts = (source >= 0) & (source < end)
            places = key + (source[:, None] * F.key_stride + h[None, :])
            rows = tl.load(places, mask=counts[:, None] & (h < F.width)[None, :], other=0.0)
            tap = tl.load(key_filter + j * F.key_stride + h, mask=h < F.width, other=0.0)
            total += rows.to(tl.float32) * tap.to(tl.float32)[None, :]
        tile = total.to(key.dtype.element_ty)
    return tile


@triton.jit
def store_rows(
    pointer, tile, first, end, STRIDE: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    PADDED: tl.constexpr,
):  # fmt: skip
    """The rows of a tile that lie before ``end``."""
    i = tl.arange(0, BLOCK)
    h = tl.arange(0, PADDED)
    places = pointer + first * STRIDE + (i[:, None] * STRIDE + h[None, :])
    present = (first + i < end)[:, None] & (h < WIDTH)[None, :]
    tl.store(places, tile.to(pointer.dtype.element_ty), mask=present)


@triton.jit
def lengths_of(query_lengths, key_lengths, row, F: tl.constexpr):
    """How many queries and keys of a row count; none where there are none of the others."""
    queries = F.queries + 0
    keys = F.keys + 0
    if F.per.query_lengths:
        queries = tl.minimum(tl.load(query_lengths + row // F.per.query_lengths), queries)
    if F.per.key_lengths:
        keys = tl.minimum(tl.load(key_lengths + row // F.per.key_lengths), keys)
        queries = tl.where(keys > 0, queries, 0)
    if F.per.query_lengths:
        keys = tl.where(queries > 0, keys, 0)
    return queries, keys


@triton.jit
def extras_of(
    bias, offset_bias, position_key, mask, query_segments, key_segments, seeds, row, head,
    F: tl.constexpr,
):  # fmt: skip
    """Where what a row's and head's scores need beside products begins, and the seed."""
    seed0 = 0
    seed1 = 0
    if F.per.bias:
        bias += (row // F.per.bias) * F.bias.row + head * F.bias.head
    if F.per.offset_bias:
        offset_bias += (row // F.per.offset_bias) * F.offsets_row + head * F.offsets_head
    if F.per.position_key:
        position_key += (row // F.per.position_key) * F.offsets * F.query_stride + head * F.width
    if F.per.mask:
        mask += (row // F.per.mask) * F.mask.row + head * F.mask.head
    if F.per.query_segments:
        query_segments += (row // F.per.query_segments) * F.queries
        key_segments += (row // F.per.key_segments) * F.keys
    if F.per.dropout_seeds:
        seed0 = tl.load(seeds + (row * F.heads + head) * 2)
        seed1 = tl.load(seeds + (row * F.heads + head) * 2 + 1)
    return bias, offset_bias, position_key, mask, query_segments, key_segments, seed0, seed1


@triton.jit
def span(
    start, own, other, BEFORE: tl.constexpr, AFTER: tl.constexpr, BLOCK: tl.constexpr,
    STEP: tl.constexpr,
):  # fmt: skip
    """What a block of queries sees of the keys, or a block of keys of the queries.

    Args:
        start: of the block, of BLOCK positions, of which ``own`` count.
        own: how many positions there are on its side.
        other: how many positions there are on the other side.
        BEFORE: how far before each position of the block it reaches; ``None`` for to the first.
        AFTER: how far after.
        BLOCK: size of the block.
        STEP: size of the blocks that it is to be covered with.

    Returns:
        low, full_low, full_high, high: all that is seen lies in [low, high), and blocks of STEP in
        [full_low, full_high) are seen as a whole. All but ``high`` are multiples of STEP.
    """
    low = 0
    high = other
    full_high = (other // STEP) * STEP
    if AFTER is not None:
        high = tl.minimum(high, tl.minimum(start + BLOCK, own) + AFTER)
        full_high = tl.minimum(full_high, tl.maximum(start + AFTER + 1, 0) // STEP * STEP)
    if BEFORE is not None:
        low = tl.maximum(start - BEFORE, 0) // STEP * STEP
    high = tl.where(start < own, high, 0)
    full_low = low
    if BEFORE is not None:
        full_low = tl.maximum(start + BLOCK - 1 - BEFORE, low)
        full_low = (full_low + STEP - 1) // STEP * STEP
    full_high = tl.minimum(full_high, tl.maximum(high, 0) // STEP * STEP)
    return low, full_low, full_high, high


@triton.jit
def _tangent(x, EXACT: tl.constexpr):
    return libdevice.tanh(x) if EXACT else 1.0 - 2.0 / (1.0 + tl.exp2(x * 2.8853900817779268))


@triton.jit
def _load_places(places, t, s, F: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """What lies at each place of a tile, with the checks that the sizes need."""
    if F.queries % BM and F.keys % BN:
        tile = tl.load(places, mask=(t < F.queries) & (s < F.keys), other=0)
    elif F.queries % BM:
        tile = tl.load(places, mask=t < F.queries, other=0)
    elif F.keys % BN:
        tile = tl.load(places, mask=s < F.keys, other=0)
    else:
        tile = tl.load(places)
    return tile


@triton.jit
def _load_added(
    pointer, t, s, QUERY: tl.constexpr, KEY: tl.constexpr, F: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """Of a bias or a mask; what serves all queries, or all keys, is loaded once for them."""
    if QUERY and KEY:
        tile = _load_places(pointer + t * QUERY + s * KEY, t, s, F, BM, BN)
    elif KEY:
        tile = tl.load(pointer + s * KEY, mask=s < F.keys, other=0)
    elif QUERY:
        tile = tl.load(pointer + t * QUERY, mask=t < F.queries, other=0)
    else:
        tile = tl.load(pointer)
    return tile


@triton.jit
def unhoisted(s0):
    """Zero, which the compiler cannot know: what it is added to is computed in the loop over s0.

    Indices of a gather would fill the registers if they were kept throughout the loop.
    """
    return s0 >> 30


@triton.jit
def positions(
    position_query, position_key, t0, s0, F: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """position_query[t] . position_key[s - t + T - 1]: (BM, WIDE) products by offset, skewed."""
    P: tl.constexpr = F.padded
    band = position_band(position_key, t0, s0, F, BM, P, WIDE)
    products = tl.dot(position_query, tl.trans(band), input_precision="ieee")
    i = tl.arange(0, BM)[:, None]
    j = tl.arange(0, BN)[None, :]
    return tl.gather(products, j - i + (BM - 1) + unhoisted(s0), 1)


@triton.jit
def position_band(
    position_key, t0, s0, F: tl.constexpr, BM: tl.constexpr, P: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """(WIDE, P): the position keys of a tile; key j belongs to places with s - t = j - (BM - 1)."""
    j = tl.arange(0, WIDE)
    h = tl.arange(0, P)
    r = s0 - t0 - (BM - 1) + (F.queries - 1) + j
    present = ((r >= 0) & (r < F.offsets))[:, None] & (h < F.width)[None, :]
    places = position_key + r[:, None] * F.query_stride + h[None, :]
    return tl.load(places, mask=present, other=0.0)


@triton.jit
def along_offsets(tile, s0, BM: tl.constexpr, BN: tl.constexpr, WIDE: tl.constexpr):
    """(BM, BN) -> (BM, WIDE): row i of it moved by BM - 1 - i, zero elsewhere."""
    i = tl.arange(0, BM)[:, None]
    j = tl.arange(0, WIDE)[None, :] + i - (BM - 1) + unhoisted(s0)
    moved = tl.gather(tile, tl.minimum(tl.maximum(j, 0), BN - 1), 1)
    return tl.where((j >= 0) & (j < BN), moved, 0.0).to(tile.dtype)


@triton.jit
def logits(
    products, position_query, extras, t0, s0, queries, keys, F: tl.constexpr, EDGE: tl.constexpr,
    TURNED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Logits of a tile, and the slope of the soft cap there (the logits, where there is none).

    What is not seen has a slope too: it may be NaN, as what hides it has not been looked at yet.
    """
    x = products
    if F.per.position_key:
        placed = positions(position_query, extras[2], t0, s0, F, BM, BN, WIDE)
        x += tl.trans(placed) if TURNED else placed
    t = t0 + tl.arange(0, BM)
    s = s0 + tl.arange(0, BN)
    if TURNED:
        t = t[None, :]
        s = s[:, None]
    else:
        t = t[:, None]
        s = s[None, :]
    if not F.is_plain:
        x = x * F.factor
    if F.per.bias:
        b = _load_added(extras[0], t, s, F.bias.query, F.bias.key, F, BM, BN)
        x += b.to(tl.float32) * F.bias_factor
    if F.per.offset_bias:
        b = _load_places(extras[1] + (s - t + (F.queries - 1)), t, s, F, BM, BN)
        x += b.to(tl.float32) * F.bias_factor
    slope = x
    if F.cap is not None:
        y = _tangent(x / F.cap, F.exact_tangent)
        slope = 1.0 - y * y
        x = y * F.cap_factor
    if EDGE:
        seen = (t < queries) & (s < keys)
        if F.left is not None:
            seen = seen & (s >= t - F.left)
        if F.right is not None:
            seen = seen & (s <= t + F.right)
        x = tl.where(seen, x, float("-inf"))
    if F.per.mask:
        m = _load_added(extras[3], t, s, F.mask.query, F.mask.key, F, BM, BN)
        x = tl.where(m != 0, x, float("-inf"))
    if F.per.query_segments:
        of_query = tl.load(extras[4] + t, mask=t < F.queries, other=0)
        of_key = tl.load(extras[5] + s, mask=s < F.keys, other=0)
        x = tl.where(of_query == of_key, x, float("-inf"))
    return x, slope


@triton.jit
def kept(
    extras, t0, s0, F: tl.constexpr, TURNED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr
):  # fmt: skip
    """Which probabilities of a tile dropout keeps: a counter serves four keys.

    What ``kernels.attention.dropout.kept`` says, to the bit.
    """
    QUARTER: tl.constexpr = BN // 4
    c0 = (s0 // 4 + tl.arange(0, QUARTER)).to(tl.uint32)[None, :]
    c1 = (t0 + tl.arange(0, BM)).to(tl.uint32)[:, None]
    zero = tl.zeros((BM, QUARTER), tl.uint32)
    c0 = c0 + zero
    c1 = c1 + zero
    c2 = zero
    c3 = zero
    k0 = extras[6].to(tl.uint32)
    k1 = extras[7].to(tl.uint32)
    for _ in tl.static_range(_ROUNDS):
        high0 = tl.umulhi(c0, zero + _M0)
        high1 = tl.umulhi(c2, zero + _M1)
        low0 = c0 * (zero + _M0)
        low1 = c2 * (zero + _M1)
        c0 = high1 ^ c1 ^ k0
        c1 = low1
        c2 = high0 ^ c3 ^ k1
        c3 = low0
        k0 = (k0 + _W0).to(tl.uint32)
        k1 = (k1 + _W1).to(tl.uint32)
    words = tl.interleave(tl.interleave(c0, c2), tl.interleave(c1, c3))
    keeps = words >= F.threshold
    return tl.trans(keeps) if TURNED else keeps
