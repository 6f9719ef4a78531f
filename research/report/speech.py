"""The report of `experiments.compare_ctc`: digit strings by speakers that were never trained on."""

import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from research import plots, stats
from research.errors import RunError
from research.plots import Curve, Ink, LengthError
from research.report.common import (
    BLANK,
    banner,
    count,
    device_words,
    eyebrow,
    listed,
    name,
    names,
    percent,
    percent_range,
    provenance,
    series,
    spent,
)
from research.report.examples import (
    Example,
    chosen,
    figure_title,
    read_examples,
    shown_example,
    transcript,
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
from research.report.page import (
    table as html_table,
)
from research.report.speech_table import (
    AVERAGE,
    Cell,
    by_encoder,
    cells,
    planned_trials,
    rows,
    verdict,
)
from research.runlog import Records
from research.stats import Interval

_CAUTION = (
    "The intervals resample test strings: they say how far other strings by the same speakers "
    "would differ, not other speakers or another training run."
)
# Who validates depends on the data set, see research.data.spoken_digits.default_speakers.
_VALIDATED_ON = {
    "fsdd": ", by the speakers that were trained on",
    "espeak": ", by voices that were neither trained on nor tested",
}


def table(records: Records) -> list[dict]:
    """A row per encoder and test speaker, and their average, from the recorded trials alone."""
    return rows(cells(records))


def render(records: Records) -> Report:
    """The whole report of one run."""
    made = cells(records)
    found = by_encoder(made)
    inks = plots.palette([cell.encoder for cell in made])
    symbols = ["–", *_symbols(made)]
    examples = _examples(records, found, len(symbols))
    alignments = _alignments(examples, symbols)
    figures = [_curves(records, found, inks), _lengths(found, inks), _confusion(found)]
    figures = [item for item in figures if item]
    source = str(records.data.get("source") or records.data.get("name") or "unnamed recordings")
    title = f"Spoken digit strings with CTC: {source.partition(':')[0]}"
    body = join(
        [
            eyebrow(records),
            element("h1", title),
            banner(len(records.trials), planned_trials(records, made)),
            paragraph(_what_was_run(records, made)),
            element("div", paragraph(verdict(made)), paragraph(_CAUTION, class_="aside"),
                    class_="verdict"),
            _results(rows(made), str(records.data.get("name"))),
            section("What it hears", *(figure(item) for item in alignments),
                    _transcripts(examples, symbols)),
            section("Figures", *(figure(item) for item in figures)),
            _cost(records, made),
            provenance(records),
        ]
    )  # fmt: skip
    return Report(title, body, {"table": rows(made)}, (*alignments, *figures))


def _what_was_run(records: Records, made: Sequence[Cell]) -> str:
    encoders = listed([name(e) for e in dict.fromkeys(cell.encoder for cell in made)] or ["none"])
    speakers = listed([s for s in dict.fromkeys(cell.speaker for cell in made)] or ["none"])
    steps, seeds = records.config.get("steps"), records.config.get("seeds")
    parts = [
        "Recordings of single spoken digits are joined into strings with random gaps, levels and "
        "noise, and an encoder is trained with the CTC objective to write down the digits. "
        f"Encoders: {encoders}. Tested on speech that training never heard: {speakers}."
    ]
    if records.data.get("source"):
        parts.append(f"Data: {records.data['source']}.")
    if isinstance(steps, int):
        parts.append(f"Training took {count(steps, 'step')}.")
    if isinstance(seeds, list | tuple) and seeds:
        parts.append(f"Seeds: {listed([str(seed) for seed in seeds])}.")
    return " ".join([*parts, device_words(records)])


def _results(made: Sequence[dict], data: str) -> Html:
    headers = [
        "Unseen speaker", "Label error rate, %", "95 % interval", "Substituted", "Deleted",
        "Inserted", "Strings without error, %", "Validation error, %", "Runs",
    ]  # fmt: skip
    groups = []
    for encoder in dict.fromkeys(row["encoder"] for row in made):
        own = [row for row in made if row["encoder"] == encoder]
        sizes = {row["parameters"] for row in own} - {None}
        size = f", {count(sizes.pop(), 'parameter')}" if len(sizes) == 1 else ""
        groups.append((name(encoder) + size, [_line(row) for row in own]))
    note = (
        "Label error rate: substituted, deleted and inserted digits over the digits said, each "
        "also in per cent of the digits said; ± is the sample standard deviation over seeds where "
        "there are several. The 95 % interval is a bootstrap over test strings. Validation error: "
        "label error rate on strings of recordings kept from training"
        f"{_VALIDATED_ON.get(data, '')}. Average: every speaker weighs the same."
    )
    return section("Results", html_table(headers, groups, note=note))


def _line(row: dict) -> list[str]:
    rate = percent(row["label_error_rate"])
    if row["label_error_rate_seed_deviation"] is not None:
        rate += f" ± {percent(row['label_error_rate_seed_deviation'])}"
    low, high = row["label_error_rate_low"], row["label_error_rate_high"]
    runs: str = str(row["seeds"]) if row["seeds"] else BLANK
    if row["diverged"]:
        runs = join([runs, element("span", f" ({row['diverged']} diverged)", class_="warn")])
    average = row["test_speaker"] == AVERAGE
    return [
        element("b", "Average") if average else row["test_speaker"],
        element("b", rate) if row["label_error_rate"] is not None else BLANK,
        BLANK if low is None else percent_range(Interval(low, high)),
        percent(row["substitution_rate"]), percent(row["deletion_rate"]),
        percent(row["insertion_rate"]), percent(row["strings_right"]),
        percent(row["validation_label_error_rate"]), runs,
    ]  # fmt: skip


def _symbols(made: Sequence[Cell]) -> list[str]:
    for cell in made:
        for trial in cell.done:
            confusion = trial["result"].get("confusion")
            if confusion:
                return [str(symbol) for symbol in confusion["symbols"]]
    return [str(digit) for digit in range(10)]


def _examples(
    records: Records, found: Mapping[str, Sequence[Cell]], classes: int
) -> dict[str, tuple[str, list[Example]]]:
    """Speaker and examples of the first run of each encoder that kept some."""
    kept = {}
    for encoder, own in found.items():
        for cell in own:
            for trial in cell.done:
                if encoder in kept:
                    continue
                where = f"trial {trial['trial']!r} of {records.path}"
                try:
                    arrays = records.examples(trial["trial"])
                except zipfile.BadZipFile as error:
                    raise RunError(f"the examples of {where} are damaged: {error}") from error
                examples = read_examples(arrays, where)
                if any(example.log_posteriors.shape[1] != classes for example in examples):
                    raise RunError(
                        f"the examples of {where} must have posteriors of {classes} classes, one "
                        "for each symbol and the blank"
                    )
                if examples:
                    kept[encoder] = (cell.speaker, examples)
    return kept


def _alignments(
    examples: Mapping[str, tuple[str, list[Example]]], symbols: Sequence[str]
) -> list[Figure]:
    made = []
    for encoder, (speaker, kept) in examples.items():
        position = shown_example(kept)
        if position is None:
            continue
        example = kept[position]
        drawn = plots.alignment_figure(
            example.log_mel, example.log_posteriors, example.alignment,
            hop_seconds=example.hop_seconds, frame_seconds=example.frame_seconds, names=symbols,
            title=figure_title(example, symbols, speaker),
        )  # fmt: skip
        made.append(
            Figure(
                f"alignment_{encoder}",
                plots.to_png(drawn),
                f"{name(encoder)}, frame by frame.",
                "Above, the log-mel spectrogram (dark is loud). Below, the posterior of each digit "
                "that the encoder emits, the blank in grey; a digit that was not said is orange. "
                "Bars mark the frames that the Viterbi alignment gives to each digit said.",
                "CTC does not learn when a digit begins and ends: a peak may lie anywhere in the "
                "digit or after it, and its height is not a calibrated confidence.",
            )
        )
    return made


def _transcripts(examples: Mapping[str, tuple[str, list[Example]]], symbols: Sequence[str]) -> Html:
    tables = []
    headers = ["", "Said, and recognised", "Errors"]
    for encoder, (speaker, kept) in examples.items():
        lines: list[list[str]] = []
        for kind, example in chosen(kept):
            said, heard = transcript(example, symbols)
            lines.append(
                [
                    kind,
                    join([said, Html("<br>"), heard]),
                    f"{example.errors} of {len(example.labels)}",
                ]
            )
        if lines:
            heading = f"{name(encoder)}, {speaker}"
            tables.append(html_table(headers, [(heading, lines)], text_columns=(0, 1), narrow=True))
    if not tables:
        return Html("")
    note = (
        "What was said above what was recognised. Errors are marked; a dot stands for a digit that "
        "the other line has and this one has not. Most errors and typical: among the few "
        "test strings kept as examples, not among all."
    )
    return join([element("div", *tables, class_="beside"), paragraph(note, class_="note")])


def _curves(
    records: Records, found: Mapping[str, Sequence[Cell]], inks: Mapping[str, Ink]
) -> Figure | None:
    panels: dict[str, list[Curve]] = {"Training": [], "Validation": []}
    for title, key in zip(panels, ("train_loss", "validation_label_error_rate"), strict=True):
        for encoder, own in found.items():
            trials = [trial for cell in own for trial in cell.trials]
            steps, values = series(records, trials, key)
            if steps.size:
                panels[title].append(Curve(encoder, steps, values))
    if not any(panels.values()):
        return None
    drawn = plots.learning_curves(
        panels, inks, y_labels=["CTC loss", "label error rate (%)"],
        scales=["log", "error"], labels=_short(found),
    )  # fmt: skip
    return Figure(
        "training_curves", plots.to_png(drawn), "Training curves.",
        "Mean over the runs of an encoder, with a band from the lowest to the highest; both axes "
        "of values are logarithmic.",
        "The test speakers are not in it: the error on them is in the table and usually higher. A "
        "step does not take the same time in every encoder.",
    )  # fmt: skip


def _lengths(found: Mapping[str, Sequence[Cell]], inks: Mapping[str, Ink]) -> Figure | None:
    shown: dict[str, list[LengthError]] = {}
    for encoder, own in found.items():
        # Per run, so that seeds which repeat a string do not count as more strings.
        errors = np.concatenate([cell.group.errors for cell in own])
        totals = np.concatenate([cell.group.totals for cell in own])
        lengths = np.concatenate([_lengths_of(cell) for cell in own])
        for length in np.unique(lengths[lengths > 0]):
            chosen_ones = lengths == length
            group = stats.utterance_errors(errors[chosen_ones], totals[chosen_ones])
            low, high = stats.error_rate_interval([group])
            shown.setdefault(encoder, []).append(
                LengthError(
                    int(length), stats.error_rate([group]), low, high, int(chosen_ones.sum())
                )
            )
    if not shown:
        return None
    drawn = plots.error_by_length(shown, inks, labels=_short(found))
    return Figure(
        "error_by_length", plots.to_png(drawn), "Error by length of the string.",
        "Label error rate over the test strings of each length, with 95 % bootstrap intervals; the "
        "encoders are set a little apart to be told from one another.",
        "All speakers count together, and the lengths differ in which digits they happen to hold; "
        "a difference between neighbouring lengths within the intervals means nothing.",
    )  # fmt: skip


def _lengths_of(cell: Cell) -> np.ndarray:
    """Reference labels of each test string said once, whatever the number of seeds."""
    counts = cell.errors[:, 3]
    first = len(cell.done[0]["result"]["utterance_errors"])
    return counts // len(cell.done) if len(counts) == first else counts


def _confusion(found: Mapping[str, Sequence[Cell]]) -> Figure | None:
    panels, symbols = {}, []
    for encoder, own in found.items():
        results = [t["result"] for cell in own for t in cell.done if t["result"].get("confusion")]
        same = {tuple(map(str, result["confusion"]["symbols"])) for result in results}
        if len(same) == 1 and (not symbols or symbols == list(*same)):
            symbols = list(*same)
            panels[name(encoder)] = np.sum(
                [np.asarray(result["confusion"]["counts"]) for result in results], axis=0
            )
    if not panels:
        return None
    drawn = plots.confusion_matrices(
        panels, [*symbols, "inserted"], [*symbols, "deleted"], y_label="said", x_label="recognised"
    )
    return Figure(
        "confusion", plots.to_png(drawn), "Which digits are mistaken.",
        "Digits said by digits recognised, over all test strings and runs; the last column are "
        "digits that were left out, the last row digits that nobody said.",
        "Which of two neighbours was deleted or replaced is a choice of the alignment with the "
        "fewest errors, and there can be several.",
    )  # fmt: skip


def _cost(records: Records, made: Sequence[Cell]) -> Html:
    lines = []
    for encoder in dict.fromkeys(cell.encoder for cell in made):
        own = [trial for cell in made if cell.encoder == encoder for trial in cell.trials]
        seconds, steps = spent(records, own)
        if steps:
            lines.append(
                [name(encoder), f"{1000 * seconds / steps:,.0f}", f"{seconds:,.0f}", f"{steps:,}"]
            )
    if not lines:
        return Html("")
    headers = ["Encoder", "Milliseconds per step", "Seconds in all", "Steps"]
    note = (
        "Wall-clock time as it was on this machine, with compilation and evaluation where a run "
        "included them; it varies from run to run and is no part of table.csv or table.json."
    )
    return section("Cost", html_table(headers, [("", lines)], note=note, narrow=True))


def _short(found: Mapping[str, Sequence[Cell]]) -> dict[str, str]:
    """Names that fit beside a curve."""
    return names(found) | {"bilstm": "BiLSTM", "conv_attention": "Conv-attention"}
