"""The precision of sums, as a function of what is summed."""

from typing import Any

import jax.numpy as jnp


def wide(dtype: Any) -> Any:
    """What sums are in: float32, but float64 for float64.

    Example:
        >>> wide(jnp.bfloat16).__name__
        'float32'
    """
    return jnp.float64 if dtype == jnp.float64 else jnp.float32
