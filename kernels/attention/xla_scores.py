"""Scores of a block of queries and keys, and what the slope along them gives each operand.

A block is cut out of the operands where it starts, with no padding: the last block of an axis
starts early enough to have the size of the others, and what it repeats is left out. What depends
on the offset s - t alone is read as a band of P + L - 1 offsets, shifted into place by a reshape.

Axes: B rows, N heads, K key heads, G = N / K, H dimensions of a head, T queries, S keys, R offsets;
in a block P queries and L keys.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels.attention import dropout
from kernels.attention.operands import Operands
from kernels.attention.reference import by_offset
from kernels.precision import wide
from kernels.rows import of_rows


class Heads(NamedTuple):
    """The operands with B rows, and heads before time in what many blocks of queries read.

    Attributes:
        given: all operands, as they came.
        query: (B, T, N, H).
        key, value: (B, K, S, H).
        position_query: (B, T, N, H).
        position_key: (B, N, R, H).
    """

    given: Operands
    query: Any
    key: Any
    value: Any
    position_query: Any
    position_key: Any

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Rows, heads, queries, keys."""
        rows, queries, heads, _ = self.query.shape
        return rows, heads, queries, self.key.shape[2]

    def near(self, block: "Block") -> "Near":
        """The queries of a block, to be cut once for all its keys."""
        position = self.position_query
        return Near(
            block.by_head(self.query), None if position is None else block.by_head(position)
        )


class Near(NamedTuple):
    """The queries of a block, heads first: (B, N, P, H) both."""

    query: Any
    position_query: Any


class Static(NamedTuple):
    """The options of the operation."""

    scale: float
    causal: bool
    window: tuple[int | None, int | None] | None
    soft_cap: float | None
    dropout_rate: float


class Block(NamedTuple):
    """Where a block is, and which of its queries and keys no block before it had.

    Attributes:
        t: its first query.
        s: its first key.
        queries: P.
        keys: L.
        new_t: its first query that counts, or ``None`` where all do.
        new_s: likewise.
    """

    t: Any
    s: Any
    queries: int
    keys: int
    new_t: Any = None
    new_s: Any = None

    def of_queries(self, array: Any, axis: int = 2) -> Any:
        """The queries of an array that has all."""
        return _cut(array, self.t, self.queries, axis)

    def by_head(self, array: Any) -> Any:
        """The queries of (B, T, N, ...) as (B, N, P, ...)."""
        return self.of_queries(array, 1).swapaxes(1, 2)

    def of_keys(self, array: Any, axis: int = 2) -> Any:
        """The keys of an array that has all."""
        return _cut(array, self.s, self.keys, axis)

    def of_both(self, array: Any) -> Any:
        """Of (b, 1 or N, 1 or T, 1 or S)."""
        array = array if array.shape[2] == 1 else self.of_queries(array)
        return array if array.shape[3] == 1 else self.of_keys(array, 3)

    def first_offset(self, all_queries: int) -> Any:
        """Where the band begins: its last query at its first key."""
        return self.s - self.t + (all_queries - self.queries)

    @property
    def offsets(self) -> int:
        """How many offsets meet in a block."""
        return self.queries + self.keys - 1

    def band(self, array: Any, all_queries: int, axis: int = 2) -> Any:
        """The offsets of an array that has all."""
        return _cut(array, self.first_offset(all_queries), self.offsets, axis)


def heads_first(given: Operands) -> Heads:
    """Keys and values beyond their lengths become zero: they may be NaN, and 0 NaN is NaN."""
    rows = given.query.shape[0]
    key, value = (of_rows(a, rows) for a in (given.key, given.value))
    if given.key_lengths is not None:
        lengths = of_rows(given.key_lengths, rows)
        counts = jnp.arange(key.shape[1], dtype=lengths.dtype)[None, :] < lengths[:, None]
        key, value = (zero_unless(counts[:, :, None, None], a) for a in (key, value))
    position_key = given.position_key
    if position_key is not None:
        position_key = of_rows(position_key, rows)
    turned = (
        None if array is None else array.transpose(0, 2, 1, 3)
        for array in (key, value, position_key)
    )
    key, value, position_key = turned
    return Heads(given, given.query, key, value, given.position_query, position_key)


def scores(heads: Heads, near: Near, block: Block, static: Static) -> tuple[Any, Any]:
    """Scores (B, N, P, L), -inf where not seen, and the slope of the soft cap or ``None``."""
    given, (rows, _, queries, _) = heads.given, heads.sizes
    found = to_keys(near.query, block.of_keys(heads.key))
    if near.position_query is not None:
        band = block.band(heads.position_key, queries)
        found += by_offset(to_keys(near.position_query, band))
    found *= np.asarray(static.scale, found.dtype)
    if given.bias is not None:
        found += of_rows(block.of_both(given.bias), rows).astype(found.dtype)
    if given.offset_bias is not None:
        band = of_rows(block.band(given.offset_bias, queries), rows).astype(found.dtype)
        found += by_offset(
            jnp.broadcast_to(band[:, :, None], (*band.shape[:2], block.queries, block.offsets))
        )
    slope = None
    if static.soft_cap is not None:
        cap = np.asarray(static.soft_cap, found.dtype)
        bent = jnp.tanh(found / cap)
        found, slope = cap * bent, 1 - bent * bent
    seen = visible(given, block, static)
    if seen is not None:
        found = jnp.where(seen, found, jnp.asarray(-jnp.inf, found.dtype))
        slope = None if slope is None else zero_unless(seen, slope)
    return found, slope


def visible(given: Operands, block: Block, static: Static) -> Any:
    """Which scores count, (B or 1, N or 1, P, L), or ``None`` for all."""
    rows = given.query.shape[0]
    t = (block.t + jnp.arange(block.queries, dtype=jnp.int32))[None, None, :, None]
    s = (block.s + jnp.arange(block.keys, dtype=jnp.int32))[None, None, None, :]
    left, right = static.window or (None, None)
    conditions = [s <= t] if static.causal else []
    if block.new_t is not None:
        conditions.append(t >= block.new_t)
    if block.new_s is not None:
        conditions.append(s >= block.new_s)
    if left is not None:
        conditions.append(s >= t - left)
    if right is not None:
        conditions.append(s <= t + right)
    if given.query_lengths is not None:
        conditions.append(t < of_rows(given.query_lengths, rows)[:, None, None, None])
    if given.key_lengths is not None:
        conditions.append(s < of_rows(given.key_lengths, rows)[:, None, None, None])
    if given.mask is not None:
        conditions.append(of_rows(block.of_both(given.mask), rows))
    if given.query_segments is not None:
        of_query = of_rows(block.of_queries(given.query_segments, 1), rows)[:, None, :, None]
        of_key = of_rows(block.of_keys(given.key_segments, 1), rows)[:, None, None, :]
        conditions.append(of_query == of_key)
    seen = None
    for condition in conditions:
        seen = condition if seen is None else seen & condition
    return seen


def kept(given: Operands, block: Block, static: Static) -> Any:
    """Which probabilities dropout keeps, (B, N, P, L), or ``None`` for all."""
    if given.dropout_seeds is None:
        return None

    def of_keys(first, keys):
        return dropout.kept(
            given.dropout_seeds,
            block.queries,
            keys,
            static.dropout_rate,
            first_query=block.t,
            first_key=first,
        )

    if block.new_s is None:  # blocks of equal size begin at a multiple of four
        return of_keys(block.s, block.keys)
    before = block.s % dropout.WORDS
    return _cut(of_keys(block.s - before, block.keys + dropout.WORDS - 1), before, block.keys, 3)


def without_dropped(probabilities: Any, keeps: Any, static: Static) -> Any:
    """Probabilities, or their cotangents, after dropout."""
    if keeps is None:
        return probabilities
    share = np.asarray(1 / (1 - static.dropout_rate), probabilities.dtype)
    return zero_unless(keeps, probabilities * share)


# ---------------------------------------------------------------------- Gradients of what is added


def reduced(slopes: Any, shape: tuple[int, ...]) -> Any:
    """(B, N, ...) slopes summed to the rows b and the other axes of a shape that has some as 1."""
    rows = shape[0]
    by_row = slopes.reshape(rows, slopes.shape[0] // rows, *slopes.shape[1:])
    axes = [1, *(i + 1 for i in range(1, len(shape)) if shape[i] != slopes.shape[i])]
    return jnp.sum(by_row, tuple(axes)).reshape(shape)


def to_offsets(slopes: Any) -> Any:
    """The adjoint of ``by_offset``: (..., P, L) -> (..., P, P + L - 1), zero where none meet."""
    *axes, queries, keys = slopes.shape
    offsets = queries + keys - 1
    flat = _pad_last(slopes, 0, queries - 2 if queries > 1 else 0)
    flat = flat.reshape(*axes, -1)
    before = queries - 1
    return _pad_last(flat, before, queries * offsets - before - flat.shape[-1]).reshape(
        *axes, queries, offsets
    )


def sums_by_offset(slopes: Any) -> Any:
    """The sum over queries of ``to_offsets``, by adding neighbours, which lie one offset apart.

    Each step halves the rows and doubles the distance; on a CPU it takes half the time of a sum
    over shifted rows.
    """
    queries, keys = slopes.shape[2:]
    rows, distance = slopes[:, :, ::-1], 1  # the last query meets the first offset
    while rows.shape[2] > 1:
        if rows.shape[2] % 2:
            rows = jnp.pad(rows, ((0, 0), (0, 0), (0, 1), (0, 0)))
        first, second = rows[:, :, 0::2], rows[:, :, 1::2]
        rows = _pad_last(first, 0, distance) + _pad_last(second, distance, 0)
        distance *= 2
    return rows[:, :, 0, : queries + keys - 1]


def to_bias(slopes: Any, bias: Any, total: Any, block: Block) -> Any:
    """The total so far with the block's part of the bias's gradient added."""
    _, heads, queries, keys = bias.shape
    of_queries = 1 if queries == 1 else block.queries
    of_keys = 1 if keys == 1 else block.keys
    part = reduced(slopes, (bias.shape[0], heads, of_queries, of_keys))
    starts = (0, 0, 0 if queries == 1 else block.t, 0 if keys == 1 else block.s)
    return added(total, part, starts)


def to_offset_bias(slopes: Any, bias: Any, total: Any, block: Block, all_queries: int) -> Any:
    """Likewise for the bias by offset: the sum over queries of the shifted slopes."""
    narrow = reduced(slopes, (*bias.shape[:2], block.queries, block.keys))
    return added(total, sums_by_offset(narrow), (0, 0, block.first_offset(all_queries)))


# ---------------------------------------------------------------------- Products and slices


def to_keys(query: Any, key: Any) -> Any:
    """Products of queries and keys: (B, N, P, H), (B, K, L, H) -> (B, N, P, L)."""
    return _by_group("bkph,bklh->bkpl", query, key)


def from_keys(weights: Any, value: Any) -> Any:
    """Sums over keys: (B, N, P, L), (B, K, L, H) -> (B, N, P, H)."""
    return _by_group("bkpl,bklh->bkph", weights.astype(value.dtype), value)


def from_queries(weights: Any, query: Any, key_heads: int, *, in_rows: bool = False) -> Any:
    """Sums over queries and the heads of a group: (B, N, P, L), (B, N, P, H) -> (B, K, H, L).

    With the dimensions of a head first, neither operand's large matrix needs to be transposed. With
    few queries the result is what is large, and as (B, K, L, H) it is turned more cheaply.
    """
    rows, _, _, keys = weights.shape
    weights = weights.astype(query.dtype).reshape(rows, key_heads, -1, keys)
    query = query.reshape(rows, key_heads, -1, query.shape[3])
    if in_rows:
        return _product("bkpl,bkph->bklh", weights, query)
    return _product("bkhp,bkpl->bkhl", query.swapaxes(2, 3), weights)


def _by_group(axes: str, of_queries: Any, of_keys: Any) -> Any:
    """The queries of a group one after another: all its heads in one product."""
    rows, heads, queries, width = of_queries.shape
    grouped = of_queries.reshape(rows, of_keys.shape[1], -1, width)
    return _product(axes, grouped, of_keys).reshape(rows, heads, queries, -1)


def _product(axes: str, a: Any, b: Any) -> Any:
    """Accumulated in float32 or wider; float32 is never rounded to TF32."""
    precision = None if a.dtype in (jnp.bfloat16, jnp.float16) else lax.Precision.HIGHEST
    return jnp.einsum(axes, a, b, precision=precision, preferred_element_type=wide(a.dtype))


def added(total: Any, part: Any, starts: tuple) -> Any:
    """Adds a part where it begins."""
    starts = tuple(jnp.asarray(start, jnp.int32) for start in starts)
    there = lax.dynamic_slice(total, starts, part.shape)
    return lax.dynamic_update_slice(total, there + part.astype(total.dtype), starts)


def zero_unless(keep: Any, array: Any) -> Any:
    """The array where ``keep``, zero elsewhere, whatever was there."""
    return jnp.where(keep, array, jnp.zeros((), array.dtype))


def _cut(array: Any, start: Any, size: int, axis: int) -> Any:
    if array.shape[axis] == size:
        return array
    return lax.dynamic_slice_in_dim(array, start, size, axis)


def _pad_last(array: Any, before: int, after: int) -> Any:
    """Zeros around the last axis; a negative number cuts off."""
    config = [(0, 0, 0)] * (array.ndim - 1) + [(before, after, 0)]
    return lax.pad(array, jnp.zeros((), array.dtype), config)
