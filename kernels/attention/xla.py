"""Attention in plain XLA, for CPU and TPU: one block of scores at a time.

Below ``WHOLE`` scores the block is everything: the plain form. Above, queries are taken in blocks,
and for each the keys that it may see, with the softmax put together from blocks (Milakov and
Gimelshein 2018, Rabe and Staats 2021); the backward pass computes each block again from the
residual (Dao et al. 2022). Blocks that nothing sees are not visited. The mathematics and what was
measured are in the README; what is inside a block, in ``xla_scores``.

Axes: B rows, N heads, K key heads, H dimensions of a head, T queries, S keys; P and L in a block.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels.attention.operands import Operands
from kernels.attention.xla_scores import (
    Block,
    Heads,
    Static,
    added,
    from_keys,
    from_queries,
    heads_first,
    kept,
    reduced,
    scores,
    to_bias,
    to_keys,
    to_offset_bias,
    to_offsets,
    wide,
    without_dropped,
    zero_unless,
)
from kernels.dispatch import Implementation

WHOLE = 2**20  # scores of all rows and heads up to which one block serves (measured: README)
SCORES = 2**20  # of a block, about: what stays in the caches of a CPU
SHORTEST, LONGEST = 64, 512  # queries of a block, and keys; keys may be more where queries are few


class Softmax(NamedTuple):
    """Sums over some of the keys, relative to e^highest: (B, N, P), (B, N, P), (B, N, P, H)."""

    highest: Any
    total: Any
    weighted: Any


def forward(*operands, **static):
    """Output (B, T, N, H) and residual (B, T, N), the log of the softmax's denominator."""
    given, options = Operands(*operands), Static(**static)
    heads = heads_first(given)
    plan = Plan.of(heads, options)
    rows, count, queries, _ = heads.sizes
    sums = wide(given.query.dtype)
    start = (
        jnp.zeros(heads.query.shape, given.query.dtype),
        jnp.zeros((rows, count, queries), sums),
    )

    def of_queries(i, results):
        def of_keys(j, so_far):
            # Queries that the block before had may be computed again: they come out the same.
            block = plan.block(i, j)._replace(new_t=None)
            return merged(so_far, block_softmax(heads, block, options))

        nothing = nothing_seen((rows, count, plan.queries), given.query.shape[3], sums)
        found = plan.each_key(i, of_keys, nothing)
        some = found.total > 0
        total = jnp.where(some, found.total, jnp.ones_like(found.total))
        out = found.weighted / total[..., None]
        residual = jnp.where(some, found.highest + jnp.log(total), -jnp.inf)
        t = plan.first_query(i)
        return tuple(
            lax.dynamic_update_slice_in_dim(whole, part.astype(whole.dtype), t, 2)
            for whole, part in zip(results, (out, residual), strict=True)
        )

    out, residual = plan.each_query(of_queries, start)
    return out.transpose(0, 2, 1, 3), residual.transpose(0, 2, 1)


def saving(*operands, **static):
    """The outputs, which are all that the gradient needs."""
    outputs = forward(*operands, **static)
    return outputs, outputs


def gradient(operands, saved, cotangents, wanted, **static):
    """The cotangents of what is wanted, in order."""
    given, options = Operands(*operands), Static(**static)
    heads = heads_first(given)
    back = Backward.of(heads, saved, cotangents, options)
    plan = Plan.of(heads, options)
    names = [name for name, want in zip(Operands._fields, wanted, strict=True) if want]
    totals = {name: back.room(name) for name in names}

    def of_queries(i, totals):
        def of_keys(j, totals):
            return back.with_block(totals, plan.block(i, j))

        return plan.each_key(i, of_keys, totals)

    totals = plan.each_query(of_queries, totals)
    return tuple(back.finished(name, totals[name]) for name in names)


# ---------------------------------------------------------------------- Blocks


class Plan(NamedTuple):
    """How the scores are cut, and which blocks somebody sees."""

    queries: int
    keys: int
    all_queries: int
    all_keys: int
    longest_query: Any  # the largest of the lengths, or None
    longest_key: Any
    options: Static

    @classmethod
    def of(cls, heads: Heads, options: Static) -> "Plan":
        """By the sizes alone."""
        queries, keys = block_sizes(*heads.sizes)
        lengths = heads.given.query_lengths, heads.given.key_lengths
        longest = (None if array is None else jnp.max(array) for array in lengths)
        return cls(queries, keys, *heads.sizes[2:], *longest, options)

    def first_query(self, i: Any) -> Any:
        """Of block i: the last block begins early enough to be whole."""
        return _at_most(i * self.queries, self.all_queries - self.queries)

    def block(self, i: Any, j: Any) -> Block:
        """Block i of the queries and j of the keys."""
        return Block(
            self.first_query(i),
            _at_most(j * self.keys, self.all_keys - self.keys),
            self.queries,
            self.keys,
            i * self.queries if self.all_queries % self.queries else None,
            j * self.keys if self.all_keys % self.keys else None,
        )

    def each_query(self, body: Callable, carry: Any) -> Any:
        """Over the blocks of queries."""
        return _loop(0, -(-self.all_queries // self.queries), body, carry)

    def each_key(self, i: Any, body: Callable, carry: Any) -> Any:
        """Over the blocks of keys that a block of queries may see."""
        if self.keys == self.all_keys:
            return body(0, carry)
        left, right = self.options.window or (None, None)
        first, end = 0, self.all_keys  # keys
        t = self.first_query(i)
        last_query = t + self.queries - 1
        if left is not None:
            first = jnp.clip(t - left, 0, self.all_keys)
        if self.options.causal:
            end = _at_most(last_query + 1, end)
        if right is not None:
            end = jnp.clip(last_query + 1 + right, 0, end)
        if self.longest_key is not None:
            end = jnp.minimum(self.longest_key, end)
        if self.longest_query is not None:
            end = jnp.where(t < self.longest_query, end, 0)
        return _loop(first // self.keys, -(-end // self.keys), body, carry)


def block_sizes(rows: int, heads: int, queries: int, keys: int) -> tuple[int, int]:
    """Queries and keys of a block."""
    if rows * heads * queries * keys <= WHOLE:
        return queries, keys
    each = SCORES / (rows * heads)
    of_queries = _even(queries, min(max(math.sqrt(each), SHORTEST), LONGEST))
    of_keys = min(max(each / of_queries, SHORTEST), max(LONGEST, each / of_queries))
    return of_queries, _even(keys, of_keys)


def _even(size: int, limit: float) -> int:
    """The size of equal blocks, a multiple of 16 that is a power of two if that makes no more."""
    limit = 2 ** int(math.log2(limit))
    if size <= limit:
        return size
    return -(-size // -(-size // limit) // 16) * 16


def _loop(first: Any, end: Any, body: Callable, carry: Any) -> Any:
    if isinstance(first, int) and isinstance(end, int) and end - first == 1:
        return body(first, carry)
    return lax.fori_loop(first, end, body, carry)


def _at_most(value: Any, limit: Any) -> Any:
    if isinstance(value, int) and isinstance(limit, int):
        return min(value, limit)
    return jnp.minimum(value, limit)


# ---------------------------------------------------------------------- Forward


def block_softmax(heads: Heads, block: Block, options: Static) -> Softmax:
    """The sums of one block; of nothing seen, all zero."""
    found, _ = scores(heads, block, options)
    highest = jnp.maximum(jnp.max(found, 3), jnp.finfo(found.dtype).min)
    terms = jnp.exp(found - highest[..., None])
    total = jnp.sum(terms, 3)
    terms = without_dropped(terms, kept(heads.given, block, options), options)
    return Softmax(highest, total, from_keys(terms, block.of_keys(heads.value)))


def nothing_seen(shape: tuple[int, int, int], width: int, dtype: Any) -> Softmax:
    """Sums over no keys."""
    zero = jnp.zeros(shape, dtype)
    lowest = jnp.full(shape, jnp.finfo(dtype).min, dtype)
    return Softmax(lowest, zero, jnp.zeros((*shape, width), dtype))


def merged(a: Softmax, b: Softmax) -> Softmax:
    """Sums over the keys of both, each made relative to the higher one."""
    highest = jnp.maximum(a.highest, b.highest)
    of_a, of_b = jnp.exp(a.highest - highest), jnp.exp(b.highest - highest)
    return Softmax(
        highest,
        a.total * of_a + b.total * of_b,
        a.weighted * of_a[..., None] + b.weighted * of_b[..., None],
    )


# ---------------------------------------------------------------------- Backward


class Backward(NamedTuple):
    """What the gradient of every block needs.

    Attributes:
        heads: the operands; queries that see nothing are zero in them, for they may be NaN.
        residual: (B, N, T), zero where it was -inf.
        slopes: cotangent of the output, (B, N, T, H), in its dtype.
        shifts: what is taken from a probability's cotangent, (B, N, T).
    """

    heads: Heads
    residual: Any
    slopes: Any
    shifts: Any
    options: Static

    @classmethod
    def of(cls, heads: Heads, saved: Any, cotangents: Any, options: Static) -> "Backward":
        """From what the forward pass saved."""
        sums = wide(heads.query.dtype)
        (out, residual), (slopes, of_residual) = saved, cotangents
        sees = ~jnp.isneginf(residual)
        slopes = zero_unless(sees[..., None], slopes)
        shifts = jnp.sum(slopes.astype(sums) * out.astype(sums), 3) - of_residual
        shifts, residual, sees = (
            a.transpose(0, 2, 1) for a in (zero_unless(sees, shifts), residual, sees)
        )
        position = heads.position_query
        heads = heads._replace(
            query=zero_unless(sees[..., None], heads.query),
            position_query=None if position is None else zero_unless(sees[..., None], position),
        )
        return cls(
            heads, zero_unless(sees, residual), slopes.transpose(0, 2, 1, 3), shifts, options
        )

    def room(self, name: str) -> Any:
        """Zeros for a sum: of keys, with the dimensions of a head before them."""
        heads, given = self.heads, getattr(self.heads.given, name)
        shape = {
            "query": heads.query.shape,
            "position_query": heads.query.shape,
            "key": _turned(heads.key.shape),
            "value": _turned(heads.value.shape),
        }.get(name, given.shape)
        if name == "position_key":
            shape = _turned(heads.position_key.shape)
        return jnp.zeros(shape, wide(heads.query.dtype))

    def with_block(self, totals: dict[str, Any], block: Block) -> dict[str, Any]:
        """The gradients so far with one block added."""
        heads, options = self.heads, self.options
        given, (_, _, queries, _) = heads.given, heads.sizes
        found, bent = scores(heads, block, options)
        probabilities = jnp.exp(found - block.of_queries(self.residual)[..., None])
        slopes = block.of_queries(self.slopes)
        keeps = kept(given, block, options)
        result = dict(totals)
        if "value" in totals:
            weights = without_dropped(probabilities, keeps, options)
            part = from_queries(weights, slopes, heads.value.shape[1])
            result["value"] = added(totals["value"], part, (0, 0, 0, block.s))
        if totals.keys() == {"value"}:
            return result
        of_kept = to_keys(slopes, block.of_keys(heads.value))
        of_probabilities = without_dropped(of_kept, keeps, options)
        shifts = block.of_queries(self.shifts)[..., None]
        of_scores = probabilities * (of_probabilities - shifts)
        if bent is not None:
            of_scores *= bent
        if "query" in totals:
            part = from_keys(of_scores, block.of_keys(heads.key))
            result["query"] = added(totals["query"], part, (0, 0, block.t, 0))
        if "key" in totals:
            query = block.of_queries(heads.query)
            part = from_queries(of_scores, query, heads.key.shape[1])
            result["key"] = added(totals["key"], part, (0, 0, 0, block.s))
        if "bias" in totals:
            result["bias"] = to_bias(of_scores, given.bias, totals["bias"], block)
        if "offset_bias" in totals:
            result["offset_bias"] = to_offset_bias(
                of_scores, given.offset_bias, totals["offset_bias"], block, queries
            )
        if not {"position_query", "position_key"} & totals.keys():
            return result
        of_offsets = to_offsets(of_scores)
        if "position_query" in totals:
            part = from_keys(of_offsets, block.band(heads.position_key, queries))
            result["position_query"] = added(totals["position_query"], part, (0, 0, block.t, 0))
        if "position_key" in totals:
            query = block.of_queries(heads.position_query)
            part = from_queries(of_offsets, query, query.shape[1])
            start = (0, 0, 0, block.first_offset(queries))
            result["position_key"] = added(totals["position_key"], part, start)
        return result

    def finished(self, name: str, total: Any) -> Any:
        """A sum as the gradient of its operand."""
        given = getattr(self.heads.given, name)
        if name in ("query", "position_query", "key", "position_key"):
            total *= np.asarray(self.options.scale, total.dtype)
        if name in ("query", "position_query"):
            total = total.transpose(0, 2, 1, 3)
        elif name in ("key", "value", "position_key"):
            total = total.transpose(0, 3, 1, 2)
        return reduced_rows(total, given.shape[0]).astype(given.dtype)


def reduced_rows(total: Any, rows: int) -> Any:
    """(B, ...) summed to b rows."""
    return reduced(total, (rows, *total.shape[1:])) if total.shape[0] != rows else total


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], shape[3], shape[2])


attention = Implementation(forward, gradient, saving=saving)
