"""The convention for rows, of ``kernels.dispatch``, as functions. There may be no rows."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
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


def map_of_none(function: Callable, arrays: Sequence[Any], axes: Sequence[int | None]) -> list[Any]:
    """What a map over an axis of size 0 gives: the outputs' shapes are those of one element.

    Example:
        >>> [a.shape for a in map_of_none(lambda x, y: [x + y], [jnp.ones((3, 0)), 1.0], [1, None])]
        [(0, 3)]
    """
    elements = [
        jax.ShapeDtypeStruct(
            tuple(n for i, n in enumerate(jnp.shape(a)) if i != axis), jnp.result_type(a)
        )
        for a, axis in zip(arrays, axes, strict=True)
    ]
    return [jnp.zeros((0, *e.shape), e.dtype) for e in jax.eval_shape(function, *elements)]
