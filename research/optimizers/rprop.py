"""Rprop: a step size of each coordinate that grows while the gradient keeps its sign.

optax 0.2.8's moves by the step sizes of the step before; this one, as the papers and torch do, by
those that the gradient has just changed.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array

from research.optimizers.parameters import per_parameter


class _Kept(NamedTuple):
    step_size: Array
    previous: Array  # gradient, zero where it was passed over


def rprop(
    learning_rate: Any,
    eta_minus: Any = 0.5,
    eta_plus: Any = 1.2,
    smallest: Any = 1e-6,
    largest: Any = 50.0,
) -> optax.GradientTransformation:
    """Resilient propagation, for gradients without noise.

        s <- clip(s eta_plus) where g g' > 0,   clip(s eta_minus) where g g' < 0
        x <- x - s sign(g), but where the sign has changed x stays, and g counts as zero next time

    Two values are kept of each parameter.

    Args:
        learning_rate: the first step size s.
        eta_minus: factor where the sign has changed.
        eta_plus: factor where it has not.
        smallest: step size.
        largest: step size.

    Example:
        >>> optimizer = rprop(0.1)
        >>> state = optimizer.init(jnp.zeros(()))
        >>> for gradient in (3.0, 2.0, -1.0):
        ...     update, state = optimizer.update(jnp.asarray(gradient), state)
        ...     print(f"{update:.2f}")
        -0.10
        -0.12
        -0.00

    Source: Riedmiller & Braun, "A Direct Adaptive Method for Faster Backpropagation Learning",
    1993; without its way back after a change of sign: iRprop-, Igel & Hüsken, 2000.
    """

    def init(parameter):
        return _Kept(jnp.full_like(parameter, learning_rate), jnp.zeros_like(parameter))

    def update(gradient, kept, count):
        del count
        sign = jnp.sign(gradient * kept.previous)
        factor = jnp.where(sign > 0, eta_plus, jnp.where(sign < 0, eta_minus, 1.0))
        step_size = jnp.clip(kept.step_size * factor.astype(gradient.dtype), smallest, largest)
        gradient = jnp.where(sign < 0, 0.0, gradient)
        return -step_size * jnp.sign(gradient), _Kept(step_size, gradient)

    return per_parameter(init, update)
