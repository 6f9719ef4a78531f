"""Attention as Flax Linen calls it; nothing of Flax is imported.

Axes: N heads, T queries, S keys, H dimensions of a head, ... batch.
"""

import math
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels.attention.api import attention


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

    Three things differ from Linen's own. Dropout is drawn for every row and head, whatever
    ``broadcast_dropout`` says, which is there to save memory that is not used here. ``precision``
    is ignored: products of float32 are exact to float32, those of 16 bits accumulate in float32,
    and the softmax is in float32. The weights are never in memory, so none can be sown.

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
        **options: of ``attention``.

    Returns:
        (..., T, N, H) in ``dtype``.

    Raises:
        ValueError: as ``attention``, or a ``module`` to sow weights into.
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
    if mask is not None:
        mask = jnp.asarray(mask).astype(bool)
    bias, mask = (_folded(a, batch) for a in (bias, mask))
    drops = dropout_rate > 0 and not deterministic
    out = attention(
        query.reshape(-1, *query.shape[-3:]),
        key.reshape(-1, *key.shape[-3:]),
        value.reshape(-1, *value.shape[-3:]),
        bias,
        mask,
        dropout_rate=dropout_rate if drops else 0.0,
        dropout_key=dropout_rng if drops else None,
        **options,
    )
    return jnp.asarray(out).reshape(query.shape)


def _folded(array: Any, batch: tuple[int, ...]) -> Any:
    """(..., N, T, S) -> (B, N, T, S), or (1, N, T, S) where no batch axis is there in full."""
    if array is None:
        return None
    array = jnp.asarray(array)
    leading, rest = array.shape[:-3], array.shape[-3:]
    if math.prod(leading) == 1:
        return array.reshape(1, *[1] * (3 - len(rest)), *rest)
    full = jnp.broadcast_to(
        array.reshape(*[1] * (len(batch) - len(leading)), *array.shape), (*batch, *rest)
    )
    return full.reshape(-1, *rest)
