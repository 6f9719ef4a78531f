"""Learning-rate schedules: the number of steps -> the factor of the update at each step.

Every one is between zero and one at every step, for one step and more. Those that warm up begin at
zero, so that the first update only fills the optimizer's state.

- ``constant``; ``linear`` to zero; ``cosine`` to zero (Loshchilov & Hutter, SGDR, ICLR 2017)
- ``step``: a tenth from half of the steps on, a hundredth from three quarters (as residual networks
  were trained: He et al., Deep Residual Learning for Image Recognition, CVPR 2016)
- ``warmup``: rises linearly over the first tenth, then constant (Goyal et al., Accurate, Large
  Minibatch SGD, 2017); ``warmup_linear`` (Devlin et al., BERT, NAACL 2019) and ``warmup_cosine``
  then fall to zero
- ``inverse_sqrt``: after the same warm-up of w steps falls as sqrt(w / step), which needs no end
  (Vaswani et al., Attention Is All You Need, NeurIPS 2017)
- ``wsd``, warm-up, stable, decay: as ``warmup``, and falls linearly over the last fifth (Hägele et
  al., Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations, NeurIPS 2024)
"""

import functools
from collections.abc import Callable, Mapping

import jax.numpy as jnp
import optax

from research.names import look_up


def _constant(steps: int) -> optax.Schedule:
    del steps
    return optax.constant_schedule(1.0)


def _linear(steps: int) -> optax.Schedule:
    return optax.linear_schedule(1.0, 0.0, steps)


def _cosine(steps: int) -> optax.Schedule:
    return optax.cosine_decay_schedule(1.0, steps)


def _step(steps: int) -> optax.Schedule:
    def factor(step):
        return jnp.where(step < steps / 2, 1.0, jnp.where(step < steps * 3 / 4, 0.1, 0.01))

    return factor


def _inverse_sqrt(steps: int) -> optax.Schedule:
    warmup = _warmup(steps)

    def factor(step):
        return jnp.minimum(step / warmup, jnp.sqrt(warmup / jnp.maximum(step, 1)))

    return factor


def _wsd(steps: int) -> optax.Schedule:
    decay = max(1, steps // 5)
    return optax.join_schedules([_warmed(_constant, steps), _linear(decay)], [steps - decay])


def _warmup(steps: int) -> int:
    return max(1, steps // 10)


def _warmed(schedule: Callable[[int], optax.Schedule], steps: int) -> optax.Schedule:
    """A warm-up, and the schedule of the steps after it."""
    warmup = _warmup(steps)
    rise = optax.linear_schedule(0.0, 1.0, warmup)
    return optax.join_schedules([rise, schedule(max(1, steps - warmup))], [warmup])


SCHEDULES: Mapping[str, Callable[[int], optax.Schedule]] = {
    "constant": _constant,
    "cosine": _cosine,
    "warmup_cosine": functools.partial(_warmed, _cosine),
    "linear": _linear,
    "step": _step,
    "warmup": functools.partial(_warmed, _constant),
    "warmup_linear": functools.partial(_warmed, _linear),
    "inverse_sqrt": _inverse_sqrt,
    "wsd": _wsd,
}


def find_schedule(name: str) -> Callable[[int], optax.Schedule]:
    """The schedule of that name: number of steps -> factor of the update at each step.

    Raises:
        ConfigError: no such schedule; the message names the nearest.

    Example:
        >>> float(find_schedule("cosine")(10)(0))
        1.0
    """
    return look_up(SCHEDULES, name, "schedule")
