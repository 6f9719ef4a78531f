"""MARS: gradients corrected by their change, so that Adam's moments see less of the noise."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array

from research.optimizers.parameters import debiased, per_parameter


class _Kept(NamedTuple):
    mean: Array
    square: Array
    previous: Array  # gradient


def scale_by_mars(
    b1: Any = 0.95, b2: Any = 0.99, gamma: Any = 0.025, eps: Any = 1e-8
) -> optax.GradientTransformation:
    """Adam's direction from corrected gradients c, in the form that needs one gradient a step.

        c = g + gamma b1 / (1 - b1) (g - g'),   divided by its norm if that is above one
        m <- b1 m + (1 - b1) c        v <- b2 v + (1 - b2) c²        u = m^ / (sqrt(v^) + eps)

    g' is the gradient of the step before at its own parameters and batch, and zero at first.
    Three values are kept of each parameter. The authors leave vectors to AdamW; here every array is
    corrected, as with their ``optimize_1d``.

    Args:
        b1: decay of the mean.
        b2: decay of the mean square.
        gamma: strength of the correction; 0 is Adam with clipped gradients.
        eps: added to the root.

    Example:
        >>> mars = scale_by_mars(eps=0.0)
        >>> u, _ = mars.update(jnp.asarray([0.3, -0.5]), mars.init(jnp.zeros(2)))
        >>> print(u.round(4))
        [ 1. -1.]

    Source: Yuan et al., "MARS: Unleashing the Power of Variance Reduction for Training Large
    Models", 2024, arXiv:2411.10438, in its approximate form with AdamW.
    """

    def init(parameter):
        zero = jnp.zeros_like(parameter)
        return _Kept(zero, zero, zero)

    def update(gradient, kept, count):
        corrected = gradient + gamma * b1 / (1 - b1) * (gradient - kept.previous)
        corrected = corrected / jnp.maximum(1.0, jnp.sqrt(jnp.sum(corrected**2)))
        mean = b1 * kept.mean + (1 - b1) * corrected
        square = b2 * kept.square + (1 - b2) * corrected**2
        direction = debiased(mean, b1, count) / (jnp.sqrt(debiased(square, b2, count)) + eps)
        return direction, _Kept(mean, square, gradient)

    return per_parameter(init, update)
