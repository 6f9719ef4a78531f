"""Means, spreads and intervals of one sample."""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

RESAMPLES = 9999
# Bounds the memory of one bootstrap batch: this many resampled values, at 8 bytes each.
_BATCH_VALUES = 2_000_000


class Interval(NamedTuple):
    """A confidence interval; both ends are NaN where the data cannot give one."""

    low: float
    high: float

    def overlaps(self, other: "Interval") -> bool:
        """Whether the two intervals share a point; an unknown interval overlaps with everything.

        Example:
            >>> Interval(0.1, 0.3).overlaps(Interval(0.3, 0.5))
            True
            >>> Interval(0.1, 0.2).overlaps(Interval(0.3, 0.5))
            False
        """
        ends = (*self, *other)
        if not all(np.isfinite(ends)):
            return True
        return self.low <= other.high and other.low <= self.high


UNKNOWN = Interval(float("nan"), float("nan"))


def mean_and_deviation(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); NaN deviation for one value, NaN both for none.

    Args:
        values: (n,) numbers, one per repetition.

    Returns:
        `(mean, deviation)` in the unit of the values.

    Example:
        >>> mean_and_deviation([1.0, 2.0, 3.0])
        (2.0, 1.0)
        >>> mean_and_deviation([0.5])
        (0.5, nan)
    """
    array = vector(values)
    mean = float(array.mean()) if array.size else float("nan")
    deviation = float(array.std(ddof=1)) if array.size > 1 else float("nan")
    return mean, deviation


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Student's t interval of the mean: mean ± t(n - 1) · deviation / √n.

    For a handful of seeds, where a bootstrap is too narrow. It takes the repetitions for
    independent and roughly normal.

    Args:
        values: (n,) numbers, one per repetition.
        level: coverage, between 0 and 1.

    Returns:
        The interval; unknown for fewer than two values, a point where all are equal.

    Example:
        >>> low, high = mean_interval([1.0, 2.0, 3.0])
        >>> round(low, 3), round(high, 3)
        (-0.484, 4.484)
    """
    array = vector(values)
    check_level(level)
    if array.size < 2:
        return UNKNOWN
    mean, deviation = mean_and_deviation(array)
    if np.ptp(rounded(array)) == 0:
        return Interval(mean, mean)
    half = float(stats.t.ppf((1 + level) / 2, array.size - 1)) * deviation / np.sqrt(array.size)
    return Interval(float(mean - half), float(mean + half))


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., ArrayLike] = np.mean,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of a statistic of one sample.

    Args:
        values: (n,) numbers.
        statistic: reduces an array along its argument `axis`, as `np.mean` does.
        level: coverage, between 0 and 1.
        seed: of the resampling; the same seed gives the same interval.

    Returns:
        The interval; unknown for fewer than two values, a point where all are equal.

    Example:
        >>> low, high = bootstrap_interval([1.0, 2.0, 3.0, 4.0])
        >>> 1.0 <= low < 2.5 < high <= 4.0
        True

    Source: Efron, "Better bootstrap confidence intervals", JASA 82 (1987).
    """
    array = vector(values)
    check_level(level)
    if array.size < 2:
        return UNKNOWN
    if np.ptp(rounded(array)) == 0:
        point = float(np.asarray(statistic(array, axis=0)))
        return Interval(point, point)
    return bootstrap((array,), statistic, level=level, seed=seed)


def bootstrap(
    samples: tuple[np.ndarray, ...],
    statistic: Callable[..., ArrayLike],
    *,
    level: float = 0.95,
    seed: int = 0,
    paired: bool = False,
) -> Interval:
    """BCa interval of a statistic of several samples; the percentile one where BCa has no answer.

    Args:
        samples: (n,) each, of one length where they are paired.
        statistic: takes the samples and ``axis``, as scipy's ``bootstrap`` calls it.
        level: coverage, between 0 and 1.
        seed: of the resampling.
        paired: resample all samples with the same positions.

    Returns:
        The interval; unknown where every resampling gives no finite number.

    Example:
        >>> first, second = np.array([1.0, 2.0, 4.0, 3.0]), np.array([2.0, 4.0, 7.0, 6.0])
        >>> low, high = bootstrap((first, second), ratio_of_means, paired=True)
        >>> 0.49 < low < 10 / 19 < high < 0.6
        True
    """
    check_level(level)
    batch = max(1, _BATCH_VALUES // max(sample.size for sample in samples))
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings():
            # A degenerate jackknife warns and gives NaN; the percentile interval still exists.
            warnings.simplefilter("ignore")
            found = stats.bootstrap(
                samples,
                statistic,
                n_resamples=RESAMPLES,
                confidence_level=level,
                method=method,
                vectorized=True,
                paired=paired,
                batch=batch,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            return Interval(float(found.low), float(found.high))
    return UNKNOWN


def ratio_of_means(first: np.ndarray, second: np.ndarray, axis: int = -1) -> np.ndarray:
    """mean(first) / mean(second) along an axis; NaN where the second mean is zero.

    Example:
        >>> float(ratio_of_means(np.array([1.0, 3.0]), np.array([4.0, 4.0])))
        0.5
    """
    below = np.asarray(second.mean(axis=axis))
    return np.divide(
        first.mean(axis=axis), below, out=np.full(below.shape, np.nan), where=below != 0
    )


def proportion_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval of a proportion; unknown without a trial.

    It takes the trials for independent; its coverage is at least the level.

    Example:
        >>> low, high = proportion_interval(0, 10)
        >>> low, round(high, 3)
        (0.0, 0.308)

    Source: Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case
    of the binomial", Biometrika 26 (1934).
    """
    check_level(level)
    if not 0 <= successes <= trials:
        raise ValueError(f"successes must be from 0 to {trials}, got {successes}")
    if trials == 0:
        return UNKNOWN
    found = stats.binomtest(successes, trials).proportion_ci(level)
    return Interval(float(found.low), float(found.high))


def vector(values: ArrayLike) -> np.ndarray:
    """The values as a vector of finite floats, or a ValueError."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(
            f"values must be a vector of finite numbers, got shape {array.shape} with "
            f"{int((~np.isfinite(array)).sum())} not finite"
        )
    return array


def rounded(values: np.ndarray, scale: float | None = None) -> np.ndarray:
    """To twelve digits of a scale, so that what is equal but for rounding is equal.

    Scores are often shares of so many examples, and 13/360 - 12/360 is not quite 14/360 - 13/360. A
    test that takes the rest of such a subtraction for a spread finds it many deviations from zero.

    Args:
        values: any, infinities too.
        scale: the largest of the numbers that they were computed from; by default of their own.

    Example:
        >>> differences = np.array([13, 14]) / 360 - np.array([12, 13]) / 360
        >>> bool(np.ptp(differences) == 0), bool(np.ptp(rounded(differences, 14 / 360)) == 0)
        (False, True)
    """
    values = np.asarray(values, dtype=np.float64)
    if scale is None:
        scale = float(np.abs(values, where=np.isfinite(values), out=np.zeros(values.shape)).max())
    unit = math.ldexp(1.0, math.frexp(scale)[1] - 40)  # a power of two keeps short numbers exact
    return np.rint(values / unit) * unit if unit else values


def check_level(level: float) -> None:
    """A ValueError where the level is no coverage."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
