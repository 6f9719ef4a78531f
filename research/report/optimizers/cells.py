"""The cells of a comparison: one search with its final runs, per workload, entrant and horizon."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from research.report.optimizers.design import Design
from research.report.rows import at_edges, entrant_of, final_score, split_finals, winner
from research.runlog import Records

Key = tuple[str, str, int, int]  # workload, entrant, horizon, study
State = Literal["not run", "searching", "failed", "finals", "complete"]


@dataclass(frozen=True)
class Cell:
    """One study of one entrant on one workload at one horizon, as far as it is recorded."""

    workload: str
    entrant: str
    horizon: int
    study: int
    searches: tuple[dict, ...]  # by trial
    finals: tuple[dict, ...]  # by seed
    state: State
    left_out: tuple[dict, ...] = ()  # final runs of settings that did not win the search

    @property
    def winner(self) -> dict | None:
        """The finished search trial of the lowest final validation score, ties by loss."""
        return winner(self.searches)

    @property
    def hyperparameters(self) -> dict[str, float]:
        """Those of the final runs; of the winner so far while there are none."""
        source = self.finals[0] if self.finals else self.winner
        return source["settings"]["hyperparameters"] if source else {}

    @property
    def search_diverged(self) -> int:
        """Search trials that diverged."""
        return sum(row["status"] == "diverged" for row in self.searches)

    @property
    def final_diverged(self) -> int:
        """Final runs that diverged."""
        return sum(row["status"] == "diverged" for row in self.finals)

    def scores(self, which: str) -> dict[int, float]:
        """Score of the final runs at the end, by seed; infinity where a run diverged.

        Args:
            which: "validation" or "test".
        """
        return {row["settings"]["seed"]: final_score(row, which) for row in self.finals}

    def times(self, target: float | None) -> dict[int, tuple[int, bool]]:
        """Steps until the validation score is at the target, and whether it ever is, by seed.

        A run that diverged has not reached it, and is waited for until the horizon.
        """
        if target is None:
            return {}
        return {row["settings"]["seed"]: _time(row, target) for row in self.finals}

    @property
    def gradient_evaluations(self) -> float:
        """Per step."""
        rows = [*self.finals, *self.searches]
        value = rows[0]["result"].get("gradient_evaluations") if rows else None
        return float(value) if isinstance(value, int | float) and value > 0 else 1.0


def read_cells(records: Records, design: Design) -> dict[Key, Cell]:
    """Every planned cell, run or not, and every recorded one, with the final runs of its winner."""
    searches: dict[Key, list[dict]] = defaultdict(list)
    finals: dict[Key, list[dict]] = defaultdict(list)
    for row in records.rows:
        settings = row["settings"]
        entrant = entrant_of(settings, design.schedule)
        key = settings["workload"], entrant, settings["steps"], settings["study"]
        (finals if settings["phase"] == "final" else searches)[key].append(row)
    keys = [
        (workload, entrant, horizon, study)
        for workload in design.workloads
        for horizon in design.horizons[workload]
        for entrant in design.entrants
        for study in range(design.planned_studies(entrant))
    ]
    made = {}
    for key in dict.fromkeys([*keys, *searches, *finals]):
        tried = sorted(searches[key], key=lambda row: row["settings"]["trial"])
        runs = sorted(finals[key], key=lambda row: row["settings"]["seed"])
        runs, others = split_finals(tried, runs, design.trials)
        state = _state(design, key[3], tried, runs)
        made[key] = Cell(*key, tuple(tried), tuple(runs), state, tuple(others))
    return made


def planned_trainings(design: Design, cells: Mapping[Key, Cell]) -> int:
    """How many trainings there will be; those recorded where the configuration does not say.

    A cell of which every search trial diverged has no final runs to wait for.
    """
    recorded = sum(len(cell.searches) + len(cell.finals) for cell in cells.values())
    if design.trials is None or design.seeds is None:
        return recorded
    going = [cell for cell in cells.values() if cell.state != "failed"]
    finals = sum(len(design.seeds_of(cell.study) or []) for cell in going)
    return max(recorded, len(cells) * design.trials + finals)


def edges(cell: Cell, design: Design) -> dict[str, str]:
    """Chosen hyperparameters in the outer 5 % of their search space: name -> which end."""
    return at_edges(cell.hyperparameters, design.search_spaces.get(design.optimizer(cell.entrant)))


def _state(design: Design, study: int, searches: Sequence[dict], finals: Sequence[dict]) -> State:
    if not searches and not finals:
        return "not run"
    whole = design.trials is None or len(searches) >= design.trials
    if not finals:
        lost = all(row["status"] == "diverged" for row in searches)
        return "failed" if whole and lost else "searching"
    return "complete" if len(finals) >= len(design.seeds_of(study) or finals) else "finals"


def _time(row: Mapping[str, Any], target: float) -> tuple[int, bool]:
    if row["status"] == "finished":
        scores = row["result"]["validation_score"]
        for step, score in zip(row["result"]["steps"], scores, strict=True):
            if score is not None and score <= target:
                return step, True
    return row["settings"]["steps"], False
