"""Attention in plain XLA, for CPU and TPU: one block of scores at a time.

Up to a measured number of scores one block is everything: the plain form. Above it, queries are
taken in blocks, and for each the keys that it may see, with the softmax put together from blocks
(Milakov and Gimelshein 2018, Rabe and Staats 2021); the backward pass computes each block again
from each query's maximum and sum (Dao et al. 2022). Blocks that nothing sees are not visited. For
values alone, with nothing hidden, a block has all keys: XLA fuses that, if no selection is in it.
The mathematics and what was measured are in the README; what is inside a block, in ``xla_scores``.

Axes: B rows, N heads, K key heads, H dimensions of a head, T queries, S keys; P and L in a block.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from kernels.attention.convolved import after_filter
from kernels.attention.operands import Operands
from kernels.attention.xla_backward import Backward, may_see_nothing
from kernels.attention.xla_blocks import Plan
from kernels.attention.xla_scores import (
    Block,
    Heads,
    Near,
    Static,
    from_keys,
    heads_first,
    kept,
    scores,
    without_dropped,
)
from kernels.dispatch import Implementation
from kernels.precision import wide


class Softmax(NamedTuple):
    """Sums over some of the keys, relative to e^highest: (B, N, P), (B, N, P), (B, N, P, H)."""

    highest: Any
    total: Any
    weighted: Any


def forward(*operands, **static):
    """Output (B, T, N, H) and residual (B, T, N), the log of the softmax's denominator."""
    return _both("forward", *operands, **static)[0]


def saving(*operands, **static):
    """The outputs; and for the gradient the output, each query's highest score and its sum.

    Both and not only the residual, which is rounded: where all scores are -1e9 it has no digits
    left for the log of the sum.
    """
    return _both("saving", *operands, **static)


def _both(pass_, *operands, **static):
    given, options = Operands(*operands), Static(**static)
    heads = heads_first(given)
    plan = Plan.of(heads, options, pass_=pass_)
    hides = may_see_nothing(given, options)
    rows, count, queries, _ = heads.sizes
    sums = wide(given.query.dtype)
    per_query = jnp.zeros((rows, queries, count), sums)
    start = (jnp.zeros(given.query.shape, given.query.dtype), per_query, per_query)

    def of_queries(i, results):
        near = heads.near(plan.block(i, 0))

        def of_keys(j, so_far):
            # Queries that the block before had may be computed again: they come out the same.
            block = plan.block(i, j)._replace(new_t=None)
            found = block_softmax(heads, near, block, options)
            return found if plan.keys == plan.all_keys else merged(so_far, found)

        nothing = nothing_seen((rows, count, plan.queries), given.query.shape[3], sums)
        found = plan.each_key(i, of_keys, nothing)
        highest, total, _ = found
        if hides:
            some = total > 0
            total = jnp.where(some, total, jnp.ones_like(total))
            highest = jnp.where(some, highest, -jnp.inf)
        out = found.weighted / total[..., None]
        parts = (jnp.swapaxes(array, 1, 2) for array in (out, highest, total))
        parts = tuple(p.astype(whole.dtype) for p, whole in zip(parts, results, strict=True))
        if plan.queries == plan.all_queries:
            return parts
        t = plan.first_query(i)
        return tuple(
            lax.dynamic_update_slice_in_dim(whole, part, t, 1)
            for whole, part in zip(results, parts, strict=True)
        )

    out, highest, total = plan.each_query(of_queries, start)
    return (out, highest + jnp.log(total)), (out, highest, total)


def gradient(operands, saved, cotangents, wanted, **static):
    """The cotangents of what is wanted, in order."""
    given, options = Operands(*operands), Static(**static)
    heads = heads_first(given)
    plan = Plan.of(heads, options, pass_="backward")
    back = Backward.of(heads, saved, cotangents, options)
    names = [name for name, want in zip(Operands._fields, wanted, strict=True) if want]
    totals = {name: back.room(name) for name in names}

    def of_queries(i, totals):
        near = back.near(plan.block(i, 0))

        def of_keys(j, totals):
            return near.with_block(totals, plan.block(i, j))

        return plan.each_key(i, of_keys, totals)

    totals = plan.each_query(of_queries, totals)
    return tuple(back.finished(name, totals[name]) for name in names)


def block_softmax(heads: Heads, near: Near, block: Block, options: Static) -> Softmax:
    """The sums of one block; of nothing seen, all zero."""
    found, _ = scores(heads, near, block, options)
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


attention = after_filter(Implementation(forward, gradient, saving=saving), "xla")
