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
    """An optax pair from a rule for one parameter.

    The rule sees 16-bit gradients in float32, and what it keeps is in float32; the update has the
    dtype of the gradient.

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
        kept = jax.tree.map(lambda parameter: init(_widened(parameter)), params)
        return PerParameterState(jnp.zeros((), jnp.int32), kept)

    def update_all(updates, state, params=None):
        del params
        step = state.step + 1
        both = jax.tree.map(
            lambda g, kept: update(_widened(g), kept, step), updates, state.parameters
        )
        kept = jax.tree.map(lambda _, pair: pair[1], updates, both)
        updates = jax.tree.map(lambda g, pair: pair[0].astype(g.dtype), updates, both)
        return updates, PerParameterState(step, kept)

    return optax.GradientTransformation(init_all, update_all)


def _widened(array):
    return array.astype(wide(array.dtype))


def debiased(moment: Array, decay: Any, count: Array) -> Array:
    """A moving average that started from zero, without the bias: m / (1 - decay^count).

    Example:
        >>> print(debiased(jnp.asarray(1.5), 0.5, jnp.asarray(2)))
        2.0
    """
    return moment / (1.0 - decay**count)


def for_matrices(
    matrices: optax.GradientTransformation, others: optax.GradientTransformation
) -> optax.GradientTransformation:
    """One transformation for matrices, another for scalars and vectors (biases, scales).

    Arrays of rank three and more are given to ``matrices`` as (R, C), C their last axis, and its
    updates come back in their shape. Whether an array is a matrix is decided by its rank alone: an
    embedding is one.

    Example:
        >>> params = {"filters": jnp.ones((3, 3, 1, 2)), "bias": jnp.ones(2)}
        >>> optimizer = for_matrices(optax.scale(2.0), optax.scale(5.0))
        >>> updates, _ = optimizer.update(params, optimizer.init(params))
        >>> updates["filters"].shape, float(updates["filters"].max()), float(updates["bias"].max())
        ((3, 3, 1, 2), 2.0, 5.0)
    """

    def kinds(params):
        return jax.tree.map(lambda p: "matrix" if p.ndim >= 2 and p.size else "other", params)

    flattened = reshaped(matrices, lambda array: array.reshape(-1, array.shape[-1]))
    return optax.partition({"matrix": flattened, "other": others}, kinds)


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
