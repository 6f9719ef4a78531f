"""The gradient of attention, block by block, from the scores computed again.

Axes: B rows, N heads, K key heads, H dimensions of a head, T queries, S keys; P and L in a block.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kernels.attention.operands import Operands
from kernels.attention.xla_scores import (
    Block,
    Heads,
    Near,
    Static,
    added,
    from_keys,
    from_queries,
    kept,
    reduced,
    scores,
    to_bias,
    to_keys,
    to_offset_bias,
    to_offsets,
    without_dropped,
    zero_unless,
)
from kernels.precision import wide

FEW = 64  # queries that meet a key head, up to which its sums are in rows (measured: README)


class Backward(NamedTuple):
    """What the gradient of every block needs; of all queries, or heads first of one block's.

    Attributes:
        heads: the operands.
        sees: which queries see any key, (B, T, N) or (B, N, P), or ``None`` for all.
        queries: of the block, or ``None`` for all.
        highest: score of each query, (B, T, N) or (B, N, P), zero where it was -inf.
        share: what e^(score - highest) is multiplied by, of the same shape.
        slopes: cotangent of the output, (B, T, N, H) or (B, N, P, H), in its dtype.
        shifts: what is taken from a probability's cotangent, as ``highest``.
    """

    heads: Heads
    sees: Any
    queries: Near | None
    highest: Any
    share: Any
    slopes: Any
    shifts: Any
    options: Static

    @classmethod
    def of(cls, heads: Heads, saved: Any, cotangents: Any, options: Static) -> "Backward":
        """From what the forward pass saved."""
        (out, highest, total), (slopes, of_residual) = saved, cotangents
        sums = highest.dtype
        shifts = jnp.sum(slopes.astype(sums) * out.astype(sums), 3) - of_residual
        sees = ~jnp.isneginf(highest) if may_see_nothing(heads.given, options) else None
        if sees is not None:
            slopes = zero_unless(sees[..., None], slopes)
            shifts, highest = zero_unless(sees, shifts), zero_unless(sees, highest)
        return cls(heads, sees, None, highest, 1 / total, slopes, shifts, options)

    def near(self, block: Block) -> "Backward":
        """With the queries of a block only, cut once for all its keys."""
        sees = None if self.sees is None else block.by_head(self.sees)
        highest, share, slopes, shifts = (
            block.by_head(a) for a in (self.highest, self.share, self.slopes, self.shifts)
        )
        queries = self.heads.near(block)
        return Backward(self.heads, sees, queries, highest, share, slopes, shifts, self.options)

    def finite(self, of_queries: Any) -> Any:
        """Queries of the block, but zero for those that see nothing: they may be NaN."""
        return of_queries if self.sees is None else zero_unless(self.sees[..., None], of_queries)

    @property
    def in_rows(self) -> bool:
        """Whether sums of keys are (B, K, S, H), for few queries, or (B, K, H, S)."""
        _, heads, queries, _ = self.heads.sizes
        return queries * heads <= FEW * self.heads.key.shape[1]

    def room(self, name: str) -> Any:
        """Zeros for a sum."""
        heads, given = self.heads, getattr(self.heads.given, name)
        of_keys = heads.key.shape if self.in_rows else _turned(heads.key.shape)
        shape = {
            "query": heads.query.shape,
            "position_query": heads.query.shape,
            "key": of_keys,
            "value": of_keys,
        }.get(name, given.shape)
        if name == "position_key":
            shape = _turned(heads.position_key.shape)
        return jnp.zeros(shape, wide(heads.query.dtype))

    def with_keys(self, total: Any, weights: Any, of_queries: Any, block: Block) -> Any:
        """The sum of keys with a block's part: the weighted sum of what its queries have."""
        part = from_queries(weights, of_queries, self.heads.key.shape[1], in_rows=self.in_rows)
        start = (0, 0, block.s, 0) if self.in_rows else (0, 0, 0, block.s)
        return added(total, part, start)

    def with_block(self, totals: dict[str, Any], block: Block) -> dict[str, Any]:
        """The gradients so far with one block added, whose queries these are."""
        heads, near, slopes, options = self.heads, self.queries, self.slopes, self.options
        assert near is not None
        given, (_, _, queries, _) = heads.given, heads.sizes
        found, bent = scores(heads, near, block, options)
        probabilities = jnp.exp(found - self.highest[..., None]) * self.share[..., None]
        keeps = kept(given, block, options)
        result = dict(totals)
        if "value" in totals:
            weights = without_dropped(probabilities, keeps, options)
            result["value"] = self.with_keys(totals["value"], weights, slopes, block)
        if totals.keys() == {"value"}:
            return result
        of_kept = to_keys(slopes, block.of_keys(heads.value))
        of_probabilities = without_dropped(of_kept, keeps, options)
        of_scores = probabilities * (of_probabilities - self.shifts[..., None])
        if bent is not None:
            of_scores *= bent
        of_products = of_scores * np.asarray(options.scale, of_scores.dtype)
        if "query" in totals:
            part = from_keys(of_products, block.of_keys(heads.key))
            result["query"] = added(totals["query"], part.swapaxes(1, 2), (0, block.t, 0, 0))
        if "key" in totals:
            query = self.finite(near.query)
            result["key"] = self.with_keys(totals["key"], of_products, query, block)
        if "bias" in totals:
            result["bias"] = to_bias(of_scores, given.bias, totals["bias"], block)
        if "offset_bias" in totals:
            result["offset_bias"] = to_offset_bias(
                of_scores, given.offset_bias, totals["offset_bias"], block, queries
            )
        if not {"position_query", "position_key"} & totals.keys():
            return result
        of_offsets = to_offsets(of_products)
        if "position_query" in totals:
            part = from_keys(of_offsets, block.band(heads.position_key, queries))
            part = part.swapaxes(1, 2)
            result["position_query"] = added(totals["position_query"], part, (0, block.t, 0, 0))
        if "position_key" in totals:
            query = self.finite(near.position_query)
            part = from_queries(of_offsets, query, heads.position_key.shape[1])
            start = (0, 0, 0, block.first_offset(queries))
            result["position_key"] = added(totals["position_key"], part, start)
        return result

    def finished(self, name: str, total: Any) -> Any:
        """A sum as the gradient of its operand."""
        given = getattr(self.heads.given, name)
        if name in ("key", "value") and self.in_rows:
            total = total.swapaxes(1, 2)
        elif name in ("key", "value", "position_key"):
            total = total.transpose(0, 3, 1, 2)
        return reduced_rows(total, given.shape[0]).astype(given.dtype)


def may_see_nothing(given: Operands, options: Static) -> bool:
    """Whether there may be a query that sees no key: in causal order alone each sees the first."""
    hiding = (
        given.mask,
        given.query_lengths,
        given.key_lengths,
        given.query_segments,
        given.bias,
        given.offset_bias,
        options.window,
    )
    return any(one is not None for one in hiding)


def reduced_rows(total: Any, rows: int) -> Any:
    """(B, ...) summed to b rows."""
    return reduced(total, (rows, *total.shape[1:])) if total.shape[0] != rows else total


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], shape[3], shape[2])
