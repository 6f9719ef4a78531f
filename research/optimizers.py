"""The registry of optimizers: a name, an optax constructor of traced numbers, a search space.

Constructors take plain floats or traced scalars, so one compiled step serves every trial. A search
space belongs to the optimizer, not to an experiment, so that every comparison uses the same one.
"""

import difflib
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import optax
from scipy.stats import qmc

from research.errors import ConfigError


class Range(NamedTuple):
    """Where one hyperparameter is searched: uniform in log10(x) between two positive bounds.

    ``below_one`` ranges are for decay rates near one: log-uniform in 1 - x.
    """

    low: float
    high: float
    below_one: bool = False

    def at(self, fraction: float) -> float:
        """The value at a fraction in [0, 1] of the range.

        Example:
            >>> (
            ...     round(Range(1e-4, 1e-2).at(0.5), 6),
            ...     round(Range(0.9, 0.99, below_one=True).at(1), 6),
            ... )
            (0.001, 0.99)
        """
        if self.below_one:
            return 1.0 - Range(1.0 - self.low, 1.0 - self.high).at(fraction)
        return math.exp(math.log(self.low) + fraction * (math.log(self.high) - math.log(self.low)))


class Optimizer(NamedTuple):
    """An entry of the registry.

    ``build(learning_rate=..., ...)`` takes the search space's names; ``schedule`` multiplies the
    whole update, so that decoupled weight decay follows the learning rate.
    """

    build: Callable[..., optax.GradientTransformation]
    space: Mapping[str, Range]
    paper: str


_MOMENTUM = Range(0.8, 0.99, below_one=True)
_BETA1 = Range(0.8, 0.98, below_one=True)
_BETA2 = Range(0.95, 0.9999, below_one=True)
_EPSILON = Range(1e-10, 1e-3)


def _momentum(learning_rate, momentum=0.9):
    return optax.sgd(learning_rate, momentum=momentum)


def _nesterov(learning_rate, momentum=0.9):
    return optax.sgd(learning_rate, momentum=momentum, nesterov=True)


OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": Optimizer(
        optax.sgd,
        {"learning_rate": Range(1e-3, 10.0)},
        "Robbins & Monro, A Stochastic Approximation Method, 1951",
    ),
    "momentum": Optimizer(
        _momentum,
        {"learning_rate": Range(1e-4, 1.0), "momentum": _MOMENTUM},
        "Polyak, Some methods of speeding up the convergence of iteration methods, 1964",
    ),
    "nesterov": Optimizer(
        _nesterov,
        {"learning_rate": Range(1e-4, 1.0), "momentum": _MOMENTUM},
        "Sutskever et al., On the importance of initialization and momentum, ICML 2013",
    ),
    "adagrad": Optimizer(
        optax.adagrad,
        {"learning_rate": Range(1e-3, 1.0)},
        "Duchi, Hazan & Singer, Adaptive Subgradient Methods, JMLR 2011",
    ),
    "rmsprop": Optimizer(
        optax.rmsprop,
        {
            "learning_rate": Range(1e-5, 1e-1),
            "decay": Range(0.9, 0.999, below_one=True),
            "eps": _EPSILON,
        },
        "Tieleman & Hinton, Lecture 6.5: RMSprop, 2012",
    ),
    "adam": Optimizer(
        optax.adam,
        {"learning_rate": Range(1e-5, 1e-1), "b1": _BETA1, "b2": _BETA2, "eps": _EPSILON},
        "Kingma & Ba, Adam: A Method for Stochastic Optimization, ICLR 2015",
    ),
    "adamw": Optimizer(
        optax.adamw,
        {
            "learning_rate": Range(1e-5, 1e-1),
            "b1": _BETA1,
            "b2": _BETA2,
            "weight_decay": Range(1e-4, 1.0),
        },
        "Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019",
    ),
}

SCHEDULES: Mapping[str, Callable[[int], optax.Schedule]] = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "warmup_cosine": lambda steps: optax.warmup_cosine_decay_schedule(
        0.0, 1.0, max(1, steps // 10), steps
    ),
}


def find(name: str) -> Optimizer:
    """The registry's entry of that name.

    Raises:
        ConfigError: no such entry; the message names the nearest.

    Example:
        >>> sorted(find("momentum").space)
        ['learning_rate', 'momentum']
    """
    return _look_up(OPTIMIZERS, name, "optimizer")


def find_schedule(name: str) -> Callable[[int], optax.Schedule]:
    """The schedule of that name: number of steps -> factor of the update at each step.

    Raises:
        ConfigError: no such schedule; the message names the nearest.

    Example:
        >>> float(find_schedule("cosine")(10)(0))
        1.0
    """
    return _look_up(SCHEDULES, name, "schedule")


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


def draw_trials(space: Mapping[str, Range], trials: int, *, seed: int) -> list[dict[str, float]]:
    """Points of a search space from a scrambled Halton sequence.

    Low discrepancy spreads few trials evenly over several hyperparameters at once.

    Args:
        space: name -> range.
        trials: how many points.
        seed: of the scrambling.

    Returns:
        One dictionary of hyperparameters per trial.

    Example:
        >>> points = draw_trials({"learning_rate": Range(1e-3, 1.0)}, 4, seed=0)
        >>> sorted(0 if p["learning_rate"] < 0.0316 else 1 for p in points)
        [0, 0, 1, 1]

    Source: Halton 1960; as a tuning method, Bousquet et al., "Critical Hyper-Parameters: No Random,
    No Cry", 2017.
    """
    sampler = qmc.Halton(len(space), scramble=True, rng=seed)
    return [
        {name: bounds.at(float(u)) for (name, bounds), u in zip(space.items(), row, strict=True)}
        for row in sampler.random(trials)
    ]


def _look_up(registry: Mapping, name: str, kind: str):
    if name not in registry:
        near = difflib.get_close_matches(name, registry, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{kind} must be one of {', '.join(registry)}; received {name!r}.{hint}")
    return registry[name]
