"""The trainings of every system, and the searches that chose their hyperparameters."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from research import stats
from research.errors import RunError
from research.report.rows import at_edges, row_name, split_finals, winner
from research.report.speech.design import Design, System
from research.report.speech.details import counts_of, errors_of
from research.runlog import Records
from research.stats import UtteranceErrors

Pair = tuple[str, int]  # fold, seed
State = Literal["not run", "begun", "failed", "complete"]


@dataclass(frozen=True)
class Trained:
    """The final trainings of one system, as far as they are recorded."""

    system: System
    folds: tuple[str, ...]  # that the system is to be tested on
    planned: int  # trainings; 0 where that is not known
    finals: Mapping[Pair, dict]
    lost: tuple[str, ...]  # folds whose search diverged altogether, so that nothing follows
    left_out: tuple[dict, ...] = ()  # trainings of settings that did not win their search

    @property
    def finished(self) -> dict[Pair, dict]:
        """The results of the trainings that did not diverge."""
        return {
            pair: row["result"] for pair, row in self.finals.items() if row["status"] == "finished"
        }

    @property
    def diverged(self) -> int:
        """Final trainings that diverged."""
        return len(self.finals) - len(self.finished)

    @property
    def state(self) -> State:
        """How far it is."""
        if self.lost:
            return "failed"
        if not self.finals:
            return "not run"
        return "complete" if len(self.finals) >= self.planned else "begun"

    @property
    def whole(self) -> bool:
        """Whether there is a mean over all held-out speakers: every training ran, none diverged."""
        return self.state == "complete" and not self.diverged

    def on(self, fold: str) -> dict[int, dict]:
        """Results of the finished trainings of one fold, by seed."""
        return {seed: result for (own, seed), result in self.finished.items() if own == fold}

    def scores(self) -> dict[Pair, float]:
        """Error rate of every final training by the greedy decoder, infinity where one diverged."""
        made = dict.fromkeys(self.finals, np.inf)
        for pair, result in self.finished.items():
            made[pair] = stats.error_rate([errors_of(result)])
        return made

    def average(self, values: Mapping[Pair, float]) -> float:
        """Mean over folds of the mean over seeds of something; NaN without a value."""
        means = [
            np.mean([value for (own, _), value in values.items() if own == fold])
            for fold in self.folds
            if any(own == fold for own, _ in values)
        ]
        return float(np.mean(means)) if means else float("nan")


@dataclass(frozen=True)
class Search:
    """The search of a system for one fold, as far as it is recorded."""

    system: System
    fold: str
    validator: str | None
    trials: tuple[dict, ...]
    planned: int | None

    @property
    def winner(self) -> dict | None:
        """The finished trial of the lowest validation score."""
        return winner(self.trials)

    @property
    def diverged(self) -> int:
        """Trials that diverged."""
        return sum(row["status"] == "diverged" for row in self.trials)

    @property
    def lost(self) -> bool:
        """Whether all trials ran and all diverged."""
        whole = len(self.trials) >= max(1, self.planned or 1)
        return whole and self.diverged == len(self.trials)

    def edges(self, design: Design) -> dict[str, str]:
        """Hyperparameters of the winner in the outer 5 % of their space: name -> which end."""
        best, space = self.winner, design.search_spaces.get(self.system.entrant.partition("@")[0])
        return at_edges(best["settings"]["hyperparameters"], space) if best else {}


def read_trained(
    records: Records, design: Design
) -> tuple[dict[System, Trained], dict[tuple[System, str], Search]]:
    """Every planned system and search, run or not, and every recorded one.

    Of the final trainings those count whose setting won their search.

    Raises:
        RunError: two final trainings of one system, fold and seed with the setting that won, or of
            one fold and seed with other test strings than another system's.
    """
    finals: dict[System, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    trials: dict[tuple[System, str], list[dict]] = defaultdict(list)
    validators: dict[tuple[System, str], str | None] = {}
    for row in records.rows:
        system, fold, validator = design.place(row)
        if row["settings"]["phase"] == "search":
            trials[system, fold].append(row)
            validators[system, fold] = validator
        else:
            finals[system][fold].append(row)
    searches = {
        key: Search(
            *key,
            validators.get(key),
            tuple(sorted(trials[key], key=lambda row: row["settings"]["trial"])),
            design.trials,
        )
        for key in dict.fromkeys([*design.searches(), *trials])
    }
    planned = design.pairs()
    folds = list(dict.fromkeys(fold for fold, _ in planned))
    made = {}
    for system in dict.fromkeys([*design.systems(), *finals]):
        source = system._replace(objective=design.searched_with(system.objective))
        mine = list(dict.fromkeys([*folds, *sorted(finals[system])]))
        own: dict[Pair, dict] = {}
        others: list[dict] = []
        for fold in sorted(finals[system]):
            search = searches.get((source, fold))
            rows, not_won = split_finals(
                search.trials if search else (), finals[system][fold], design.trials
            )
            others += not_won
            own |= _by_pair(records, system, fold, rows)
        lost = tuple(f for f in mine if (source, f) in searches and searches[source, f].lost)
        made[system] = Trained(system, tuple(mine), len(planned), own, lost, tuple(others))
    _check_tested(records, made.values())
    return made, searches


def _by_pair(records: Records, system: System, fold: str, rows: list[dict]) -> dict[Pair, dict]:
    """Final trainings of one system and fold by their seed, in its order."""
    made: dict[Pair, dict] = {}
    for row in sorted(rows, key=lambda row: row["settings"]["seed"]):
        other = made.setdefault((fold, row["settings"]["seed"]), row)
        if other is not row:
            settings = (each["settings"] for each in (other, row))
            points = [f"trial {each['trial']} {each['hyperparameters']}" for each in settings]
            raise RunError(
                f"{row_name(records, other)} and {row_name(records, row)} must not be final "
                f"trainings of one system, speaker and seed ({', '.join(system)}, {fold}, "
                f"{row['settings']['seed']}); received {' and '.join(points)}. Move one away."
            )
    return made


def _check_tested(records: Records, trained: Iterable[Trained]) -> None:
    tested: dict[str, tuple[Any, str]] = {}  # the test strings of a fold, and where they stand
    for item in trained:
        for (fold, _), row in item.finals.items():
            if row["status"] != "finished":
                continue
            labels, where = counts_of(row["result"])[:, 3], row_name(records, row)
            first, place = tested.setdefault(fold, (labels, where))
            if not np.array_equal(labels, first):
                raise RunError(
                    f"{where} and {place} must have been tested on the same strings of {fold}, got "
                    f"{labels.size} and {first.size} strings of other lengths: one is damaged"
                )


def planned_trainings(
    design: Design,
    trained: Mapping[System, Trained],
    searches: Mapping[tuple[System, str], Search],
) -> int:
    """How many trainings there will be; those recorded where the configuration does not say.

    A fold whose search diverged altogether has no final trainings to wait for.
    """
    recorded = sum(len(item.finals) for item in trained.values())
    recorded += sum(len(search.trials) for search in searches.values())
    if not design.planned or design.trials is None:
        return recorded
    finals = sum(
        sum(fold not in item.lost for fold, _ in design.pairs()) for item in trained.values()
    )
    return max(recorded, finals + len(searches) * design.trials)


def by_string(results: Sequence[dict], decoder: str = "greedy") -> UtteranceErrors:
    """Errors of each string, summed over trainings that were tested on the same strings."""
    found = [errors_of(result, decoder) for result in results]
    return UtteranceErrors(
        np.sum([group.errors for group in found], axis=0),
        np.sum([group.totals for group in found], axis=0),
    )
