"""Attention forwards: a program has a block of queries of one head, and goes through its keys.

The softmax is taken as keys come (Milakov & Gimelshein 2018; Dao 2023): maximum and sum so far are
kept for each query, and what was summed before is scaled down when the maximum grows.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportIndexIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false, reportAssignmentType=false
# pyright: reportOptionalOperand=false

import triton
import triton.language as tl

from kernels.attention.tile import (
    extras_of,
    kept,
    lengths_of,
    load_keys,
    load_rows,
    logits,
    span,
    store_rows,
)


@triton.jit
def _attend(
    total, weight, highest, q, pq, of_keys, extras, t0, low, high, queries, keys,
    F: tl.constexpr, EDGE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Go through the keys from ``low`` to ``high``; without EDGE all of them are seen by all."""
    P: tl.constexpr = F.padded
    key, key_filter, value = of_keys
    for s0 in tl.range(low, high, BN):
        k = load_keys(key, key_filter, s0, keys, F, EDGE, BN)
        x = tl.dot(q, tl.trans(k), input_precision="ieee")
        x, _ = logits(x, pq, extras, t0, s0, queries, keys, F, EDGE, False, BM, BN, WIDE)
        new = tl.maximum(highest, tl.max(x, 1) * F.unit)
        # Of a query that has seen nothing yet, any maximum will do but -inf.
        shift = tl.where(new == float("-inf"), 0.0, new)
        p = tl.exp2((x * F.unit - shift[:, None]) * F.power)
        less = tl.exp2((highest - shift) * F.power)
        weight = weight * less + tl.sum(p, 1)
        if F.per.dropout_seeds:
            p = tl.where(kept(extras, t0, s0, F, False, BM, BN), p, 0.0)
        v = load_rows(value, s0, keys, F.key_stride, F.width, EDGE, BN, P)
        total = total * less[:, None]
        total = tl.dot(p.to(v.dtype), v, total, input_precision="ieee")
        highest = new
    return total, weight, highest


@triton.jit
def forward(
    query, key, value, bias, offset_bias, position_query, position_key, mask, query_lengths,
    key_lengths, query_segments, key_segments, seeds, key_filter, out, residual, log_sums, factors,
    F: tl.constexpr, SAVE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Softmax(scores) value, and the natural logarithm of the softmax's denominator.

    With SAVE also what the gradient has probabilities from: that logarithm as a logit, rounded, and
    the factor between the power of a logit less it and the probability. It is one but for rounding,
    and far from it where all logits are huge.
    """
    P: tl.constexpr = F.padded
    BLOCKS: tl.constexpr = (F.queries + BM - 1) // BM
    block = tl.program_id(0) % BLOCKS
    if F.right is not None:
        block = BLOCKS - 1 - block  # those that see most begin first
    t0 = block * BM
    head = (tl.program_id(0) // BLOCKS) % F.heads
    row = (tl.program_id(0) // (BLOCKS * F.heads)).to(tl.int64)
    queries, keys = lengths_of(query_lengths, key_lengths, row, F)
    extras = extras_of(
        bias, offset_bias, position_key, mask, query_segments, key_segments, seeds, row, head, F
    )
    of_head = row * F.queries * F.query_stride + head * F.width
    of_key = head // F.group * F.width
    key += (row // F.per.key) * F.keys * F.key_stride + of_key
    if F.taps:
        key_filter += (row // F.per.key_filter) * F.taps * F.key_stride + of_key
    value += (row // F.per.value) * F.keys * F.key_stride + of_key
    q = load_rows(query + of_head, t0, queries, F.query_stride, F.width, True, BM, P)
    pq = q
    if F.per.position_key:
        pq = load_rows(position_query + of_head, t0, queries, F.query_stride, F.width, True, BM, P)
    total = tl.zeros((BM, P), tl.float32)
    weight = tl.zeros((BM,), tl.float32)
    highest = tl.full((BM,), float("-inf"), tl.float32)
    of_keys = (key, key_filter, value)
    low, full_low, full_high, high = span(t0, queries, keys, F.left, F.right, BM, BN)
    if F.left is not None:
        total, weight, highest = _attend(
            total, weight, highest, q, pq, of_keys, extras, t0, low, tl.minimum(full_low, high),
            queries, keys, F, True, BM, BN, WIDE,
        )  # fmt: skip
    total, weight, highest = _attend(
        total, weight, highest, q, pq, of_keys, extras, t0, full_low, full_high, queries, keys,
        F, False, BM, BN, WIDE,
    )  # fmt: skip
    if F.right is not None or F.per.key_lengths or F.keys % BN:
        total, weight, highest = _attend(
            total, weight, highest, q, pq, of_keys, extras, t0, tl.maximum(full_low, full_high),
            high, queries, keys, F, True, BM, BN, WIDE,
        )  # fmt: skip
    t = t0 + tl.arange(0, BM)
    sees = (weight != 0.0) & (t < queries)
    share = tl.where(sees, 1.0 / (weight * F.keep), 0.0)
    total = tl.where(sees[:, None], total * share[:, None], 0.0)
    log_weight = tl.log2(weight)
    store_rows(out + of_head, total, t0, F.queries, F.query_stride, F.width, BM, P)
    place = row * F.queries * F.heads + head + t * F.heads
    natural = highest * F.natural + log_weight * 0.6931471805599453
    natural = tl.where(sees, natural, float("-inf"))
    tl.store(residual + place, natural, mask=t < F.queries)
    if SAVE:
        log_sum = highest + log_weight * (1.0 / F.power)
        factor = tl.where(sees, tl.exp2((log_sum - highest) * F.power) / weight, 0.0)
        log_sum = tl.where(sees, log_sum, float("inf"))
        tl.store(log_sums + place, log_sum, mask=t < F.queries)
        tl.store(factors + place, factor, mask=t < F.queries)
