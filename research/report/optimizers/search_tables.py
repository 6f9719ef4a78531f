"""The tables of the page on searches: what they found, what failed, what it cost."""

import math
from collections.abc import Mapping

from research.report.common import BLANK, fixed, name, number, signed
from research.report.optimizers.cells import Cell, Key, edges
from research.report.optimizers.costs import Cost
from research.report.optimizers.design import Design
from research.report.optimizers.outcomes import Outcome
from research.report.optimizers.summaries import Outcomes
from research.report.page import Html, element, join, table
from research.report.rows import entrant_label, final_score, quotient
from research.stats import proportion_interval


def hyperparameter_table(design: Design, outcomes: Outcomes) -> Html:
    """The winning hyperparameters at the longest horizon."""
    groups = []
    for workload in design.workloads:
        horizon = design.longest(workload)
        made = [o for k, o in outcomes.items() if k[0] == workload and k[2] == horizon]
        groups.append((name(workload), [row for o in made for row in _winner_rows(design, o)]))
    several = design.studies > 1
    note = (
        "Those of the search trial with the lowest final validation score, at the longest "
        "horizon. (edge): in the outer 5 % of the values searched, so a better one may lie "
        "beyond. Diverged: search trials, with the exact 95 % interval of the rate in the "
        "searched space."
    )
    if several:
        note += (
            " A row is a study with its best validation score; how far the rows of an optimizer "
            "are apart is the luck of the search."
        )
    headers = ["Optimizer", "Diverged", *(["Score"] if several else []), "Chosen hyperparameters"]
    return table(headers, groups, text_columns=(0, len(headers) - 1), note=note)


def cost_table(design: Design, costs: Mapping[tuple[str, str], Cost]) -> Html:
    """State and seconds per step."""
    groups = []
    for workload in design.workloads:
        rows = []
        reference = costs.get((workload, design.reference or ""))
        unit = reference.seconds_per_step if reference else math.nan
        for entrant in design.entrants:
            cost = costs.get((workload, entrant))
            if cost is None:
                continue
            rows.append(
                [
                    entrant_label(entrant), fixed(cost.bytes_per_parameter, ".1f"),
                    fixed(1000 * cost.seconds_per_step, ".3g"),
                    fixed(quotient(cost.seconds_per_step, unit), ".2f"),
                    f"{cost.steps:,}", ", ".join(cost.modes) or BLANK,
                ]
            )  # fmt: skip
        if rows:
            groups.append((name(workload), rows))
    if not groups:
        return Html("")
    headers = [
        "Optimizer", "State, bytes per parameter", "Milliseconds per step",
        "Relative to the reference", "Steps timed", "Run by",
    ]  # fmt: skip
    note = (
        "Wall-clock seconds per step of one training without compilation, evaluation included, "
        "as it was on this machine. Trainings that run together share the cost of dispatch "
        "(Run by), so these are costs of the search as it was run, not of an optimizer on an "
        "accelerator. Seconds are in costs.csv only."
    )
    return table(headers, groups, text_columns=(0, 5), note=note)


def failure_table(design: Design, cells: Mapping[Key, Cell]) -> Html:
    """Trainings that diverged, over all workloads and horizons."""
    rows = []
    for entrant in design.entrants:
        own = [c for key, c in cells.items() if key[1] == entrant and key[3] < design.studies]
        row = [entrant_label(entrant)]
        for lost, made in (
            (sum(c.search_diverged for c in own), sum(len(c.searches) for c in own)),
            (sum(c.final_diverged for c in own), sum(len(c.finals) for c in own)),
        ):
            low, high = proportion_interval(lost, made)
            row += [
                f"{lost:,} of {made:,}" if made else BLANK,
                f"{100 * low:.1f} to {100 * high:.1f}" if made else BLANK,
            ]
        row.append(str(sum(cell.state == "failed" for cell in own)))
        rows.append(row)
    headers = [
        "Optimizer", "Search trials diverged", "95 % interval, %", "Final runs diverged",
        "95 % interval, %", "Searches that failed",
    ]  # fmt: skip
    note = (
        "Exact binomial (Clopper-Pearson) intervals of the rate, the trainings taken for "
        "independent; they speak of the searched space, whose width was chosen. A search fails "
        "when every trial diverged. A final score far from any use that is finite is no "
        "divergence."
    )
    return table(headers, [("", rows)], note=note)


def _winner_rows(design: Design, outcome: Outcome) -> list[list[str]]:
    """A row per study, the first with the entrant and all its trials."""
    own = outcome.studies
    lost, made = own.search_diverged, len(own.searches)
    low, high = proportion_interval(lost, made)
    diverged: str = BLANK
    if made:
        rate = element("span", f" ({100 * low:.0f} to {100 * high:.0f} %)", class_="mute")
        diverged = join([f"{lost} of {made}", rate])
    rows = []
    for cell in own.cells:
        first = [entrant_label(own.entrant), diverged] if not rows else ["", ""]
        best = [signed(number(final_score(w, "validation"))) if (w := cell.winner) else BLANK]
        rows.append([*first, *(best if own.unit == "study" else []), _winner(design, cell)])
    return rows


def _winner(design: Design, cell: Cell) -> str:
    marks = edges(cell, design)
    parts = []
    for key, value in cell.hyperparameters.items():
        text = join([element("span", key.replace("_", " "), class_="mute"), " ", number(value)])
        if key in marks:
            text = join([text, element("span", " (edge)", class_="warn")])
        parts.append(element("span", text, class_="keep"))
    return join(parts, ", ") if parts else BLANK
