"""Gradients of what is added to the scores, and of position keys.

A program has a block of the result and sums what shares it: nothing is as large as the scores
unless the bias is. Where the result has few blocks, PARTS programs share the rows and heads of one,
and XLA adds up what they found.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false, reportAssignmentType=false
# pyright: reportOptionalOperand=false

import triton
import triton.language as tl

from kernels.attention.backward import of_queries, slopes
from kernels.attention.tile import along_offsets, extras_of, lengths_of, load_rows


@triton.jit
def _slopes_at(
    query, key, value, bias, offset_bias, position_query, position_key, mask, query_lengths,
    key_lengths, query_segments, key_segments, seeds, log_sums, cotangent, delta, row, head, t0,
    s0, F: tl.constexpr, EDGE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """The slope along the scores of a tile, all loaded; and the queries that meet positions."""
    P: tl.constexpr = F.padded
    queries, keys = lengths_of(query_lengths, key_lengths, row, F)
    extras = extras_of(
        bias, offset_bias, position_key, mask, query_segments, key_segments, seeds, row, head, F
    )
    of_head = row * F.queries * F.query_stride + head * F.width
    of_sum = row * F.queries * F.heads + head
    of_key = head // F.group * F.width
    key += (row // F.per.key) * F.keys * F.key_stride + of_key
    value += (row // F.per.value) * F.keys * F.key_stride + of_key
    q = load_rows(query + of_head, t0, queries, F.query_stride, F.width, True, BM, P)
    do = load_rows(cotangent + of_head, t0, queries, F.query_stride, F.width, True, BM, P)
    pq = q
    if F.per.position_key:
        pq = load_rows(position_query + of_head, t0, queries, F.query_stride, F.width, True, BM, P)
    k = load_rows(key, s0, keys, F.key_stride, F.width, True, BN, P)
    v = load_rows(value, s0, keys, F.key_stride, F.width, True, BN, P)
    log_sum, d = of_queries(log_sums + of_sum, delta + of_sum, t0, queries, F, BM)
    _, ds = slopes(
        q, k, v, do, pq, extras, log_sum, d, t0, s0, queries, keys, F, EDGE, False, BM, BN, WIDE
    )
    return ds, pq


@triton.jit
def bias_gradient(
    query, key, value, bias, offset_bias, position_query, position_key, mask, query_lengths,
    key_lengths, query_segments, key_segments, seeds, log_sums, cotangent, delta, partial,
    F: tl.constexpr, PARTS: tl.constexpr, EDGE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """(PARTS, b, 1 or N, 1 or T, 1 or S): of a bias of that shape, behind the parts.

    What the bias has is spread over programs; over rows, heads, and one of the two sequences a
    program goes itself, innermost over the sequence. Both sequences: queries outside, keys inside.
    """
    QUERY_BLOCKS: tl.constexpr = (F.queries + BM - 1) // BM
    KEY_BLOCKS: tl.constexpr = (F.keys + BN - 1) // BN
    HAS_T: tl.constexpr = F.bias.query > 0
    HAS_S: tl.constexpr = F.bias.key > 0
    HAS_N: tl.constexpr = F.bias.head > 0
    T_BLOCKS: tl.constexpr = QUERY_BLOCKS if HAS_T else 1
    S_BLOCKS: tl.constexpr = KEY_BLOCKS if HAS_S else 1
    HEADS: tl.constexpr = F.heads if HAS_N else 1
    ROWS: tl.constexpr = F.rows // F.per.bias
    OUTER_T: tl.constexpr = 1 if HAS_T or HAS_S else QUERY_BLOCKS
    OUTER_N: tl.constexpr = 1 if HAS_N else F.heads
    COUNT: tl.constexpr = F.per.bias * OUTER_N * OUTER_T
    SHARE: tl.constexpr = (COUNT + PARTS - 1) // PARTS

    pid = tl.program_id(0)
    s_block = pid % S_BLOCKS
    t_block = pid // S_BLOCKS % T_BLOCKS
    head_of_bias = pid // (S_BLOCKS * T_BLOCKS) % HEADS
    row_of_bias = (pid // (S_BLOCKS * T_BLOCKS * HEADS) % ROWS).to(tl.int64)
    part = pid // (S_BLOCKS * T_BLOCKS * HEADS * ROWS)
    total = tl.zeros((BM, BN), tl.float32)
    first = part * SHARE
    last = tl.minimum(first + SHARE, COUNT)
    if HAS_T and HAS_S:
        if F.right is not None:  # no query of the block reaches the first key
            last = tl.where(s_block * BN <= t_block * BM + (BM - 1) + F.right, last, first)
        if F.left is not None:
            last = tl.where(s_block * BN + (BN - 1) >= t_block * BM - F.left, last, first)
        for i in tl.range(first, last):
            row = row_of_bias * F.per.bias + i // OUTER_N
            head = i % OUTER_N + head_of_bias
            ds, _ = _slopes_at(
                query, key, value, bias, offset_bias, position_query, position_key, mask,
                query_lengths, key_lengths, query_segments, key_segments, seeds, log_sums,
                cotangent, delta, row, head, t_block * BM, s_block * BN, F, EDGE, BM, BN, WIDE,
            )  # fmt: skip
            total += ds
    else:
        # The blocks of the sequence that the bias has not; of keys where it has neither.
        low = 0
        high = (QUERY_BLOCKS if HAS_S else KEY_BLOCKS) + 0
        if HAS_S:
            if F.right is not None:
                low = tl.maximum(s_block * BN - F.right, 0) // BM
            if F.left is not None:
                end = tl.maximum((s_block + 1) * BN + F.left, 0)
                high = tl.minimum(high, (end + BM - 1) // BM)
        elif HAS_T:
            if F.left is not None:
                low = tl.maximum(t_block * BM - F.left, 0) // BN
            if F.right is not None:
                end = tl.maximum((t_block + 1) * BM + F.right, 0)
                high = tl.minimum(high, (end + BN - 1) // BN)
        tiles = tl.maximum(high - low, 0)
        count = tl.maximum(last - first, 0) * tiles
        tiles = tl.maximum(tiles, 1)
        # One loop takes fewer registers than one in another.
        for x in tl.range(0, count):
            i = first + x // tiles
            j = low + x % tiles
            row = row_of_bias * F.per.bias + i // (OUTER_N * OUTER_T)
            head = i // OUTER_T % OUTER_N + head_of_bias
            t_begin = t_block + i % OUTER_T
            ds, _ = _slopes_at(
                query, key, value, bias, offset_bias, position_query, position_key, mask,
                query_lengths, key_lengths, query_segments, key_segments, seeds, log_sums,
                cotangent, delta, row, head, (j if HAS_S else t_begin) * BM,
                (s_block if HAS_S else j) * BN, F, EDGE, BM, BN, WIDE,
            )  # fmt: skip
            total += ds
    LENGTH_T: tl.constexpr = F.queries if HAS_T else 1
    LENGTH_S: tl.constexpr = F.keys if HAS_S else 1
    base = (part * ROWS + row_of_bias) * HEADS + head_of_bias
    base = partial + base.to(tl.int64) * (LENGTH_T * LENGTH_S)
    t = t_block * BM + tl.arange(0, BM)
    s = s_block * BN + tl.arange(0, BN)
    if HAS_T and HAS_S:
        places = t[:, None] * F.keys + s[None, :]
        tl.store(base + places, total, mask=(t < F.queries)[:, None] & (s < F.keys)[None, :])
    elif HAS_T:
        tl.store(base + t, tl.sum(total, 1), mask=t < F.queries)
    elif HAS_S:
        tl.store(base + s, tl.sum(total, 0), mask=s < F.keys)
    else:
        tl.store(base, tl.sum(tl.sum(total, 1), 0))


@triton.jit
def offset_gradient(
    query, key, value, bias, offset_bias, position_query, position_key, mask, query_lengths,
    key_lengths, query_segments, key_segments, seeds, log_sums, cotangent, delta, partial,
    F: tl.constexpr, OF_KEYS: tl.constexpr, PARTS: tl.constexpr, EDGE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Sums along the diagonals of the scores: of the offset bias, or of the position keys.

    Tiles are square, BM = BN, so that all tiles of a diagonal of tiles have the same offsets, 2 BM
    less one of them. A program has one such diagonal, and writes what it finds for each of its
    offsets: (PARTS, b, heads, diagonals, 2 BM), and behind that H. Each offset is in two diagonals.
    """
    P: tl.constexpr = F.padded
    QUERY_BLOCKS: tl.constexpr = (F.queries + BM - 1) // BM
    KEY_BLOCKS: tl.constexpr = (F.keys + BN - 1) // BN
    DIAGONALS: tl.constexpr = QUERY_BLOCKS + KEY_BLOCKS - 1
    SHARED: tl.constexpr = F.per.position_key if OF_KEYS else F.per.offset_bias
    HEADS: tl.constexpr = F.heads if OF_KEYS else F.offset_heads
    ROWS: tl.constexpr = F.rows // SHARED
    OUTER_N: tl.constexpr = F.heads // HEADS
    COUNT: tl.constexpr = SHARED * OUTER_N
    SHARE: tl.constexpr = (COUNT + PARTS - 1) // PARTS

    pid = tl.program_id(0)
    diagonal = pid % DIAGONALS
    own_head = pid // DIAGONALS % HEADS
    own_row = (pid // (DIAGONALS * HEADS) % ROWS).to(tl.int64)
    part = pid // (DIAGONALS * HEADS * ROWS)
    ahead = diagonal - (QUERY_BLOCKS - 1)  # blocks by which the keys are ahead of the queries
    low = tl.maximum(-ahead, 0)
    high = tl.minimum(QUERY_BLOCKS, KEY_BLOCKS - ahead)
    if F.right is not None:
        high = tl.where(ahead * BM - (BM - 1) <= F.right, high, low)
    if F.left is not None:
        high = tl.where(ahead * BM + (BM - 1) >= -F.left, high, low)
    sums = tl.zeros((WIDE,), tl.float32)
    products = tl.zeros((WIDE, P), tl.float32)
    first = part * SHARE
    tiles = tl.maximum(high - low, 0)
    count = tl.maximum(tl.minimum(first + SHARE, COUNT) - first, 0) * tiles
    tiles = tl.maximum(tiles, 1)
    # Rows and heads outside, tiles inside; as one loop, it takes fewer registers than two.
    for x in tl.range(0, count):
        i = first + x // tiles
        j = low + x % tiles
        row = own_row * SHARED + i // OUTER_N
        head = own_head * OUTER_N + i % OUTER_N
        s0 = (j + ahead) * BM
        ds, pq = _slopes_at(
            query, key, value, bias, offset_bias, position_query, position_key, mask,
            query_lengths, key_lengths, query_segments, key_segments, seeds, log_sums,
            cotangent, delta, row, head, j * BM, s0, F, EDGE, BM, BN, WIDE,
        )  # fmt: skip
        if OF_KEYS:
            moved = along_offsets(ds.to(pq.dtype), s0, BM, BN, WIDE)
            products = tl.dot(tl.trans(moved), pq, products, input_precision="ieee")
        else:
            sums += tl.sum(along_offsets(ds, s0, BM, BN, WIDE), 0)
    places = (pid.to(tl.int64) * WIDE) + tl.arange(0, WIDE)
    if OF_KEYS:
        h = tl.arange(0, P)
        tl.store(
            partial + places[:, None] * F.width + h[None, :], products * F.scale,
            mask=(h < F.width)[None, :] & (places >= 0)[:, None],
        )  # fmt: skip
    else:
        tl.store(partial + places, sums)
