"""The report of `experiments.compare_optimizers`: which optimizer, under an equal budget."""

from collections.abc import Mapping

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
from research.report.optimizers import exports, figures, known_truths, search_tables, tables
from research.report.optimizers.cells import Cell, Key, planned_trainings, read_cells
from research.report.optimizers.costs import read_costs
from research.report.optimizers.design import Design, read_design
from research.report.optimizers.outcomes import read_outcomes, self_comparisons
from research.report.optimizers.studies import read_studies
from research.report.optimizers.summaries import agreements, block, profile, ranks
from research.report.optimizers.verdict import overall, workload_verdict
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
from research.runlog import Records


def render(records: Records) -> Report:
    """The whole report of one run."""
    design = read_design(records)
    cells = read_cells(records, design)
    studies = read_studies(design, cells)
    outcomes = read_outcomes(design, studies)
    same = self_comparisons(design, studies)
    costs = read_costs(records, design)
    compared = block(design, outcomes, design.workloads)
    places = ranks(compared)
    shape = profile(design, outcomes, design.workloads)
    seen = figures.look(design, places, compared.entrants)

    known = known_truths.look_up(known_truths.finals(design, studies))

    results = figures.outcome_figures(design, outcomes, seen)
    times = existing(
        figures.reached_figure(design, outcomes, seen),
        figures.ratio_figure(design, outcomes, seen),
        figures.profile_figure(design, shape, seen),
        figures.curve_figure(design, outcomes, seen),
    )
    searches = existing(
        figures.best_of_figure(design, outcomes, seen),
        *figures.sensitivity_figures(design, outcomes, seen),
    )
    stability = existing(figures.rank_figure(design, places, compared, seen))

    recorded = len(records.rows) - sum(len(cell.left_out) for cell in cells.values())
    verdicts = overall(design, outcomes, shape, places, compared, same)
    verdicts += [workload_verdict(design, outcomes, workload) for workload in design.workloads]
    optimizers = len({design.optimizer(entrant) for entrant in design.entrants})
    noun = "optimizer" if optimizers == 1 else "optimizers"
    with_schedules = (
        f", {spelled(len(design.entrants)).lower()} with their schedules,"
        if len(design.entrants) > optimizers
        else ""
    )
    title = (
        f"{spelled(optimizers)} {noun}{with_schedules} compared on "
        f"{count(len(design.workloads), 'workload')}"
    )
    body = join(
        [
            eyebrow(records),
            element("h1", title),
            banner(recorded, planned_trainings(design, cells), "training"),
            element("div", *(paragraph(line) for line in verdicts), class_="verdict")
            if verdicts
            else "",
            section(
                "What was run", *_what_was_run(records, design), tables.workloads_table(design),
                _blanks(design, cells), _left_out(design, cells),
            ),
            section("Final scores", tables.outcome_table(design, outcomes), *map(figure, results)),
            section(
                "Time to the target", tables.time_table(design, outcomes, costs),
                *map(figure, times),
            ),
            section(
                "Ranks and how stable they are", *map(figure, stability),
                tables.rank_table(design, shape, places, compared.entrants),
                tables.agreement_table(agreements(design, outcomes)),
            ),
            section("The reference against itself", tables.self_table(design, cells, same)),
            section("What is known from elsewhere", known_truths.truth_table(design, known)),
            section(
                "Searches", search_tables.hyperparameter_table(design, outcomes),
                *map(figure, searches),
            ),
            section("Failures", search_tables.failure_table(design, cells)),
            section("Cost", search_tables.cost_table(design, costs)),
            provenance(records),
        ]
    )  # fmt: skip
    files = {
        "results": exports.results(design, outcomes),
        "studies": exports.studies(design, cells),
        "trials": exports.trials(cells),
        "tests": exports.tests(design, outcomes, same),
        "costs": exports.costs(design, outcomes, costs),
        "known_truths": known_truths.truth_rows(known),
    }
    return Report(title, body, files, tuple([*results, *times, *stability, *searches]))


def _what_was_run(records: Records, design: Design) -> list[Html]:
    each = (
        f"a search of {count(design.trials, 'trial')} at points of a scrambled Halton sequence"
        if design.trials is not None
        else "a search"
    )
    seeds = f"{count(len(design.seeds), 'fresh seed')}" if design.seeds else "fresh seeds"
    if design.studies == 1:
        budget = (
            f"{each}, then the trial of the lowest final validation score trained anew on "
            f"{seeds}, the same for all. "
        )
    else:
        budget = (
            f"{count(design.studies, 'independent study', 'independent studies')}, each {each} "
            "of its own, with its own initialisation and order of the data, then the trial of its "
            f"lowest final validation score trained anew. The {seeds} are dealt to the studies in "
            "turn, the same to all entrants; what is compared are whole studies, so that the luck "
            "of a search counts as chance. "
        )
    said = (
        f"Every optimizer had the same budget on every workload and horizon: {budget}"
        "The test score is measured at the end of these final runs only. A training diverged when "
        "its loss or its validation score was not finite; it is counted, never dropped."
    )
    if design.reference:
        said += f" All are compared with {entrant_label(design.reference)}."
    if design.schedule:
        said += f" Learning rates follow the {name(design.schedule)} schedule unless named."
    entrants = listed([entrant_label(entrant) for entrant in design.entrants] or ["none"])
    source = str(records.data.get("source") or "")
    more = [f"Entrants: {entrants}."] + ([f"Data: {source}."] if source else [])
    return [paragraph(said), paragraph(" ".join([*more, device_words(records)]))]


def _left_out(design: Design, cells: Mapping[Key, Cell]) -> Html:
    """Which final runs do not count, in words."""
    groups = {}
    for cell in cells.values():
        where = f"{entrant_label(cell.entrant)} on {name(cell.workload)}, {cell.horizon:,} steps"
        study = f", study {cell.study}" if design.planned_studies(cell.entrant) > 1 else ""
        groups[where + study] = cell.left_out
    words = left_out_words(groups)
    return paragraph(words, class_="note") if words else Html("")


def _blanks(design: Design, cells: Mapping[Key, Cell]) -> Html:
    """Which cells have not been run, in words."""
    missing = [cell for cell in cells.values() if cell.state == "not run"]
    begun = [cell for cell in cells.values() if cell.state in ("searching", "finals")]
    if not missing and not begun:
        return Html("")
    words = [f"Of {count(len(cells), 'cell')}"]
    words.append(f"{len(missing)} have not been run and {len(begun)} are not finished;")
    words.append("their places are blank.")
    gone = [
        w
        for w in design.workloads
        if all(c.state == "not run" for k, c in cells.items() if k[0] == w)
    ]
    if gone:
        words.append(f"Nothing of {listed([name(w) for w in gone])} has been run.")
    return paragraph(" ".join(words), class_="note")
