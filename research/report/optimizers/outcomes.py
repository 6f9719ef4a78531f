"""What became of every entrant, beside the reference: differences, tests, times, A/A."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from research import stats
from research.report.optimizers.design import Design
from research.report.optimizers.studies import (
    SetKey,
    Studies,
    as_times,
    compare_studies,
    compared_score,
    shared,
)
from research.stats import UNKNOWN, Comparison, Interval, Times

ALPHA = 0.05


@dataclass(frozen=True)
class Outcome:
    """An entrant's studies at a horizon, and how they stand to the reference's.

    ``comparison`` is None for the reference itself and where there is nothing to compare; ratios
    of times are NaN where there are none.
    """

    studies: Studies
    which: str  # the score that is compared: "test", or "validation" where there is no test
    comparison: Comparison | None
    adjusted: float  # p value after Holm, over all comparisons of the report
    times: Times | None
    ratio: float  # of restricted mean steps to the target, to the reference's
    ratio_interval: Interval
    bound: str  # ">" where the true ratio is larger, "<" smaller, "?" not known which
    log_rank: float
    reference_evaluations: float  # gradient evaluations of the reference per step

    @property
    def entrant(self) -> str:
        """Who."""
        return self.studies.entrant

    @property
    def scores(self) -> np.ndarray:
        """Of the seeds or studies, infinity where one diverged or failed."""
        return np.array(list(self.studies.values(self.which).values()))

    @property
    def whole(self) -> bool:
        """Whether there are scores and all are finite."""
        return bool(self.scores.size and np.isfinite(self.scores).all())

    @property
    def mean(self) -> float:
        """Mean score; infinity where one diverged or failed, NaN without one."""
        return float(self.scores.mean()) if self.scores.size else math.nan

    @property
    def evaluations(self) -> float:
        """Gradient evaluations of a step over those of the reference."""
        return self.studies.gradient_evaluations / self.reference_evaluations

    @property
    def verdict(self) -> str:
        """Better, worse or open, by the adjusted p value; empty without a comparison."""
        made = self.comparison
        if made is None or math.isnan(self.adjusted):
            return ""
        if self.adjusted > ALPHA:
            return "open"
        lead = -made.difference if math.isfinite(made.difference) else made.wins - made.losses
        return "better" if lead > 0 else "worse"


@dataclass(frozen=True)
class SelfComparison:
    """Two sets of studies of the reference: any difference is chance, of search or of seed."""

    workload: str
    horizon: int
    sets: tuple[int, int]
    which: str
    comparison: Comparison


def read_outcomes(
    design: Design, studies: Mapping[SetKey, Studies]
) -> dict[tuple[str, str, int], Outcome]:
    """The outcome of every entrant, by workload, entrant and horizon."""
    compared = {key[:3]: each for key, each in studies.items() if key[3] == 0}
    found = {key: _outcome(design, each, compared) for key, each in compared.items()}
    p_values = [o.comparison.p_value if o.comparison else math.nan for o in found.values()]
    adjusted = stats.holm(p_values)
    return {
        key: replace(outcome, adjusted=p_value)
        for (key, outcome), p_value in zip(found.items(), adjusted, strict=True)
    }


def self_comparisons(design: Design, studies: Mapping[SetKey, Studies]) -> list[SelfComparison]:
    """Disjoint pairs of complete sets of the reference, so that no study counts twice."""
    made = []
    for workload in design.workloads:
        for horizon in design.horizons[workload]:
            sets = [
                each
                for key, each in sorted(studies.items(), key=lambda item: item[0][3])
                if key[:3] == (workload, design.reference, horizon) and each.state == "complete"
            ]
            for one, two in zip(sets[::2], sets[1::2], strict=False):
                which = compared_score([one, two])
                comparison = compare_studies(two, one, which)
                if comparison is not None:
                    pair = one.number, two.number
                    made.append(SelfComparison(workload, horizon, pair, which, comparison))
    return made


def false_positives(made: Sequence[SelfComparison]) -> tuple[int, int, Interval]:
    """How many of the A/A tests reject at 5 %, of how many, with the exact interval."""
    p_values = [item.comparison.p_value for item in made]
    known = [p_value for p_value in p_values if math.isfinite(p_value)]
    rejected = sum(p_value <= ALPHA for p_value in known)
    return rejected, len(known), stats.proportion_interval(rejected, len(known))


def _outcome(design: Design, own: Studies, compared: Mapping[tuple, Studies]) -> Outcome:
    reference = compared.get((own.workload, design.reference or "", own.horizon))
    which = compared_score([own] if reference is None else [own, reference])
    target = design.targets.get(own.workload)
    found = own.times(target)
    outcome = Outcome(
        own, which, None, math.nan, as_times(found, sorted(found)) if found else None,
        math.nan, UNKNOWN, "", math.nan, reference.gradient_evaluations if reference else 1.0,
    )  # fmt: skip
    if reference is None or reference is own:
        return outcome
    outcome = replace(outcome, comparison=compare_studies(own, reference, which))
    theirs = reference.times(target)
    if own.unit == "seed":
        found = {seed: found[seed] for seed in shared(found, theirs)}
        theirs = {seed: theirs[seed] for seed in found}
    if not (found and theirs):
        return outcome
    first, second = as_times(found, sorted(found)), as_times(theirs, sorted(theirs))
    if not (first.reached.any() or second.reached.any()):
        return outcome  # neither reached: nothing is known of the ratio
    ratio, interval = time_ratio(own, first, second)
    late, reference_late = not first.reached.all(), not second.reached.all()
    bound = "?" if late and reference_late else ">" if late else "<" if reference_late else ""
    return replace(
        outcome, ratio=ratio, ratio_interval=interval, bound=bound,
        log_rank=stats.log_rank(first, second),
    )  # fmt: skip


def time_ratio(own: Studies, first: Times, second: Times) -> tuple[float, Interval]:
    """Ratio of times to the target with its interval, of shared seeds or independent studies."""
    if own.unit == "seed":
        return stats.time_ratio(first, second, own.horizon)
    return stats.independent_time_ratio(first, second, own.horizon)
