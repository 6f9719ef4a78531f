"""The figures of the page, each with what it shows and what it cannot."""

import math
import textwrap
from typing import NamedTuple

import numpy as np

from research import plots, stats
from research.plots import Curve, Ink, Ratio, Trial
from research.report.common import listed, name
from research.report.optimizers.design import Design
from research.report.optimizers.outcomes import Outcome
from research.report.optimizers.summaries import Block, Outcomes, Profile
from research.report.page import Figure
from research.report.rows import entrant_label, final_score
from research.stats import Ranks

_COLOURED = 7  # as many as can be told apart among many
_DASHED = 14  # as many as can be told apart by colour and dashes together
_LABEL = 34  # letters of a line beside a y axis
_FACTORS = np.linspace(1.0, 4.0, 301)


class Look(NamedTuple):
    """Colours of the entrants that have one, and what to write for each."""

    inks: dict[str, Ink]
    labels: dict[str, str]
    all: bool  # whether every entrant has a colour

    @property
    def grey(self) -> str:
        """A sentence about those without a colour."""
        return "" if self.all else " Entrants beyond the first seven by mean rank are grey."


def look(design: Design, ranks: Ranks | None, ranked: list[str]) -> Look:
    """An ink for each of a few entrants; of many for the reference and the best by mean rank."""
    labels = {entrant: entrant_label(entrant) for entrant in design.entrants}
    chosen: list[str] = design.entrants
    if len(chosen) > _DASHED:
        best = [ranked[int(i)] for i in np.argsort(ranks.mean, kind="stable")] if ranks else []
        first = [entrant for entrant in design.entrants if entrant == design.reference]
        chosen = list(dict.fromkeys([*first, *best, *design.entrants]))[:_COLOURED]
    return Look(plots.palette(chosen), labels, len(chosen) == len(design.entrants))


def outcome_figures(design: Design, outcomes: Outcomes, seen: Look) -> list[Figure]:
    """Final scores of every seed, a figure per workload with a panel per horizon."""
    made = []
    for workload in design.workloads:
        panels, which = {}, "test"
        for horizon in design.horizons[workload]:
            here = [outcomes[workload, e, horizon] for e in design.entrants]
            if not any(o.scores.size for o in here):
                continue
            if any(o.which == "validation" and o.scores.size for o in here):
                which = "validation"
            panels[f"{horizon:,} steps"] = here
        if not panels:
            continue
        values = {
            title: {o.entrant: list(o.studies.values(which).values()) for o in here}
            for title, here in panels.items()
        }
        drawn = plots.score_strips(
            values, seen.inks, labels=seen.labels, reference=design.reference,
            x_label=f"{which} {design.metric(workload)}",
            failure="failed" if design.studies > 1 else "diverged",
        )  # fmt: skip
        dot, cannot = _DOTS[design.unit]
        made.append(
            Figure(
                f"outcome_{workload}", plots.to_png(drawn), f"Final scores, {name(workload)}.",
                f"A dot is {dot}, the stroke their mean, the pale bar its 95 % t interval; the "
                "dashed line is the reference's mean. Lower is better.",
                cannot,
            )
        )  # fmt: skip
    return made


_DOTS = {
    "seed": (
        "a seed",
        "It shows how much the seed matters for the settings that one search found, not what "
        "another search or other data would give. Seeds are paired, so two bars that overlap may "
        "still differ: see the differences in the table.",
    ),
    "study": (
        "a study: the mean over the seeds of the setting that its search found",
        "It shows what searches of this size come to, the luck of the search and of the seed "
        "together, not what a larger search or other data would give. With so few studies an "
        "interval is wide, and two bars that overlap may still differ: see the table.",
    ),
}


def curve_figure(design: Design, outcomes: Outcomes, seen: Look) -> Figure | None:
    """Validation score of the final runs against the step."""
    panels, y_labels, targets = {}, [], []
    scales: list[plots.Scale] = []
    for workload in design.workloads:
        curves = []
        for entrant in seen.inks:
            outcome = outcomes.get((workload, entrant, design.longest(workload)))
            if outcome is None or not outcome.studies.finals:
                continue
            steps = np.array(outcome.studies.finals[0]["result"]["steps"])
            values = _curves(outcome, steps.size)
            if steps.size:
                curves.append(Curve(entrant, steps, values))
        if curves:
            panels[name(workload)] = curves
            y_labels.append(textwrap.fill(design.metric(workload), _LABEL))
            targets.append(design.targets.get(workload))
            every = np.concatenate([curve.values.ravel() for curve in curves])
            scales.append("log" if plots.wide_range(every) else "linear")
    if not panels:
        return None
    drawn = plots.learning_curves(
        panels, seen.inks, y_labels=y_labels, scales=scales, targets=targets, labels=seen.labels
    )
    runs = "studies (each the mean over its seeds)" if design.studies > 1 else "final runs"
    return Figure(
        "learning_curves", plots.to_png(drawn), "Learning curves of the chosen settings.",
        f"Mean validation score over the {runs} at the longest horizon, with a band from the "
        f"lowest to the highest {design.unit}; the dashed line is the target."
        + ("" if seen.all else " Only the first seven entrants by mean rank are drawn."),
        "Each entrant was tuned for the end of training, so the middle of a curve is no comparison:"
        " one tuned for an earlier stop could be lower there. Steps are not seconds.",
    )  # fmt: skip


def reached_figure(design: Design, outcomes: Outcomes, seen: Look) -> Figure | None:
    """Kaplan-Meier curves of time to the target."""
    panels, horizons = {}, []
    for workload in design.workloads:
        horizon = design.longest(workload)
        curves = {
            key[1]: stats.reached_curve(o.times)
            for key, o in outcomes.items()
            if key[0] == workload and key[2] == horizon and o.times
        }
        if curves:
            panels[name(workload)] = curves
            horizons.append(float(horizon))
    if not panels:
        return None
    runs = "final runs"
    if design.studies > 1:
        runs = "studies (by the median over the runs of the winner)"
    drawn = plots.reached_curves(panels, seen.inks, labels=seen.labels, horizons=horizons)
    return Figure(
        "time_to_target", plots.to_png(drawn), "Time to the target.",
        f"Share of the {runs} that have reached the target by each step (Kaplan-Meier, 1 − S), "
        "at the longest horizon. Those that never reach it, or diverge, stay in the denominator."
        + seen.grey,
        "It depends on where the target lies, and on evaluations that see the score only every so "
        "often; what a run would do beyond the horizon is not known.",
    )  # fmt: skip


def ratio_figure(design: Design, outcomes: Outcomes, seen: Look) -> Figure | None:
    """Time to the target as a ratio to the reference's."""
    panels = {}
    for workload in design.workloads:
        here = [outcomes.get((workload, e, design.longest(workload))) for e in design.others()]
        group = {
            o.entrant: Ratio(o.ratio, *o.ratio_interval, bound=o.bound)
            for o in here
            if o is not None and math.isfinite(o.ratio)
        }
        if group:
            panels[name(workload)] = group
    if not panels:
        return None
    several = design.studies > 1
    what = (
        "Ratio of geometric mean times over studies with Welch's 95 % interval"
        if several
        else "Ratio of mean times on the same seeds with its 95 % BCa bootstrap interval"
    )
    drawn = plots.ratio_dots(panels, seen.inks, x_label="ratio", labels=seen.labels)
    return Figure(
        "time_ratio", plots.to_png(drawn),
        f"Steps to the target, over those of {entrant_label(design.reference or '')}.",
        f"{what}; left of the line is faster. An open triangle is a bound and points to where the "
        f"truth lies, because {'studies' if several else 'runs'} that did not reach the target "
        "count with the horizon; a diamond may lie either way.",
        "A step of one optimizer may cost more than a step of another: see the table for gradient "
        "evaluations and seconds. "
        + (
            "The interval holds the luck of searches of this size; larger ones may find faster "
            "settings."
            if several
            else "The interval knows the seeds, not the search."
        ),
    )  # fmt: skip


def profile_figure(design: Design, profile: Profile | None, seen: Look) -> Figure | None:
    """Performance profiles."""
    if profile is None or len(profile.entrants) < 2:
        return None
    heights = stats.performance_profile(profile.ratios, _FACTORS)
    found = dict(zip(profile.entrants, heights, strict=True))
    workloads = profile.workloads
    held_out = (
        f" Who fails {listed([name(w) for w in profile.variants])}, held out, loses the workload "
        "that it varies."
        if profile.variants
        else ""
    )
    drawn = plots.profile_curves(
        _FACTORS, found, seen.inks, labels=seen.labels, problems=len(workloads)
    )
    return Figure(
        "performance_profile", plots.to_png(drawn), "Performance profiles.",
        f"On how many workloads the median {'study' if design.studies > 1 else 'run'} reaches the "
        "target within a factor of the fastest entrant's steps; over "
        f"{listed([name(w) for w in workloads])}." + held_out + seen.grey,
        "A profile depends on who takes part: the fastest on each workload sets the unit, and "
        "leaving an entrant out can swap two others. It counts steps, not seconds.",
    )  # fmt: skip


def best_of_figure(design: Design, outcomes: Outcomes, seen: Look) -> Figure | None:
    """The best of k search trials."""
    panels, y_labels, beyond = {}, [], []
    for workload in design.workloads:
        here = [outcomes.get((workload, e, design.longest(workload))) for e in design.entrants]
        scores = {
            o.entrant: np.array([final_score(row, "validation") for row in o.studies.searches])
            for o in here
            if o is not None and o.studies.searches
        }
        pool = np.concatenate([*scores.values(), [math.inf]])
        if not np.isfinite(pool).any():
            continue
        worst = _worst_shown(pool)
        curves = {e: stats.best_of(np.minimum(values, worst)) for e, values in scores.items()}
        curves = {entrant: curve for entrant, curve in curves.items() if curve.trials.size}
        if curves:
            panels[name(workload)] = curves
            y_labels.append(textwrap.fill(f"validation {design.metric(workload)}", _LABEL))
            highest = pool[np.isfinite(pool)].max()
            if worst < highest:
                above = f"as does one that ended above it, the worst at {highest:.3g}"
                beyond.append(f"{worst:.2g} on {name(workload)} ({above})")
    if not panels:
        return None
    all_studies = " in all studies" if design.studies > 1 else ""
    cut = f", but with {listed(beyond)}" if beyond else ""
    drawn = plots.best_of_curves(panels, seen.inks, labels=seen.labels, y_labels=y_labels)
    return Figure(
        "best_of_k", plots.to_png(drawn), "What a smaller search would have found.",
        "Expected validation score of the best of k search trials, drawn without replacement from "
        f"those made{all_studies}, at the longest horizon, with a 95 % bootstrap band. A trial "
        f"that diverged counts with the worst finite score of the workload{cut}." + seen.grey,
        "It speaks of random points of these search spaces, whose width was chosen; curves end at "
        "a quarter of the trials, beyond which the band would be too narrow. The score is that on "
        "which the best is chosen, so it flatters.",
    )  # fmt: skip


def _worst_shown(scores: np.ndarray) -> float:
    """The worst finite score; ten times the median's height where that would leave it no room.

    Trainings that nearly diverged may end at any number, which says nothing of the others.
    """
    known = scores[np.isfinite(scores)]
    least, worst, height = known.min(), known.max(), np.median(known) - known.min()
    return float(least + 10 * height if worst - least > 30 * height > 0 else worst)


def sensitivity_figures(design: Design, outcomes: Outcomes, seen: Look) -> list[Figure]:
    """Search trials over the learning rate, a figure per workload."""
    made, several = [], design.studies > 1
    for workload in design.workloads:
        here = [outcomes.get((workload, e, design.longest(workload))) for e in design.entrants]
        trials = {o.entrant: _trials(o) for o in here if o is not None}
        trials = {entrant: points for entrant, points in trials.items() if points}
        if not trials:
            continue
        drawn = plots.learning_rate_sensitivity(
            trials, seen.inks, labels=seen.labels,
            y_label=f"validation {design.metric(workload)}",
        )  # fmt: skip
        made.append(
            Figure(
                f"learning_rate_{workload}", plots.to_png(drawn),
                f"Sensitivity to the learning rate, {name(workload)}.",
                "A dot is a search trial at the longest horizon, "
                f"{'a ring the chosen one of a study' if several else 'the ring the chosen one'}; "
                "crosses in the band above diverged, triangles there ended far above nearly all "
                "others. Grey behind: the other entrants' trials.",
                "The other hyperparameters differ from trial to trial too, and each trial is one "
                f"seed{', that of its study' if several else ''}, so the dots are no "
                "curve in the learning rate alone.",
            )
        )  # fmt: skip
    return made


def rank_figure(design: Design, ranks: Ranks | None, compared: Block, seen: Look) -> Figure | None:
    """Mean ranks with their bootstrap."""
    if ranks is None:
        return None
    drawn = plots.rank_dots(ranks, compared.entrants, seen.inks, seen.labels)
    return Figure(
        "ranks", plots.to_png(drawn), "Ranks over the workloads.",
        "Mean rank by mean final score, with a 95 % interval from resampling "
        f"{design.units} and workloads; "
        "a grey tick is the rank on one workload. Over "
        f"{listed([name(w) for w in compared.workloads])}, of the entrants with an outcome on all.",
        "A rank says nothing of how large a difference is, and changes with who takes part. The "
        "workloads are a choice, not a sample of all there are.",
    )  # fmt: skip


def _curves(outcome: Outcome, evaluations: int) -> np.ndarray:
    """Validation scores, a line per seed or per study; NaN from where a run diverged."""
    groups = [
        [
            [math.nan if v is None else v for v in row["result"]["validation_score"]]
            for row in cell.finals
            if len(row["result"]["steps"]) == evaluations
        ]
        for cell in outcome.studies.cells
    ]
    if outcome.studies.unit == "seed":
        return np.array([curve for group in groups for curve in group])
    return np.array([np.mean(group, axis=0) for group in groups if group])


def _trials(outcome: Outcome) -> list[Trial]:
    points, winners = [], [cell.winner for cell in outcome.studies.cells]
    for row in outcome.studies.searches:
        rate = row["settings"]["hyperparameters"].get("learning_rate", math.nan)
        if rate > 0:
            score = final_score(row, "validation")
            points.append(
                Trial(
                    rate,
                    score if math.isfinite(score) else None,
                    any(row is winner for winner in winners),
                )
            )
    return points
