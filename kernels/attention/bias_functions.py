"""Biases that depend on the offset between key and query alone, for ``attention(bias_fn=...)``.

Each gives a function of the offsets s - t, (R,) int32, that ``attention`` calls once. What they are
made of has gradients through it.

Axes: N heads, R offsets, H dimensions of a head.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels.arguments import whole_number


def alibi(slopes: int | Float[Array, " N"]) -> Callable[[Any], Any]:
    """Scores fall with distance, in each head at its own rate: -slope |s - t|.

    Args:
        slopes: (N,), or the number of heads for the slopes of the paper: 2^(-8 n / N), n from 1 to
            N, where N is a power of two; else those of the power below, filled up with every other
            one of the power above.

    Returns:
        A ``bias_fn``.

    Raises:
        ValueError: not one slope per head, or no head.

    Example:
        >>> import jax.numpy as jnp
        >>> alibi(2)(jnp.arange(-2, 1))
        Array([[-0.125     , -0.0625    ,  0.        ],
               [-0.0078125 , -0.00390625,  0.        ]], dtype=float32)

    Source: Press, Smith, Lewis, "Train short, test long", 2022.
    """
    heads = whole_number(slopes)
    if heads is not None:
        if heads < 1:
            raise ValueError(f"alibi needs at least one head; received {slopes}.")
        rates: Any = jnp.asarray(_paper_slopes(heads), jnp.float32)
    else:
        rates = jnp.asarray(slopes)
        if rates.ndim != 1 or not jnp.issubdtype(rates.dtype, jnp.floating):
            raise ValueError(
                "slopes must be the number of heads, known while tracing, or one floating point "
                "number per head, (N,); "
                f"received {rates.shape} {rates.dtype}."
            )
    return lambda offsets: rates[:, None] * (-jnp.abs(offsets)).astype(rates.dtype)[None, :]


def _paper_slopes(heads: int) -> list[float]:
    power = 2 ** int(math.log2(heads))
    slopes = [2 ** (-8 * n / power) for n in range(1, power + 1)]
    between = [2 ** (-8 * n / (2 * power)) for n in range(1, 2 * power + 1, 2)]
    return slopes + between[: heads - power]


def t5_bias(
    table: Float[Array, "buckets N"], *, bidirectional: bool = True, max_distance: int = 128
) -> Callable[[Any], Any]:
    """Offsets in buckets: near ones each their own, far ones by the logarithm of the distance.

    Args:
        table: a learned bias for each bucket and head, (buckets, N).
        bidirectional: half of the buckets are for keys after the query; else those keys count as
            distance 0, for causal attention.
        max_distance: from here on all distances share the last bucket.

    Returns:
        A ``bias_fn``.

    Raises:
        ValueError: a table that is not (buckets, N), or too few buckets or distances.

    Example:
        >>> import jax.numpy as jnp
        >>> names = jnp.arange(8.0)[:, None]  # the bias of a bucket is its number
        >>> t5_bias(names, max_distance=16)(jnp.array([-20, -2, -1, 0, 1, 20]))[0].astype(int)
        Array([3, 2, 1, 0, 5, 7], dtype=int32)

    Source: Raffel et al., "Exploring the limits of transfer learning", 2020.
    """
    table = _table("t5_bias", table, "(buckets, N)")
    buckets = table.shape[0] // 2 if bidirectional else table.shape[0]
    exact = buckets // 2
    if exact < 1 or max_distance <= exact:
        raise ValueError(
            f"t5_bias needs 2 buckets in each direction, and max_distance beyond the {exact} that "
            f"are exact; received {table.shape[0]} buckets, bidirectional={bidirectional} and "
            f"max_distance={max_distance}."
        )
    distance = np.arange(max_distance + 1)
    # As in T5X: the logarithm of a power must not fall below it by rounding.
    ratio = np.log(np.maximum(distance, 1) / exact + np.finfo(np.float32).eps)
    far = exact + (ratio / np.log(max_distance / exact) * (buckets - exact)).astype(np.int64)
    chosen = np.where(distance < exact, distance, np.minimum(far, buckets - 1)).astype(np.int32)

    def bias(offsets):
        before = jnp.maximum(-offsets, 0)
        distances = jnp.abs(offsets) if bidirectional else before
        bucket = jnp.asarray(chosen)[jnp.minimum(distances, max_distance)]
        if bidirectional:
            bucket += jnp.where(offsets > 0, jnp.int32(buckets), jnp.int32(0))
        return table[bucket].T

    return bias


def clamped_bias(table: Float[Array, "C N"]) -> Callable[[Any], Any]:
    """A learned bias for each offset from -c to c; those beyond share the outermost.

    Args:
        table: (2 c + 1, N); row c is for a query's own position.

    Returns:
        A ``bias_fn``.

    Raises:
        ValueError: a table that is not (2 c + 1, N).

    Example:
        >>> import jax.numpy as jnp
        >>> clamped_bias(jnp.array([[-1.0], [0.0], [1.0]]))(jnp.arange(-3, 4))
        Array([[-1., -1., -1.,  0.,  1.,  1.,  1.]], dtype=float32)

    Source: the scalar form of Shaw, Uszkoreit, Vaswani, 2018.
    """
    table = _table("clamped_bias", table, "(2 c + 1, N)")
    reach = _reach("clamped_bias", table)
    return lambda offsets: table[jnp.clip(offsets, -reach, reach) + reach].T


def shaw_position_keys(
    table: Float[Array, "C N H"], queries: int, keys: int | None = None
) -> Float[Array, "R N H"]:
    """Clipped relative keys, as ``relative_attention`` takes them.

    score[t, s] = query[t] . (key[s] + table[clip(s - t, -c, c) + c]) scale

    Args:
        table: (2 c + 1, N, H); row c is for a query's own position.
        queries: T.
        keys: S, T by default.

    Returns:
        ``position_key``, (T + S - 1, N, H); use ``None`` for both biases.

    Raises:
        ValueError: a table that is not (2 c + 1, N, H).

    Example:
        >>> import jax.numpy as jnp
        >>> shaw_position_keys(jnp.arange(3.0).reshape(3, 1, 1), 4)[:, 0, 0]
        Array([0., 0., 0., 1., 2., 2., 2.], dtype=float32)

    Source: Shaw, Uszkoreit, Vaswani, "Self-attention with relative position representations", 2018.
    """
    table = _table("shaw_position_keys", table, "(2 c + 1, N, H)")
    reach = _reach("shaw_position_keys", table)
    offsets = jnp.arange(1 - queries, queries if keys is None else keys, dtype=jnp.int32)
    return table[jnp.clip(offsets, -reach, reach) + reach]


def _table(name: str, table: Any, wanted: str) -> Any:
    table = jnp.asarray(table)
    if table.ndim != wanted.count(",") + 1 or not jnp.issubdtype(table.dtype, jnp.floating):
        raise ValueError(
            f"{name} takes a floating point table {wanted}; received {table.shape} {table.dtype}."
        )
    return table


def _reach(name: str, table: Any) -> int:
    if table.shape[0] % 2 == 0:
        raise ValueError(
            f"{name} takes an odd number of rows, one for each offset from -c to c; received "
            f"{table.shape[0]}. Did one direction lose its zero?"
        )
    return table.shape[0] // 2
