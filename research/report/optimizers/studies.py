"""The studies of an entrant on one workload at one horizon, compared as a whole.

What is compared are repetitions of something. With one study these are its final runs, by seed:
they say how sure a tuned setting is. With several they are the studies, each worth the mean over
the seeds of its winner: they hold the luck of the search as well as that of the seed.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from research import stats
from research.report.optimizers.cells import Cell, Key, State
from research.report.optimizers.design import Design, Unit
from research.stats import Comparison

SetKey = tuple[str, str, int, int]  # workload, entrant, horizon, set


@dataclass(frozen=True)
class Studies:
    """A set of studies, as far as it is recorded: set 0, or a further one of the reference."""

    workload: str
    entrant: str
    horizon: int
    number: int
    cells: tuple[Cell, ...]  # by study
    unit: Unit

    @property
    def state(self) -> State:
        """Of all studies together: complete where each has ended and not every one failed."""
        states: set[State] = {cell.state for cell in self.cells}
        if len(states) == 1:
            return states.pop()
        if states <= {"complete", "failed"}:
            return "complete"
        return "finals" if states & {"complete", "finals"} else "searching"

    @property
    def searches(self) -> list[dict]:
        """Search trials of all studies."""
        return [row for cell in self.cells for row in cell.searches]

    @property
    def finals(self) -> list[dict]:
        """Final runs of all studies."""
        return [row for cell in self.cells for row in cell.finals]

    @property
    def search_diverged(self) -> int:
        """Search trials that diverged."""
        return sum(cell.search_diverged for cell in self.cells)

    @property
    def final_diverged(self) -> int:
        """Final runs that diverged."""
        return sum(cell.final_diverged for cell in self.cells)

    @property
    def failed(self) -> int:
        """Studies that failed: every search trial diverged, or a run of the winner."""
        return sum(cell.state == "failed" or cell.final_diverged > 0 for cell in self.cells)

    @property
    def gradient_evaluations(self) -> float:
        """Per step."""
        return next((c.gradient_evaluations for c in self.cells if c.searches or c.finals), 1.0)

    def values(self, which: str) -> dict[int, float]:
        """What is compared, by seed or by study; infinity where a run diverged or a study failed.

        A study that has not ended has no value. One whose search diverged throughout is among the
        failures; alone, without other studies, it has no seed to be told by, and no value.

        Args:
            which: "validation" or "test".
        """
        if self.unit == "seed":
            return {
                seed: score for cell in self.cells for seed, score in cell.scores(which).items()
            }
        return {
            cell.study: float(np.mean(list(cell.scores(which).values()) or [math.inf]))
            for cell in self._ended()
        }

    def times(self, target: float | None) -> dict[int, tuple[float, bool]]:
        """Steps until the target and whether it is ever reached, by seed or by study.

        A study reaches it where more than half of its winner's runs do, after their median steps.
        """
        if target is None:
            return {}
        if self.unit == "seed":
            return {seed: time for c in self.cells for seed, time in c.times(target).items()}
        return {cell.study: self._time(cell, target) for cell in self._ended()}

    def runs_reached(self, target: float | None) -> int:
        """Final runs that reach the target."""
        return sum(there for cell in self.cells for _, there in cell.times(target).values())

    def seed_deviation(self, which: str) -> float:
        """Standard deviation over the seeds of one winner, pooled over studies; NaN if unknown."""
        groups = [list(cell.scores(which).values()) for cell in self.cells]
        known = [scores for scores in groups if len(scores) > 1 and np.isfinite(scores).all()]
        freedom = sum(len(scores) - 1 for scores in known)
        squares = sum(float(np.var(scores)) * len(scores) for scores in known)
        return math.sqrt(squares / freedom) if freedom else math.nan

    def _ended(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.state in ("complete", "failed")]

    def _time(self, cell: Cell, target: float) -> tuple[float, bool]:
        found = cell.times(target).values()
        steps = [steps if there else math.inf for steps, there in found] or [math.inf]
        middle = float(np.median(steps))
        return (middle, True) if math.isfinite(middle) else (float(self.horizon), False)


def read_studies(design: Design, cells: Mapping[Key, Cell]) -> dict[SetKey, Studies]:
    """All sets of studies, the compared one of each entrant and further ones of the reference."""
    groups: dict[SetKey, list[Cell]] = defaultdict(list)
    for (workload, entrant, horizon, study), cell in sorted(cells.items(), key=lambda i: i[0][3]):
        groups[workload, entrant, horizon, study // design.studies].append(cell)
    # In the order of the cells, which is that of the configuration.
    keys = dict.fromkeys((*key[:3], key[3] // design.studies) for key in cells)
    return {key: Studies(*key, tuple(groups[key]), design.unit) for key in keys}


def compare_studies(one: Studies, other: Studies, which: str) -> Comparison | None:
    """Test of the difference: paired over shared seeds, or Welch's over independent studies.

    Studies of one number share their seeds, but not their searches; where these matter more, pairs
    would only cost degrees of freedom. What the shared seeds have in common makes Welch's test
    reject less, never more.
    """
    own, theirs = one.values(which), other.values(which)
    if one.unit == "study":
        if not (own and theirs):
            return None
        return stats.compare_independent(list(own.values()), list(theirs.values()))
    seeds = shared(own, theirs)
    if not seeds:
        return None
    return stats.compare([own[seed] for seed in seeds], [theirs[seed] for seed in seeds])


def compared_score(studies: Sequence[Studies]) -> str:
    """Which score to compare: the test score, or that of validation where a run has none."""
    measured = [score for each in studies for score in each.values("test").values()]
    return "validation" if np.isnan(measured).any() else "test"


def shared(first: Mapping[int, object], second: Mapping[int, object]) -> list[int]:
    """Seeds that both have, ascending."""
    return sorted(set(first) & set(second))


def as_times(found: Mapping[int, tuple[float, bool]], keys: Sequence[int]) -> stats.Times:
    """The times of some seeds or studies, for the statistics."""
    return stats.times([found[key][0] for key in keys], [found[key][1] for key in keys])
