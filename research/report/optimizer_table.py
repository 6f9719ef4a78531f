"""The optimizer comparison as numbers: a cell per workload and optimizer, its row, the verdict."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research import stats
from research.report.common import (
    check_records,
    count,
    finished,
    listed,
    name,
    need,
    need_counts,
    need_fraction,
    percent,
    percent_range,
    strings,
)
from research.runlog import Records
from research.stats import Interval

# A winner this close to an end of its search space (as a share of the space) is marked.
_EDGE = 0.05
# Of a few values tried, the best is the lowest or the highest by chance alone.
_ENOUGH_TRIED = 8


@dataclass(frozen=True)
class Cell:
    """One optimizer on one workload: its search trials and its final runs, as far as recorded."""

    workload: str
    optimizer: str
    searches: list[dict]
    finals: list[dict]

    @property
    def best_search(self) -> dict | None:
        """The search trial with the highest validation accuracy, of equals the lowest loss."""
        return max(finished(self.searches), key=_rank, default=None)

    @property
    def chosen_search(self) -> dict | None:
        """The search trial that the final runs repeat; the best one while there are none."""
        same = [
            trial
            for trial in finished(self.searches)
            if trial["settings"]["hyperparameters"] == self.hyperparameters
        ]
        return same[0] if same else self.best_search

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Those of the final runs; of the best search trial while there are none."""
        source = self.finals[0] if self.finals else self.best_search
        return source["settings"]["hyperparameters"] if source else {}

    @property
    def test_accuracies(self) -> list[float]:
        """Of the final runs that finished, by seed."""
        return [trial["result"]["test_accuracy"] for trial in finished(self.finals)]

    @property
    def mean(self) -> float:
        """Mean test accuracy, NaN without a finished final run."""
        return stats.mean_and_deviation(self.test_accuracies)[0]

    @property
    def interval(self) -> Interval:
        """95 % t interval of the mean test accuracy over seeds."""
        low, high = stats.mean_interval(self.test_accuracies)
        return Interval(*np.clip([low, high], 0, 1).tolist())  # no accuracy lies outside

    @property
    def diverged(self) -> tuple[int, int]:
        """Trials that diverged, of all."""
        trials = [*self.searches, *self.finals]
        return len(trials) - len(finished(trials)), len(trials)

    @property
    def lost_finals(self) -> int:
        """Final runs that diverged."""
        return len(self.finals) - len(finished(self.finals))


def cells(records: Records) -> list[Cell]:
    """A cell per workload and optimizer of the configuration, in its order, and of the trials.

    Raises:
        RunError: a trial without what the report needs.
    """
    check_records(records)
    for trial in records.trials:
        _check(trial, f"trial {trial['trial']!r} of {records.path}")
    found = [trial["settings"] for trial in records.trials]
    workloads = strings(records.config.get("workloads"), [])
    workloads = strings(workloads + [settings["workload"] for settings in found], [])
    optimizers = strings(records.config.get("optimizers"), [])
    optimizers = strings(optimizers + [settings["optimizer"] for settings in found], [])
    made = []
    for workload in workloads:
        for optimizer in optimizers:
            own = [
                trial
                for trial in records.trials
                if trial["settings"]["workload"] == workload
                and trial["settings"]["optimizer"] == optimizer
            ]
            made.append(
                Cell(
                    workload,
                    optimizer,
                    [trial for trial in own if trial["settings"]["phase"] == "search"],
                    sorted(
                        (trial for trial in own if trial["settings"]["phase"] == "final"),
                        key=lambda trial: trial["settings"]["seed"],
                    ),
                )
            )
    return made


def planned_trials(records: Records, made: Sequence[Cell]) -> int:
    """How many trials there will be; those recorded where the configuration does not say.

    A cell of which every search trial diverged has no final runs to wait for.
    """
    trials, seeds = records.config.get("trials"), records.config.get("seeds")
    if not isinstance(trials, int) or not isinstance(seeds, list | tuple):
        return len(records.trials)
    hopeless = [c for c in made if len(c.searches) >= trials and not finished(c.searches)]
    planned = len(made) * trials + (len(made) - len(hopeless)) * len(seeds)
    return max(planned, len(records.trials))


def row(cell: Cell, config: Mapping[str, Any]) -> dict[str, Any]:
    """The cell as a row of the table; None is what has not been run or has no value."""
    accuracies = cell.test_accuracies
    mean, deviation = stats.mean_and_deviation(accuracies)
    low, high = cell.interval
    steps = [trial["result"].get("steps_to_target") for trial in finished(cell.finals)]
    reached = [step for step in steps if step is not None]
    best = cell.best_search
    return {
        "workload": cell.workload,
        "optimizer": cell.optimizer,
        "search_trials": len(cell.searches),
        "search_diverged": len(cell.searches) - len(finished(cell.searches)),
        "final_trials": len(cell.finals),
        "final_diverged": cell.lost_finals,
        "best_validation_accuracy": best["result"]["validation_accuracy"] if best else None,
        "test_accuracy_mean": _number(mean),
        "test_accuracy_deviation": _number(deviation),
        "test_accuracy_low": _number(low),
        "test_accuracy_high": _number(high),
        "test_accuracy_seeds": len(accuracies),
        "target_accuracy": target(config),
        "target_reached": len(reached),
        "steps_to_target_mean": sum(reached) / len(reached) if reached else None,
        "hyperparameters": cell.hyperparameters,
        "at_edge": edges(cell, config),
    }


def target(config: Mapping[str, Any]) -> float | None:
    """The validation accuracy that steps-to-target waits for, where the configuration has one."""
    value = config.get("target_accuracy")
    return float(value) if isinstance(value, int | float) and 0 < value < 1 else None


def edges(cell: Cell, config: Mapping[str, Any]) -> dict[str, str]:
    """Chosen hyperparameters at the edge of what was searched: name -> "lowest" or "highest".

    With the search space in the configuration (`search_spaces[optimizer][name]`, the fields of a
    `research.optimizers.Range`) the outer 5 % at either end count as the edge. Without it a value
    is marked that is the lowest or the highest of at least eight values tried.
    """
    spaces = config.get("search_spaces")
    space = spaces.get(cell.optimizer) if isinstance(spaces, dict) else None
    marks = {}
    for key, value in cell.hyperparameters.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        bounds = space.get(key) if isinstance(space, dict) else None
        if isinstance(bounds, dict):
            place = _place(value, bounds)
            if place is not None and not _EDGE < place < 1 - _EDGE:
                marks[key] = "lowest" if place <= _EDGE else "highest"
            continue
        tried = {t["settings"]["hyperparameters"].get(key) for t in cell.searches}
        numbers = [x for x in tried if isinstance(x, int | float)]
        if len(numbers) >= _ENOUGH_TRIED and value in (min(numbers), max(numbers)):
            marks[key] = "lowest" if value == min(numbers) else "highest"
    return marks


def ranked(made: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Cells of one workload that can be ranked, best first, and those that lost a final run."""
    whole = [cell for cell in made if cell.test_accuracies and not cell.lost_finals]
    lost = [cell for cell in made if cell.lost_finals]
    return sorted(whole, key=lambda cell: (-cell.mean, cell.optimizer)), lost


def separable(first: Cell, second: Cell, images: int | None) -> bool:
    """Whether the seeds tell two cells apart: intervals apart, means more than one image apart."""
    if first.interval.overlaps(second.interval):
        return False
    return images is None or abs(first.mean - second.mean) * images > 1


def count_test_images(made: Sequence[Cell]) -> int | None:
    """Size of the test set, from a confusion matrix; None where none is recorded."""
    for cell in made:
        for trial in finished(cell.finals):
            if trial["result"].get("confusion"):
                return int(need_counts(trial["result"]["confusion"], trial["trial"]).sum())
    return None


def verdict(made: Sequence[Cell]) -> str:
    """What the numbers of one workload say, in a few sentences, and nothing that they do not."""
    where = name(made[0].workload)
    order, lost = ranked(made)
    hopeless = [name(c.optimizer) for c in made if c.searches and not finished(c.searches)]
    tail = [
        f"{name(cell.optimizer)} diverged in {cell.lost_finals} of "
        f"{count(len(cell.finals), 'final run')} and is not ranked."
        for cell in lost
        if name(cell.optimizer) not in hopeless
    ]
    missing = [name(cell.optimizer) for cell in made if not cell.finals and cell.searches]
    missing = [item for item in missing if item not in hopeless]
    if hopeless:
        tail.append(f"Every search trial of {listed(hopeless)} diverged.")
    if missing:
        tail.append(f"No final run of {listed(missing)} is recorded.")
    if not order:
        return " ".join([f"{where}: no final run has finished, so nothing can be said yet.", *tail])
    best, others = order[0], order[1:]
    seeds = count(len(best.test_accuracies), "seed")
    score = f"{percent(best.mean)} %"
    if math.isfinite(best.interval.low):
        score += f" (95 % interval {percent_range(best.interval)}, {seeds})"
    if not others:
        text = (
            f"{where}: only {name(best.optimizer)} has final runs, {score} mean test accuracy; "
            "there is nothing to compare it with."
        )
    elif not all(math.isfinite(cell.interval.low) for cell in order):
        text = (
            f"{where}: no winner can be named, because the spread is not known for fewer than two "
            f"seeds. The highest test accuracy is that of {name(best.optimizer)}, {score}."
        )
    else:
        images = count_test_images(made)
        rivals = [cell for cell in others if not separable(best, cell, images)]
        below = [name(cell.optimizer) for cell in others if cell not in rivals]
        if rivals:
            text = (
                f"{where}: no clear winner. {name(best.optimizer)} has the highest mean test "
                f"accuracy, {score}, but {listed([name(cell.optimizer) for cell in rivals])} "
                f"cannot be told apart from it with {seeds}."
            )
            if below:
                text += f" {listed(below)} {'is' if len(below) == 1 else 'are'} lower."
        else:
            second = others[0]
            text = (
                f"{where}: {name(best.optimizer)} is ahead with a mean test accuracy of {score}; "
                f"no other interval reaches it. Next is {name(second.optimizer)} with "
                f"{percent(second.mean)} % ({percent_range(second.interval)})."
            )
    return " ".join([text, *tail])


def _check(trial: dict, where: str) -> None:
    settings, result = trial["settings"], trial["result"]
    for key, kind in (("workload", str), ("optimizer", str), ("hyperparameters", dict)):
        need(settings, key, kind, where)
    for key, value in settings["hyperparameters"].items():
        if not isinstance(value, str | bool | int | None):
            need(settings["hyperparameters"], key, float, where)
    if need(settings, "phase", str, where) == "final":
        need(settings, "seed", int, where)
    if trial["status"] == "finished":
        need_fraction(result, "validation_accuracy", where)
        if settings["phase"] == "final":
            need_fraction(result, "test_accuracy", where)
            if result.get("steps_to_target") is not None:
                need(result, "steps_to_target", int, where)
            if result.get("confusion") is not None:
                need_counts(result["confusion"], where)


def _rank(trial: dict) -> tuple[float, float]:
    loss = trial["result"].get("validation_loss")
    known = isinstance(loss, int | float) and math.isfinite(loss)
    return trial["result"]["validation_accuracy"], -loss if known else -math.inf


def _place(value: float, bounds: Mapping[str, Any]) -> float | None:
    """Where a value lies in a logarithmic range, from 0 to 1; None where the range is no range."""
    ends = bounds.get("low"), bounds.get("high")
    if not all(isinstance(end, int | float) for end in ends):
        return None
    points = np.array([value, *ends], dtype=float)
    if bounds.get("below_one"):  # searched in 1 - x, which falls as x rises
        points = 1 - points
    if not (points > 0).all() or points[1] == points[2]:
        return None
    at, low, high = np.log(points)
    return float((at - low) / (high - low))


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
