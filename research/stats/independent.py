"""Comparisons of two methods whose repetitions have nothing in common: studies, not seeds."""

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from research.stats.intervals import UNKNOWN, Interval, check_level, rounded
from research.stats.paired import Comparison

_RESAMPLES = 9999


def compare_independent(
    method: ArrayLike, reference: ArrayLike, *, level: float = 0.95
) -> Comparison:
    """Compare two methods over independent studies of each; lower is better.

    Welch's t test of the means, which takes neither the spread nor the number of studies for equal.
    A study that failed is worth infinity, behind all others. With one there is no mean, hence no t
    test, and the rank-sum test of Wilcoxon, Mann and Whitney is left: exact, over all ways to part
    the studies (over 9,999 of them drawn at random where ties and numbers leave too many).

    Args:
        method: (n,) values of its studies, infinity where one failed.
        reference: (m,) values of the other's.
        level: coverage of the interval, between 0 and 1.

    Returns:
        The comparison: ``pairs`` are all n · m of one study of each, ``interval`` is Welch's of the
        difference of means, ``effect`` that difference in root mean square deviations (Cohen's d).
        P values and interval are NaN for fewer than two studies of either.

    Raises:
        ValueError: a value that is NaN or minus infinity, or no vector.

    Example:
        >>> made = compare_independent([1.0, 2.0, 3.0], [5.0, 6.0, 8.0])
        >>> made.wins, made.pairs, round(made.difference, 2), round(made.t_test, 3)
        (9, 9, -4.33, 0.02)
        >>> made = compare_independent([float("inf"), 1.0, 2.0], [3.0, 4.0, 5.0])
        >>> made.wins, made.losses, made.failures, made.difference, made.rank_test
        (6, 3, 1, nan, 0.7)

    Sources: Welch, "The generalization of Student's problem when several different population
    variances are involved", Biometrika 34 (1947); Mann and Whitney, "On a test of whether one of
    two random variables is stochastically larger than the other", Annals of Mathematical Statistics
    18 (1947).
    """
    check_level(level)
    first, second = np.asarray(method, dtype=float), np.asarray(reference, dtype=float)
    if first.ndim != 1 or second.ndim != 1:
        raise ValueError(
            f"the values of studies must be vectors, got shapes {first.shape} and {second.shape}"
        )
    if any(np.isnan(values).any() or np.isneginf(values).any() for values in (first, second)):
        raise ValueError("values must be numbers or infinity (a failed study), got NaN or -inf")
    first, second = _rounded_together(first, second)
    whole = bool(first.size and second.size and np.isfinite([*first, *second]).all())
    spread = math.nan
    if whole and min(first.size, second.size) > 1:
        spread = math.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2)
    difference = float(first.mean() - second.mean()) if whole else math.nan
    p_value, interval = welch(first, second, level=level) if whole else (math.nan, UNKNOWN)
    return Comparison(
        pairs=first.size * second.size,
        failures=int(np.isinf(first).sum()),
        reference_failures=int(np.isinf(second).sum()),
        wins=int((first[:, None] < second).sum()),
        losses=int((first[:, None] > second).sum()),
        difference=difference,
        interval=interval,
        effect=difference / spread if spread > 0 else math.nan,
        t_test=p_value,
        rank_test=_rank_sum(first, second),
    )


def welch(first: np.ndarray, second: np.ndarray, *, level: float = 0.95) -> tuple[float, Interval]:
    """P value of Welch's t test and the interval of mean(first) - mean(second).

    Returns:
        NaN and unknown for fewer than two values in either; the point where neither has any spread,
        with 1 where they are equal and NaN where not.

    Example:
        >>> p_value, (low, high) = welch(np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0, 8.0]))
        >>> round(p_value, 3), round(low, 2), round(high, 2)
        (0.02, -7.45, -1.21)
    """
    if min(first.size, second.size) < 2:
        return math.nan, UNKNOWN
    first, second = _rounded_together(first, second)
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        difference = float(first[0] - second[0])
        return (1.0 if difference == 0 else math.nan), Interval(difference, difference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one without spread, whose deviation is rounding
        found: Any = stats.ttest_ind(first, second, equal_var=False)
    ends = found.confidence_interval(level)
    return float(found.pvalue), Interval(float(ends.low), float(ends.high))


def _rounded_together(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    both = rounded(np.concatenate([first, second])) if first.size + second.size else first
    return both[: first.size], both[first.size :]


def _rank_sum(first: np.ndarray, second: np.ndarray) -> float:
    if min(first.size, second.size) < 2:
        return math.nan
    ranks = stats.rankdata([*first, *second])  # infinities are ties with each other
    if np.ptp(ranks) == 0:
        return 1.0
    ties = np.unique(ranks).size < ranks.size
    method: Any = "exact"
    if ties:
        method = stats.PermutationMethod(n_resamples=_RESAMPLES, rng=np.random.default_rng(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of small samples
        found: Any = stats.mannwhitneyu(ranks[: first.size], ranks[first.size :], method=method)
    return float(found.pvalue)
