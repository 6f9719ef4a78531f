"""Means, spreads and intervals for the tables of a report; the statistics are scipy's.

Two sources of chance are kept apart. Seeds repeat the training: few of them, so their mean gets a
Student t interval. Utterances repeat the measurement: many of them, of unequal length, so an error
rate gets a bootstrap interval that resamples whole utterances.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
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


class UtteranceErrors(NamedTuple):
    """Errors and reference labels of each of U utterances."""

    errors: Float[np.ndarray, "U"]
    totals: Float[np.ndarray, "U"]


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
    array = _vector(values)
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
    array = _vector(values)
    _check_level(level)
    if array.size < 2:
        return UNKNOWN
    mean, deviation = mean_and_deviation(array)
    if np.ptp(array) == 0:
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
    array = _vector(values)
    _check_level(level)
    if array.size < 2:
        return UNKNOWN
    if np.ptp(array) == 0:
        point = float(np.asarray(statistic(array, axis=0)))
        return Interval(point, point)
    return _bootstrap((array,), statistic, level=level, seed=seed)


def error_rate(groups: Sequence[UtteranceErrors]) -> float:
    """Mean over the groups of errors / reference labels; NaN where a group has no label.

    Example:
        >>> error_rate([UtteranceErrors(np.array([1.0, 0.0]), np.array([4.0, 6.0]))])
        0.1
    """
    if not groups or any(group.totals.sum() <= 0 for group in groups):
        return float("nan")
    return float(np.mean([group.errors.sum() / group.totals.sum() for group in groups]))


def ratio_interval(
    errors: ArrayLike, totals: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Bootstrap interval of Σ errors / Σ totals, resampling whole utterances.

    Args:
        errors: (U,) errors of each utterance.
        totals: (U,) reference labels of each utterance.
        level: coverage, between 0 and 1.
        seed: of the resampling.

    Returns:
        The interval; see `error_rate_interval`.

    Example:
        >>> low, high = ratio_interval([0, 1, 0, 2, 0, 1], [3, 4, 5, 3, 4, 5])
        >>> 0 <= low < 4 / 24 < high < 1
        True
    """
    return error_rate_interval([utterance_errors(errors, totals)], level=level, seed=seed)


def utterance_errors(errors: ArrayLike, totals: ArrayLike) -> UtteranceErrors:
    """Checked `UtteranceErrors` of two vectors of one length.

    Raises:
        ValueError: if the lengths differ, a count is negative or not finite.

    Example:
        >>> utterance_errors([1, 0], [4, 6]).totals
        array([4., 6.])
    """
    numerator, denominator = _vector(errors), _vector(totals)
    if numerator.shape != denominator.shape:
        raise ValueError(
            "errors and totals must have one entry per utterance each, "
            f"got {numerator.size} and {denominator.size}"
        )
    if (numerator < 0).any() or (denominator < 0).any():
        raise ValueError("errors and totals are counts and must not be negative")
    return UtteranceErrors(numerator, denominator)


def error_rate_interval(
    groups: Sequence[UtteranceErrors], *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Bootstrap interval of `error_rate`, resampling utterances within each group (speaker).

    The groups themselves are fixed: the interval speaks of other strings by these speakers, not of
    other speakers. Where no utterance has an error there is nothing to resample, and the interval
    is the exact binomial one (Clopper-Pearson) with the labels as independent trials.

    Args:
        groups: utterances of each speaker.
        level: coverage, between 0 and 1.
        seed: of the resampling.

    Returns:
        The interval; unknown where a group has fewer than two utterances, a point where every
        utterance has the same error rate above zero.

    Example:
        >>> clean = utterance_errors([0, 0, 0], [5, 5, 5])
        >>> low, high = error_rate_interval([clean])
        >>> low, round(high, 3)
        (0.0, 0.218)
    """
    _check_level(level)
    rate = error_rate(groups)
    if not np.isfinite(rate) or any(group.errors.size < 2 for group in groups):
        return UNKNOWN
    if rate == 0:
        labels = int(sum(group.totals.sum() for group in groups))
        exact = stats.binomtest(0, labels).proportion_ci(level)
        return Interval(float(exact.low), float(exact.high))
    if all(_constant_ratio(group) for group in groups):
        return Interval(rate, rate)

    def statistic(*indices: np.ndarray, axis: int = -1) -> np.ndarray:
        return _resampled_rate(groups, indices, axis)

    samples = tuple(np.arange(group.errors.size) for group in groups)
    return _bootstrap(samples, statistic, level=level, seed=seed)


def difference_interval(
    first: Sequence[UtteranceErrors],
    second: Sequence[UtteranceErrors],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Paired bootstrap interval of error_rate(first) - error_rate(second) on the same utterances.

    Args:
        first: utterances of each speaker, as one system made them.
        second: the same utterances as the other system made them.
        level: coverage, between 0 and 1.
        seed: of the resampling.

    Returns:
        The interval; unknown where a group has fewer than two utterances, a point where the two
        systems differ equally on each.

    Raises:
        ValueError: if the two do not have the same utterances (by number and reference length).

    Example:
        >>> a = utterance_errors([1, 2, 0, 1], [4, 4, 4, 4])
        >>> b = utterance_errors([0, 2, 0, 0], [4, 4, 4, 4])
        >>> low, high = difference_interval([a], [b])
        >>> 0 <= low < 0.125 < high
        True

    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation", ICASSP 2004.
    """
    _check_level(level)
    if not same_utterances(first, second):
        raise ValueError("a paired interval needs the same utterances, in the same order, in both")
    difference = error_rate(first) - error_rate(second)
    if not np.isfinite(difference) or any(group.errors.size < 2 for group in first):
        return UNKNOWN
    pairs = list(zip(first, second, strict=True))
    if all(
        _constant_ratio(UtteranceErrors(one.errors - two.errors, one.totals)) for one, two in pairs
    ):
        return Interval(difference, difference)

    def statistic(*indices: np.ndarray, axis: int = -1) -> np.ndarray:
        return _resampled_rate(first, indices, axis) - _resampled_rate(second, indices, axis)

    samples = tuple(np.arange(group.errors.size) for group in first)
    return _bootstrap(samples, statistic, level=level, seed=seed)


def same_utterances(first: Sequence[UtteranceErrors], second: Sequence[UtteranceErrors]) -> bool:
    """Whether two systems were measured on strings of the same number and lengths.

    Example:
        >>> one = utterance_errors([1, 0], [4, 6])
        >>> same_utterances([one], [one]), same_utterances([one], [one, one])
        (True, False)
    """
    return len(first) == len(second) and all(
        np.array_equal(one.totals, two.totals) for one, two in zip(first, second, strict=True)
    )


def _resampled_rate(
    groups: Sequence[UtteranceErrors], indices: Sequence[np.ndarray], axis: int
) -> np.ndarray:
    rates = []
    for group, index in zip(groups, indices, strict=True):
        chosen = index.astype(
            int
        )  # scipy resamples positions, so numerators stay with their totals
        rates.append(group.errors[chosen].sum(axis=axis) / group.totals[chosen].sum(axis=axis))
    return np.mean(rates, axis=0)


def _bootstrap(
    samples: tuple[np.ndarray, ...],
    statistic: Callable[..., ArrayLike],
    *,
    level: float,
    seed: int,
) -> Interval:
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
                batch=batch,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if np.isfinite(found.low) and np.isfinite(found.high):
            return Interval(float(found.low), float(found.high))
    return UNKNOWN


def _constant_ratio(group: UtteranceErrors) -> bool:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = group.errors / group.totals
    return bool(np.isfinite(ratio).all() and np.ptp(ratio) == 0)


def _vector(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise ValueError(
            f"values must be a vector of finite numbers, got shape {array.shape} with "
            f"{int((~np.isfinite(array)).sum())} not finite"
        )
    return array


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
