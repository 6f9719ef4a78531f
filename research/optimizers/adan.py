"""Adan: Adam with Nesterov's look-ahead written as a difference of gradients.

optax 0.2.8's takes the look-ahead by 1 - b2 where the paper, in its notation of decay rates, has
b2; this is the paper's.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array

from research.optimizers.decay import step_then_decay
from research.optimizers.parameters import debiased, per_parameter


def adan(
    learning_rate: Any,
    b1: Any = 0.98,
    b2: Any = 0.92,
    b3: Any = 0.99,
    eps: Any = 1e-8,
    weight_decay: Any = 0.0,
) -> optax.GradientTransformation:
    """Adan with its weight decay, the proximal step of the squared norm: not AdamW's.

        x <- (x - learning_rate u) / (1 + learning_rate weight_decay)

    Args:
        learning_rate: a number, or a function of the updates made before this one.
        b1: decay of the mean gradient.
        b2: decay of the mean difference, and weight of the look-ahead.
        b3: decay of the mean square.
        eps: added to the root.
        weight_decay: of every array.

    Example:
        >>> optimizer, x = adan(0.5, eps=0.0, weight_decay=2.0), jnp.asarray(3.5)
        >>> update, _ = optimizer.update(jnp.asarray(4.0), optimizer.init(x), x)
        >>> print(f"{x + update:.3f}")
        1.500

    Source: Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm", 2022, arXiv:2208.06677,
    algorithm 1.
    """

    def shrinkage(rate, count):
        del count
        return rate * weight_decay / (1.0 + rate * weight_decay)

    return optax.chain(scale_by_adan(b1, b2, b3, eps), step_then_decay(learning_rate, shrinkage))


class _Kept(NamedTuple):
    mean: Array  # of gradients
    change: Array  # mean of differences of gradients
    square: Array  # mean of squares of the gradient with its look-ahead
    previous: Array  # gradient


def scale_by_adan(
    b1: Any = 0.98, b2: Any = 0.92, b3: Any = 0.99, eps: Any = 1e-8
) -> optax.GradientTransformation:
    """Adan's direction, from gradients g and their differences d = g - g' (zero at first).

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) d        n <- b3 n + (1 - b3) (g + b2 d)²
        u = (m^ + b2 v^) / (sqrt(n^) + eps)        ^ without the bias of a start from zero

    Four values are kept of each parameter.

    Args:
        b1: decay of the mean gradient.
        b2: decay of the mean difference, and weight of the look-ahead.
        b3: decay of the mean square.
        eps: added to the root.

    Example:
        >>> adan = scale_by_adan(eps=0.0)
        >>> u, _ = adan.update(jnp.asarray([3.0, -5.0]), adan.init(jnp.zeros(2)))
        >>> print(u.round(4))
        [ 1. -1.]

    Source: Xie et al., "Adan: Adaptive Nesterov Momentum Algorithm", 2022, arXiv:2208.06677.
    """

    def init(parameter):
        zero = jnp.zeros_like(parameter)
        return _Kept(zero, zero, zero, zero)

    def update(gradient, kept, count):
        difference = jnp.where(count == 1, 0.0, gradient - kept.previous)
        mean = b1 * kept.mean + (1 - b1) * gradient
        change = b2 * kept.change + (1 - b2) * difference
        square = b3 * kept.square + (1 - b3) * (gradient + b2 * difference) ** 2
        ahead = debiased(mean, b1, count) + b2 * debiased(change, b2, count)
        direction = ahead / (jnp.sqrt(debiased(square, b3, count)) + eps)
        return direction, _Kept(mean, change, square, gradient)

    return per_parameter(init, update)
