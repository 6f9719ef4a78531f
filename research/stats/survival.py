"""Times to a target of which some are known only to be longer than the run (censored)."""

import math
import warnings
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from scipy import stats

from research.stats.independent import welch
from research.stats.intervals import (
    UNKNOWN,
    Interval,
    bootstrap,
    proportion_interval,
    ratio_of_means,
)


class Times(NamedTuple):
    """Steps to the target of each of n runs; where not ``reached``, the steps that were waited."""

    steps: Float[np.ndarray, "n"]
    reached: Bool[np.ndarray, "n"]


class Curve(NamedTuple):
    """Kaplan-Meier estimate of the share of runs that have reached the target, from a step on."""

    steps: Float[np.ndarray, "M"]
    share: Float[np.ndarray, "M"]
    low: Float[np.ndarray, "M"]
    high: Float[np.ndarray, "M"]


def times(steps: ArrayLike, reached: ArrayLike) -> Times:
    """Checked `Times`.

    Raises:
        ValueError: lengths that differ, or a time that is not positive and finite.

    Example:
        >>> times([10, 30], [True, False]).reached
        array([ True, False])
    """
    found = Times(np.asarray(steps, dtype=float), np.asarray(reached, dtype=bool))
    if found.steps.ndim != 1 or found.steps.shape != found.reached.shape:
        raise ValueError(
            f"every run needs a time and whether it reached, got shapes {found.steps.shape} and "
            f"{found.reached.shape}"
        )
    if not (np.isfinite(found.steps) & (found.steps > 0)).all():
        raise ValueError(f"times must be positive and finite, got {found.steps.tolist()}")
    return found


def reached_curve(found: Times, *, level: float = 0.95) -> Curve:
    """Share of runs that reached the target by each step, 1 - S, with a pointwise interval.

    Args:
        found: times of at least one run.
        level: coverage of the interval (log-log, of Greenwood's variance), between 0 and 1.

    Returns:
        The curve; NaN interval where the estimate has none (no run or every run has reached).

    Example:
        >>> curve = reached_curve(times([10, 20, 20, 30], [True, True, False, False]))
        >>> curve.steps.tolist(), curve.share.tolist()
        ([10.0, 20.0, 30.0], [0.25, 0.5, 0.5])

    Source: Kaplan and Meier, "Nonparametric estimation from incomplete observations", JASA 53
    (1958).
    """
    estimate = stats.ecdf(_censored(found)).cdf
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of shares of 0 and 1
        interval = estimate.confidence_interval(level, method="log-log")
    return Curve(
        estimate.quantiles, estimate.probabilities,
        interval.low.probabilities, interval.high.probabilities,
    )  # fmt: skip


def median_time(found: Times) -> float:
    """The first step by which half of the runs have reached the target; infinity if never.

    Example:
        >>> median_time(times([10, 20, 30], [True, True, False]))
        20.0
        >>> median_time(times([10, 30, 30], [True, False, False]))
        inf
    """
    curve = reached_curve(found)
    there = np.flatnonzero(curve.share >= 0.5 - 1e-12)
    return float(curve.steps[there[0]]) if there.size else math.inf


def median_interval(found: Times, *, level: float = 0.95) -> Interval:
    """Interval of the median time: the steps at which half lies within the curve's own interval.

    The upper end is infinite where more runs than half may never reach the target; with few runs
    that is common. Below six runs there is none of 95 %: all of n lie on one side of the median
    with the probability 2 · 0.5ⁿ.

    Args:
        found: times of at least one run.
        level: coverage, between 0 and 1.

    Returns:
        The interval; unknown for so few runs that even from the first to the last of them it would
        not hold the level.

    Example:
        >>> median_interval(times([10, 20, 30, 40, 50, 60, 70, 80], [True] * 8))
        Interval(low=10.0, high=70.0)

    Source: Brookmeyer and Crowley, "A confidence interval for the median survival time", Biometrics
    38 (1982).
    """
    if 1 - 2 * 0.5**found.steps.size < level:
        return UNKNOWN
    curve = reached_curve(found, level=level)
    ends = []
    for share in (curve.high, curve.low):
        # Where all have reached, or none has, the curve has no interval.
        there = np.flatnonzero(np.where(np.isnan(share), curve.share, share) >= 0.5)
        ends.append(float(curve.steps[there[0]]) if there.size else math.inf)
    return Interval(*ends)


def restricted_mean(found: Times, horizon: float) -> float:
    """Mean of min(time, horizon): the area under S up to the horizon.

    Args:
        found: times of at least one run; no run may be censored before the horizon.
        horizon: in steps.

    Raises:
        ValueError: a run that was given up before the horizon: its time until there is not known.

    Example:
        >>> restricted_mean(times([10, 40], [True, False]), 40)
        25.0

    Source: Royston and Parmar, "Restricted mean survival time", BMC Medical Research Methodology 13
    (2013).
    """
    return float(_restricted(found, horizon).mean())


def time_ratio(
    method: Times, reference: Times, horizon: float, *, level: float = 0.95, seed: int = 0
) -> tuple[float, Interval]:
    """Ratio of restricted mean times over shared seeds, with a paired BCa bootstrap interval.

    Below one the method is faster. Runs that do not reach the target count with the horizon, so
    where only the method has such runs the true ratio is larger, where only the reference has, it
    is smaller.

    Args:
        method: times of n runs.
        reference: times of runs on the same seeds.
        horizon: in steps, of both.
        level: coverage, between 0 and 1.
        seed: of the resampling of seeds.

    Returns:
        `(ratio, interval)`; the interval is unknown for fewer than two seeds, a point where every
        seed has the same ratio.

    Example:
        >>> slow, fast = times([20, 40, 60], [True] * 3), times([10, 21, 30], [True] * 3)
        >>> ratio, (low, high) = time_ratio(fast, slow, 100)
        >>> 0.49 < low < ratio < high < 0.53
        True
    """
    if method.steps.shape != reference.steps.shape:
        raise ValueError(
            f"a paired ratio needs the same seeds in both, got {method.steps.size} and "
            f"{reference.steps.size} runs"
        )
    first, second = _restricted(method, horizon), _restricted(reference, horizon)
    ratio = float(first.mean() / second.mean())
    if first.size < 2:
        return ratio, UNKNOWN
    if np.ptp(first / second) < 1e-12:
        return ratio, Interval(ratio, ratio)
    return ratio, bootstrap((first, second), ratio_of_means, level=level, seed=seed, paired=True)


def independent_time_ratio(
    method: Times, reference: Times, horizon: float, *, level: float = 0.95
) -> tuple[float, Interval]:
    """Ratio of the geometric means of restricted times over independent studies of each.

    The interval is Welch's of the difference of log times, as a bootstrap of five studies would be
    too narrow. Censoring is as in `time_ratio`.

    Args:
        method: times of n studies.
        reference: times of m studies, which need not be as many.
        horizon: in steps, of both.
        level: coverage, between 0 and 1.

    Returns:
        `(ratio, interval)`; the interval is unknown for fewer than two studies of either.

    Example:
        >>> slow, fast = times([20, 40, 60], [True] * 3), times([10, 21, 30], [True] * 3)
        >>> ratio, (low, high) = independent_time_ratio(fast, slow, 100)
        >>> 0.1 < low < 0.50 < ratio < 0.52 < high < 2.1
        True
    """
    first, second = (np.log(_restricted(found, horizon)) for found in (method, reference))
    _, (low, high) = welch(first, second, level=level)
    ratio = math.exp(float(first.mean() - second.mean()))
    with np.errstate(over="ignore"):
        return ratio, Interval(float(np.exp(low)), float(np.exp(high)))


def log_rank(first: Times, second: Times) -> float:
    """P value of the log-rank test that two sets of times have one distribution; NaN if none.

    It takes the two sets for independent, which shared seeds only make conservative, and sees best
    a difference of constant hazard ratio.

    Example:
        >>> fast, slow = times([10, 11, 12, 13], [True] * 4), times([40] * 4, [False] * 4)
        >>> log_rank(fast, slow) < 0.05
        True

    Source: Mantel, "Evaluation of survival data and two new rank order statistics arising in its
    consideration", Cancer Chemotherapy Reports 50 (1966).
    """
    if not (first.reached.any() or second.reached.any()):
        return math.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(stats.logrank(_censored(first), _censored(second)).pvalue)


def reached_interval(found: Times, *, level: float = 0.95) -> Interval:
    """Exact interval of the share of runs that reach the target at all.

    Example:
        >>> low, high = reached_interval(times([10] * 10, [True] * 10))
        >>> round(low, 3), high
        (0.692, 1.0)
    """
    return proportion_interval(int(found.reached.sum()), found.reached.size, level=level)


def _censored(found: Times) -> stats.CensoredData:
    if not found.steps.size:
        raise ValueError("there must be at least one run, got none")
    return stats.CensoredData.right_censored(found.steps, ~found.reached)


def _restricted(found: Times, horizon: float) -> np.ndarray:
    if (found.steps[~found.reached] < horizon).any():
        raise ValueError(
            f"every run that did not reach the target must have been waited for until {horizon:g}, "
            f"got one given up at {found.steps[~found.reached].min():g}"
        )
    return np.minimum(found.steps, horizon)
