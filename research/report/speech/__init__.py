"""The report of `experiments.compare_ctc`: which encoder, objective and optimizer hear best."""

from collections.abc import Mapping, Sequence

from research.report.common import (
    banner,
    count,
    device_words,
    eyebrow,
    listed,
    name,
    provenance,
    spelled,
)
from research.report.page import (
    Html,
    Report,
    element,
    existing,
    figure,
    join,
    paragraph,
    section,
)
from research.report.rows import entrant_label, left_out_words
from research.report.speech import exports, figures, tables
from research.report.speech.costs import read_costs
from research.report.speech.design import Design, System, read_design
from research.report.speech.heard import example_figures
from research.report.speech.outcomes import Outcome, read_outcomes
from research.report.speech.trained import Trained, planned_trainings, read_trained
from research.report.speech.verdict import questions, verdict
from research.runlog import Records


def render(records: Records) -> Report:
    """The whole report of one run."""
    design = read_design(records)
    trained, searches = read_trained(records, design)
    baselines = {system: design.baseline(system) for system in trained}
    outcomes = list(read_outcomes(trained, baselines).values())
    costs = read_costs(records, design)
    seen = figures.look(design, outcomes)
    best = _best_of_each_group(outcomes)

    rates = existing(
        figures.rate_figure(design, outcomes, seen),
        figures.difference_figure(design, outcomes, seen),
    )
    diagnostics = existing(
        figures.diagnostic_figure(design, outcomes, seen),
        figures.reliability_figure(design, outcomes, seen),
    )
    examples, transcripts = example_figures(design, records, best, outcomes)
    errors = existing(
        figures.length_figure(design, best), figures.confusion_figure(design, best[:4])
    )
    curves = existing(figures.curve_figure(design, outcomes, seen))
    tuning = figures.sensitivity_figures(design, searches)

    recorded = len(records.rows) - sum(len(item.left_out) for item in trained.values())
    title = _title(design)
    rated = any(o.rate for o in outcomes)
    body = join(
        [
            eyebrow(records),
            element("h1", title),
            banner(recorded, planned_trainings(design, trained, searches), "training"),
            element(
                "div", *(paragraph(line) for line in verdict(design, outcomes)),
                paragraph(questions(outcomes), class_="aside") if rated else "", class_="verdict",
            ),
            section("What was run", *_what_was_run(records, design), _left_out(design, trained)),
            section("Error rates", tables.main_table(design, outcomes), *map(figure, rates)),
            section("By decoder", tables.decoder_table(design, outcomes)),
            section("By held-out speaker", tables.speaker_table(design, outcomes)),
            section("By seed", tables.seed_table(design, outcomes)),
            section(
                "Posteriors, alignments, confidence",
                tables.diagnostic_table(design, outcomes, costs), *map(figure, diagnostics),
            ),
            section("What it hears", *map(figure, examples), transcripts),
            section("Which errors", *map(figure, errors)),
            section("What each objective spent", tables.compute_table(design, costs)),
            section("Searches", tables.search_table(design, searches), *map(figure, tuning)),
            section("Training", *map(figure, curves)),
            provenance(records),
        ]
    )  # fmt: skip
    files = {
        "results": exports.results(design, outcomes),
        "trainings": exports.trainings(outcomes),
        "searches": exports.searches(design, searches),
        "costs": exports.costs(design, costs),
    }
    drawn = [*rates, *diagnostics, *examples, *errors, *tuning, *curves]
    return Report(title, body, files, tuple(drawn))


def _best_of_each_group(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Per encoder and optimizer the system of the lowest error, best first.

    Where no system of a group has an average, the first that has a finished training.
    """
    chosen: dict[tuple[str, str], Outcome] = {}
    for outcome in sorted(outcomes, key=_rank):
        if outcome.trained.finished:
            chosen.setdefault((outcome.system.encoder, outcome.system.entrant), outcome)
    return list(chosen.values())


def _rank(outcome: Outcome) -> float:
    return outcome.rate.value if outcome.rate else float("inf")


def _title(design: Design) -> str:
    counted = [("CTC objective", design.objectives), ("encoder", design.encoders)]
    if len(design.entrants) > 1:
        counted.append(("optimizer", design.entrants))
    words = [
        f"{spelled(len(items)).lower()} {noun}{'' if len(items) == 1 else 's'}"
        for noun, items in counted
    ]
    source = design.source.partition(":")[0] or "unnamed recordings"
    text = listed(words)
    return f"{text[0].upper()}{text[1:]} compared: {source}"


def _left_out(design: Design, trained: Mapping[System, Trained]) -> Html:
    """Which final trainings do not count, in words."""
    groups: dict[str, list[dict]] = {}
    for system, item in trained.items():
        for row in item.left_out:
            where = f"{design.system_label(system)}, {design.place(row).fold} unheard"
            groups.setdefault(where, []).append(row)
    words = left_out_words(groups)
    return paragraph(words, class_="note") if words else Html("")


def _what_was_run(records: Records, design: Design) -> list[Html]:
    encoders = listed([name(e) for e in design.encoders] or ["none"])
    entrants = listed([entrant_label(e) for e in design.entrants] or ["none"])
    held_out = listed(design.folds or ["none"])
    text = (
        "A system is an encoder trained with an objective by an optimizer; it is tested on a "
        "speaker that neither its training nor its search has heard. "
        f"Encoders: {encoders}. Optimizers: {entrants}. Held out, one at a time: {held_out}."
    )
    parts = []
    if design.trials is not None:
        each = (
            f"every encoder and optimizer, and all objectives use what "
            f"{design.objective_label(design.tuned_with)} found"
            if design.tuning == "shared"
            else "every system"
        )
        steps = f" of {count(design.search_steps, 'step')}" if design.search_steps else ""
        parts.append(
            f"For each held-out speaker there is a search of {count(design.trials, 'trial')}"
            f"{steps} for {each}; it is validated on another speaker that it did not train on."
        )
    if design.seeds:
        parts.append(
            f"Then it is trained anew with {count(len(design.seeds), 'seed')}"
            + (", every seed for every speaker." if design.crossed else ", one with each speaker."
               if len(design.seeds) <= len(design.folds) else ", which take turns over speakers.")
        )  # fmt: skip
    parts.append(
        "Trainings of the same speaker and seed see the same data in the same order and are "
        "compared in pairs. One diverged when its loss or its validation score was not finite; it "
        "is counted, never dropped."
    )
    source = f"Data: {design.source}." if design.source else ""
    last = " ".join(filter(None, [source, device_words(records)]))
    return [
        paragraph(text), paragraph(" ".join(parts)), paragraph(last) if last else Html(""),
        tables.objective_table(design) if design.objectives else Html(""),
    ]  # fmt: skip
