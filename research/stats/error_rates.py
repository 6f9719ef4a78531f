"""Error rates over utterances of unequal length: the interval resamples whole utterances."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from research.stats.intervals import (
    UNKNOWN,
    Interval,
    bootstrap,
    check_level,
    proportion_interval,
    vector,
)


class UtteranceErrors(NamedTuple):
    """Errors and reference labels of each of U utterances."""

    errors: Float[np.ndarray, "U"]
    totals: Float[np.ndarray, "U"]


def error_rate(groups: Sequence[UtteranceErrors]) -> float:
    """Mean over the groups of errors / reference labels; NaN where a group has no label.

    Raises:
        TypeError: a group where a list of groups is needed.

    Example:
        >>> error_rate([UtteranceErrors(np.array([1.0, 0.0]), np.array([4.0, 6.0]))])
        0.1
    """
    _check_groups(groups)
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
    numerator, denominator = vector(errors), vector(totals)
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

    Raises:
        TypeError: a group where a list of groups is needed.

    Example:
        >>> clean = utterance_errors([0, 0, 0], [5, 5, 5])
        >>> low, high = error_rate_interval([clean])
        >>> low, round(high, 3)
        (0.0, 0.218)
    """
    check_level(level)
    rate = error_rate(groups)
    if not np.isfinite(rate) or any(group.errors.size < 2 for group in groups):
        return UNKNOWN
    if rate == 0:
        labels = int(sum(group.totals.sum() for group in groups))
        return proportion_interval(0, labels, level=level)
    if all(_constant_ratio(group) for group in groups):
        return Interval(rate, rate)

    def statistic(*indices: np.ndarray, axis: int = -1) -> np.ndarray:
        return _resampled_rate(groups, indices, axis)

    samples = tuple(np.arange(group.errors.size) for group in groups)
    return bootstrap(samples, statistic, level=level, seed=seed)


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
        TypeError: a group where a list of groups is needed.
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
    check_level(level)
    _check_groups(first)
    _check_groups(second)
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
    return bootstrap(samples, statistic, level=level, seed=seed)


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


def _check_groups(groups: Sequence[UtteranceErrors]) -> None:
    """Refuse what is not a list of groups."""
    if isinstance(groups, UtteranceErrors) or not all(
        isinstance(group, UtteranceErrors) for group in groups
    ):
        kinds = type(groups).__name__, *{type(group).__name__ for group in groups}
        raise TypeError(
            "groups must be a list of UtteranceErrors, one for each speaker; received "
            f"{kinds[0]} of {' and '.join(kinds[1:])}. Put a single group into a list: "
            "[utterance_errors(errors, totals)]."
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


def _constant_ratio(group: UtteranceErrors) -> bool:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = group.errors / group.totals
    return bool(np.isfinite(ratio).all() and np.ptp(ratio) == 0)
