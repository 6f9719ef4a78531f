"""The error rate of every system with its intervals, and how it stands to the reference objective.

Three questions, three intervals. Other strings by the same speakers, read by the same trainings:
strings are resampled within each speaker. Other trainings: speakers with their trainings are
resampled, and strings within them. Other seeds, where each was trained on every speaker or there is
one test set: seeds are resampled, and the strings that they share.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from research import stats
from research.report.speech.design import System
from research.report.speech.details import counts_of, decoders_of, errors_of
from research.report.speech.trained import Pair, Trained, by_string
from research.stats import UNKNOWN, Comparison, Interval, PairedDifference, Unit

ALPHA = 0.05


@dataclass(frozen=True)
class Rate:
    """An error rate averaged over held-out speakers, each with the same weight.

    Intervals are unknown where the trainings cannot give them.
    """

    value: float
    strings: Interval  # for other strings
    trainings: Interval  # for other speakers, each with its training
    seeds: Interval  # for other seeds and strings, with these speakers

    @property
    def widest(self) -> Interval:
        """Of the intervals for other trainings, that with most in it."""
        return self.trainings if math.isfinite(self.trainings.low) else self.seeds


@dataclass(frozen=True)
class Difference:
    """A system minus another one, over the trainings of the same fold and seed."""

    pairs: int
    comparison: Comparison  # of the error rates, training by training; infinity where one diverged
    strings: Interval
    resampled: PairedDifference | None  # None where a training diverged
    units: str  # what is resampled: "speakers" or "seeds"
    adjusted: float = math.nan  # p value after Holm

    @property
    def value(self) -> float:
        """Mean over speakers; NaN where a training diverged."""
        return math.nan if self.resampled is None else self.resampled.value

    @property
    def interval(self) -> Interval:
        """For other trainings and strings."""
        return UNKNOWN if self.resampled is None else self.resampled.interval

    @property
    def p_value(self) -> float:
        """Of the same resampling; of the signed-rank test where a training diverged."""
        if self.resampled is None:
            return self.comparison.rank_test
        return self.resampled.p_value

    @property
    def verdict(self) -> str:
        """Better, worse or open, by the adjusted p value; empty without a test."""
        if math.isnan(self.adjusted):
            return ""
        if self.adjusted > ALPHA:
            return "open"
        lead = -self.value if math.isfinite(self.value) else self._wins_ahead
        return "better" if lead > 0 else "worse"

    @property
    def _wins_ahead(self) -> int:
        return self.comparison.wins - self.comparison.losses


@dataclass(frozen=True)
class Outcome:
    """A system with its error rate, and its difference to the reference objective."""

    trained: Trained
    rate: Rate | None  # None where there is no mean over all speakers
    difference: Difference | None

    @property
    def system(self) -> System:
        """Which."""
        return self.trained.system

    @property
    def shares(self) -> dict[str, float]:
        """Substituted, deleted and inserted labels over those said, averaged as the rate is."""
        found = {}
        for position, kind in enumerate(("substitution", "deletion", "insertion")):
            values = {}
            for pair, result in self.trained.finished.items():
                counts = counts_of(result)
                values[pair] = counts[:, position].sum() / counts[:, 3].sum()
            found[kind] = self.trained.average(values) if self.rate else math.nan
        return found

    def decoded(self, decoder: str, words: bool = False) -> float:
        """Error rate by a decoder, averaged as the rate is; NaN where there is none."""
        results = self.trained.finished
        if self.rate is None or any(decoder not in decoders_of(r, words) for r in results.values()):
            return math.nan
        return self.trained.average(
            {p: stats.error_rate([errors_of(r, decoder, words)]) for p, r in results.items()}
        )


def read_outcomes(
    trained: Mapping[System, Trained], baselines: Mapping[System, System | None]
) -> dict[System, Outcome]:
    """The outcome of every system; Holm's adjustment is over all comparisons with the reference."""
    made = {}
    for system, item in trained.items():
        baseline = baselines.get(system)
        other = trained.get(baseline) if baseline else None
        made[system] = Outcome(item, rate_of(item), difference_of(item, other) if other else None)
    compared = [o for o in made.values() if o.difference]
    p_values = stats.holm([o.difference.p_value for o in compared if o.difference])
    for outcome, adjusted in zip(compared, p_values, strict=True):
        assert outcome.difference
        difference = replace(outcome.difference, adjusted=adjusted)
        made[outcome.system] = replace(outcome, difference=difference)
    return made


def rate_of(item: Trained) -> Rate | None:
    """The error rate by the greedy decoder; None where a speaker is missing or one diverged."""
    if not item.whole:
        return None
    groups = [by_string(list(item.on(fold).values())) for fold in item.folds]
    speakers, seeds = _units(item, list(item.finished))
    return Rate(
        stats.error_rate(groups),
        stats.error_rate_interval(groups),
        stats.trainings_interval(speakers) if len(speakers) > 1 else UNKNOWN,
        stats.trainings_interval(seeds, shared=True) if len(seeds) > 1 else UNKNOWN,
    )


def difference_of(first: Trained, second: Trained) -> Difference | None:
    """First minus second; None without a fold and seed that both have."""
    scores, other = first.scores(), second.scores()
    pairs = [pair for pair in scores if pair in other]
    if not pairs:
        return None
    comparison = stats.compare([scores[p] for p in pairs], [other[p] for p in pairs])
    if comparison.failures or comparison.reference_failures:
        return Difference(len(pairs), comparison, UNKNOWN, None, "speakers")
    folds = list(dict.fromkeys(fold for fold, _ in pairs))
    mine, theirs = (
        [by_string([item.finished[p] for p in pairs if p[0] == fold]) for fold in folds]
        for item in (first, second)
    )
    one, two = _units(first, pairs), _units(second, pairs)
    shared = len(folds) == 1
    found = stats.trainings_difference(one[shared], two[shared], shared=shared)
    strings = stats.difference_interval(mine, theirs)
    units = "seeds" if shared else "speakers"
    return Difference(len(pairs), comparison, strings, found, units)


def _units(item: Trained, pairs: Sequence[Pair]) -> tuple[list[Unit], list[Unit]]:
    """What can be drawn anew: speakers with their trainings; seeds, where every speaker has all."""
    results = item.finished
    folds = sorted({fold for fold, _ in pairs})
    seeds = sorted({seed for _, seed in pairs})
    speakers: list[Unit] = [
        [errors_of(results[own, seed]) for own, seed in pairs if own == fold] for fold in folds
    ]
    if len(pairs) < len(folds) * len(seeds):
        return speakers, []
    return speakers, [[errors_of(results[fold, seed]) for fold in folds] for seed in seeds]


def seed_means(item: Trained) -> dict[int, tuple[int, float]]:
    """Speakers and mean error rate over them of each seed, of the finished trainings."""
    scores = {pair: score for pair, score in item.scores().items() if np.isfinite(score)}
    seeds = sorted({seed for _, seed in scores})
    return {
        seed: (len(own), float(np.mean(own)))
        for seed in seeds
        if (own := [score for (_, s), score in scores.items() if s == seed])
    }
