"""Search spaces: where each hyperparameter is looked for, and how trials are drawn."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from scipy.stats import qmc


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


# Ranges that several optimizers share.
MOMENTUM = Range(0.8, 0.99, below_one=True)
BETA1 = Range(0.8, 0.98, below_one=True)
BETA2 = Range(0.95, 0.9999, below_one=True)
EPSILON = Range(1e-10, 1e-3)
ADAM_RATE = Range(1e-5, 1e-1)
SIGN_RATE = Range(1e-6, 1e-2)  # for updates of size one in every coordinate
FACTOR_OF_ITS_OWN_RATE = Range(0.1, 10.0)  # where the optimizer finds the learning rate
WEIGHT_DECAY = Range(1e-4, 1.0)
