"""The convention for rows, of ``kernels.dispatch``, as functions. There may be no rows."""

from typing import Any

import jax.numpy as jnp


def of_rows(array: Any, rows: int) -> Any:
    """Row b is row b // (rows / N) of N; jnp.repeat would gather what is sharded.

    Example:
        >>> of_rows(jnp.array([3, 4]), 4)
        Array([3, 3, 4, 4], dtype=int32)
    """
    each = rows // max(array.shape[0], 1)
    wider = jnp.broadcast_to(array[:, None], (array.shape[0], each, *array.shape[1:]))
    return wider.reshape(rows, *array.shape[1:])


def by_rows(array: Any, groups: int) -> Any:
    """(B, ...) -> (N, B / N, ...): the rows that each of N serves.

    Example:
        >>> by_rows(jnp.arange(4), 2).tolist()
        [[0, 1], [2, 3]]
    """
    return array.reshape(groups, array.shape[0] // max(groups, 1), *array.shape[1:])


def rejoined(array: Any) -> Any:
    """(N, B / N, ...) -> (B, ...), what ``by_rows`` took apart.

    Example:
        >>> rejoined(by_rows(jnp.arange(4), 2)).tolist()
        [0, 1, 2, 3]
    """
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
