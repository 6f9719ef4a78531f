"""The tables of the page."""

import math
from collections.abc import Mapping, Sequence

from research.report.common import BLANK, count, fixed, name, number, p_words, signed
from research.report.optimizers.cells import Cell, Key, edges
from research.report.optimizers.costs import Cost
from research.report.optimizers.design import Design
from research.report.optimizers.outcomes import Outcome, SelfComparison, false_positives
from research.report.optimizers.summaries import Agreement, Outcomes, Profile, median_steps
from research.report.page import Html, element, join, paragraph, table
from research.report.rows import entrant_label
from research.stats import Interval, Ranks, mean_and_deviation, median_interval, proportion_interval


def workloads_table(design: Design) -> Html:
    """What each workload is: description, score, target, horizons."""
    rows = [
        [
            name(workload) + (" (held out)" if workload in design.held_out else ""),
            design.descriptions.get(workload, BLANK),
            design.metric(workload),
            number(design.targets[workload]) if workload in design.targets else BLANK,
            ", ".join(f"{steps:,}" for steps in design.horizons[workload]) or BLANK,
        ]
        for workload in design.workloads
    ]
    headers = ["Workload", "Model and data", "Score, lower is better", "Target", "Steps"]
    note = (
        "Target: on the mean validation score; it was set by trials that are not among these. "
        "Held out: no search space was chosen on it."
    )
    return table(headers, [("", rows)], text_columns=(0, 1, 2), note=note)


def outcome_table(design: Design, outcomes: Outcomes) -> Html:
    """Final scores per workload and horizon, beside the reference."""
    headers = [
        "Optimizer", "Validation score", "Test score", "Difference to "
        f"{entrant_label(design.reference or 'the reference')}", "Wins", "p, Holm",
    ]  # fmt: skip
    groups = []
    for workload in design.workloads:
        for horizon in design.horizons[workload]:
            made = [o for k, o in outcomes.items() if k[0] == workload and k[2] == horizon]
            heading = f"{name(workload)}, {horizon:,} steps"
            groups.append((heading, [_outcome_row(o) for o in made]))
    note = (
        "Mean ± sample standard deviation (n − 1) over the final runs, all on the same seeds. "
        "Difference: mean over seeds with its 95 % t interval, below zero is better. Wins: "
        "seeds on which the score is lower. p, Holm: paired t test (Wilcoxon's signed-rank "
        "test where a run diverged), adjusted for all comparisons of this page; bold where at "
        "most 0.05. A run that diverged loses to every other, and its entrant has no mean. "
        "Blanks were not run."
    )
    return table(headers, groups, note=note)


def time_table(design: Design, outcomes: Outcomes, costs: Mapping[tuple[str, str], Cost]) -> Html:
    """Time to the target in steps, gradient evaluations and seconds, at the longest horizon."""
    headers = [
        "Optimizer", "Reached", "Median steps", "Steps, ratio", "Gradient evaluations, ratio",
        "Seconds, median", "Seconds, ratio", "p, log-rank",
    ]  # fmt: skip
    groups = []
    for workload in design.workloads:
        if workload not in design.targets:
            continue
        horizon = design.longest(workload)
        made = [o for k, o in outcomes.items() if k[0] == workload and k[2] == horizon]
        heading = f"{name(workload)}, target {number(design.targets[workload])}"
        groups.append((heading, [_time_row(design, o, costs) for o in made]))
    reference = entrant_label(design.reference or "the reference")
    note = (
        "At the longest horizon. Median: with its 95 % interval (Brookmeyer and Crowley); blank "
        "where fewer than half of the runs reach, and never where more may not. Ratios are to "
        f"{reference} on the same seeds, with 95 % BCa bootstrap intervals; below one is faster. "
        "They are of mean times in which a run that did not reach the target counts with the "
        "horizon: > says that the true ratio is larger, < that it is smaller, ? that it may be "
        "either. Seconds: steps times the measured seconds of a step; they are those of this "
        "machine and of how the trainings were batched on it. p, log-rank: not adjusted."
    )
    return table(headers, groups, note=note) if groups else Html("")


def hyperparameter_table(design: Design, outcomes: Outcomes) -> Html:
    """The winning hyperparameters at the longest horizon."""
    groups = []
    for workload in design.workloads:
        horizon = design.longest(workload)
        made = [o for k, o in outcomes.items() if k[0] == workload and k[2] == horizon]
        groups.append((name(workload), [_hyperparameter_row(design, o) for o in made]))
    note = (
        "Those of the search trial with the lowest final validation score, at the longest "
        "horizon. (edge): in the outer 5 % of the values searched, so a better one may lie "
        "beyond. Diverged: search trials, with the exact 95 % interval of the rate in the "
        "searched space."
    )
    headers = ["Optimizer", "Diverged", "Chosen hyperparameters"]
    return table(headers, groups, text_columns=(0, 2), note=note)


def cost_table(design: Design, costs: Mapping[tuple[str, str], Cost]) -> Html:
    """State and seconds per step."""
    groups = []
    for workload in design.workloads:
        rows = []
        reference = costs.get((workload, design.reference or ""))
        for entrant in design.entrants:
            cost = costs.get((workload, entrant))
            if cost is None:
                continue
            relative = cost.seconds_per_step / reference.seconds_per_step if reference else math.nan
            rows.append(
                [
                    entrant_label(entrant), fixed(cost.bytes_per_parameter, ".1f"),
                    fixed(1000 * cost.seconds_per_step, ".3g"), fixed(relative, ".2f"),
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


def rank_table(profile: Profile | None, ranks: Ranks | None, ranked: Sequence[str]) -> Html:
    """Profile scores and ranks."""
    scores = dict(zip(profile.block.entrants, profile.scores, strict=True)) if profile else {}
    places = {entrant: i for i, entrant in enumerate(ranked)} if ranks is not None else {}
    entrants = list(dict.fromkeys([*places, *scores]))
    if len(entrants) < 2:
        return Html("")
    rows = []
    for entrant in entrants:
        i = places.get(entrant)
        row = [entrant_label(entrant), fixed(scores.get(entrant, math.nan), ".3f")]
        if ranks is None or i is None:
            row += [BLANK] * 3
        else:
            row += [f"{ranks.mean[i]:.2f}", f"{ranks.low[i]:.1f} to {ranks.high[i]:.1f}",
                    f"{100 * ranks.first[i]:.0f} %"]  # fmt: skip
        rows.append(row)
    rows.sort(key=lambda row: math.inf if row[2] == BLANK else float(row[2]))
    headers = ["Optimizer", "Profile score", "Mean rank", "95 % interval", "First in"]
    note = (
        "Profile score: AlgoPerf's, the mean height of the performance profile between one and "
        "four times the fastest. Mean rank: of mean final scores over the workloads. Interval, "
        "and in how many the entrant is first: 2,000 resamplings of seeds and workloads."
    )
    return table(headers, [("", rows)], note=note, narrow=True)


def agreement_table(found: Sequence[Agreement]) -> Html:
    """Kendall's tau between workloads, horizons and held-out variants."""
    kinds = {"workloads": "Between workloads", "horizons": "Between horizons",
             "held out": "Between the others and held-out workloads"}  # fmt: skip
    groups = []
    for kind, heading in kinds.items():
        own = [item for item in found if item.kind == kind]
        rows = [
            [" and ".join(item.between), str(item.entrants),
             signed(f"{item.tau:.2f}")]
            for item in sorted(own, key=lambda item: -item.tau)
        ]  # fmt: skip
        if rows:
            groups.append((heading, rows))
    if not groups:
        return Html("")
    note = (
        "Kendall's tau between the rankings of the entrants that both have: 1 the same order, "
        "0 no relation, −1 reversed. Rankings within chance of each other lower it."
    )
    return table(["", "Entrants", "Tau"], groups, note=note, narrow=True)


def self_table(design: Design, cells: Mapping[Key, Cell], same: Sequence[SelfComparison]) -> Html:
    """The A/A test: the reference against itself."""
    rejected, known, (low, high) = false_positives(same)
    if not known:
        ran = any(key[3] > 0 and cell.searches for key, cell in cells.items())
        missing = "is not complete yet" if ran or design.aa_studies else "was not part of this run"
        return paragraph(f"The A/A test {missing}.", class_="note")
    who = entrant_label(design.reference or "")
    text = (
        f"{who} was searched and re-run again, with nothing different but the points of the "
        f"search. Of {count(known, 'test')} between two such studies {rejected} "
        f"{'is' if rejected == 1 else 'are'} below 0.05 without any correction: "
        f"{100 * rejected / known:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %. "
        "With nothing but the chance of seeds it would be 5 %."
    )
    cannot = (
        "A higher rate is the chance of the search: two searches find different settings, whose "
        "difference is real but no property of the optimizer. Pairs of studies are disjoint; a few "
        "pairs say little about the rate."
    )
    rows = [
        [name(item.workload), f"{item.horizon:,}", f"{item.studies[0]} and {item.studies[1]}",
         _difference(item.comparison.difference, item.comparison.interval),
         p_words(item.comparison.p_value)]
        for item in same
    ]  # fmt: skip
    made = table(["Workload", "Steps", "Studies", "Difference", "p"], [("", rows)], narrow=True)
    return join([paragraph(text), paragraph(cannot, class_="note"), made])


def failure_table(design: Design, cells: Mapping[Key, Cell]) -> Html:
    """Trainings that diverged, over all workloads and horizons."""
    rows = []
    for entrant in design.entrants:
        own = [cell for key, cell in cells.items() if key[1] == entrant and key[3] == 0]
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
        "95 % interval, %", "Cells that failed",
    ]  # fmt: skip
    note = (
        "Exact binomial (Clopper-Pearson) intervals of the rate, the trainings taken for "
        "independent; they speak of the searched space, whose width was chosen. A cell fails "
        "when every search trial diverged. A final score far from any use that is finite is no "
        "divergence."
    )
    return table(headers, [("", rows)], note=note)


def _outcome_row(outcome: Outcome) -> list[str]:
    cell, made = outcome.cell, outcome.comparison
    shown = []
    for which in ("validation", "test"):
        scores = list(cell.scores(which).values())
        if not scores or any(math.isnan(score) for score in scores):
            state = {"failed": "all trials diverged", "searching": "searching"}.get(cell.state, "")
            warn = element("span", state, class_="warn" if cell.state == "failed" else "mute")
            shown.append(warn if state and which == "validation" else BLANK)
        elif cell.final_diverged:
            lost = f"{cell.final_diverged} of {len(scores)} diverged"
            shown.append(element("span", lost, class_="warn") if which == "test" else BLANK)
        else:
            shown.append(spread(*mean_and_deviation(scores)))
    p_value: str = p_words(outcome.adjusted)
    if outcome.verdict in ("better", "worse"):
        p_value = element("b", p_value)
    return [
        entrant_label(cell.entrant), *shown,
        _difference(made.difference, made.interval) if made else BLANK,
        f"{made.wins} of {made.pairs}" if made else BLANK,
        p_value,
    ]  # fmt: skip


def _time_row(design: Design, outcome: Outcome, costs: Mapping[tuple[str, str], Cost]) -> list[str]:
    cell, times = outcome.cell, outcome.times
    cost = costs.get((cell.workload, cell.entrant))
    reference = costs.get((cell.workload, design.reference or ""))
    per_step = cost.seconds_per_step if cost else math.nan
    relative = per_step / reference.seconds_per_step if reference else math.nan
    median = median_steps(outcome)
    return [
        entrant_label(cell.entrant),
        f"{times.reached.sum()} of {times.steps.size}" if times else BLANK,
        _median(outcome),
        _ratio(outcome, 1.0),
        _ratio(outcome, outcome.evaluations),
        fixed(median * per_step, ".3g"),
        _ratio(outcome, relative),
        p_words(outcome.log_rank),
    ]


def _hyperparameter_row(design: Design, outcome: Outcome) -> list[str]:
    cell, marks = outcome.cell, edges(outcome.cell, design)
    parts = []
    for key, value in cell.hyperparameters.items():
        text = join([element("span", key.replace("_", " "), class_="mute"), " ", number(value)])
        if key in marks:
            text = join([text, element("span", " (edge)", class_="warn")])
        parts.append(element("span", text, class_="keep"))
    lost, made = cell.search_diverged, len(cell.searches)
    low, high = proportion_interval(lost, made)
    diverged: str = BLANK
    if made:
        rate = element("span", f" ({100 * low:.0f} to {100 * high:.0f} %)", class_="mute")
        diverged = join([f"{lost} of {made}", rate])
    return [entrant_label(cell.entrant), diverged, join(parts, ", ") if parts else BLANK]


def spread(mean: float, deviation: float) -> str:
    """A mean ± its standard deviation, to two digits of the latter or five of the former.

    Example:
        >>> spread(0.123456, 0.00123), spread(12.3456, float("nan")), spread(-1.5, 1e-9)
        ('0.1235 ± 0.0012', '12.35', '−1.5000 ± 0.0000')
    """
    if not math.isfinite(deviation):
        return fixed(mean, ".4g")
    digits = 1 - _magnitude(deviation) if deviation > 0 else 9
    digits = max(0, min(digits, 4 - _magnitude(mean) if mean else digits, 6))
    return signed(f"{mean:.{digits}f} ± {deviation:.{digits}f}")


def _difference(value: float, interval: Interval) -> str:
    if not math.isfinite(value):
        return BLANK
    low, high = interval
    if not math.isfinite(low):
        return signed(f"{value:+.3g}")
    size = max(abs(value), abs(low), abs(high))
    digits = max(0, 2 - _magnitude(size)) if size > 0 else 0
    form = f"+.{digits}f" if digits <= 6 else "+.1e"
    return signed(f"{value:{form}} [{low:{form}}, {high:{form}}]")


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value)))


def _median(outcome: Outcome) -> str:
    median = median_steps(outcome)
    if outcome.times is None or not math.isfinite(median):
        return BLANK
    low, high = median_interval(outcome.times)
    ends = [f"{end:,.0f}" if math.isfinite(end) else "never" for end in (low, high)]
    return f"{median:,.0f}" + (f" [{', '.join(ends)}]" if math.isfinite(low) else "")


def _ratio(outcome: Outcome, factor: float) -> str:
    value = outcome.ratio * factor
    if not math.isfinite(value):
        return BLANK
    low, high = (end * factor for end in outcome.ratio_interval)
    bound = f"{outcome.bound} " if outcome.bound else ""
    interval = f" [{low:.2f}, {high:.2f}]" if math.isfinite(low) else ""
    return f"{bound}{value:.2f}{interval}"
