"""Comparisons of two methods on the same seeds: tests, effect sizes, several tests at once."""

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from research.stats.intervals import UNKNOWN, Interval, mean_interval, rounded


class Comparison(NamedTuple):
    """A method against a reference over pairs of runs; lower values are better.

    Pairs are runs on the same seed; of independent studies, each of the one with each of the other.
    A run or study that failed has the value infinity. It loses to every finite one, and with a
    failure there is no mean difference: ``difference``, ``interval`` and ``t_test`` are NaN.
    """

    pairs: int
    failures: int  # of the method
    reference_failures: int
    wins: int
    losses: int
    difference: float  # mean of method - reference
    interval: Interval  # t interval of the mean difference
    effect: float  # mean difference in standard deviations (Cohen's d): of differences, of studies
    t_test: float  # p value, two-sided: the paired test, or Welch's
    rank_test: float  # p value, two-sided: Wilcoxon's signed ranks, or the rank sum

    @property
    def p_value(self) -> float:
        """Of the t test; of the rank test where there is none (failures, no spread)."""
        return self.t_test if math.isfinite(self.t_test) else self.rank_test


def compare(method: ArrayLike, reference: ArrayLike, *, level: float = 0.95) -> Comparison:
    """Compare the final scores of two methods seed by seed; lower is better.

    A failed run is worth infinity: in the signed-rank test its difference has the largest rank, and
    two failures on one seed are a tie. A t test over the runs that survived would flatter the
    method that fails, so there is none. Where differences are equal but for
    rounding there is no spread, hence none either.

    Args:
        method: (n,) scores, infinity where the run failed.
        reference: (n,) scores on the same seeds.
        level: coverage of the interval, between 0 and 1.

    Returns:
        The comparison; p values and interval are NaN for fewer than two pairs.

    Raises:
        ValueError: the two have not one score per seed each, or one is NaN or minus infinity.

    Example:
        >>> made = compare([1.0, 2.0, 3.0, 4.0], [2.0, 3.5, 4.0, 5.5])
        >>> made.wins, made.difference, round(made.t_test, 4), made.rank_test
        (4, -1.25, 0.0032, 0.125)
        >>> made = compare([float("inf"), 1.0], [2.0, 2.0])
        >>> made.wins, made.losses, made.difference
        (1, 1, nan)

    Sources: Student, "The probable error of a mean", Biometrika 6 (1908); Wilcoxon, "Individual
    comparisons by ranking methods", Biometrics Bulletin 1 (1945).
    """
    first, second = np.asarray(method, dtype=float), np.asarray(reference, dtype=float)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"a paired comparison needs one score per seed in both, got shapes {first.shape} and "
            f"{second.shape}"
        )
    if any(np.isnan(scores).any() or np.isneginf(scores).any() for scores in (first, second)):
        raise ValueError("scores must be numbers or infinity (a failed run), got NaN or -infinity")
    failed, lost = np.isinf(first), np.isinf(second)
    differences = np.zeros(first.shape)
    both = ~failed & ~lost
    scale = float(np.abs([*first[both], *second[both]]).max(initial=0.0))
    differences[both] = rounded(first[both] - second[both], scale)
    beyond = 2 * float(np.abs(differences).max(initial=0.0)) + 1  # the largest rank
    differences[failed & ~lost], differences[lost & ~failed] = beyond, -beyond
    whole = bool(both.all()) and first.size > 0
    mean = float(differences.mean()) if whole else math.nan
    deviation = float(differences.std(ddof=1)) if whole and first.size > 1 else math.nan
    return Comparison(
        pairs=first.size,
        failures=int(failed.sum()),
        reference_failures=int(lost.sum()),
        wins=int((differences < 0).sum()),
        losses=int((differences > 0).sum()),
        difference=mean,
        interval=mean_interval(differences, level=level) if whole else UNKNOWN,
        effect=mean / deviation if deviation > 0 else math.nan,
        t_test=_t_test(differences) if whole else math.nan,
        rank_test=_signed_rank(differences),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjustment: p values that bound the chance of any false rejection among all of them.

    p_adjusted(i) = max over j ≤ i of min(1, (m - j + 1) · p(j)), for p(1) ≤ ... ≤ p(m). It needs no
    independence. NaN (a test that could not be made) stays NaN and is not counted.

    Args:
        p_values: of all comparisons that are reported together.

    Returns:
        The adjusted p values, in the order given.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979).
    """
    values = np.asarray(p_values, dtype=float)
    if ((values < 0) | (values > 1)).any():
        raise ValueError(f"p values must lie between 0 and 1, got {values.tolist()}")
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    factors = np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * values[order]))
    return adjusted.tolist()


def _t_test(differences: np.ndarray) -> float:
    if differences.size < 2:
        return math.nan
    if np.ptp(differences) == 0:  # no spread to measure a difference by
        return 1.0 if differences[0] == 0 else math.nan
    found: Any = stats.ttest_1samp(differences, 0.0)
    return float(found.pvalue)


def _signed_rank(differences: np.ndarray) -> float:
    if differences.size < 2:
        return math.nan
    if not differences.any():
        return 1.0
    with warnings.catch_warnings():
        # Of small samples with ties, where scipy falls back on the normal approximation.
        warnings.simplefilter("ignore")
        found: Any = stats.wilcoxon(differences)
    return float(found.pvalue)
