"""The cautious wrapper: no coordinate moves against its own gradient."""

import jax
import jax.numpy as jnp
import optax

from kernels.precision import wide


def cautious(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Of an optimizer's direction u what points along the gradient g, scaled up for the rest.

        u <- u [u g > 0] N / (1 + sum([u g > 0]))        over the N coordinates of an array

    Nothing more is kept than the inner optimizer keeps.

    Args:
        inner: gives directions along the gradient, as ``optax.scale_by_adam`` does: without the
            learning rate, which turns the sign, and without weight decay.

    Example:
        >>> optimizer = cautious(optax.ema(0.9, debias=False))
        >>> state = optimizer.init(jnp.zeros(3))
        >>> _, state = optimizer.update(jnp.asarray([10.0, 10.0, 10.0]), state)
        >>> u, state = optimizer.update(jnp.asarray([-1.0, 1.0, 1.0]), state)
        >>> print(u.round(6))
        [0. 1. 1.]

    Source: Liang et al., "Cautious Optimizers: Improving Training with One Line of Code", 2024,
    arXiv:2411.16085, algorithm 1.
    """

    def update(updates, state, params=None):
        directions, state = inner.update(updates, state, params)
        return jax.tree.map(_agreeing, directions, updates), state

    return optax.GradientTransformation(inner.init, update)


def _agreeing(direction, gradient):
    agrees = direction * gradient > 0
    factor = agrees.size / (1.0 + jnp.sum(agrees, dtype=wide(direction.dtype)))
    return direction * jnp.where(agrees, factor, 0.0).astype(direction.dtype)
