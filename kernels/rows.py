"""The convention for rows, of ``kernels.dispatch``, as a function."""

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
