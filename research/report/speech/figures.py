"""The figures of the page that compare systems, each with what it shows and what it cannot."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from research import plots, stats
from research.plots import Curve, Ink, LengthError, Strip, Trial
from research.report.common import name
from research.report.page import Figure
from research.report.rows import entrant_label, final_score
from research.report.speech.design import Design, System
from research.report.speech.details import (
    DIAGNOSTICS,
    confusion_of,
    diagnostic_of,
    reliability_of,
)
from research.report.speech.outcomes import Outcome
from research.report.speech.trained import Search, by_string

_LENGTHS = 8  # more lengths than this are put together


class Look(NamedTuple):
    """Colours and words for objectives and for encoders with their optimizers."""

    objectives: dict[str, Ink]
    groups: dict[str, Ink]
    labels: dict[str, str]  # of objectives


def look(design: Design, outcomes: Sequence[Outcome]) -> Look:
    """A colour for each."""
    groups = plots.palette([design.group_label(o.system) for o in outcomes])
    labels = {objective: design.objective_label(objective) for objective in design.objectives}
    return Look(plots.palette(design.objectives), groups, labels)


def rate_figure(design: Design, outcomes: Sequence[Outcome], seen: Look) -> Figure | None:
    """Error rates of all systems."""
    if not any(o.trained.finals for o in outcomes):
        return None
    panels: dict[str, dict[str, Strip]] = {}
    for outcome in outcomes:
        rows = panels.setdefault(design.group_label(outcome.system), {})
        rows[outcome.system.objective] = _rate_strip(outcome)
    drawn = plots.rate_strips(
        panels, seen.objectives, x_label=f"{design.metric} (%)", labels=seen.labels
    )
    return Figure(
        "error_rates", plots.to_png(drawn), "Error rates.",
        "A dot is a held-out speaker (the mean over seeds), the stroke the mean over speakers. "
        "Thick bar: 95 % interval for other strings; thin line: for other trainings. Lower is "
        "better.",
        "Speakers differ more from each other than systems do, and they are the same for all "
        "systems: two intervals that overlap may still differ, see the differences. A few "
        "speakers are no sample of all there are.",
    )  # fmt: skip


def difference_figure(design: Design, outcomes: Sequence[Outcome], seen: Look) -> Figure | None:
    """Differences to the reference objective."""
    panels: dict[str, dict[str, Strip]] = {}
    for outcome in outcomes:
        made = outcome.difference
        if made is None:
            continue
        rows = panels.setdefault(design.group_label(outcome.system), {})
        scores, note = outcome.trained.scores(), ""
        other = _of(outcomes, design.baseline(outcome.system))
        theirs = other.trained.scores() if other else {}
        points = [scores[pair] - theirs[pair] for pair in scores if pair in theirs
                  if math.isfinite(scores[pair]) and math.isfinite(theirs[pair])]  # fmt: skip
        if made.resampled is None:
            note = "diverged"
        rows[outcome.system.objective] = Strip(
            points, made.value, made.strings, made.interval, note
        )
    if not panels:
        return None
    reference = design.objective_label(design.reference or "")
    drawn = plots.rate_strips(
        panels, seen.objectives, x_label=f"difference to {reference} (points)",
        labels=seen.labels, zero=True,
    )  # fmt: skip
    return Figure(
        "differences", plots.to_png(drawn), f"Differences to {reference}.",
        "A dot is a pair of trainings with the same speaker and seed and the same encoder and "
        "optimizer, the stroke the mean over speakers. Thick bar: 95 % interval for other strings; "
        "thin line: for other trainings. Left of zero makes fewer errors than the reference.",
        "The intervals are not adjusted for how many there are; the p values of the table are.",
    )  # fmt: skip


def diagnostic_figure(design: Design, outcomes: Sequence[Outcome], seen: Look) -> Figure | None:
    """What each objective does to posteriors and alignments."""
    panels: dict[str, dict[str, dict[str, list[float]]]] = {}
    for key, (title, unit) in DIAGNOSTICS.items():
        factor = 100 if unit == "%" else 1
        rows: dict[str, dict[str, list[float]]] = {}
        for outcome in outcomes:
            values = [factor * diagnostic_of(r, key) for r in outcome.trained.finished.values()]
            if np.isfinite(values).any():
                group = rows.setdefault(outcome.system.objective, {})
                group[design.group_label(outcome.system)] = values
        if rows:
            panels[f"{title} ({unit})" if unit else title] = rows
    if not panels:
        return None
    groups = dict.fromkeys(g for rows in panels.values() for row in rows.values() for g in row)
    drawn = plots.diagnostic_strips(
        panels, seen.groups, labels=seen.labels, groups={g: g for g in groups}
    )
    boundaries = (
        "Boundary error: mean distance of the ends of aligned labels from the true ones. "
        if any(title.startswith("Boundary") for title in panels)
        else ""
    )
    return Figure(
        "diagnostics", plots.to_png(drawn), "What each objective does to the posteriors.",
        f"A dot is a training, the stroke the mean. {boundaries}Blank frames: share in which the "
        "blank is likeliest. Height and width of peaks: mean probability of the likeliest label "
        "in frames that say one, and how many such frames follow each other. Calibration error: "
        "mean distance of confidence from correctness.",
        "These are means over test strings of what the network gives, whether right or wrong: a "
        "low, broad peak is no error, and a sharp one no success.",
    )  # fmt: skip


def reliability_figure(design: Design, outcomes: Sequence[Outcome], seen: Look) -> Figure | None:
    """Confidence against correctness, all trainings of a system together."""
    panels: dict[str, dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for outcome in outcomes:
        results = outcome.trained.finished.values()
        found = [r for r in map(reliability_of, results) if r is not None]
        if not found or len({r.counts.size for r in found}) > 1:
            continue
        counts = np.sum([r.counts for r in found], axis=0)
        some = np.where(counts > 0, counts, np.nan)
        confidence, accuracy = (
            np.nansum([r.counts * values for r, values in zip(found, column, strict=True)], axis=0)
            / some
            for column in ([r.confidence for r in found], [r.accuracy for r in found])
        )
        panel = panels.setdefault(seen.labels[outcome.system.objective], {})
        panel[design.group_label(outcome.system)] = confidence, accuracy, counts
    if not panels:
        return None
    groups = dict.fromkeys(group for panel in panels.values() for group in panel)
    drawn = plots.reliability_panels(panels, seen.groups, groups={g: g for g in groups})
    return Figure(
        "reliability", plots.to_png(drawn), "Whether confidence can be believed.",
        "Share of recognised symbols that are right, by how probable the network held them; on the "
        "dashed line both agree, below it the network is too sure. A dot grows with the symbols "
        "in its bin; all trainings of a system together.",
        "Symbols that were left out have no confidence and are not in it. Bins with few symbols "
        "vary much.",
    )  # fmt: skip


def curve_figure(design: Design, outcomes: Sequence[Outcome], seen: Look) -> Figure | None:
    """Validation error of the final trainings against the step."""
    panels: dict[str, list[Curve]] = {}
    for outcome in outcomes:
        rows = list(outcome.trained.finals.values())
        steps = rows[0]["result"]["steps"] if rows else []
        same = [row for row in rows if row["result"]["steps"] == steps]
        values = np.array(
            [
                [math.nan if v is None else v for v in row["result"]["validation_score"]]
                for row in same
            ],
            dtype=float,
        )
        if steps and np.isfinite(values).any():
            curve = Curve(outcome.system.objective, np.array(steps), values)
            panels.setdefault(design.group_label(outcome.system), []).append(curve)
    if not panels:
        return None
    scales: list[plots.Scale] = ["error"] * len(panels)
    drawn = plots.learning_curves(
        panels, seen.objectives, y_labels=[f"validation {design.metric} (%)"] * len(panels),
        scales=scales, labels=seen.labels,
    )  # fmt: skip
    return Figure(
        "learning_curves", plots.to_png(drawn), "Training of the chosen settings.",
        "Mean validation error over the final trainings, with a band from the lowest to the "
        "highest; the axis of errors is logarithmic. Validation strings are not those of the test.",
        "A step costs more with some objectives, see what each spent; and speakers differ, so the "
        "band is not one of seeds alone.",
    )  # fmt: skip


def length_figure(design: Design, shown: Sequence[Outcome]) -> Figure | None:
    """Error by the number of labels in a string, of a few systems."""
    edges = _length_edges(shown)
    series: dict[str, list[LengthError]] = {}
    for outcome in shown:
        groups = [(by_string(list(outcome.trained.on(f).values())), len(outcome.trained.on(f)))
                  for f in outcome.trained.folds if outcome.trained.on(f)]  # fmt: skip
        errors = np.concatenate([group.errors / runs for group, runs in groups] or [[]])
        totals = np.concatenate([group.totals / runs for group, runs in groups] or [[]])
        points = []
        for low, high in edges:
            inside = (totals >= low) & (totals <= high)
            if not inside.any():
                continue
            group = stats.utterance_errors(errors[inside], totals[inside])
            interval = stats.error_rate_interval([group])
            text = f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
            rate = stats.error_rate([group])
            points.append(LengthError(text, rate, *interval, int(inside.sum())))
        if points:
            series[design.system_label(outcome.system)] = points
    if not series:
        return None
    drawn = plots.error_by_length(series, plots.palette(list(series)))
    return Figure(
        "error_by_length", plots.to_png(drawn), "Error by length of the string.",
        f"The {design.metric} over the test strings of each length, with 95 % intervals for other "
        "strings; the systems are set a little apart to be told from one another.",
        "All speakers count together, and the lengths differ in which labels they happen to hold; "
        "a difference between neighbouring lengths within the intervals means nothing.",
    )  # fmt: skip


def confusion_figure(design: Design, shown: Sequence[Outcome]) -> Figure | None:
    """Which symbols are taken for which, of a few systems."""
    panels, symbols = {}, None
    for outcome in shown:
        found = [c for c in map(confusion_of, outcome.trained.finished.values()) if c]
        if not found or {own for own, _ in found} != {symbols or found[0][0]}:
            continue
        symbols = found[0][0]
        panels[design.system_label(outcome.system)] = np.sum([c for _, c in found], axis=0)
    if not panels or symbols is None:
        return None
    drawn = plots.confusion_matrices(
        panels, [*symbols, "inserted"], [*symbols, "deleted"], y_label="said", x_label="recognised"
    )
    return Figure(
        "confusion", plots.to_png(drawn), "Which symbols are mistaken.",
        "Symbols said by symbols recognised, over all test strings and trainings; the last column "
        "are symbols that were left out, the last row symbols that nobody said.",
        "Which of two neighbours was deleted or replaced is a choice of the alignment with the "
        "fewest errors, and there can be several.",
    )  # fmt: skip


def sensitivity_figures(
    design: Design, searches: Mapping[tuple[System, str], Search]
) -> list[Figure]:
    """Search trials over the learning rate, a figure per encoder and optimizer."""
    groups: dict[tuple[str, str], dict[str, list[Trial]]] = {}
    for search in searches.values():
        points, best = [], search.winner
        for row in search.trials:
            rate = row["settings"]["hyperparameters"].get("learning_rate", math.nan)
            if rate > 0:
                score = final_score(row, "validation")
                known = score if math.isfinite(score) else None
                points.append(Trial(rate, known, row is best))
        if points:
            objective = textwrap.fill(design.objective_label(search.system.objective), 20)
            panel = search.fold if design.tuning == "shared" else f"{objective}\n{search.fold}"
            group = search.system.encoder, search.system.entrant
            groups.setdefault(group, {})[panel] = points
    made = []
    for (encoder, entrant), trials in groups.items():
        inks = dict.fromkeys(trials, plots.palette(["search"])["search"])
        drawn = plots.learning_rate_sensitivity(
            trials, inks, labels={}, y_label=f"validation {design.metric}"
        )
        file = f"learning_rate_{encoder}_{entrant.replace('@', '_')}"
        title = f"Sensitivity to the learning rate, {name(encoder)}, {entrant_label(entrant)}."
        made.append(
            Figure(
                file, plots.to_png(drawn), title,
                "A panel is the search for one held-out speaker, who is unheard by it; a dot is a "
                "trial, the ring the chosen one. Crosses in the band above diverged, triangles "
                "there ended far above nearly all others. Grey behind: the other searches.",
                "The other hyperparameters differ from trial to trial too, each trial is one seed "
                "and is validated on one other speaker, so the dots are no curve in the learning "
                "rate alone.",
            )
        )  # fmt: skip
    return made


def _rate_strip(outcome: Outcome) -> Strip:
    item, rate = outcome.trained, outcome.rate
    points = [
        stats.error_rate([by_string(list(item.on(fold).values()))])
        for fold in item.folds
        if item.on(fold)
    ]
    if rate is not None:
        return Strip(points, rate.value, rate.strings, rate.widest)
    if item.diverged or item.lost:
        lost = f"{item.diverged} of {len(item.finals)}" if item.diverged else "all trials"
        return Strip(points, note=f"{lost} diverged")
    return Strip(points, note="not complete" if item.finals else "not run")


def _of(outcomes: Sequence[Outcome], system: System | None) -> Outcome | None:
    return next((outcome for outcome in outcomes if outcome.system == system), None)


def _length_edges(shown: Sequence[Outcome]) -> list[tuple[float, float]]:
    """Single lengths, or ranges with about as many strings each where there are many lengths."""
    lengths = [
        by_string([next(iter(o.trained.on(f).values()))]).totals
        for o in shown
        for f in o.trained.folds
        if o.trained.on(f)
    ]
    known = np.concatenate([*lengths, []])
    known = np.sort(known[known > 0])
    distinct = np.unique(known)
    if distinct.size <= _LENGTHS:
        return [(length, length) for length in distinct.tolist()]
    cuts = np.quantile(known, np.linspace(0, 1, 6)[1:-1])
    parts = np.split(distinct, np.searchsorted(distinct, np.unique(cuts), side="right"))
    return [(float(part[0]), float(part[-1])) for part in parts if part.size]
