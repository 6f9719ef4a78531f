"""Weight decay that comes after the step, where AdamW's comes beside it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int


class StepThenDecayState(NamedTuple):
    """How many updates were made."""

    step: Int[Array, ""]


def step_then_decay(
    learning_rate: Any, shrinkage: Callable[[Any, Array], Any]
) -> optax.GradientTransformation:
    """The step along a direction u, and then a decay of where it ends.

        x <- (1 - s) (x - learning_rate u)        so the update is -s x - (1 - s) learning_rate u

    To first order this is AdamW's x - learning_rate (u + weight_decay x) where s is their product.
    The factor that is a schedule must be in the learning rate: it is not one of the update.

    Args:
        learning_rate: a number, or a function of the updates made before this one.
        shrinkage: the learning rate of this update, updates made before it -> s.

    Example:
        >>> half = step_then_decay(1.0, lambda rate, count: 0.5 * rate)
        >>> x = jnp.asarray(8.0)
        >>> update, _ = half.update(jnp.asarray(2.0), half.init(x), x)
        >>> print(x + update)
        3.0
    """

    def init(params):
        del params
        return StepThenDecayState(jnp.zeros((), jnp.int32))

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("weight decay needs the parameters: update(gradients, state, params).")
        rate = learning_rate(state.step) if callable(learning_rate) else learning_rate
        s = shrinkage(rate, state.step)
        found = jax.tree.map(lambda u, x: -s * x - (1 - s) * rate * u, updates, params)
        return found, StepThenDecayState(state.step + 1)

    return optax.GradientTransformation(init, update)
