"""Rows of a sweep as both reports read them: checks, entrants, scores, the winner of a search."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from research.report.common import check_records, count, name, need, number
from research.runlog import Records

# A winner this close to an end of its search space (as a share of the space) is marked.
_EDGE = 0.05


def check_rows(records: Records) -> None:
    """A RunError where the rows or the other records are not what a sweep writes."""
    check_records(records)
    for row in records.rows:
        _check_row(row, row_name(records, row))


def row_name(records: Records, row: Mapping[str, Any]) -> str:
    """How a message names a row: by its file."""
    return str(records.path / "rows" / f"{row.get('key')}.json")


def plain(entrant: str, schedule: str | None) -> str:
    """An entrant without the schedule that all have.

    Example:
        >>> plain("adam@cosine", "cosine"), plain("adam@constant", "cosine")
        ('adam', 'adam@constant')
    """
    optimizer, _, own = entrant.partition("@")
    return optimizer if own in ("", schedule) else entrant


def entrant_of(settings: Mapping[str, Any], schedule: str | None) -> str:
    """The entrant whose training this is."""
    return plain(f"{settings['optimizer']}@{settings['schedule']}", schedule)


def entrant_label(entrant: str) -> str:
    """An entrant as people write it.

    Example:
        >>> entrant_label("adamw"), entrant_label("schedule_free_sgd@constant")
        ('AdamW', 'Schedule-free SGD (constant)')
    """
    optimizer, _, schedule = entrant.partition("@")
    return name(optimizer) + (f" ({name(schedule)})" if schedule else "")


def final_score(row: Mapping[str, Any], which: str) -> float:
    """Score at the end of a training, infinity where it diverged, NaN where it was not measured."""
    if row["status"] == "diverged":
        return math.inf
    if which == "test":
        value = row["result"].get("test_score")
        return math.nan if value is None else float(value)
    return float(row["result"]["validation_score"][-1])


def winner(searches: Iterable[dict]) -> dict | None:
    """The finished search trial of the lowest final validation score, ties by loss."""
    ended = [row for row in searches if row["status"] == "finished"]
    return min(ended, key=_rank, default=None)


def split_finals(
    searches: Sequence[dict], finals: Sequence[dict], trials: int | None
) -> tuple[list[dict], list[dict]]:
    """Final trainings of the setting that won the search, and those of others, which do not count.

    Bits differ between machines, so that after a merge there may be some of a setting that won
    elsewhere. Where rows of the search are missing and none is the winner's, all count: the winner
    may be among what is missing.

    Args:
        searches: by trial.
        finals: of the same study.
        trials: of a whole search; None where that is not known.
    """
    best = winner(searches)
    own = [row for row in finals if best is not None and _setting(row) == _setting(best)]
    whole = bool(searches) and (trials is None or len(searches) >= trials)
    if not own and not whole:
        return list(finals), []
    return own, [row for row in finals if not any(row is kept for kept in own)]


def left_out_words(groups: Mapping[str, Sequence[dict]]) -> str:
    """A note on final trainings that do not count; empty where there are none.

    Args:
        groups: the trainings left out, by what to call their study.
    """
    counted: dict[str, int] = {}
    for where, rows in groups.items():
        for row in rows:
            trial, point = _setting(row)
            values = [f"{key.replace('_', ' ')} {number(value)}" for key, value in point.items()]
            setting = f"{where}: trial {trial} ({', '.join(values)})"
            counted[setting] = counted.get(setting, 0) + 1
    if not counted:
        return ""
    total = sum(counted.values())
    each = [f"{setting}, {count(n, 'training')}" for setting, n in counted.items()]
    return (
        f"Left out: {count(total, 'final training')} of a setting that did not win its search, as "
        f"runs merged from several machines may have. {'; '.join(each)}."
    )


def at_edges(hyperparameters: Mapping[str, float], space: Any) -> dict[str, str]:
    """Hyperparameters in the outer 5 % of their search space: name -> which end.

    Example:
        >>> space = {
        ...     "rate": {"low": 0.01, "high": 1.0},
        ...     "decay": {"low": 0, "high": 1, "log": False},
        ... }
        >>> at_edges({"rate": 0.011, "decay": 0.5}, space)
        {'rate': 'lowest'}
    """
    marks = {}
    for key, value in hyperparameters.items():
        bounds = space.get(key) if isinstance(space, dict) else None
        place = _place(value, bounds) if isinstance(bounds, dict) else None
        if place is not None and not _EDGE < place < 1 - _EDGE:
            marks[key] = "lowest" if place <= _EDGE else "highest"
    return marks


def quotient(value: float, reference: float) -> float:
    """How many times the reference's a value is; NaN unless the reference's is above zero.

    Example:
        >>> quotient(3.0, 2.0), quotient(3.0, 0.0)
        (1.5, nan)
    """
    return value / reference if reference > 0 else math.nan


def clean(row: Mapping[str, Any]) -> dict[str, Any]:
    """None for what is not finite: JSON has no NaN, and an empty field is a blank."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
    }


def whole_number(value: Any) -> int | None:
    """A number of a configuration that counts something, or None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def whole_numbers(value: Any) -> list[int] | None:
    """A list of them, or None."""
    return [int(n) for n in value if isinstance(n, int)] if isinstance(value, list) else None


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping of a configuration; empty where it is none."""
    return value if isinstance(value, dict) else {}


def texts(value: Any) -> dict[str, str]:
    """A mapping of a configuration with its values as texts."""
    return {key: str(text) for key, text in mapping(value).items()}


def _check_row(row: dict[str, Any], where: str) -> None:
    need(row, "key", str, where)
    status = need(row, "status", str, where)
    if status not in ("finished", "diverged"):
        need({}, "status", str, f"{where} ('finished' or 'diverged')")
    settings, result = need(row, "settings", dict, where), need(row, "result", dict, where)
    for key in ("workload", "optimizer", "schedule", "phase"):
        need(settings, key, str, where)
    for key in ("steps", "study", "trial", "seed"):
        need(settings, key, int, where)
    for key in need(settings, "hyperparameters", dict, where):
        need(settings["hyperparameters"], key, float, where)
    steps = need(result, "steps", list, where)
    for step in steps:
        need({"step": step}, "step", int, where)
    for key in ("validation_loss", "validation_score"):
        _check_curve(need(result, key, list, where), key, steps, where)
    if status == "finished":
        last = result["validation_score"][-1] if steps else None
        need({"validation_score": last}, "validation_score", float, f"{where}, finished,")
    if result.get("test_score") is not None:
        need(result, "test_score", float, where)


def _check_curve(values: Sequence[Any], key: str, steps: Sequence[int], where: str) -> None:
    if len(values) != len(steps):
        need({}, key, list, f"{where}, of the length of 'steps' ({len(steps)}),")
    for value in values:
        if value is not None:
            need({key: value}, key, float, where)


def _setting(row: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    return row["settings"]["trial"], row["settings"]["hyperparameters"]


def _rank(row: Mapping[str, Any]) -> tuple[float, float]:
    loss = row["result"]["validation_loss"][-1]
    return row["result"]["validation_score"][-1], math.inf if loss is None else loss


def _place(value: float, bounds: Mapping[str, Any]) -> float | None:
    """Where a value lies in a searched range, from 0 to 1; None where the range is no range."""
    ends = bounds.get("low"), bounds.get("high")
    if not all(isinstance(end, int | float) for end in ends):
        return None
    points = np.array([value, *ends], dtype=float)
    if bounds.get("below_one"):  # searched in 1 - x, which falls as x rises
        points = 1 - points
    if points[1] == points[2]:
        return None
    if bounds.get("log", True):
        if not (points > 0).all():
            return None
        points = np.log(points)
    at, low, high = points
    return float((at - low) / (high - low))
