"""The registry of optimizers: a name, an optax constructor of traced numbers, a search space.

Constructors take plain floats or traced scalars, so one compiled step serves every trial. A search
space belongs to the optimizer, not to an experiment, so that every comparison uses the same one.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import optax

from research.errors import ConfigError
from research.names import look_up
from research.optimizers import elementwise, nested, rate_free, structured
from research.optimizers.entry import Optimizer
from research.optimizers.parameters import widened
from research.optimizers.schedules import find_schedule


def _widened(entries: Mapping[str, Optimizer]) -> dict[str, Optimizer]:
    """Every entry keeps float32 of 16-bit parameters, those of optax too."""

    def with_wide_state(build):
        @functools.wraps(build)
        def wide(*args, **kwargs):
            return widened(build(*args, **kwargs))

        return wide

    return {n: entry._replace(build=with_wide_state(entry.build)) for n, entry in entries.items()}


_FIRST = _widened({**elementwise.ENTRIES, **structured.ENTRIES, **rate_free.ENTRIES})

# Of the search spaces, every version whole: what one does not change is as in the one before.
VERSIONS: dict[int, Mapping[str, Optimizer]] = {1: _FIRST, 2: _FIRST | _widened(nested.ENTRIES)}
LATEST = max(VERSIONS)
NAMES = tuple(_FIRST)

# Of a schedule inside: Prodigy divides by a sum of learning rates, and a warm-up starts from zero.
_SMALLEST_FACTOR = 1e-6

# Of optax 0.2.8's optimizers, what is not above, and why.
LEFT_OUT: Mapping[str, str] = {
    "adamaxw": "AdaMax with the weight decay that AdamW stands for",
    "cocob": "its learning rate scales the gradient, which it is invariant to",
    "differentially_private_aggregate": "a method of privacy",
    "dpsgd": "a method of privacy",
    "galore": "saves memory with matrices larger than any here",
    "lbfgs": "needs the loss function",
    "mechanize": "a wrapper of any optimizer",
    "momo": "needs the loss",
    "momo_adam": "needs the loss",
    "noisy_sgd": "adds noise, which mini-batches have",
    "normalize": "a part of optimizers",
    "optimistic_adam": "for games",
    "optimistic_adam_v2": "for games",
    "optimistic_gradient_descent": "for games",
    "polyak_sgd": "needs the loss",
    "reduce_on_plateau": "a schedule that needs the loss",
    "sam": "needs a second gradient a step",
    "schedule_free": "here with SGD and with AdamW",
    "sophia": "needs the loss function",
}


def find(name: str, version: int = LATEST) -> Optimizer:
    """The registry's entry of that name.

    Args:
        name: in ``NAMES``.
        version: of the search spaces, from 1 to ``LATEST``. In 1 the hyperparameters are those of
            the papers: use it for the textbook meaning. In 2 each family's space contains those of
            the poorer families; the learning rate of ``momentum`` and ``nesterov`` is the papers'
            over 1 - momentum, and ``adamw`` and ``nadamw`` have no weight decay unless it is given
            (``research.optimizers.nested`` has the others).

    Raises:
        ConfigError: no such entry, and the message names the nearest; or no such version.

    Example:
        >>> sorted(find("momentum").space)
        ['learning_rate', 'momentum']
        >>> find("adam").space["eps"].high, find("adam", version=1).space["eps"].high
        (100.0, 0.001)
        >>> update = {n: find("momentum", n).build(0.1).update for n in (1, 2)}  # momentum 0.9
        >>> start = find("momentum").build(0.1).init(jnp.ones(()))
        >>> [round(float(update[n](jnp.ones(()), start)[0]), 3) for n in (1, 2)]
        [-0.1, -0.01]
    """
    if version not in range(1, LATEST + 1):
        raise ConfigError(
            f"the version of search spaces must be an integer from 1 to {LATEST}; "
            f"received {version!r}."
        )
    return look_up(VERSIONS[version], name, "optimizer")


def build_scheduled(
    optimizer: Optimizer, hyperparameters: Mapping[str, Any], schedule: str, steps: int
) -> optax.GradientTransformation:
    """An optimizer whose learning rate follows a schedule.

    For most, the schedule multiplies the whole update, so that decoupled weight decay follows the
    learning rate. Those that could not stand this (``schedule_inside``) take the product of both.

    Args:
        optimizer: of the registry.
        hyperparameters: by the names of its search space; ``learning_rate`` is the peak. They may
            be traced.
        schedule: a name in ``SCHEDULES``.
        steps: the length of the schedule.

    Raises:
        ConfigError: no schedule of that name, no step, or a name that is not in the search space.

    Example:
        >>> import jax.numpy as jnp
        >>> madgrad = build_scheduled(find("madgrad"), {"learning_rate": 0.1}, "linear", 10)
        >>> x = jnp.ones(())
        >>> updates, _ = madgrad.update(x, madgrad.init(x), x)
        >>> bool(updates < 0)
        True
    """
    unknown = sorted({*hyperparameters} - {*optimizer.space})
    if unknown or "learning_rate" not in hyperparameters:
        raise ConfigError(
            f"hyperparameters must be learning_rate and others of {', '.join(optimizer.space)}; "
            f"received {', '.join(hyperparameters) or 'none'}."
        )
    if steps < 1:
        raise ConfigError(f"a schedule must have at least one step; received {steps}.")
    factor, peak = find_schedule(schedule)(steps), hyperparameters["learning_rate"]
    if not optimizer.schedule_inside:
        built = optimizer.build(**hyperparameters)
        return widened(optax.chain(built, optax.scale_by_schedule(factor)))

    def learning_rate(step):
        return peak * jnp.maximum(factor(step), _SMALLEST_FACTOR)

    return optimizer.build(**dict(hyperparameters, learning_rate=learning_rate))
