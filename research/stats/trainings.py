"""Error rates of several trainings: other trainings would differ, and other strings too.

A unit is what is drawn anew when the experiment is repeated: a held-out speaker with the training
that does not know the speaker, or a seed. Under each unit lie the strings that it was measured on.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from research.stats.error_rates import UtteranceErrors, error_rate, same_utterances
from research.stats.intervals import UNKNOWN, Interval, check_level, proportion_interval

# Groups of one unit: utterances of each training (seed) on a speaker, or of a seed on each speaker.
Unit = Sequence[UtteranceErrors]

_RESAMPLES = 9999
_STRING_RESAMPLES = 1000  # of the strings of one unit; each is used about ten times
_BATCH_VALUES = 2_000_000


class PairedDifference(NamedTuple):
    """A difference of two error rates over pairs of trainings.

    ``p_value`` is two-sided, of the same standard error as the interval: below 0.05 exactly where
    the 95 % interval leaves out zero.
    """

    value: float
    interval: Interval
    p_value: float
    units: int


def trainings_interval(
    units: Sequence[Unit],
    *,
    shared: bool = False,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> Interval:
    r"""Interval of the mean over units of `error_rate`, for other units and other strings.

    Hierarchical bootstrap: units are drawn with replacement and, within each, strings. The spread
    s² between the rates of n units contains already what strings do to each, so these rates are
    first shrunk towards their mean, as Davison and Hinkley do. For units with strings of their own
    the resampled variance is then max(s², w) / n, where w is the variance of one rate by its
    strings. A handful of units is too few for a normal interval with that variance, so it is never
    narrower than Student's over the units: rate ± max(z · standard error, t(n - 1) · s / √n).

    What strings do to all units alike is not in s² where the units share them. There it is added to
    s² / n, and the interval is Student's with the degrees of freedom of Welch and Satterthwaite.

    Args:
        units: groups of each of n units. Groups of one unit with the same reference lengths are
            taken for the same strings and resampled together.
        shared: group k of every unit is on the same strings (units are seeds).
        level: coverage, between 0 and 1.
        seed: of the resampling.
        resamples: how many.

    Returns:
        The interval, not below zero; unknown for fewer than two units. Without any error the upper
        end is the exact binomial one of as many labels, as in `error_rate_interval`.

    Raises:
        ValueError: units that should share their strings do not.

    Example:
        >>> units = [
        ...     [UtteranceErrors(np.array([e, 1.0]), np.array([5.0, 5.0]))] for e in (0, 1, 2, 1)
        ... ]
        >>> low, high = trainings_interval(units)
        >>> 0 <= low < 0.2 < high
        True

    Sources: Davison and Hinkley, "Bootstrap Methods and their Application", 1997, section 3.8;
    Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics
    Bulletin 2 (1946).
    """
    check_level(level)
    found = _resampled(units, shared, seed, resamples)
    if math.isnan(found.error):
        return UNKNOWN
    if found.value == 0:
        groups = units[0] if shared else [group for unit in units for group in unit]
        return proportion_interval(0, int(sum(g.totals.sum() for g in groups)), level=level)
    half = found.half_width(level)
    return Interval(max(0.0, found.value - half), found.value + half)


def trainings_difference(
    first: Sequence[Unit],
    second: Sequence[Unit],
    *,
    shared: bool = False,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> PairedDifference:
    """Interval and test of the mean over units of error_rate(first) - error_rate(second), in pairs.

    The hierarchical bootstrap of `trainings_interval` on the differences of each string's errors:
    what a speaker, a seed or a string does to both systems alike cancels.

    Args:
        first: units as one system made them.
        second: the same units, groups and utterances as the other system made them.
        shared: group k of every unit is on the same strings (units are seeds).
        level: coverage, between 0 and 1.
        seed: of the resampling.
        resamples: how many.

    Returns:
        The difference; interval and p value are unknown for fewer than two units.

    Raises:
        ValueError: the two do not have the same utterances (by number and reference length).

    Example:
        >>> a = [[UtteranceErrors(np.array([e, 2.0]), np.array([5.0, 5.0]))] for e in (1, 1, 2, 3)]
        >>> b = [[UtteranceErrors(np.array([e, 1.0]), np.array([5.0, 5.0]))] for e in (0, 0, 1, 3)]
        >>> made = trainings_difference(a, b)
        >>> round(made.value, 3), made.p_value < 0.05, made.interval.low > 0
        (0.175, True, True)
    """
    check_level(level)
    if len(first) != len(second) or not all(map(same_utterances, first, second)):
        raise ValueError(
            "a paired difference needs the same utterances, in the same order, in both"
        )
    units = [
        [UtteranceErrors(a.errors - b.errors, a.totals) for a, b in zip(one, two, strict=True)]
        for one, two in zip(first, second, strict=True)
    ]
    found = _resampled(units, shared, seed, resamples)
    value = found.value
    if math.isnan(found.error):
        return PairedDifference(value, UNKNOWN, math.nan, len(units))
    half = found.half_width(level)
    return PairedDifference(
        value, Interval(value - half, value + half), found.p_value(), len(units)
    )


class _Resampled(NamedTuple):
    value: float
    error: float  # standard error of the value over all that is random; NaN where there is none
    between: float  # its part by units alone, with what their own strings contribute
    units: int
    shared: bool

    def half_width(self, level: float) -> float:
        return max(
            float(stats.t.ppf((1 + level) / 2, freedom)) * error
            for error, freedom in self._scales()
        )

    def p_value(self) -> float:
        if self.error == 0:  # no spread to measure a difference by
            return 1.0 if self.value == 0 else math.nan
        return max(
            2 * float(stats.t.sf(abs(self.value) / error, freedom)) if error > 0 else 0.0
            for error, freedom in self._scales()
        )

    def _scales(self) -> list[tuple[float, float]]:
        """Standard errors, each with its degrees of freedom."""
        few = self.units - 1
        if not self.shared:
            return [(self.error, math.inf), (self.between, few)]
        share = (self.between / self.error) ** 4 if self.error > 0 else 1.0
        return [(self.error, few / share if share > 0 else math.inf)]


def _resampled(units: Sequence[Unit], shared: bool, seed: int, resamples: int) -> _Resampled:
    if shared and not all(same_utterances(units[0], unit) for unit in units):
        raise ValueError("units that share their strings must have the same utterances in each")
    rates = np.array([error_rate(unit) for unit in units])
    value, n = float(rates.mean()) if rates.size else math.nan, rates.size
    if n < 2 or not np.isfinite(value) or any(g.errors.size < 2 for unit in units for g in unit):
        return _Resampled(value, math.nan, math.nan, n, shared)
    generator = np.random.default_rng(seed)
    offsets = _string_offsets(units, shared, generator)  # (draws, n)
    between = float(rates.var(ddof=1)) if np.ptp(rates) > 1e-12 else 0.0
    # What the strings drawn below bring to the spread between units, which contains it already:
    # all that they do to a unit, or, where all units share them, what they do to it alone.
    own = float(offsets.var(axis=0).mean())
    if shared:
        own = (own - float(offsets.mean(axis=1).var())) * n / (n - 1)
    scale = math.sqrt(n / (n - 1) * max(0.0, 1 - own / between)) if between else 0.0
    chosen = generator.integers(0, n, (resamples, n))
    draws = generator.integers(0, len(offsets), (resamples, 1 if shared else n))
    # Shared strings are drawn once for all units, whichever of these were drawn.
    moved = offsets[draws[:, 0]] if shared else offsets[draws, chosen]
    means = (scale * (rates - value)[chosen] + moved).mean(axis=1)
    error = max(float(means.std(ddof=1)), math.sqrt(between / n))
    return _Resampled(value, error, math.sqrt(between / n), n, shared)


def _string_offsets(
    units: Sequence[Unit], shared: bool, generator: np.random.Generator
) -> Float[np.ndarray, "D n"]:
    """How far each unit's rate moves when its strings are drawn anew."""
    if shared:
        by_group = zip(*units, strict=True)
        moved = [_moved(list(groups), generator) for groups in by_group]
        return np.mean(moved, axis=0)
    columns = []
    for unit in units:
        same = all(np.array_equal(group.totals, unit[0].totals) for group in unit)
        parts = [list(unit)] if same else [[group] for group in unit]
        moved = [_moved(part, generator) for part in parts]
        columns.append(np.concatenate(moved, axis=1).mean(axis=1))
    return np.stack(columns, axis=1)


def _moved(
    groups: Sequence[UtteranceErrors], generator: np.random.Generator
) -> Float[np.ndarray, "D G"]:
    """Resampled minus observed rates of groups on the same strings, drawn together."""
    totals = groups[0].totals
    errors = np.stack([group.errors for group in groups], axis=1)
    observed = errors.sum(axis=0) / totals.sum()
    count = totals.size
    batch = max(1, min(_STRING_RESAMPLES, _BATCH_VALUES // errors.size))
    found = []
    for start in range(0, _STRING_RESAMPLES, batch):
        size = min(batch, _STRING_RESAMPLES - start)
        chosen = generator.integers(0, count, (size, count))
        said = totals[chosen].sum(axis=1)
        found.append(errors[chosen].sum(axis=1) / said[:, None] - observed)
    return np.concatenate(found)
