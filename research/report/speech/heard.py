"""Error examples: test strings as the systems heard them, wrong ones beside right ones."""

import zipfile
from collections.abc import Sequence

from research import plots
from research.errors import RunError
from research.report.common import count
from research.report.page import Figure, Html, element, join, paragraph, table
from research.report.rows import row_name
from research.report.speech.design import Design
from research.report.speech.examples import (
    Example,
    chosen,
    figure_title,
    heard,
    read_examples,
    same_audio,
    transcript,
)
from research.report.speech.outcomes import Outcome
from research.runlog import Records

_MOST_LABELS = 12  # of a string whose symbols can be written into a figure of half the width


def kept_examples(records: Records, outcome: Outcome) -> tuple[str, list[Example], list[str]]:
    """Speaker, examples and names of classes of a system's first training that kept some."""
    for (fold, _), row in outcome.trained.finals.items():
        where = row_name(records, row)
        try:
            arrays = records.examples(row["key"])
        except zipfile.BadZipFile as error:
            raise RunError(f"the examples of {where} are damaged: {error}") from error
        examples = read_examples(arrays, where)
        if not examples or row["status"] != "finished":
            continue
        names = ["\N{EN DASH}", *row["result"]["details"]["symbols"]]
        if any(example.log_posteriors.shape[1] != len(names) for example in examples):
            raise RunError(
                f"the examples of {where} must have posteriors of {len(names)} classes, one for "
                "each symbol and the blank"
            )
        return fold, examples, names
    return "", [], []


def example_figures(
    design: Design, records: Records, shown: Sequence[Outcome], outcomes: Sequence[Outcome]
) -> tuple[list[Figure], Html]:
    """Figures and transcripts of a few systems; the first also by every objective.

    Args:
        design: of the study.
        records: of the run.
        shown: the systems whose examples are shown.
        outcomes: all systems.
    """
    figures, tables = [], []
    for outcome in shown:
        fold, examples, names = kept_examples(records, outcome)
        if not examples:
            continue
        label = design.system_label(outcome.system)
        made = _pair(f"{label}, {fold}", "_".join(outcome.system), examples, names)
        figures += [made] if made else []
        tables.append(_transcripts(f"{label}, {fold}", examples, names))
    if shown:
        rows = [o for o in outcomes if _group(o) == _group(shown[0])]
        made = _by_objective(design, records, rows)
        figures += [made] if made else []
    if not tables:
        return figures, Html("")
    note = (
        "What was said above what was recognised. Errors are marked; a dot stands for a symbol "
        "that the other line has and this one has not. The strings with most errors of all test "
        "strings of that speaker, and the first ones without an error."
    )
    text = element("div", *tables, class_="beside")
    return figures, join([text, paragraph(note, class_="note")])


def _pair(
    title: str, file: str, examples: Sequence[Example], names: Sequence[str]
) -> Figure | None:
    wrong, right = chosen(examples)
    short = [[e for e in group if len(e.labels) <= _MOST_LABELS] or group[:1]
             for group in (wrong, right)]  # fmt: skip
    beside = [group[0] for group in short if group]
    if not beside:
        return None
    columns = [heard(example, figure_title(example, names)) for example in beside]
    known = all(example.boundaries is not None for example in beside)
    return Figure(
        f"example_{file.replace('@', '_')}", plots.to_png(
            plots.alignment_figures(columns, names=names)
        ), f"{title}: " + ("an error beside a success." if len(beside) > 1 else "an example."),
        "Above, the waveform and the log-mel spectrogram (dark is loud). Below, the posterior of "
        "each symbol that the network emits, the blank in grey; a symbol that was not said is "
        "orange. Blue bars mark the frames that the Viterbi alignment gives to each symbol said"
        + ("; green brackets mark where it begins and ends in truth." if known else "."),
        "CTC does not learn when a symbol begins and ends: a peak may lie anywhere in it or after "
        "it, and its height is not a calibrated confidence. Two strings are no sample.",
    )  # fmt: skip


def _by_objective(design: Design, records: Records, rows: Sequence[Outcome]) -> Figure | None:
    """The string that most objectives kept as an example."""
    kept = [(outcome, *kept_examples(records, outcome)) for outcome in rows]
    kept = [item for item in kept if item[2]]
    candidates = [example for item in kept for example in item[2]]
    if len(kept) < 2:
        return None

    def spread(example: Example) -> tuple[int, int]:
        alike = [any(same_audio(example, e) for e in item[2]) for item in kept]
        return sum(alike), -abs(len(example.labels) - 5)

    best = max(candidates, key=spread)
    if spread(best)[0] < 2:
        return None
    drawn, names = {}, kept[0][3]
    for outcome, _, examples, _ in kept:
        own = next((e for e in examples if same_audio(best, e)), None)
        if own is not None:
            text = figure_title(own, names).partition("\n")
            label = design.objective_label(outcome.system.objective)
            drawn[f"{label}: {text[2]}"] = heard(own, text[0])
    return Figure(
        "posteriors_by_objective", plots.to_png(plots.posterior_rows(drawn, names=names)),
        f"One string by {count(len(drawn), 'objective')}, {design.group_label(rows[0].system)}.",
        "The log-mel spectrogram, then the posteriors of each system; shades mark the frames of "
        "its Viterbi alignment.",
        "It is one string by one training of each: how broad the peaks of an objective are on "
        "average is in the diagnostics.",
    )  # fmt: skip


def _transcripts(title: str, examples: Sequence[Example], names: Sequence[str]) -> Html:
    lines: list[list[str]] = []
    for kind, group in zip(("most errors", "no error"), chosen(examples), strict=True):
        for example in group:
            said, recognised = transcript(example, names)
            errors = f"{example.errors} of {len(example.labels)}"
            lines.append([kind, join([said, Html("<br>"), recognised]), errors])
    headers = ["", "Said, and recognised", "Errors"]
    return table(headers, [(title, lines)], text_columns=(0, 1), narrow=True)


def _group(outcome: Outcome) -> tuple[str, str]:
    return outcome.system.encoder, outcome.system.entrant
