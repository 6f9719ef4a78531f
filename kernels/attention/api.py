"""The public attention operations: arguments to operands, and the one operation behind all.

Axes: B batch, T queries, S keys, N heads, K key heads (N is a multiple of K), H dimensions of a
head, W width of a filter, R = T + S - 1 offsets between a key and a query.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels.arguments import counted, truth_values
from kernels.attention import checks, dropout
from kernels.attention.operands import Operands
from kernels.dispatch import Operation, check_implementation
from kernels.precision import wide

_operation = Operation(
    "attention",
    {
        "xla": "kernels.attention.xla",
        "triton": "kernels.attention.kernel",
        "cudnn": "kernels.attention.cudnn",
    },
    derivatives="kernels.attention.derivatives",
    outputs=2,
    saves=True,
)

BiasFunction = Callable[[Int[Array, " R"]], Float[Array, "N R"] | Float[Array, " R"]]


def attention(
    query: Float[Array, "*B T N H"],
    key: Float[Array, "*B S K H"],
    value: Float[Array, "*B S K H"],
    bias: Float[Array, "*#B #N #T #S"] | None = None,
    mask: Bool[Array, "*#B #N #T #S"] | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    query_seq_lengths: Int[Array, " B"] | None = None,
    key_value_seq_lengths: Int[Array, " B"] | None = None,
    local_window_size: int | tuple[int | None, int | None] | None = None,
    implementation: str | None = None,
    return_residual: bool = False,
    query_segment_ids: Int[Array, "B T"] | None = None,
    key_value_segment_ids: Int[Array, "B S"] | None = None,
    logits_soft_cap: float | None = None,
    bias_fn: BiasFunction | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Float[Array, "*B T N H"] | Any:  # the pair with return_residual, which few must tell apart
    """Average the values by how well each key answers each query.

    out[t] = sum_s p[t, s] value[s],  p[t] = softmax over the keys s that t sees of
    cap(query[t] . key[s] scale + bias[t, s] + bias_fn(s - t)),  cap(x) = c tanh(x / c)

    Takes the place of ``jax.nn.dot_product_attention``: the arguments up to ``return_residual`` are
    its own. Two things differ. A query that sees nothing gives zeros with a residual of -inf
    (there: the mean of all values, and a large negative number). The residual has a gradient
    (there: none). Every floating operand has a gradient of any order, the bias in whatever shape
    it comes.

    Args:
        query: (B, T, N, H) or (T, N, H); float32, bfloat16, float16, or float64 in XLA.
        key: (B, S, K, H) or (S, K, H), of the same dtype; query head n uses key head n // (N / K).
        value: as ``key``.
        bias: added to the scores; broadcastable to (B, N, T, S), leading axes may be missing. A
            score of -inf is not seen.
        mask: True where query t may see key s; broadcastable likewise.
        scale: of the products, 1 / sqrt(H) by default.
        is_causal: query t sees keys up to t, counted from the first of both also where T != S.
        query_seq_lengths: number of valid queries of each row, (B,); the others give zeros.
        key_value_seq_lengths: number of valid keys of each row, (B,). What lies beyond a length may
            be NaN: it changes nothing.
        local_window_size: query t sees keys from t - left to t + right; one number is both,
            ``None`` in a pair is no bound.
        implementation: ``"xla"``, ``"triton"``, ``"cudnn"``, or ``None`` for the fastest that can.
        return_residual: give log sum exp of each query's scores too.
        query_segment_ids: (B, T); a query sees the keys of its own segment. Any integers; those of
            64 bits, which only ``jax_enable_x64`` has, are sorted first.
        key_value_segment_ids: (B, S).
        logits_soft_cap: c above; scores lie within (-c, c). It comes after the biases, so that one
            of -inf gives -c: use ``mask`` to hide keys.
        bias_fn: a bias by offset alone: takes the offsets s - t that occur, (R,) int32, and gives
            (N, R) or (R,). No (N, T, S) array is made of it. See ``kernels.alibi`` and its like.
        dropout_rate: probability with which each p[t, s] is dropped; the others grow by 1 / (1 -
            rate).
        dropout_key: of ``jax.random``; decides which, the same ones in every implementation.

    Returns:
        (B, T, N, H) or (T, N, H) in the dtype of ``query``; with ``return_residual`` the pair of
        that and (B, T, N) or (T, N), natural logarithms in the same dtype, without dropout.

    Raises:
        ValueError: an argument that does not fit the others.
        NotImplementedError: ``implementation`` cannot compute this, with the reason.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.eye(3)[:, None, :]  # three frames, one head
        >>> attention(x, x, x, is_causal=True, scale=100.0)[:, 0].round()
        Array([[1., 0., 0.],
               [0., 1., 0.],
               [0., 0., 1.]], dtype=float32)

    Sources: Vaswani et al., "Attention is all you need", 2017; computed as in Dao,
    "FlashAttention-2", 2023; grouped heads Ainslie et al. 2023; soft cap Gemma Team 2024.
    """
    return _attend(
        query,
        key,
        value,
        bias,
        mask,
        scale=scale,
        is_causal=is_causal,
        query_seq_lengths=query_seq_lengths,
        key_value_seq_lengths=key_value_seq_lengths,
        local_window_size=local_window_size,
        implementation=implementation,
        return_residual=return_residual,
        query_segment_ids=query_segment_ids,
        key_value_segment_ids=key_value_segment_ids,
        logits_soft_cap=logits_soft_cap,
        bias_fn=bias_fn,
        dropout_rate=dropout_rate,
        dropout_key=dropout_key,
    )


def relative_attention(
    query: Float[Array, "*B T N H"],
    key: Float[Array, "*B S K H"],
    value: Float[Array, "*B S K H"],
    position_key: Float[Array, "R N H"],
    content_bias: Float[Array, "N H"] | None,
    position_bias: Float[Array, "N H"] | None,
    mask: Bool[Array, "*#B #N #T #S"] | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    query_seq_lengths: Int[Array, " B"] | None = None,
    key_value_seq_lengths: Int[Array, " B"] | None = None,
    implementation: str | None = None,
) -> Float[Array, "*B T N H"]:
    """Attention that also scores how far each key is from the query.

    out = softmax(((q + u) k' + shift((q + v) r')) scale) value,
    shift(x)[t, s] = x[t, T - 1 - (t - s)]: query t meets key s at the row of r for offset t - s

    The (B, N, T, R) products with all offsets are not kept.

    Args:
        query: q, (B, T, N, H) or (T, N, H); float32, bfloat16, float16, or float64 in XLA.
        key: k, (B, S, K, H); query head n uses key head n // (N / K).
        value: as ``key``.
        position_key: r, (T + S - 1, N, H), of the same dtype: for offsets t - s from T - 1 down to
            -(S - 1); (2 T - 1, N, H) where queries and keys are the same frames. Transformer-XL
            projects sinusoids, Shaw clips (``kernels.shaw_position_keys``).
        content_bias: u, (N, H); ``None`` for zero.
        position_bias: v, (N, H); ``None`` for zero.
        mask: True where query t may see key s; broadcastable to (B, N, T, S).
        scale: 1 / sqrt(H) by default.
        is_causal: query t sees keys up to t.
        query_seq_lengths: number of valid queries of each row, (B,).
        key_value_seq_lengths: number of valid keys of each row, (B,).
        implementation: ``"xla"``, ``"triton"``, or ``None`` for the fastest on the platform.

    Returns:
        In the shape and dtype of ``query``; zeros for a query that sees nothing.

    Raises:
        ValueError: an argument that does not fit the others.
        NotImplementedError: ``implementation`` cannot compute this, with the reason.

    Example:
        >>> import jax.numpy as jnp
        >>> frames, heads, width = 4, 2, 8
        >>> x, u = jnp.ones((1, frames, heads, width)), jnp.ones((heads, width))
        >>> r = jnp.ones((2 * frames - 1, heads, width))
        >>> relative_attention(x, x, x, r, u, u).shape
        (1, 4, 2, 8)

    Sources: Dai et al., "Transformer-XL", 2019; Gulati et al., "Conformer", 2020; Shaw, Uszkoreit,
    Vaswani, "Self-attention with relative position representations", 2018.
    """
    truth_values(is_causal=is_causal)
    given = checks.of_batch(
        {
            "query": query,
            "key": key,
            "value": value,
            "position_key": position_key,
            "content_bias": content_bias,
            "position_bias": position_bias,
            "mask": mask,
            "query_seq_lengths": query_seq_lengths,
            "key_value_seq_lengths": key_value_seq_lengths,
        }
    )
    content, position = (
        given["query"] + given[name][None, None] if name in given else given["query"]
        for name in ("content_bias", "position_bias")
    )
    queries, keys = content.shape[1], given["key"].shape[1]
    operands = Operands(
        content,
        given["key"],
        given["value"],
        position_query=position,
        position_key=given["position_key"][None],
        mask=given.get("mask"),
        query_lengths=counted(given.get("query_seq_lengths"), queries),
        key_lengths=counted(given.get("key_value_seq_lengths"), keys),
    )
    out, _ = _bind(
        operands,
        scale=checks.scale_of(scale, content.shape[3]),
        causal=is_causal,
        window=None,
        soft_cap=None,
        dropout_rate=0.0,
        implementation=implementation,
    )
    return out.reshape(jnp.shape(query))


def conv_attention(
    query: Float[Array, "*B T N H"],
    key: Float[Array, "*B S K H"],
    value: Float[Array, "*B S K H"],
    key_filter: Float[Array, "W K H"] | Float[Array, "W K 1"] | Float[Array, "W K"],
    bias: Float[Array, "*#B #N #T #S"] | None = None,
    mask: Bool[Array, "*#B #N #T #S"] | None = None,
    *,
    is_causal: bool = False,
    implementation: str | None = None,
    **options: Any,
) -> Float[Array, "*B T N H"] | Any:
    """Attention to keys that were filtered along the sequence, each channel on its own.

    out = softmax(Q (K * w)' scale + bias) V,  (K * w)[s] = sum_j K[s + j - left] w[j]

    left is W - 1 with ``is_causal``, so that no key knows of later frames, and (W - 1) // 2
    without. Frames beyond ``key_value_seq_lengths`` or in another segment count as zero, as if each
    sequence were alone.

    Args:
        query: (B, T, N, H) or (T, N, H).
        key: (B, S, K, H) or (S, K, H).
        value: as ``key``.
        key_filter: w, (W, K, H) for every channel its own, (W, K) or (W, K, 1) for one per head;
            in the dtype of ``key``.
        bias: as in ``attention``.
        mask: as in ``attention``.
        is_causal: query t sees keys up to t, and these know nothing of later frames.
        implementation: as in ``attention``. Triton filters short sequences as it loads them; what
            else there is, and the gradient, has them from ``kernels.depthwise_conv1d``.
        **options: the other keyword arguments of ``attention``.

    Returns:
        What ``attention`` gives.

    Raises:
        ValueError: an argument that does not fit the others.
        TypeError: an option that ``attention`` has not.
        NotImplementedError: ``implementation`` cannot compute this, with the reason.

    Example:
        >>> import jax.numpy as jnp
        >>> x, identity = jnp.ones((1, 5, 2, 8)), jnp.ones((1, 2))
        >>> bool(jnp.allclose(conv_attention(x, x, x, identity), attention(x, x, x)))
        True

    Sources: So et al., "Primer: searching for efficient transformers for language modeling", 2021
    (depthwise convolution of the projected keys), with the filters of Wu et al., 2019.
    """
    unknown = options.keys() - inspect.signature(attention).parameters.keys()
    if unknown:
        raise TypeError(
            f"conv_attention takes the keyword arguments of attention; received {sorted(unknown)}."
        )
    return _attend(
        query, key, value, bias, mask, key_filter=key_filter, is_causal=is_causal,
        implementation=implementation, **options,
    )  # fmt: skip


def _attend(
    query: Any,
    key: Any,
    value: Any,
    bias: Any,
    mask: Any,
    *,
    key_filter: Any = None,
    scale: float | None = None,
    is_causal: bool = False,
    query_seq_lengths: Any = None,
    key_value_seq_lengths: Any = None,
    local_window_size: int | tuple[int | None, int | None] | None = None,
    implementation: str | None = None,
    return_residual: bool = False,
    query_segment_ids: Any = None,
    key_value_segment_ids: Any = None,
    logits_soft_cap: float | None = None,
    bias_fn: BiasFunction | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Any = None,
) -> Any:
    """``attention`` and ``conv_attention``."""
    truth_values(is_causal=is_causal, return_residual=return_residual)
    given = checks.of_batch(
        {
            "query": query,
            "key": key,
            "value": value,
            "key_filter": key_filter,
            "bias": bias,
            "mask": mask,
            "query_seq_lengths": query_seq_lengths,
            "key_value_seq_lengths": key_value_seq_lengths,
            "query_segment_ids": query_segment_ids,
            "key_value_segment_ids": key_value_segment_ids,
        }
    )
    rows, queries, heads, width = given["query"].shape
    keys = given["key"].shape[1]
    segments = checks.segments_of(*map(given.get, ("query_segment_ids", "key_value_segment_ids")))
    rate = checks.dropout_of(dropout_rate, dropout_key)
    operands = Operands(
        given["query"],
        given["key"],
        given["value"],
        bias=given.get("bias"),
        offset_bias=_by_offset(bias_fn, queries, keys, heads),
        mask=given.get("mask"),
        query_lengths=counted(given.get("query_seq_lengths"), queries),
        key_lengths=counted(given.get("key_value_seq_lengths"), keys),
        query_segments=segments[0],
        key_segments=segments[1],
        dropout_seeds=dropout.seeds(dropout_key, rows, heads) if rate else None,
        key_filter=_of_every_channel(given.get("key_filter"), given["key"]),
    )
    out, residual = _bind(
        operands,
        scale=checks.scale_of(scale, width),
        causal=is_causal,
        window=checks.window_of(local_window_size, queries, keys),
        soft_cap=checks.soft_cap_of(logits_soft_cap),
        dropout_rate=rate,
        implementation=implementation,
    )
    out = out.reshape(jnp.shape(query))
    if not return_residual:
        return out
    return out, residual.astype(out.dtype).reshape(jnp.shape(query)[:-1])


def _bind(operands: Operands, **options: Any) -> Any:
    """Output (B, T, N, H) and residual (B, T, N); without a query or a key there is no sum."""
    rows, queries, heads, _ = operands.query.shape
    if 0 in (*operands.query.shape, *operands.key.shape):
        check_implementation(options["implementation"])
        residual = jnp.full((rows, queries, heads), -jnp.inf, wide(operands.query.dtype))
        return jnp.zeros_like(operands.query), residual
    return _operation(*operands, **options)


def _of_every_channel(key_filter: Any, key: Any) -> Any:
    """(W, K, H), (W, K, 1) or (W, K) -> (1, W, K, H)."""
    if key_filter is None:
        return None
    if key_filter.ndim == 2:
        key_filter = key_filter[:, :, None]
    return jnp.broadcast_to(key_filter, (len(key_filter), *key.shape[2:]))[None]


def _by_offset(function: BiasFunction | None, queries: int, keys: int, heads: int) -> Any:
    """What a bias function gives, once for each offset: (1, 1 or N, R)."""
    if function is None:
        return None
    offsets = jnp.arange(1 - queries, keys, dtype=jnp.int32)
    bias = jnp.asarray(function(offsets))
    if (
        bias.shape not in ((offsets.size,), (1, offsets.size), (heads, offsets.size))
    ) or not jnp.issubdtype(bias.dtype, jnp.floating):
        raise ValueError(
            f"bias_fn must turn the {offsets.size} offsets into floating point numbers of shape "
            f"(N, R) = {(heads, offsets.size)} or (R,) = {(offsets.size,)}; received {bias.shape} "
            f"{bias.dtype}. Heads come first: transpose a table that is indexed by offset."
        )
    return bias.reshape(1, -1, offsets.size)
