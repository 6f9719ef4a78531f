"""Attention as Flax Linen calls it; nothing of Flax is imported.

Axes: N heads, T queries, S keys, H dimensions of a head, ... batch.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels.arguments import as_array
from kernels.attention.api import attention

_PER_ROW = {
    "query_seq_lengths", "key_value_seq_lengths", "query_segment_ids", "key_value_segment_ids",
}  # fmt: skip


def attention_fn(
    query: Float[Array, "... T N H"],
    key: Float[Array, "... S N H"],
    value: Float[Array, "... S N H"],
    bias: Float[Array, "... #N #T #S"] | None = None,
    mask: Bool[Array, "... #N #T #S"] | None = None,
    broadcast_dropout: bool = True,
    dropout_rng: Array | None = None,
    dropout_rate: float = 0.0,
    deterministic: bool = False,
    dtype: Any = None,
    precision: Any = None,
    module: Any = None,
    **options: Any,
) -> Float[Array, "... T N H"]:
    """``attention`` with the arguments of ``flax.linen.dot_product_attention``.

    For ``nn.MultiHeadDotProductAttention(attention_fn=kernels.attention_fn)``; options of
    ``attention`` are added with ``functools.partial(kernels.attention_fn, is_causal=True)``.

    Four things differ from Linen's own. A query that sees no key gives zeros, where Linen gives the
    mean of all values: so do the padded queries of ``nn.make_attention_mask``. Dropout is drawn for
    every row and head, whatever ``broadcast_dropout`` says, which is there to save memory that is
    not used here. ``precision`` is ignored: products of float32 are exact to float32, those of 16
    bits accumulate in float32, and the softmax is in float32. The weights are never in memory, so
    none can be sown.

    Args:
        query: (..., T, N, H), with any number of batch axes.
        key: (..., S, N, H).
        value: (..., S, N, H).
        bias: broadcastable to (..., N, T, S).
        mask: likewise; True where query t may see key s. Other dtypes count as True where not zero.
        broadcast_dropout: ignored, see above.
        dropout_rng: key for dropout.
        dropout_rate: probability of dropping a weight.
        deterministic: drop nothing.
        dtype: of the computation; by default what query, key and value promote to.
        precision: ignored, see above.
        module: must be ``None``: ``sow_weights=True`` passes one.
        **options: of ``attention``. Lengths and segment ids have the batch axes of ``query``, (...)
            and (..., T) or (..., S); or one for all of them, as ``attention`` takes it.

    Returns:
        (..., T, N, H) in ``dtype``; with ``return_residual`` the pair of that and (..., T, N).

    Raises:
        ValueError: as ``attention``, batch axes that differ, or a ``module`` to sow weights into.
        NotImplementedError: as ``attention``.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.ones((2, 3, 5, 4, 8))  # two batch axes
        >>> attention_fn(x, x, x).shape
        (2, 3, 5, 4, 8)
    """
    del broadcast_dropout, precision
    if module is not None:
        raise ValueError(
            "attention_fn keeps no weights, so module must be None; received "
            f"{type(module).__name__}. Call the module with sow_weights=False, or use Linen's own "
            "attention to look at weights."
        )
    if dtype is None:
        dtype = jnp.result_type(query, key, value)
    query, key, value = (jnp.asarray(a).astype(dtype) for a in (query, key, value))
    batch = query.shape[:-3]
    if min(query.ndim, key.ndim, value.ndim) < 3 or not batch == key.shape[:-3] == value.shape[:-3]:
        raise ValueError(
            "query (..., T, N, H), key and value (..., S, N, H) must have the same batch axes; "
            f"received query {query.shape}, key {key.shape} and value {value.shape}. Broadcast "
            "what all of a batch share."
        )
    if mask is not None:
        mask = jnp.asarray(mask).astype(bool)
    bias, mask = (_folded(name, a, batch) for name, a in (("bias", bias), ("mask", mask)))
    options |= {name: _by_row(name, options[name], batch) for name in _PER_ROW & options.keys()}
    drops = dropout_rate > 0 and not deterministic
    rows = math.prod(batch)
    query, key, value = (a.reshape(rows, *a.shape[-3:]) for a in (query, key, value))
    out = attention(
        query,
        key,
        value,
        bias,
        mask,
        dropout_rate=dropout_rate if drops else 0.0,
        dropout_key=dropout_rng if drops else None,
        **options,
    )
    # (B, T, N, H), and (B, T, N) beside it with return_residual.
    return jax.tree.map(lambda a: jnp.asarray(a).reshape(*batch, *a.shape[1:]), out)


def _folded(name: str, array: Any, batch: tuple[int, ...]) -> Any:
    """(..., N, T, S) -> (B, N, T, S), or (1, N, T, S) where no batch axis is there in full."""
    if array is None:
        return None
    array = jnp.asarray(array)
    leading, rest = array.shape[:-3], array.shape[-3:]
    if math.prod(leading) == 1:
        return array.reshape(1, *[1] * (3 - len(rest)), *rest)
    wide = array.reshape(*[1] * (len(batch) - len(leading)), *array.shape)
    if wide.ndim != len(batch) + 3 or any(
        size not in (1, all_) for size, all_ in zip(wide.shape, batch, strict=False)
    ):
        raise ValueError(
            f"{name} must be broadcastable to (..., N, T, S), for the batch axes {batch} of query; "
            f"received {array.shape}. Check the order of the axes."
        )
    return jnp.broadcast_to(wide, (*batch, *rest)).reshape(math.prod(batch), *rest)


def _by_row(name: str, array: Any, batch: tuple[int, ...]) -> Any:
    """Lengths (...) -> (B,), ids (..., T) -> (B, T); what has one batch axis stays as it is."""
    if array is None:
        return None
    array = as_array(name, array)
    own = array.shape[len(batch) :]
    if array.shape[: len(batch)] != batch or len(own) != name.endswith("ids"):
        return array
    return array.reshape(math.prod(batch), *own)
