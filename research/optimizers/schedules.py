"""Learning-rate schedules: the number of steps -> the factor of the update at each step.

- ``constant``, ``linear`` to zero, ``cosine`` to zero (Loshchilov & Hutter, SGDR, ICLR 2017)
- ``step``: a tenth after half of the steps, a hundredth after three quarters
- ``warmup``: rises linearly over the first tenth, then constant; ``warmup_linear`` and
  ``warmup_cosine`` then fall to zero
- ``wsd``, warm-up, stable, decay: as ``warmup``, and falls linearly over the last fifth (Hägele et
  al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, NeurIPS 2024)
"""

from collections.abc import Callable, Mapping

import optax

from research.names import look_up

SCHEDULES: Mapping[str, Callable[[int], optax.Schedule]] = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "warmup_cosine": lambda steps: optax.warmup_cosine_decay_schedule(
        0.0, 1.0, _warmup(steps), steps
    ),
    "linear": lambda steps: optax.linear_schedule(1.0, 0.0, steps),
    "step": lambda steps: optax.piecewise_constant_schedule(
        1.0, {steps // 2: 0.1, steps * 3 // 4: 0.1}
    ),
    "warmup": lambda steps: optax.linear_schedule(0.0, 1.0, _warmup(steps)),
    "warmup_linear": lambda steps: optax.join_schedules(
        [
            optax.linear_schedule(0.0, 1.0, _warmup(steps)),
            optax.linear_schedule(1.0, 0.0, steps - _warmup(steps)),
        ],
        [_warmup(steps)],
    ),
    "wsd": lambda steps: optax.join_schedules(
        [
            optax.linear_schedule(0.0, 1.0, _warmup(steps)),
            optax.linear_schedule(1.0, 0.0, _decay(steps)),
        ],
        [steps - _decay(steps)],
    ),
}


def _warmup(steps: int) -> int:
    return max(1, steps // 10)


def _decay(steps: int) -> int:
    return max(1, steps // 5)


def find_schedule(name: str) -> Callable[[int], optax.Schedule]:
    """The schedule of that name: number of steps -> factor of the update at each step.

    Raises:
        ConfigError: no such schedule; the message names the nearest.

    Example:
        >>> float(find_schedule("cosine")(10)(0))
        1.0
    """
    return look_up(SCHEDULES, name, "schedule")


def with_schedule(
    optimizer: optax.GradientTransformation, schedule: str, steps: int
) -> optax.GradientTransformation:
    """The optimizer with its update scaled by a schedule that starts from, or rises to, one.

    Args:
        optimizer: built with the peak learning rate.
        schedule: a name in ``SCHEDULES``.
        steps: the length of the schedule.

    Raises:
        ConfigError: no schedule of that name.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> decayed = with_schedule(optax.sgd(1.0), "cosine", steps=2)
        >>> state = decayed.init(jnp.zeros(()))
        >>> first, state = decayed.update(jnp.ones(()), state)
        >>> second, state = decayed.update(jnp.ones(()), state)
        >>> print(f"{first:.3f} {second:.3f}")
        -1.000 -0.500
    """
    shape = find_schedule(schedule)(steps)
    return optax.chain(optimizer, optax.scale_by_schedule(shape))
