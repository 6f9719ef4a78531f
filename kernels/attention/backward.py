"""Attention backwards: probabilities are recomputed from the scores and the log of their sum.

That log is rounded; the factor which is missing for that, near one, is in the cotangents already.
With p the probabilities, dp = dout value' and D = sum(dout out) - dresidual for each query, the
slope along the scores is ds = p (dp - D), and

    dvalue = p' dout     dkey = scale ds' query     dquery = scale ds key

A program of the first kernel has a block of keys of one key head and goes through the queries of
all heads that share it, so that nothing is added up by two programs. A program of the second has a
block of queries. Dropout scales p in dvalue, and dp.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false, reportAssignmentType=false
# pyright: reportOptionalOperand=false

import triton
import triton.language as tl

from kernels.attention.tile import (
    along_offsets,
    extras_of,
    kept,
    lengths_of,
    load_rows,
    logits,
    position_band,
    span,
    store_rows,
)


@triton.jit
def of_queries(log_sums, delta, t0, queries, F: tl.constexpr, BM: tl.constexpr):
    """What to subtract from logits and from dp; of one that does not count, such that p is 0."""
    t = t0 + tl.arange(0, BM)
    log_sum = tl.load(log_sums + t * F.heads, mask=t < queries, other=float("inf"))
    d = tl.load(delta + t * F.heads, mask=t < queries, other=0.0)
    return log_sum, d


@triton.jit
def slopes(
    q, k, v, cotangent, pq, extras, log_sum, d, t0, s0, queries, keys, F: tl.constexpr,
    EDGE: tl.constexpr, TURNED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """What the values are weighted by, and the slope along the scores before the soft cap."""
    if TURNED:
        x = tl.dot(k, tl.trans(q), input_precision="ieee")
        dp = tl.dot(v, tl.trans(cotangent), input_precision="ieee")
        log_sum = log_sum[None, :]
        d = d[None, :]
    else:
        x = tl.dot(q, tl.trans(k), input_precision="ieee")
        dp = tl.dot(cotangent, tl.trans(v), input_precision="ieee")
        log_sum = log_sum[:, None]
        d = d[:, None]
    x, slope = logits(x, pq, extras, t0, s0, queries, keys, F, EDGE, TURNED, BM, BN, WIDE)
    p = tl.exp2((x * F.unit - log_sum) * F.power)
    weights = p
    if F.per.dropout_seeds:
        keeps = kept(extras, t0, s0, F, TURNED, BM, BN)
        weights = tl.where(keeps, p * (1.0 / F.keep), 0.0)
        dp = tl.where(keeps, dp * (1.0 / F.keep), 0.0)
    ds = p * (dp - d)
    if F.cap is not None:
        ds = tl.where(x == float("-inf"), 0.0, ds * slope)
    return weights, ds


@triton.jit
def _gather_queries(
    dk, dv, k, v, pointers, row, key_head, s0, low, high, queries, keys, F: tl.constexpr,
    EDGE: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Go through the queries from ``low`` to ``high`` of every head of the group, as one loop."""
    P: tl.constexpr = F.padded
    (
        query, bias, offset_bias, position_query, position_key, mask, query_segments, key_segments,
        seeds, log_sums, cotangent, delta,
    ) = pointers  # fmt: skip
    blocks = tl.maximum((high - low + (BM - 1)) // BM, 0)
    for x in tl.range(0, blocks * F.group):
        t0 = low + x * BM
        head = key_head
        if F.group > 1:
            t0 = low + x % blocks * BM
            head = key_head * F.group + x // blocks
        of_head = row * F.queries * F.query_stride + head * F.width
        of_sum = row * F.queries * F.heads + head
        extras = extras_of(
            bias, offset_bias, position_key, mask, query_segments, key_segments, seeds, row, head, F
        )
        q = load_rows(query + of_head, t0, queries, F.query_stride, F.width, EDGE, BM, P)
        do = load_rows(cotangent + of_head, t0, queries, F.query_stride, F.width, EDGE, BM, P)
        pq = q
        if F.per.position_key:
            pq = load_rows(
                position_query + of_head, t0, queries, F.query_stride, F.width, EDGE, BM, P
            )
        log_sum, d = of_queries(log_sums + of_sum, delta + of_sum, t0, queries, F, BM)
        weights, ds = slopes(
            q, k, v, do, pq, extras, log_sum, d, t0, s0, queries, keys, F, EDGE, True, BM, BN, WIDE
        )  # fmt: skip
        if VALUE:
            dv = tl.dot(weights.to(do.dtype), do, dv, input_precision="ieee")
        if KEY:
            dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")
    return dk, dv


@triton.jit
def key_value_gradient(
    query, key, value, bias, offset_bias, position_query, position_key, mask, query_lengths,
    key_lengths, query_segments, key_segments, seeds, log_sums, cotangent, delta, dkey, dvalue,
    F: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """Of each row of the queries: (B, S, K, H), whatever rows the keys have."""
    P: tl.constexpr = F.padded
    BLOCKS: tl.constexpr = (F.keys + BN - 1) // BN
    s0 = (tl.program_id(0) % BLOCKS) * BN
    key_head = (tl.program_id(0) // BLOCKS) % F.key_heads
    row = (tl.program_id(0) // (BLOCKS * F.key_heads)).to(tl.int64)
    queries, keys = lengths_of(query_lengths, key_lengths, row, F)
    key += (row // F.per.key) * F.keys * F.key_stride + key_head * F.width
    value += (row // F.per.value) * F.keys * F.key_stride + key_head * F.width
    k = load_rows(key, s0, keys, F.key_stride, F.width, True, BN, P)
    v = load_rows(value, s0, keys, F.key_stride, F.width, True, BN, P)
    dk = tl.zeros((BN, P), tl.float32)
    dv = tl.zeros((BN, P), tl.float32)
    low, full_low, full_high, high = span(s0, keys, queries, F.right, F.left, BN, BM)
    pointers = (
        query, bias, offset_bias, position_query, position_key, mask, query_segments, key_segments,
        seeds, log_sums, cotangent, delta,
    )  # fmt: skip
    if F.right is not None:
        dk, dv = _gather_queries(
            dk, dv, k, v, pointers, row, key_head, s0, low, tl.minimum(full_low, high), queries,
            keys, F, True, KEY, VALUE, BM, BN, WIDE,
        )  # fmt: skip
    dk, dv = _gather_queries(
        dk, dv, k, v, pointers, row, key_head, s0, full_low, full_high, queries, keys, F, False,
        KEY, VALUE, BM, BN, WIDE,
    )  # fmt: skip
    if F.left is not None or F.per.query_lengths or F.per.key_lengths or F.queries % BM:
        dk, dv = _gather_queries(
            dk, dv, k, v, pointers, row, key_head, s0, tl.maximum(full_low, full_high), high,
            queries, keys, F, True, KEY, VALUE, BM, BN, WIDE,
        )  # fmt: skip
    counts = (s0 + tl.arange(0, BN) < keys)[:, None]
    place = row * F.keys * F.key_stride + key_head * F.width
    if KEY:
        dk = tl.where(counts, dk * F.scale, 0.0)
        store_rows(dkey + place, dk, s0, F.keys, F.key_stride, F.width, BN, P)
    if VALUE:
        dv = tl.where(counts, dv, 0.0)
        store_rows(dvalue + place, dv, s0, F.keys, F.key_stride, F.width, BN, P)


@triton.jit
def _gather_keys(
    dq, dp, q, pq, do, log_sum, d, key, value, extras, t0, low, high, queries, keys,
    F: tl.constexpr, EDGE: tl.constexpr, QUERY: tl.constexpr, POSITION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    P: tl.constexpr = F.padded
    for s0 in tl.range(low, high, BN):
        k = load_rows(key, s0, keys, F.key_stride, F.width, EDGE, BN, P)
        v = load_rows(value, s0, keys, F.key_stride, F.width, EDGE, BN, P)
        _, ds = slopes(
            q, k, v, do, pq, extras, log_sum, d, t0, s0, queries, keys, F, EDGE, False, BM, BN, WIDE
        )  # fmt: skip
        if QUERY:
            dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")
        if POSITION:
            band = position_band(extras[2], t0, s0, F, BM, P, WIDE)
            moved = along_offsets(ds.to(band.dtype), s0, BM, BN, WIDE)
            dp = tl.dot(moved, band, dp, input_precision="ieee")
    return dq, dp


@triton.jit
def query_gradient(
    query, key, value, bias, offset_bias, position_query, position_key, mask, query_lengths,
    key_lengths, query_segments, key_segments, seeds, log_sums, cotangent, delta, dquery,
    dposition, F: tl.constexpr, QUERY: tl.constexpr, POSITION: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Of the queries, and of those that meet position keys."""
    P: tl.constexpr = F.padded
    BLOCKS: tl.constexpr = (F.queries + BM - 1) // BM
    block = tl.program_id(0) % BLOCKS
    if F.right is not None:
        block = BLOCKS - 1 - block
    t0 = block * BM
    head = (tl.program_id(0) // BLOCKS) % F.heads
    row = (tl.program_id(0) // (BLOCKS * F.heads)).to(tl.int64)
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
    log_sum, d = of_queries(log_sums + of_sum, delta + of_sum, t0, queries, F, BM)
    dq = tl.zeros((BM, P), tl.float32)
    dp = tl.zeros((BM, P), tl.float32)
    low, full_low, full_high, high = span(t0, queries, keys, F.left, F.right, BM, BN)
    if F.left is not None:
        dq, dp = _gather_keys(
            dq, dp, q, pq, do, log_sum, d, key, value, extras, t0, low, tl.minimum(full_low, high),
            queries, keys, F, True, QUERY, POSITION, BM, BN, WIDE,
        )  # fmt: skip
    dq, dp = _gather_keys(
        dq, dp, q, pq, do, log_sum, d, key, value, extras, t0, full_low, full_high, queries, keys,
        F, False, QUERY, POSITION, BM, BN, WIDE,
    )  # fmt: skip
    if F.right is not None or F.per.key_lengths or F.keys % BN:
        dq, dp = _gather_keys(
            dq, dp, q, pq, do, log_sum, d, key, value, extras, t0, tl.maximum(full_low, full_high),
            high, queries, keys, F, True, QUERY, POSITION, BM, BN, WIDE,
        )  # fmt: skip
    counts = (t0 + tl.arange(0, BM) < queries)[:, None]
    if QUERY:
        dq = tl.where(counts, dq * F.scale, 0.0)
        store_rows(dquery + of_head, dq, t0, F.queries, F.query_stride, F.width, BM, P)
    if POSITION:
        dp = tl.where(counts, dp * F.scale, 0.0)
        store_rows(dposition + of_head, dp, t0, F.queries, F.query_stride, F.width, BM, P)
