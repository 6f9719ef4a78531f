"""The report of `experiments.train_ctc`: one recogniser, its errors with intervals, its course."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from research import plots, stats
from research.errors import RunError
from research.plots import Curve
from research.report.common import (
    BLANK,
    banner,
    check_records,
    count,
    device_words,
    eyebrow,
    name,
    need,
    number,
    percent,
    percent_range,
    provenance,
)
from research.report.page import (
    Figure,
    Html,
    Report,
    element,
    figure,
    join,
    paragraph,
    section,
)
from research.report.page import table as html_table
from research.report.speech.examples import read_examples
from research.runlog import Records

DECODERS = {"greedy": "best path", "beam": "beam search", "beam_ngram": "beam search with n-gram"}
_EDITS = ("substitutions", "deletions", "insertions")
_CAUTION = (
    "The intervals resample the test utterances: they say how far other utterances like these "
    "would differ, not another training run, nor other speakers where a part has few."
)
_SHOWN = 6  # transcripts of each part


def rows(records: Records) -> list[dict[str, Any]]:
    """A row per test part, decoder and unit (words, characters), from the records alone."""
    check_records(records)
    return [
        _row(part, decoder, unit, lists, f"trial {trial['trial']!r}")
        for trial in records.trials
        if trial["status"] == "finished"
        for part, measured in _parts(trial).items()
        for decoder, units in need(measured, "errors", dict, f"part {part!r}").items()
        for unit, lists in units.items()
    ]


def render(records: Records) -> Report:
    """The whole report of one run."""
    made = rows(records)
    figures = [item for item in (_curves(records), *_alignments(records)) if item]
    source = str(records.data.get("source") or records.data.get("name") or "unnamed speech")
    body = join(
        [
            eyebrow(records),
            element("h1", f"One recogniser trained with CTC: {source.partition(':')[0]}"),
            banner(len(records.trials), 1, "training"),
            paragraph(_what_was_run(records, source)),
            element("div", *(paragraph(line) for line in _verdict(records, made)),
                    paragraph(_CAUTION, class_="aside"), class_="verdict"),
            _results(made, records),
            section("What it writes", _transcripts(records)),
            section("Figures", *(figure(item) for item in figures)),
            _cost(records),
            provenance(records),
        ]
    )  # fmt: skip
    return Report("One recogniser trained with CTC", body, {"table": made}, tuple(figures))


def _parts(trial: Mapping[str, Any]) -> dict[str, Any]:
    return need(trial["result"], "parts", dict, f"trial {trial['trial']!r}")


def _row(part: str, decoder: str, unit: str, lists: Any, where: str) -> dict[str, Any]:
    where = f"{where}, {part}, {decoder}, {unit}"
    columns = []
    for key in (*_EDITS, "labels"):
        values = lists.get(key) if isinstance(lists, dict) else None
        whole = isinstance(values, list) and all(
            isinstance(x, int) and not isinstance(x, bool) and x >= 0 for x in values
        )
        if not whole:
            raise RunError(f"{where} must have a list of counts {key!r}: the file is damaged")
        columns.append(values)
    if len(set(map(len, columns))) != 1 or not sum(columns[3]):
        raise RunError(f"{where} must have as many counts of each kind, and {unit} that were said")
    counts = np.array(columns, np.int64)
    errors, labels = counts[:3].sum(axis=0), counts[3]
    low, high = stats.ratio_interval(errors, labels)
    return {
        "part": part,
        "decoder": decoder,
        "unit": unit,
        "error_rate": float(errors.sum() / labels.sum()),
        "error_rate_low": float(low) if np.isfinite(low) else None,
        "error_rate_high": float(high) if np.isfinite(high) else None,
        **{key: int(values.sum()) for key, values in zip(_EDITS, counts[:3], strict=True)},
        "said": int(labels.sum()),
        "utterances": int(labels.size),
        "utterances_right": int((errors == 0).sum()),
    }


def _what_was_run(records: Records, source: str) -> str:
    config = records.config
    parts = [
        f"A Conformer of {number(config.get('layers'))} blocks and width "
        f"{number(config.get('width'))}, trained with the objective "
        f"{name(str(config.get('objective')))} to write {config.get('tokeniser')}.",
        f"Data: {source}.",
    ]
    steps = config.get("steps")
    if isinstance(steps, int):
        parts.append(f"Training: {count(steps, 'step')}, seed {config.get('seed')}.")
    return " ".join([*parts, device_words(records)])


def _verdict(records: Records, made: Sequence[dict]) -> list[str]:
    diverged = [trial for trial in records.trials if trial["status"] == "diverged"]
    if diverged:
        step = diverged[0]["result"].get("diverged_at")
        return [f"The training diverged at step {number(step)}: there is nothing to measure."]
    lines = []
    for part in dict.fromkeys(row["part"] for row in made):
        own = [row for row in made if row["part"] == part and row["unit"] == "words"]
        if own:
            plain, best = own[0], min(own, key=lambda row: row["error_rate"])
            words = f"{part}: {_with_interval(plain)} of words wrong by the {_way(plain)}"
            if best is not plain:
                words += f", {_with_interval(best)} by {_way(best)}"
            lines.append(f"{words}.")
    return lines or ["Nothing is measured yet."]


def _with_interval(row: Mapping[str, Any]) -> str:
    if row["error_rate_low"] is None:
        return f"{percent(row['error_rate'])} %"
    interval = percent_range(stats.Interval(row["error_rate_low"], row["error_rate_high"]))
    return f"{percent(row['error_rate'])} % (95 % interval {interval})"


def _way(row: Mapping[str, Any]) -> str:
    return DECODERS.get(row["decoder"], str(row["decoder"]))


def _results(made: Sequence[dict], records: Records) -> Html:
    if not made:
        return Html("")
    headers = ["Decoded by", "Error rate, %", "95 % interval", "Substituted", "Deleted",
               "Inserted", "Said", "Utterances right"]  # fmt: skip
    groups: dict[str, list[list[str]]] = {}
    for row in made:
        low, high = row["error_rate_low"], row["error_rate_high"]
        line = [
            _way(row),
            percent(row["error_rate"]),
            BLANK if low is None else percent_range(stats.Interval(low, high)),
            *(f"{row[key]:,}" for key in (*_EDITS, "said")),
            f"{row['utterances_right']:,} of {row['utterances']:,}",
        ]
        groups.setdefault(f"{row['part']}, {row['unit']}", []).append(line)
    note = (
        "Error rate: substituted, deleted and inserted words, or characters with the spaces "
        "between words, over those said. The interval is a bootstrap over utterances."
    )
    for trial in records.trials:
        fusion = trial["result"].get("fusion")
        if isinstance(fusion, dict):
            note += (
                f" The n-gram model is of order {number(records.config.get('ngram_order'))}, "
                "learned from the training texts; on the validation part its weight was chosen as "
                f"{number(fusion.get('weight'))}, with {number(fusion.get('bonus'))} nats a label."
            )
    return section("Errors", html_table(headers, list(groups.items()), note=note))


def _transcripts(records: Records) -> Html:
    groups = []
    for trial in records.trials:
        parts = _parts(trial) if trial["status"] == "finished" else {}
        for part, measured in parts.items():
            texts = [entry for entry in measured.get("transcripts", []) if isinstance(entry, dict)]
            step = max(1, len(texts) // _SHOWN)
            lines = [
                [str(entry.get("said", "")), *(str(entry.get(key, "")) for key in DECODERS)]
                for entry in texts[::step][:_SHOWN]
            ]
            groups.append((part, lines))
    if not groups:
        return Html("")
    headers = ["Said", *(text.capitalize() for text in DECODERS.values())]
    note = "Utterances at even distances in the part, not chosen by their errors."
    return html_table(headers, groups, text_columns=range(len(headers)), note=note)


def _curves(records: Records) -> Figure | None:
    trials = [{"trial": line} for line in dict.fromkeys(m["trial"] for m in records.metrics)]
    keys = list(dict.fromkeys(key for line in records.metrics for key in line))
    panels: dict[str, list[Curve]] = {"Loss": [], "Errors in validation": []}
    for key in keys:
        panel = {"loss": "Loss", "rate": "Errors in validation"}.get(key.rpartition("_")[2])
        steps, values = _series(records, trials, key)
        if panel and steps.size:
            label = key.removesuffix("_loss").removesuffix("_error_rate").replace("_", " ")
            panels[panel].append(Curve(label, steps, values))
    if not any(panels.values()):
        return None
    inks = plots.palette([curve.name for curves in panels.values() for curve in curves])
    drawn = plots.learning_curves(
        panels, inks, y_labels=["CTC loss (nats per label)", "error rate (%)"],
        scales=["log", "error"],
    )  # fmt: skip
    return Figure(
        "training_curves", plots.to_png(drawn), "Training curves.",
        "Loss of the training, which has augmentation, dropout and the objective's own terms, and "
        "CTC loss of the validation; errors of the best path. Both axes of values are logarithmic.",
        "The test parts are not in it.",
    )  # fmt: skip


def _alignments(records: Records) -> list[Figure]:
    """The longest of the kept examples, frame by frame."""
    for trial in records.trials:
        arrays = records.examples(trial["trial"])
        symbols = trial["result"].get("symbols")
        found = read_examples(arrays, f"trial {trial['trial']!r}") if arrays else []
        if not found or not isinstance(symbols, list):
            continue
        names = ["–", *(str(symbol).replace(" ", "␣") for symbol in symbols)]
        if max(map(max, (e.labels for e in found if e.labels)), default=0) >= len(names):
            raise RunError(f"trial {trial['trial']!r} must have a symbol for each of its labels")
        shown = max(found, key=lambda example: len(example.labels))
        said, heard = (
            "".join(str(symbols[k - 1]) for k in row) for row in (shown.labels, shown.hypothesis)
        )
        drawn = plots.alignment_figure(
            shown.log_mel, shown.log_posteriors, shown.alignment, hop_seconds=shown.hop_seconds,
            frame_seconds=shown.frame_seconds, names=names,
            title=f"said {said}, recognised {heard}",
        )  # fmt: skip
        return [
            Figure(
                "alignment", plots.to_png(drawn), "What it hears.",
                "Log-mel spectrogram of a test utterance above the posteriors; bars mark where the "
                "likeliest path of the true labels has each.",
                "CTC says in which order labels come, not where: a peak can lie beside its sound.",
            )
        ]  # fmt: skip
    return []


def _cost(records: Records) -> Html:
    seconds, steps = _spent(records, records.trials or [{"trial": "conformer"}])
    if not steps:
        return Html("")
    words = (
        f"{count(steps, 'step')} in {seconds:,.0f} s of wall-clock time, with compilation, "
        "validation and test where a session had them."
    )
    sizes = [trial["settings"].get("parameters") for trial in records.trials]
    size = "".join(f" {count(n, 'parameter')}." for n in sizes if isinstance(n, int))
    return section("Cost", paragraph(words + size))


def _series(
    records: Records, trials: Sequence[dict], key: str
) -> tuple[Int[np.ndarray, "N"], Float[np.ndarray, "R N"]]:
    """One metric of R trials at the N steps where any of them has it; NaN where one has not."""
    wanted = {trial["trial"]: row for row, trial in enumerate(trials)}
    points: dict[tuple[int, int], float] = {}
    for line in records.metrics:
        row, value = wanted.get(line.get("trial", "")), line.get(key)
        if row is not None and isinstance(value, int | float) and math.isfinite(value):
            points[row, int(line["step"])] = float(value)
    steps = sorted({step for _, step in points})
    values = np.full((len(trials), len(steps)), np.nan)
    for (row, step), value in points.items():
        values[row, steps.index(step)] = value
    return np.array(steps, dtype=int), values


def _spent(records: Records, trials: Iterable[dict]) -> tuple[float, int]:
    """Seconds and steps of some trials, over all sessions, as far as they were timed."""
    wanted = {trial["trial"] for trial in trials}
    seconds, steps = 0.0, 0
    for line in records.timings:
        # Checked one by one: a timing that was lost or damaged is no reason to have no report.
        trial, took, made = (line.get(key) for key in ("trial", "seconds", "steps"))
        if not isinstance(took, int | float) or not isinstance(made, int):
            continue
        if math.isfinite(took) and isinstance(trial, str) and trial in wanted:
            seconds, steps = seconds + took, steps + made
    return seconds, steps
