"""What became of every cell, beside the reference: differences, tests, times, A/A studies."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from research import stats
from research.report.optimizers.cells import Cell, Key, as_times, shared
from research.report.optimizers.design import Design
from research.stats import UNKNOWN, Comparison, Interval, Times

ALPHA = 0.05


@dataclass(frozen=True)
class Outcome:
    """A cell of the compared study, and how it stands to the reference on the same seeds.

    ``comparison`` is None for the reference itself and where there is nothing to compare; ratios
    of times are NaN where there are none.
    """

    cell: Cell
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
    def scores(self) -> np.ndarray:
        """Of the final runs, infinity where one diverged."""
        return np.array(list(self.cell.scores(self.which).values()))

    @property
    def whole(self) -> bool:
        """Whether there are final runs and none of them diverged."""
        return bool(self.scores.size and np.isfinite(self.scores).all())

    @property
    def mean(self) -> float:
        """Mean score; infinity where a final run diverged, NaN without one."""
        return float(self.scores.mean()) if self.scores.size else math.nan

    @property
    def evaluations(self) -> float:
        """Gradient evaluations of a step over those of the reference."""
        return self.cell.gradient_evaluations / self.reference_evaluations

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
    """Two studies of the reference: any difference is that of the search and of chance."""

    workload: str
    horizon: int
    studies: tuple[int, int]
    which: str
    comparison: Comparison


def read_outcomes(design: Design, cells: Mapping[Key, Cell]) -> dict[tuple[str, str, int], Outcome]:
    """The outcome of every cell of study 0, by workload, entrant and horizon."""
    compared = {key[:3]: cell for key, cell in cells.items() if key[3] == 0}
    found = {key: _outcome(design, cell, compared) for key, cell in compared.items()}
    p_values = [o.comparison.p_value if o.comparison else math.nan for o in found.values()]
    adjusted = stats.holm(p_values)
    return {
        key: replace(outcome, adjusted=p_value)
        for (key, outcome), p_value in zip(found.items(), adjusted, strict=True)
    }


def self_comparisons(design: Design, cells: Mapping[Key, Cell]) -> list[SelfComparison]:
    """Disjoint pairs of complete studies of the reference, so that no study counts twice."""
    made = []
    for workload in design.workloads:
        for horizon in design.horizons[workload]:
            studies = [
                cell
                for key, cell in sorted(cells.items(), key=lambda item: item[0][3])
                if key[:3] == (workload, design.reference, horizon) and cell.state == "complete"
            ]
            for one, two in zip(studies[::2], studies[1::2], strict=False):
                which = _which([one, two])
                comparison = _compare(two, one, which)
                if comparison is not None:
                    pair = one.study, two.study
                    made.append(SelfComparison(workload, horizon, pair, which, comparison))
    return made


def false_positives(made: Sequence[SelfComparison]) -> tuple[int, int, Interval]:
    """How many of the A/A tests reject at 5 %, of how many, with the exact interval."""
    p_values = [item.comparison.p_value for item in made]
    known = [p_value for p_value in p_values if math.isfinite(p_value)]
    rejected = sum(p_value <= ALPHA for p_value in known)
    return rejected, len(known), stats.proportion_interval(rejected, len(known))


def _outcome(design: Design, cell: Cell, compared: Mapping[tuple, Cell]) -> Outcome:
    key = cell.workload, design.reference or "", cell.horizon
    reference = compared.get(key)
    pair = [cell] if reference is None else [cell, reference]
    which = _which(pair)
    found = cell.times(design.targets.get(cell.workload))
    outcome = Outcome(
        cell, which, None, math.nan, as_times(found, sorted(found)) if found else None,
        math.nan, UNKNOWN, "", math.nan, reference.gradient_evaluations if reference else 1.0,
    )  # fmt: skip
    if reference is None or reference is cell:
        return outcome
    outcome = replace(outcome, comparison=_compare(cell, reference, which))
    theirs = reference.times(design.targets.get(cell.workload))
    seeds = shared(found, theirs)
    if not seeds:
        return outcome
    own, other = as_times(found, seeds), as_times(theirs, seeds)
    if not (own.reached.any() or other.reached.any()):
        return outcome  # neither reached: nothing is known of the ratio
    ratio, interval = stats.time_ratio(own, other, cell.horizon)
    late, reference_late = not own.reached.all(), not other.reached.all()
    bound = "?" if late and reference_late else ">" if late else "<" if reference_late else ""
    return replace(
        outcome, ratio=ratio, ratio_interval=interval, bound=bound,
        log_rank=stats.log_rank(own, other),
    )  # fmt: skip


def _compare(cell: Cell, reference: Cell, which: str) -> Comparison | None:
    own, theirs = cell.scores(which), reference.scores(which)
    seeds = shared(own, theirs)
    if not seeds:
        return None
    return stats.compare([own[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def _which(cells: Sequence[Cell]) -> str:
    measured = [score for cell in cells for score in cell.scores("test").values()]
    return "validation" if np.isnan(measured).any() else "test"
