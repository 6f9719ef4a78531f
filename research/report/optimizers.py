"""The report of `experiments.compare_optimizers`: which optimizer, under an equal budget."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from research import plots
from research.plots import Curve, Score
from research.report.common import (
    BLANK,
    banner,
    count,
    device_words,
    eyebrow,
    finished,
    listed,
    name,
    names,
    need_counts,
    number,
    percent,
    provenance,
    series,
    spelled,
    spent,
)
from research.report.optimizer_table import (
    Cell,
    cells,
    count_test_images,
    planned_trials,
    ranked,
    row,
    separable,
    target,
    verdict,
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
from research.runlog import Records


def table(records: Records) -> list[dict]:
    """A row per workload and optimizer, from the recorded trials alone."""
    return [row(cell, records.config) for cell in cells(records)]


def render(records: Records) -> Report:
    """The whole report of one run."""
    made = cells(records)
    groups = [list(group) for _, group in groupby(made, key=lambda cell: cell.workload)]
    figures = _figures(records, groups)
    optimizers = list(dict.fromkeys(cell.optimizer for cell in made))
    source = str(records.data.get("source") or records.data.get("name") or "unnamed images")
    noun = "optimizer" if len(optimizers) == 1 else "optimizers"
    title = f"{spelled(len(optimizers))} {noun} compared on {source.partition(' (')[0]}"
    body = join(
        [
            eyebrow(records),
            element("h1", title),
            banner(len(records.trials), planned_trials(records, made)),
            paragraph(_what_was_run(records, made)),
            _verdicts(groups),
            _results(records, groups),
            section("Figures", *(figure(item) for item in figures)),
            _cost(records, groups),
            provenance(records),
        ]
    )
    return Report(title, body, [row(cell, records.config) for cell in made], figures)


def _what_was_run(records: Records, made: Sequence[Cell]) -> str:
    config = records.config
    workloads = listed([name(w) for w in dict.fromkeys(cell.workload for cell in made)] or ["none"])
    trials, seeds, steps = (config.get(key) for key in ("trials", "seeds", "steps"))
    parts = [f"Data: {source}." if (source := str(records.data.get("source") or "")) else ""]
    parts += [f"Each optimizer was tuned separately on each workload ({workloads})"]
    if isinstance(trials, int):
        parts[-1] += f" with the same budget: {count(trials, 'search trial')}"
        parts[-1] += f" of {count(steps, 'step')} each" if isinstance(steps, int) else ""
    parts[-1] += ". The trial with the best validation accuracy"
    if isinstance(seeds, list | tuple):
        parts[-1] += f" was then trained anew with {count(len(seeds), 'seed')}"
        parts[-1] += f" ({listed([str(seed) for seed in seeds])})" if seeds else ""
    else:
        parts[-1] += " was then trained anew"
    parts[-1] += ", and only these final runs were measured on the test images."
    images = count_test_images(made)
    if images:
        parts.append(f"The test set has {count(images, 'image')}.")
    return " ".join([*parts, device_words(records)])


def _verdicts(groups: Sequence[Sequence[Cell]]) -> Html:
    lines = [paragraph(verdict(group)) for group in groups]
    images = next((n for n in map(count_test_images, groups) if n), None)
    aside = (
        "The intervals are for the choice of seed only. The test images are the same for all: with "
        f"{images:,} of them one image is {percent(1 / images, 2)} points."
        if images
        else ""
    )
    return element(
        "div", *lines, paragraph(aside, class_="aside") if aside else "", class_="verdict"
    )


def _results(records: Records, groups: Sequence[Sequence[Cell]]) -> Html:
    goal = target(records.config)
    headers = [
        "Optimizer",
        "Best validation accuracy, %",
        "Test accuracy, %",
        "Steps to target" if goal is None else f"Steps to {100 * goal:g} %",
        "Diverged trials",
        "Chosen hyperparameters",
    ]
    bodies = []
    for group in groups:
        order, _ = ranked(group)
        images = count_test_images(group)
        top = [c for c in order if c is order[0] or not separable(order[0], c, images)]
        lines = [_line(cell, row(cell, records.config), cell in top) for cell in group]
        bodies.append((name(group[0].workload), lines))
    note = (
        "Best validation accuracy: of the search trials. Test accuracy: mean ± sample standard "
        "deviation (n − 1) over the final runs that finished. Bold: the highest mean and every "
        "optimizer whose 95 % t interval overlaps with that of the highest. Steps to target: mean "
        "over the final runs that reached the target validation accuracy, with how many did. "
        "Diverged trials: search and final runs together. (edge): the chosen value lies at the end "
        "of the values searched, so a better one may lie beyond."
    )
    return section("Results", html_table(headers, bodies, text_columns=(0, 5), note=note))


def _line(cell: Cell, values: dict, top: bool) -> list[str]:
    mean, deviation = values["test_accuracy_mean"], values["test_accuracy_deviation"]
    test = percent(mean)
    if deviation is not None:
        test += f" ± {percent(deviation)}"
    shown: str = element("b", test) if top and mean is not None else test
    runs, reached = values["test_accuracy_seeds"], values["target_reached"]
    if not runs:
        steps: str = BLANK
    else:
        mean_steps = values["steps_to_target_mean"]
        steps = join([
            BLANK if mean_steps is None else f"{mean_steps:,.0f}",
            element("span", f" ({reached} of {runs})", class_="mute"),
        ])  # fmt: skip
    lost, trials = cell.diverged
    diverged: str = f"{lost} of {trials}" if trials else BLANK
    if cell.lost_finals:
        diverged = join([diverged, element("span", f" ({cell.lost_finals} final)", class_="warn")])
    elif lost:
        diverged = element("span", diverged, class_="warn") if lost == trials else diverged
    return [
        name(cell.optimizer), percent(values["best_validation_accuracy"]), shown, steps, diverged,
        _hyperparameters(cell, values["at_edge"]),
    ]  # fmt: skip


def _hyperparameters(cell: Cell, edge: dict[str, str]) -> str:
    if not cell.hyperparameters:
        return BLANK
    parts = []
    for key, value in cell.hyperparameters.items():
        text = join([element("span", key.replace("_", " "), class_="mute"), " ", number(value)])
        if key in edge:
            text = join([text, element("span", " (edge)", class_="warn")])
        parts.append(element("span", text, class_="keep"))
    return join(parts, ", ")


def _cost(records: Records, groups: Sequence[Sequence[Cell]]) -> Html:
    bodies = []
    for group in groups:
        lines = []
        for cell in group:
            seconds, steps = spent(records, [*cell.searches, *cell.finals])
            if steps:
                lines.append(
                    [
                        name(cell.optimizer),
                        f"{1000 * seconds / steps:.2f}",
                        f"{seconds:,.1f}",
                        f"{steps:,}",
                    ]
                )
        if lines:
            bodies.append((name(group[0].workload), lines))
    if not bodies:
        return Html("")
    headers = ["Optimizer", "Milliseconds per step", "Seconds in all", "Steps"]
    note = (
        "Wall-clock time as it was on this machine, with compilation and evaluation where a trial "
        "included them; it varies from run to run and is no part of table.csv or table.json."
    )
    return section("Cost", html_table(headers, bodies, note=note, narrow=True))


def _figures(records: Records, groups: Sequence[Sequence[Cell]]) -> tuple[Figure, ...]:
    made = [cell for group in groups for cell in group]
    inks = plots.palette([cell.optimizer for cell in made])
    labels = names(inks)
    found = [_strips(groups, inks, labels), _curves(records, groups, inks, labels)]
    found += [_sensitivity(group, inks, labels) for group in groups]
    found.append(_confusion(records, groups))
    return tuple(item for item in found if item)


def _strips(groups: Sequence[Sequence[Cell]], inks: dict, labels: dict) -> Figure | None:
    panels = {
        name(group[0].workload): {c.optimizer: c.test_accuracies for c in group}
        for group in groups
        if any(cell.test_accuracies for cell in group)
    }
    if not panels:
        return None
    drawn = plots.score_strips(panels, inks, x_label="test accuracy (%)", labels=labels)
    return Figure(
        "test_accuracy", plots.to_png(drawn), "Test accuracy of the final runs.",
        "A dot is a seed, the stroke their mean, the pale bar its 95 % t interval. The axis is "
        "logarithmic in the error.",
        "It shows how much the seed matters, not how much other test images or another round of "
        "tuning would; intervals from few seeds are wide because little is known.",
    )  # fmt: skip


def _curves(
    records: Records, groups: Sequence[Sequence[Cell]], inks: dict, labels: dict
) -> Figure | None:
    panels = {}
    for group in groups:
        curves = []
        for cell in group:
            steps, values = series(records, cell.finals, "validation_accuracy")
            if steps.size:
                curves.append(Curve(cell.optimizer, steps, values))
        if curves:
            panels[name(group[0].workload)] = curves
    if not panels:
        return None
    scales: list[plots.Scale] = ["accuracy"] * len(panels)
    drawn = plots.learning_curves(
        panels, inks, labels=labels,
        y_labels=["validation accuracy (%)"] * len(panels), scales=scales,
        target=target(records.config),
    )  # fmt: skip
    return Figure(
        "learning_curves", plots.to_png(drawn), "Learning curves of the chosen settings.",
        "Mean validation accuracy over the final runs, with a band from the lowest to the highest "
        "seed; the axis is logarithmic in the error.",
        "Steps are counted, not seconds, and each optimizer was tuned for the end of training: one "
        "tuned for an earlier stop could rise faster.",
    )  # fmt: skip


def _sensitivity(group: Sequence[Cell], inks: dict, labels: dict) -> Figure | None:
    scores: dict[str, list[Score]] = {}
    for cell in group:
        points, chosen = [], cell.chosen_search
        for trial in cell.searches:
            rate = trial["settings"]["hyperparameters"].get("learning_rate")
            if isinstance(rate, int | float) and rate > 0:
                value = None
                if trial["status"] == "finished":
                    value = trial["result"]["validation_accuracy"]
                points.append(Score(float(rate), value, trial is chosen))
        if points:
            scores[cell.optimizer] = points
    if not scores:
        return None
    workload = group[0].workload
    drawn = plots.learning_rate_sensitivity(scores, inks, labels=labels)
    return Figure(
        f"learning_rate_{workload}", plots.to_png(drawn),
        f"Sensitivity to the learning rate, {name(workload)}.",
        "A dot is a search trial, the ring the chosen one; crosses at the bottom diverged. The "
        "other optimizers' trials are grey behind.",
        "The other hyperparameters differ from trial to trial too, and each trial is one seed, so "
        "the dots are not a curve in the learning rate alone.",
    )  # fmt: skip


def _confusion(records: Records, groups: Sequence[Sequence[Cell]]) -> Figure | None:
    panels, size = {}, 0
    for group in groups:
        order, _ = ranked(group)
        if not order:
            continue
        found = [
            need_counts(trial["result"]["confusion"], trial["trial"])
            for trial in finished(order[0].finals)
            if trial["result"].get("confusion")
        ]
        if found and len({counts.shape for counts in found}) == 1 and size in (0, len(found[0])):
            title = f"{name(group[0].workload)}, {name(order[0].optimizer)}"
            panels[title] = np.sum(found, axis=0)
            size = len(found[0])
    if not panels:
        return None
    classes = records.data.get("classes")
    if not isinstance(classes, list) or len(classes) != size:
        classes = range(size)
    symbols = [str(item) for item in classes]
    drawn = plots.confusion_matrices(panels, symbols, symbols)
    return Figure(
        "confusion", plots.to_png(drawn), "What the best optimizer still gets wrong.",
        "Test images by true and predicted class, summed over the final runs; the diagonal is "
        "right, empty cells are zero.",
        "The same images count once per seed, so the counts are not independent, and a pair that "
        "is never confused here may be among other images.",
    )  # fmt: skip
