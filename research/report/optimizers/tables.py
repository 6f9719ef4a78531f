"""The tables of the page."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from research.report.common import BLANK, count, fixed, name, number, p_words, signed
from research.report.optimizers.cells import Cell, Key
from research.report.optimizers.costs import Cost
from research.report.optimizers.design import Design
from research.report.optimizers.outcomes import Outcome, SelfComparison, false_positives
from research.report.optimizers.summaries import Agreement, Outcomes, Profile, median_steps
from research.report.page import Html, element, join, paragraph, table
from research.report.rows import entrant_label, quotient
from research.stats import Interval, Ranks, mean_and_deviation, median_interval


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
    by_seed = (
        "Mean ± sample standard deviation (n − 1) over the final runs, all on the same seeds. "
        "Difference: mean over seeds with its 95 % t interval, below zero is better. Wins: "
        "seeds on which the score is lower. p, Holm: paired t test (Wilcoxon's signed-rank "
        "test where a run diverged), adjusted for all comparisons of this page; bold where at "
        "most 0.05. A run that diverged loses to every other, and its entrant has no mean. "
        "Blanks were not run."
    )
    by_study = (
        "Mean ± sample standard deviation (n − 1) over studies, each worth the mean over the "
        "seeds of its winner, so that the luck of the search is in it. Difference: of the means, "
        "with Welch's 95 % interval, below zero is better. Wins: pairs of one study of each in "
        "which the score is lower. p, Holm: Welch's t test, as searches have nothing in common "
        "that could be paired (the seeds that studies of a number share make it reject less, "
        "never more); adjusted for all comparisons of this page, bold where at most 0.05. A study "
        "whose search diverged throughout, or a run of its winner, failed: it loses to every "
        "other, its entrant has no mean, and the test is the exact one of Mann and Whitney. "
        "Blanks were not run."
    )
    return table(headers, groups, note=by_study if design.studies > 1 else by_seed)


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
    several = design.studies > 1
    note = (
        "At the longest horizon. "
        + (
            "A study reaches the target where more than half of its winner's runs do, after their "
            "median steps. "
            if several
            else ""
        )
        + "Median: with its 95 % interval (Brookmeyer and Crowley); blank where fewer than half of "
        f"the {'studies' if several else 'runs'} reach, and never where more may not. Ratios are "
        + (
            f"to {reference}, of geometric means over studies, with Welch's 95 % interval of the "
            "logarithms; below one is faster. A study that did not reach the target counts with "
            if several
            else f"to {reference} on the same seeds, with 95 % BCa bootstrap intervals; below one "
            "is faster. They are of mean times in which a run that did not reach the target counts "
            "with "
        )
        + "the horizon: > says that the true ratio is larger, < that it is smaller, ? that it may "
        "be either. Seconds: steps times the measured seconds of a step; they are those of this "
        "machine and of how the trainings were batched on it. p, log-rank: not adjusted."
    )
    return table(headers, groups, note=note) if groups else Html("")


def rank_table(
    design: Design, profile: Profile | None, ranks: Ranks | None, ranked: Sequence[str]
) -> Html:
    """Profile scores and ranks."""
    scores = dict(zip(profile.entrants, profile.scores, strict=True)) if profile else {}
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
        f"and in how many the entrant is first: 2,000 resamplings of {design.units} and workloads."
    )
    return table(headers, [("", rows)], note=note, narrow=True)


def agreement_table(found: Sequence[Agreement]) -> Html:
    """Kendall's tau between workloads, horizons and held-out variants."""
    kinds = {
        "studies": "Between studies of one workload",
        "workloads": "Between workloads",
        "horizons": "Between horizons",
        "held out": "Between the others and held-out workloads",
    }
    groups = []
    for kind, heading in kinds.items():
        own = [item for item in found if item.kind == kind]
        joint = ", " if kind == "studies" else " and "
        rows = [
            [joint.join(item.between), str(item.entrants), signed(f"{item.tau:.2f}")]
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
    if any(item.kind == "studies" for item in found):
        note += (
            " Between studies: how well a ranking by one search each predicts that by another; "
            "the others rank by means over studies."
        )
    return table(["", "Entrants", "Tau"], groups, note=note, narrow=True)


def self_table(design: Design, cells: Mapping[Key, Cell], same: Sequence[SelfComparison]) -> Html:
    """The A/A test: the reference against itself."""
    rejected, known, (low, high) = false_positives(same)
    if not known:
        ran = any(key[3] >= design.studies and cell.searches for key, cell in cells.items())
        missing = "is not complete yet" if ran or design.aa_studies else "was not part of this run"
        return paragraph(f"The A/A test {missing}.", class_="note")
    who = entrant_label(design.reference or "")
    several = design.studies > 1
    text = (
        f"{who} was searched and re-run again, with nothing different but the points of the "
        f"{'searches and their seeds' if several else 'search'}. "
        f"Of {count(known, 'test')} between two such "
        f"{f'sets of {design.studies} studies' if several else 'studies'} {rejected} "
        f"{'is' if rejected == 1 else 'are'} below 0.05 without any correction: "
        f"{100 * rejected / known:.0f} %, 95 % interval {100 * low:.0f} to {100 * high:.0f} %. "
        + (
            "A test that holds its level would reject 5 % of the time."
            if several
            else "With nothing but the chance of seeds it would be 5 %."
        )
    )
    cannot = (
        "A higher rate would say that p values are too low here, as may be where the studies of "
        "an entrant are few and far from normal. Pairs of sets are disjoint; a few pairs say "
        "little about the rate."
        if several
        else "A higher rate is the chance of the search: two searches find different settings, "
        "whose difference is real but no property of the optimizer. Pairs of studies are disjoint; "
        "a few pairs say little about the rate."
    )
    rows = [
        [name(item.workload), f"{item.horizon:,}", f"{item.sets[0]} and {item.sets[1]}",
         _difference(item.comparison.difference, item.comparison.interval),
         p_words(item.comparison.p_value)]
        for item in same
    ]  # fmt: skip
    pairs = "Sets" if several else "Studies"
    made = table(["Workload", "Steps", pairs, "Difference", "p"], [("", rows)], narrow=True)
    return join([paragraph(text), paragraph(cannot, class_="note"), made])


def _outcome_row(outcome: Outcome) -> list[str]:
    own, made = outcome.studies, outcome.comparison
    shown = []
    for which in ("validation", "test"):
        scores = list(own.values(which).values())
        if own.state == "failed" or not scores or any(math.isnan(score) for score in scores):
            state = {"failed": "all trials diverged", "searching": "searching"}.get(own.state, "")
            warn = element("span", state, class_="warn" if own.state == "failed" else "mute")
            shown.append(warn if state and which == "validation" else BLANK)
        elif not np.isfinite(scores).all():
            lost, word = int(np.isinf(scores).sum()), "diverged"
            if own.unit == "study":
                word = "studies failed"
            text = f"{lost} of {len(scores)} {word}"
            shown.append(element("span", text, class_="warn") if which == "test" else BLANK)
        else:
            shown.append(spread(*mean_and_deviation(scores)))
    p_value: str = p_words(outcome.adjusted)
    if outcome.verdict in ("better", "worse"):
        p_value = element("b", p_value)
    return [
        entrant_label(own.entrant), *shown,
        _difference(made.difference, made.interval) if made else BLANK,
        f"{made.wins} of {made.pairs}" if made else BLANK,
        p_value,
    ]  # fmt: skip


def _time_row(design: Design, outcome: Outcome, costs: Mapping[tuple[str, str], Cost]) -> list[str]:
    own, times = outcome.studies, outcome.times
    cost = costs.get((own.workload, own.entrant))
    reference = costs.get((own.workload, design.reference or ""))
    per_step = cost.seconds_per_step if cost else math.nan
    relative = quotient(per_step, reference.seconds_per_step if reference else math.nan)
    median = median_steps(outcome)
    return [
        entrant_label(own.entrant),
        f"{times.reached.sum()} of {times.steps.size}" if times else BLANK,
        _median(outcome),
        _ratio(outcome, 1.0),
        _ratio(outcome, outcome.evaluations),
        fixed(median * per_step, ".3g"),
        _ratio(outcome, relative),
        p_words(outcome.log_rank),
    ]


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
