"""From a rule for one parameter to an optax pair for a tree of them; which parameters are matrices.

Axes: an array of rank two or more is a matrix (R rows, C columns) whose columns are its last axis,
so that a convolution's HWIO filters are one matrix (H W I, O), and each column is an output.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from kernels.precision import wide


class PerParameterState(NamedTuple):
    """How many updates were made, and what the rule keeps of each parameter."""

    step: Int[Array, ""]
    parameters: Any


def per_parameter(
    init: Callable[[Array], Any], update: Callable[[Array, Any, Array], tuple[Array, Any]]
) -> optax.GradientTransformation:
    """An optax pair from a rule for one parameter; ``widened``, so the rule never sees 16 bits.

    Args:
        init: parameter -> what the rule keeps of it.
        update: gradient, what was kept, number of this update counted from one -> the update and
            what is kept.

    Example:
        >>> mean = per_parameter(jnp.zeros_like, lambda g, m, t: (m + (g - m) / t,) * 2)
        >>> state = mean.init(jnp.zeros(()))
        >>> first, state = mean.update(jnp.asarray(2.0), state)
        >>> second, state = mean.update(jnp.asarray(4.0), state)
        >>> print(first, second)
        2.0 3.0
    """

    def init_all(params):
        return PerParameterState(jnp.zeros((), jnp.int32), jax.tree.map(init, params))

    def update_all(updates, state, params=None):
        del params
        step = state.step + 1
        both = jax.tree.map(lambda g, kept: update(g, kept, step), updates, state.parameters)
        kept = jax.tree.map(lambda _, pair: pair[1], updates, both)
        updates = jax.tree.map(lambda _, pair: pair[0], updates, both)
        return updates, PerParameterState(step, kept)

    return widened(optax.GradientTransformation(init_all, update_all))


def widened(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The transformation, computing in float32 for arrays of 16 bits.

    What it keeps is in float32 and stays so: a bfloat16 average of decay 0.999 would not move, and
    what optax keeps in bfloat16 would turn to float32 where a hyperparameter is traced, which a
    scan refuses. The update has the dtype of the gradient.

    Example:
        >>> optimizer, x = widened(optax.scale_by_adam()), jnp.ones(2, jnp.bfloat16)
        >>> update, state = optimizer.update(x, optimizer.init(x), x)
        >>> print(update.dtype, state.mu.dtype)
        bfloat16 float32
    """

    def init(params):
        return inner.init(jax.tree.map(_wide_array, params))

    def update(updates, state, params=None):
        params = None if params is None else jax.tree.map(_wide_array, params)
        found, state = inner.update(jax.tree.map(_wide_array, updates), state, params)
        return jax.tree.map(lambda u, g: u.astype(g.dtype), found, updates), state

    return optax.GradientTransformation(init, update)


def _wide_array(array):
    return array.astype(wide(array.dtype))


def debiased(moment: Array, decay: Any, count: Array) -> Array:
    """A moving average that started from zero, without the bias: m / (1 - decay^count).

    Example:
        >>> print(debiased(jnp.asarray(1.5), 0.5, jnp.asarray(2)))
        2.0
    """
    return moment / (1.0 - decay**count)


def as_matrix(array: Array) -> Array:
    """Filters (h, w, I, O) as the matrix (h w I, O); what is empty as a vector; the rest as it is.

    Example:
        >>> [as_matrix(jnp.zeros(shape)).shape for shape in ((3, 3, 2, 4), (4,), (0, 3))]
        [(18, 4), (4,), (0,)]
    """
    if not array.size:
        return array.reshape(-1)
    return array.reshape(-1, array.shape[-1]) if array.ndim > 2 else array


def for_matrices(
    matrices: optax.GradientTransformation, others: optax.GradientTransformation
) -> optax.GradientTransformation:
    """One transformation for matrices, another for scalars and vectors (biases, scales).

    Arrays of rank three and more are given to ``matrices`` as (R, C), C their last axis
    (``as_matrix``), and its updates come back in their shape. Whether an array is a matrix is
    decided by its rank alone: an embedding is one.

    Example:
        >>> params = {"filters": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)}
        >>> optimizer = for_matrices(optax.scale(2.0), optax.scale(5.0))
        >>> updates, _ = optimizer.update(params, optimizer.init(params))
        >>> updates["filters"].shape, float(updates["filters"].max()), float(updates["bias"].max())
        ((3, 3, 1, 2), 2.0, 5.0)
    """

    def kinds(params):
        return jax.tree.map(lambda p: "matrix" if p.ndim >= 2 and p.size else "other", params)

    return optax.partition({"matrix": reshaped(matrices, as_matrix), "other": others}, kinds)


def reshaped(
    inner: optax.GradientTransformation, reshape: Callable[[Array], Array]
) -> optax.GradientTransformation:
    """The transformation, seeing every array in another shape.

    Example:
        >>> scalar_too = reshaped(optax.sm3(1.0, 0.0), jnp.atleast_1d)
        >>> update, _ = scalar_too.update(jnp.ones(()), scalar_too.init(jnp.ones(())))
        >>> print(update)
        -1.0
    """

    def init(params):
        return inner.init(jax.tree.map(reshape, params))

    def update(updates, state, params=None):
        params = None if params is None else jax.tree.map(reshape, params)
        found, state = inner.update(jax.tree.map(reshape, updates), state, params)
        return jax.tree.map(lambda u, g: u.reshape(g.shape), found, updates), state

    return optax.GradientTransformation(init, update)
