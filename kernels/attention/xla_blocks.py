"""How the scores are cut into blocks, and which of these somebody sees.

Axes: B rows, N heads, T queries, S keys; P queries and L keys of a block.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from kernels.attention.operands import Operands
from kernels.attention.xla_scores import Block, Heads, Static

WHOLE = 2**21  # scores of all rows and heads up to which one block serves (measured: README)
SCORES = 2**20  # of a block, about: what stays in the caches of a CPU
UNUSED = 0.06  # share of all blocks together that may lie outside
BLOCK_COST = 12  # of a block, in queries or keys
SHORTEST, LONGEST = 64, 256  # queries of a block, and keys; keys may be more where queries are few


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
    def of(cls, heads: Heads, options: Static, *, pass_: str) -> "Plan":
        """By the sizes, for the pass ``forward``, ``saving`` (for a gradient) or ``backward``.

        One block where its scores take no more room than an operand: with no more queries than a
        head has dimensions and, in the backward pass, keys. All keys in a block where XLA makes one
        kernel of it, in which no scores are stored: forward, when each query sees each key.
        """
        queries, keys = heads.sizes[2:]
        few = min(queries, keys) if pass_ == "backward" else queries
        if few > heads.query.shape[3]:
            if pass_ == "forward" and _plain(heads.given, options):
                queries = queries if queries <= LONGEST else _even(queries, SHORTEST)
            else:
                queries, keys = block_sizes(*heads.sizes)
        longest_query, longest_key = (
            None if array is None else jnp.max(array)
            for array in (heads.given.query_lengths, heads.given.key_lengths)
        )
        return cls(queries, keys, *heads.sizes[2:], longest_query, longest_key, options)

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


def _plain(given: Operands, options: Static) -> bool:
    """Whether there is nothing but queries, keys and values, and each sees each."""
    alone = all(array is None for array in given[3:])
    return alone and (options.causal, options.window, options.soft_cap) == (False, None, None)


def block_sizes(rows: int, heads: int, queries: int, keys: int) -> tuple[int, int]:
    """Queries and keys of a block."""
    if rows * heads * queries * keys <= WHOLE:
        return queries, keys
    of_head = min(SCORES / (rows * heads), LONGEST**2)
    of_queries = _even(queries, max(math.sqrt(of_head), SHORTEST))
    return of_queries, _even(keys, max(of_head / of_queries, SHORTEST))


def _even(size: int, limit: float) -> int:
    """The size of equal blocks up to the limit, a power of two, where these are nearly full.

    Elsewhere, as for 257 queries, a multiple of 8 around the limit that leaves less unused.
    """
    limit = 1 << int(math.log2(limit))
    if size <= limit:
        return size
    even = _rounded(size, -(-size // limit), 16)
    if _blocks(size, even) * even <= (1 + UNUSED) * size:
        return even
    counts = range(1, -(-size // (limit // 2)) + 1)
    sizes = {_rounded(size, count, 8) for count in counts}
    near = [found for found in sizes if limit // 2 <= found <= 1.75 * limit]
    return min(near, key=lambda found: _blocks(size, found) * (found + BLOCK_COST))


def _rounded(size: int, count: int, multiple: int) -> int:
    return min(size, -(-size // count // multiple) * multiple)


def _blocks(size: int, block: int) -> int:
    return -(-size // block)


def _loop(first: Any, end: Any, body: Callable, carry: Any) -> Any:
    if isinstance(first, int) and isinstance(end, int) and end - first == 1:
        return body(first, carry)
    return lax.fori_loop(jnp.asarray(first, jnp.int32), jnp.asarray(end, jnp.int32), body, carry)


def _at_most(value: Any, limit: Any) -> Any:
    if isinstance(value, int) and isinstance(limit, int):
        return min(value, limit)
    return jnp.minimum(value, limit)
