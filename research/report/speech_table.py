"""The CTC comparison as numbers: errors per encoder and test speaker, intervals, the verdict."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from research import stats
from research.errors import RunError
from research.report.common import (
    check_records,
    count,
    finished,
    listed,
    name,
    need,
    need_counts,
    percent,
    percent_range,
    strings,
)
from research.runlog import Records
from research.stats import UtteranceErrors

AVERAGE = "average"
# From this label error rate on, the output says next to nothing about what was said.
_USELESS = 0.8


@dataclass(frozen=True)
class Cell:
    """One encoder measured on one unseen speaker, by one training run per seed."""

    encoder: str
    speaker: str
    trials: list[dict]

    @property
    def done(self) -> list[dict]:
        """The runs that finished, by seed."""
        return finished(self.trials)

    @property
    def errors(self) -> Int[np.ndarray, "U 4"]:
        """Substitutions, deletions, insertions and reference labels of each test string.

        Summed over the seeds where they were measured on the same strings, else one after another.
        """
        found = [_utterances(trial) for trial in self.done]
        if not found:
            return np.zeros((0, 4), np.int64)
        first = found[0]
        if all(np.array_equal(counts[:, 3], first[:, 3]) for counts in found):
            return np.sum(found, axis=0)
        return np.concatenate(found)

    @property
    def group(self) -> UtteranceErrors:
        """The same as errors and totals."""
        errors = self.errors
        return stats.utterance_errors(errors[:, :3].sum(axis=1), errors[:, 3])


def cells(records: Records) -> list[Cell]:
    """A cell per encoder and test speaker of the configuration, in its order, and of the trials.

    Raises:
        RunError: a trial without what the report needs.
    """
    check_records(records)
    for trial in records.trials:
        _check(trial, f"trial {trial['trial']!r} of {records.path}")
    found = [trial["settings"] for trial in records.trials]
    encoders = strings(records.config.get("encoders"), [])
    encoders = strings(encoders + [settings["encoder"] for settings in found], [])
    speakers = strings(records.config.get("test_speakers"), [])
    speakers = strings(speakers + [settings["test_speaker"] for settings in found], [])
    return [
        Cell(
            encoder,
            speaker,
            sorted(
                (
                    trial
                    for trial in records.trials
                    if trial["settings"]["encoder"] == encoder
                    and trial["settings"]["test_speaker"] == speaker
                ),
                key=lambda trial: trial["settings"]["seed"],
            ),
        )
        for encoder in encoders
        for speaker in speakers
    ]


def planned_trials(records: Records, made: Sequence[Cell]) -> int:
    """How many trials the configuration asks for; those recorded where it does not say."""
    seeds = records.config.get("seeds")
    if not isinstance(seeds, list | tuple):
        return len(records.trials)
    return max(len(made) * len(seeds), len(records.trials))


def rows(made: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row per cell; after the speakers of an encoder their average, where there are several.

    The average gives every speaker the same weight; its interval resamples strings within each
    speaker and is therefore not one for further speakers.
    """
    table = []
    for encoder in dict.fromkeys(cell.encoder for cell in made):
        own = [cell for cell in made if cell.encoder == encoder]
        table += [_row(encoder, cell.speaker, [cell]) for cell in own]
        measured = [cell for cell in own if cell.done]
        if len(own) > 1 and measured:
            # An average over fewer speakers than the others have would not be comparable.
            whole = len(measured) == len(own)
            table.append(_row(encoder, AVERAGE, own if whole else []))
    return table


def by_encoder(made: Iterable[Cell]) -> dict[str, list[Cell]]:
    """The cells with a finished run, per encoder."""
    found: dict[str, list[Cell]] = {}
    for cell in made:
        if cell.done:
            found.setdefault(cell.encoder, []).append(cell)
    return found


def verdict(made: Sequence[Cell]) -> str:
    """What the numbers say about the encoders, in a few sentences, and nothing that they do not."""
    found = by_encoder(made)
    speakers = {encoder: [cell.speaker for cell in own] for encoder, own in found.items()}
    tail = _tail(made)
    if not found:
        return " ".join(["No training run has finished, so nothing can be said yet.", *tail])
    groups = {encoder: [cell.group for cell in own] for encoder, own in found.items()}
    order = sorted(groups, key=lambda encoder: (stats.error_rate(groups[encoder]), encoder))
    best = order[0]
    unseen = "on average over the unseen speakers " if len(speakers[best]) > 1 else "on "
    if unseen == "on " and "unseen" not in speakers[best][0]:
        unseen = "on the unseen speaker "
    unseen += listed(speakers[best])
    if stats.error_rate(groups[best]) >= _USELESS:
        text = (
            f"No encoder has learned to recognise digits: the best, {name(best)}, makes "
            f"{_score(groups[best])} label errors {unseen}, and an empty answer makes 100 %."
        )
        return " ".join([text, *tail])
    if len(order) == 1:
        text = f"{name(best)} makes {_score(groups[best])} label errors {unseen}"
        return " ".join([f"{text}; there is nothing to compare it with.", *tail])
    if any(speakers[encoder] != speakers[best] for encoder in order):
        text = "The encoders have not been measured on the same speakers, so they are not compared."
        return " ".join([text, *tail])
    text = f"{name(best)} has the lowest label error rate {unseen}, {_score(groups[best])}."
    rivals, below = [], []
    for encoder in order[1:]:
        apart, words = _against(groups[best], groups[encoder])
        (below if apart else rivals).append(f"{name(encoder)} ({words})")
    if rivals:
        text = f"No clear winner. {text} These strings cannot tell it from {listed(rivals)}."
    if below:
        text += f" {listed(below)} {'makes' if len(below) == 1 else 'make'} more errors."
    return " ".join([text, *tail])


def _tail(made: Sequence[Cell]) -> list[str]:
    said = []
    for encoder in dict.fromkeys(cell.encoder for cell in made):
        trials = [trial for cell in made if cell.encoder == encoder for trial in cell.trials]
        lost = len(trials) - len(finished(trials))
        if lost:
            said.append(f"{name(encoder)} diverged in {lost} of {count(len(trials), 'run')}.")
        elif not trials:
            said.append(f"No run of {name(encoder)} is recorded.")
    seeds = max((len(cell.done) for cell in made), default=0)
    if seeds == 1:
        said.append("Each was trained with one seed; how much another would change is not known.")
    return said


def _score(groups: Sequence[UtteranceErrors]) -> str:
    interval = stats.error_rate_interval(groups)
    text = f"{percent(stats.error_rate(groups))} %"
    if math.isfinite(interval.low):
        text += f" (95 % interval {percent_range(interval)})"
    return text


def _against(best: Sequence[UtteranceErrors], other: Sequence[UtteranceErrors]) -> tuple[bool, str]:
    """Whether the other is clearly worse, and the numbers that say so."""
    if not stats.same_utterances(other, best):
        first, second = stats.error_rate_interval(best), stats.error_rate_interval(other)
        return not first.overlaps(second), _score(other)
    difference = stats.error_rate(other) - stats.error_rate(best)
    low, high = stats.difference_interval(other, best)
    words = f"{percent(stats.error_rate(other))} %, {percent(difference)} points more"
    if math.isfinite(low):
        words += f", paired 95 % interval {percent(low)} to {percent(high)}"
    return low > 0, words


def _row(encoder: str, speaker: str, own: Sequence[Cell]) -> dict[str, Any]:
    groups = [cell.group for cell in own]
    trials = [trial for cell in own for trial in cell.trials]
    done = finished(trials)
    counts = np.concatenate([cell.errors for cell in own] or [np.zeros((0, 4), np.int64)])
    shares = [
        cell.errors[:, :3].sum(axis=0) / max(cell.errors[:, 3].sum(), 1)
        for cell in own
        if cell.done
    ]
    share = np.mean(shares, axis=0) if shares else np.full(3, np.nan)
    interval = stats.error_rate_interval(groups) if done else stats.UNKNOWN
    seeds = sorted({trial["settings"]["seed"] for trial in done})
    # The spread over seeds is that of the speakers' average, seed by seed.
    per_seed = [
        np.mean([t["result"]["label_error_rate"] for t in done if t["settings"]["seed"] == seed])
        for seed in seeds
    ]
    validation = [trial["result"]["validation_label_error_rate"] for trial in done]
    sizes = {trial["settings"].get("parameters") for trial in trials} - {None}
    strings_measured = [_utterances(trial) for trial in done]
    right = [float((found[:, :3].sum(axis=1) == 0).mean()) for found in strings_measured]
    return {
        "encoder": encoder,
        "test_speaker": speaker,
        "seeds": len(seeds),
        "diverged": len(trials) - len(done),
        "label_error_rate": _number(stats.error_rate(groups)),
        "label_error_rate_low": _number(interval.low),
        "label_error_rate_high": _number(interval.high),
        "label_error_rate_seed_deviation": _number(stats.mean_and_deviation(per_seed)[1]),
        "substitution_rate": _number(share[0]),
        "deletion_rate": _number(share[1]),
        "insertion_rate": _number(share[2]),
        "substitutions": int(counts[:, 0].sum()),
        "deletions": int(counts[:, 1].sum()),
        "insertions": int(counts[:, 2].sum()),
        "labels": int(counts[:, 3].sum()),
        "strings": sum(len(found) for found in strings_measured),
        "strings_right": _number(stats.mean_and_deviation(right)[0]),
        "validation_label_error_rate": _number(stats.mean_and_deviation(validation)[0]),
        "parameters": sizes.pop() if len(sizes) == 1 else None,
    }


def _utterances(trial: dict) -> Int[np.ndarray, "U 4"]:
    return need_counts(trial["result"]["utterance_errors"], f"trial {trial['trial']!r}", 4)


def _check(trial: dict, where: str) -> None:
    settings, result = trial["settings"], trial["result"]
    need(settings, "encoder", str, where)
    need(settings, "test_speaker", str, where)
    need(settings, "seed", int, where)
    if settings.get("parameters") is not None:
        need(settings, "parameters", int, where)
    if trial["status"] != "finished":
        return
    stated = need(result, "label_error_rate", float, where)
    need(result, "validation_label_error_rate", float, where)
    counts = need_counts(need(result, "utterance_errors", list, where), where, 4)
    labels = counts[:, 3].sum()
    if not labels:
        raise RunError(f"{where} must have test strings with labels, got none")
    counted = counts[:, :3].sum() / labels
    if abs(counted - stated) > 1e-4:
        raise RunError(
            f"{where} states a label error rate of {stated:.4f}, but its utterance_errors give "
            f"{counted:.4f}: the file is damaged"
        )
    confusion = result.get("confusion")
    if confusion is not None:
        symbols = need(confusion, "symbols", list, where) if isinstance(confusion, dict) else []
        if (
            not isinstance(confusion, dict)
            or need_counts(confusion.get("counts"), where).shape[0] != len(symbols) + 1
        ):
            raise RunError(f"{where} must have confusion counts with a row per symbol and one more")


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
