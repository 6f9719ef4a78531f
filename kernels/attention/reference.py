"""The definition: every score in memory, slow, plain. Tests and second derivatives use it.

Right to every order of derivative: where a masked score would give NaN, its argument is replaced
before it is used. In bfloat16 and float16 it rounds where ``jax.nn.dot_product_attention`` does in
XLA: products accumulate in float32, scores and softmax are in float32, probabilities are rounded
to the dtype of the values.

Axes: B rows, T queries, S keys, N heads, K key heads, G = N / K, H dimensions of a head,
R = T + S - 1 offsets, W width of a filter.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.attention import dropout
from kernels.attention.operands import Operands, taps_before
from kernels.precision import wide


def attention(
    query,
    key,
    value,
    bias=None,
    mask=None,
    *,
    scale=None,
    is_causal=False,
    query_seq_lengths=None,
    key_value_seq_lengths=None,
    local_window_size=None,
    return_residual=False,
    query_segment_ids=None,
    key_value_segment_ids=None,
    logits_soft_cap=None,
    bias_fn=None,
    dropout_rate=0.0,
    dropout_key=None,
    key_filter=None,
):
    """softmax(query key' scale + bias) value over the keys that each query sees."""
    rows, queries, heads, width = query.shape
    seeds = None if dropout_key is None else dropout.seeds(dropout_key, rows, heads)
    if bias_fn is not None:
        offsets = np.arange(key.shape[1])[None, :] - np.arange(queries)[:, None]
        added = bias_fn(jnp.asarray(offsets.reshape(-1), jnp.int32))
        added = added.reshape(-1, *offsets.shape)[None].astype(wide(query.dtype))
        bias = added if bias is None else added + _of_rank(bias, 4).astype(added.dtype)
    given = Operands(
        query,
        key,
        value,
        bias=None if bias is None else _of_rank(bias, 4),
        mask=None if mask is None else _of_rank(mask, 4),
        query_lengths=query_seq_lengths,
        key_lengths=key_value_seq_lengths,
        query_segments=query_segment_ids,
        key_segments=key_value_segment_ids,
        dropout_seeds=seeds if dropout_rate else None,
        key_filter=None if key_filter is None else key_filter[None],
    )
    if isinstance(local_window_size, int):
        local_window_size = (local_window_size, local_window_size)
    out, residual = definition(
        given,
        scale=width**-0.5 if scale is None else scale,
        causal=is_causal,
        window=local_window_size,
        soft_cap=logits_soft_cap,
        dropout_rate=dropout_rate,
    )
    return (out, residual.astype(query.dtype)) if return_residual else out


def relative_attention(
    query,
    key,
    value,
    position_key,
    content_bias,
    position_bias,
    mask=None,
    *,
    scale=None,
    is_causal=False,
    query_seq_lengths=None,
    key_value_seq_lengths=None,
):
    """softmax(((q + u) k' + shift((q + v) r')) scale) value."""
    given = Operands(
        query + content_bias[None, None],
        key,
        value,
        position_query=query + position_bias[None, None],
        position_key=position_key[None],
        mask=None if mask is None else _of_rank(mask, 4),
        query_lengths=query_seq_lengths,
        key_lengths=key_value_seq_lengths,
    )
    return definition(
        given,
        scale=query.shape[3] ** -0.5 if scale is None else scale,
        causal=is_causal,
        window=None,
        soft_cap=None,
        dropout_rate=0.0,
    )[0]


def conv_attention(query, key, value, key_filter, bias=None, mask=None, **options):
    """Attention to keys that passed through ``key_filter``, a depthwise filter along the keys."""
    full = (len(key_filter), *key.shape[2:])
    full = jnp.broadcast_to(_of_rank_behind(key_filter, 3), full)
    return attention(query, key, value, bias, mask, key_filter=full, **options)


def definition(given: Operands, *, scale, causal, window, soft_cap, dropout_rate):
    """Output (B, T, N, H) and residual (B, T, N), from operands of B rows or one."""
    if given.key_filter is not None:
        given = given._replace(key=filtered_keys(given, causal), key_filter=None)
    dtype = given.query.dtype
    rows, queries, heads, width = given.query.shape
    keys, key_heads = given.key.shape[1:3]
    seen = jnp.broadcast_to(visible(given, causal, window), (rows, heads, queries, keys))
    by_group = seen.reshape(rows, key_heads, heads // key_heads, queries, keys)
    # What nobody sees may be NaN, and zero times NaN is NaN: in the gradient, too.
    attends = jnp.any(seen, 3).transpose(0, 2, 1)[..., None]
    is_seen = jnp.any(by_group, (2, 3)).transpose(0, 2, 1)[..., None]
    query, position_query = (_where(attends, a) for a in (given.query, given.position_query))
    key, value = (_where(is_seen, a) for a in (given.key, given.value))
    grouped = query.reshape(rows, queries, key_heads, heads // key_heads, width)
    scores = _product("btkgh,bskh->bkgts", grouped, key).reshape(seen.shape)
    if position_query is not None:
        position_key = jnp.broadcast_to(given.position_key, (rows, *given.position_key.shape[1:]))
        scores += by_offset(_product("btnh,brnh->bntr", position_query, position_key))
    scores *= np.asarray(scale, scores.dtype)
    if given.bias is not None:
        scores += given.bias.astype(scores.dtype)
    if given.offset_bias is not None:
        row = given.offset_bias.astype(scores.dtype)[:, :, None]
        scores += by_offset(jnp.broadcast_to(row, (*row.shape[:2], queries, row.shape[3])))
    if soft_cap is not None:
        cap = np.asarray(soft_cap, scores.dtype)
        scores = cap * jnp.tanh(jnp.where(seen, scores, jnp.zeros_like(scores)) / cap)
    probabilities, residual = softmax(scores, seen & (scores != -jnp.inf))
    if given.dropout_seeds is not None:
        keeps = dropout.kept(given.dropout_seeds, queries, keys, dropout_rate)
        probabilities *= keeps.astype(scores.dtype) / np.asarray(1 - dropout_rate, scores.dtype)
    out = _product("bkgts,bskh->btkgh", probabilities.reshape(by_group.shape).astype(dtype), value)
    out = out.reshape(given.query.shape).astype(dtype)
    return out, residual.transpose(0, 2, 1)


def filtered_keys(given: Operands, causal: bool) -> jax.Array:
    """(b, S, K, H): each key the sum of its neighbours in the same sequence, times the filter."""
    taps, keys = given.key_filter.shape[1], given.key.shape[1]
    sums = wide(given.key.dtype)
    s = jnp.arange(keys, dtype=jnp.int32)
    total: Any = 0
    for tap in range(taps):
        source = s + (tap - taps_before(taps, causal))
        clipped = jnp.clip(source, 0, keys - 1)
        counts = ((source >= 0) & (source < keys))[None]
        if given.key_segments is not None:
            counts &= given.key_segments[:, clipped] == given.key_segments
        if given.key_lengths is not None:
            counts &= jnp.maximum(source, s)[None] < given.key_lengths[:, None]
        frames = _where(counts[..., None, None], given.key[:, clipped].astype(sums))
        total += frames * given.key_filter[:, tap].astype(sums)[:, None]
    return total.astype(given.key.dtype)


def visible(given: Operands, causal: bool, window: Any) -> jax.Array:
    """Which keys each query may see: (b, 1 or N, T, S), before any look at the scores."""
    t = jnp.arange(given.query.shape[1], dtype=jnp.int32)[:, None]
    s = jnp.arange(given.key.shape[1], dtype=jnp.int32)[None, :]
    seen = jnp.full((1, 1, len(t), s.shape[1]), True)
    if causal:
        seen &= (s <= t)[None, None]
    if window is not None:
        left, right = window
        if left is not None:
            seen &= (s >= t - left)[None, None]
        if right is not None:
            seen &= (s <= t + right)[None, None]
    if given.mask is not None:
        seen &= given.mask
    if given.query_lengths is not None:
        seen &= (t[None] < given.query_lengths[:, None, None])[:, None]
    if given.key_lengths is not None:
        seen &= (s[None] < given.key_lengths[:, None, None])[:, None]
    if given.query_segments is not None:
        same = given.query_segments[:, :, None] == given.key_segments[:, None, :]
        seen &= same[:, None]
    return seen


def softmax(scores, seen):
    """Probabilities over the last axis, and the log of their denominator; (0, -inf) of nothing."""
    none = ~jnp.any(seen, -1)
    highest = jnp.max(jnp.where(seen, scores, jnp.full_like(scores, -jnp.inf)), -1)
    highest = jax.lax.stop_gradient(jnp.where(none, jnp.zeros_like(highest), highest))
    exponents = jnp.where(seen, scores - highest[..., None], jnp.zeros_like(scores))
    terms = jnp.where(seen, jnp.exp(exponents), jnp.zeros_like(scores))
    total = jnp.where(none, jnp.ones_like(highest), jnp.sum(terms, -1))
    residual = jnp.where(none, jnp.full_like(highest, -jnp.inf), highest + jnp.log(total))
    return terms / total[..., None], residual


def by_offset(array):
    """[..., t, s - t + T - 1] for every t and s: (..., T, T + S - 1) -> (..., T, S).

    Behind one another, the elements wanted lie R - 1 apart from query to query, R = T + S - 1.
    """
    *axes, queries, offsets = array.shape
    keys = offsets - queries + 1
    flat = array.reshape(*axes, queries * offsets)[..., queries - 1 :]
    if queries == 1:
        return flat.reshape(*axes, 1, keys)
    flat = flat[..., : queries * (offsets - 1)]
    return flat.reshape(*axes, queries, offsets - 1)[..., :keys]


def _product(axes: str, a: Any, b: Any) -> jax.Array:
    """Accumulated in float32, as jax.nn does; float32 never in TF32.

    The operands are widened first: the derivatives then have one dtype, and are rounded where they
    leave. A GPU multiplies bfloat16 all the same.
    """
    low = jax.lax.DotAlgorithmPreset.BF16_BF16_F32
    precision: Any = low if a.dtype == jnp.bfloat16 else jax.lax.Precision.HIGHEST
    sums = wide(a.dtype)
    return jnp.einsum(axes, a.astype(sums), b.astype(sums), precision=precision)


def _where(keep: Any, array: Any) -> Any:
    return None if array is None else jnp.where(keep, array, jnp.zeros((), array.dtype))


def _of_rank(array: Any, rank: int) -> Any:
    return array.reshape(*[1] * (rank - array.ndim), *array.shape)


def _of_rank_behind(array: Any, rank: int) -> Any:
    return array.reshape(*array.shape, *[1] * (rank - array.ndim))
