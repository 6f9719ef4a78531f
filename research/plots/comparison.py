"""Figures that set several methods side by side: curves, sensitivity, scores, confusions."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from research import stats
from research.plots import style
from research.plots.style import Ink

_ERROR_MAP = LinearSegmentedColormap.from_list("errors", ["#fff6ee", "#f2a662", "#b3430a"])


Scale = Literal["accuracy", "error", "log"]


class Curve(NamedTuple):
    """One method's course: R repetitions (seeds) at N steps, NaN where one has no value."""

    name: str
    steps: Int[np.ndarray, "N"]
    values: Float[np.ndarray, "R N"]


class Score(NamedTuple):
    """One search trial: its validation accuracy (fraction), None where it diverged."""

    learning_rate: float
    accuracy: float | None
    chosen: bool = False


@style.styled
def learning_curves(
    panels: Mapping[str, Sequence[Curve]],
    inks: Mapping[str, Ink],
    *,
    y_labels: Sequence[str],
    scales: Sequence[Scale],
    target: float | None = None,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Mean over repetitions against the step, with a band from the lowest to the highest.

    Mean and band are drawn where every repetition has a value; one that went further alone (the
    others diverged) goes on as a thin line.

    Args:
        panels: curves per panel, by title.
        inks: colour per curve name.
        y_labels: one per panel.
        scales: one per panel: "accuracy" (fractions, drawn by their error on a logarithmic axis),
            "error" (fractions, logarithmic) or "log" (any positive quantity).
        target: accuracy marked by a dashed line on "accuracy" panels.
        labels: what to write beside a curve, by name; the name itself where absent.
    """
    columns = min(2, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    figure = style.new_figure(0.35 + 2.75 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for position, (title, curves) in enumerate(panels.items()):
        axes = grid[position // columns, position % columns]
        _curve_panel(axes, curves, inks, scales[position], target, labels or {})
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.set_ylabel(y_labels[position])
    for position in range(len(panels), rows * columns):
        grid[position // columns, position % columns].set_axis_off()
    return figure


def _curve_panel(
    axes: Axes,
    curves: Sequence[Curve],
    inks: Mapping[str, Ink],
    scale: Scale,
    target: float | None,
    labels: Mapping[str, str],
) -> None:
    raw = [1 - curve.values if scale == "accuracy" else curve.values for curve in curves]
    floor = 0.0
    if scale != "log":
        floor = style.error_floor(np.concatenate([np.ravel(v) for v in raw] or [np.array([])]))
    axes.grid(axis="y")
    axes.margins(x=0.0)
    if scale == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        shown = [np.ravel(values) for values in raw]
        if scale == "accuracy" and target is not None:
            shown.append(np.array([1 - target]))
        style.error_scale(
            axes, np.concatenate(shown or [np.array([])]), floor, as_accuracy=scale == "accuracy"
        )
    ends = []
    for curve, values in zip(curves, raw, strict=True):
        ink = inks[curve.name]
        complete = np.isfinite(values).all(axis=0)
        for row in values:
            if not np.isfinite(row).all() or not complete.all():
                thin = np.maximum(row, floor)
                axes.plot(curve.steps, thin, color=ink.colour, linewidth=0.7, alpha=0.7)
        # Of the quantity itself, and only then drawn on the axis.
        whole = values[:, complete]
        if whole.shape[1]:
            steps, low, high = curve.steps[complete], whole.min(axis=0), whole.max(axis=0)
            if len(values) > 1:
                band = np.maximum(low, floor), np.maximum(high, floor)
                axes.fill_between(steps, *band, color=ink.colour, alpha=0.14, linewidth=0)
            mean = np.maximum(whole.mean(axis=0), floor)
            axes.plot(steps, mean, color=ink.colour, linestyle=ink.dashes)
        last = np.flatnonzero(np.isfinite(values).any(axis=0))
        if last.size:
            column = values[:, last[-1]]
            end = max(float(column[np.isfinite(column)].mean()), floor)
            text = labels.get(curve.name, curve.name)
            ends.append((float(curve.steps[last[-1]]), end, text, ink.colour))
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if scale == "accuracy" and target is not None:
        axes.axhline(1 - target, color=style.QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        ends.append((0.0, 1 - target, f"target {100 * target:g} %", style.QUIET))
    style.end_labels(axes, ends)


@style.styled
def learning_rate_sensitivity(
    scores: Mapping[str, Sequence[Score]],
    inks: Mapping[str, Ink],
    *,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Validation accuracy of every search trial over its learning rate, a panel per method.

    Each panel shows the other methods' trials in grey behind. Diverged trials are crosses in a
    strip at the bottom; the trial that was chosen has a ring.

    Args:
        scores: search trials per method.
        inks: colour per method.
        labels: what to write above a panel, by name.
    """
    labels = labels or {}
    columns = min(5, max(1, len(scores)))
    rows = -(-len(scores) // columns)
    figure = style.new_figure(0.4 + 1.95 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    every = [score for group in scores.values() for score in group]
    errors = np.array([np.nan if s.accuracy is None else 1 - s.accuracy for s in every])
    floor = style.error_floor(errors)
    errors = np.maximum(errors, floor)
    rates = np.array([score.learning_rate for score in every])
    for position in range(rows * columns):
        axes = grid[position // columns, position % columns]
        if position >= len(scores):
            axes.set_axis_off()
            continue
        axes.set_xscale("log")
        axes.set_xlim(rates.min() / 1.7, rates.max() * 1.7)
        style.error_scale(axes, errors, floor, as_accuracy=True)
        worst, best = axes.get_ylim()
        axes.set_ylim(worst * (worst / best) ** 0.17, best)  # room for the strip of the diverged
        axes.axhline(worst * (worst / best) ** 0.03, color=style.RULE, linewidth=0.8)
        axes.grid(axis="y")
        if position % columns == 0:
            axes.annotate(
                "diverged",
                xy=(-0.06, 0.055),
                xycoords="axes fraction",
                ha="right",
                va="center",
                fontsize=7.5,
                color=style.QUIET,
            )
        if position + columns >= len(scores):
            axes.set_xlabel("learning rate")
            axes.tick_params(labelbottom=True)
        axes.xaxis.set_minor_locator(NullLocator())
    figure.supylabel("validation accuracy (%)", fontsize=8.5, color=style.QUIET)
    start = 0
    for position, (name, group) in enumerate(scores.items()):
        axes = grid[position // columns, position % columns]
        own = np.zeros(len(every), dtype=bool)
        own[start : start + len(group)] = True
        start += len(group)
        axes.scatter(rates[~own], errors[~own], s=5, color="#d9dcdf", linewidths=0)
        axes.scatter(rates[own], errors[own], s=17, color=inks[name].colour, linewidths=0, zorder=3)
        for score, error in zip(group, errors[own], strict=True):
            if score.accuracy is None:
                axes.plot(
                    score.learning_rate,
                    0.055,
                    transform=axes.get_xaxis_transform(),
                    marker="x",
                    markersize=4.5,
                    color=style.WARNING,
                    linestyle="none",
                    clip_on=False,
                )
            elif score.chosen:
                axes.scatter(
                    score.learning_rate,
                    error,
                    s=70,
                    facecolors="none",
                    edgecolors=style.INK,
                    linewidths=1.0,
                    zorder=4,
                    clip_on=False,
                )
        axes.set_title(labels.get(name, name), color=inks[name].colour, fontsize=9)
    return figure


@style.styled
def score_strips(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    inks: Mapping[str, Ink],
    *,
    x_label: str,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """A dot per seed, the mean as an upright stroke, the 95 % t interval of the mean as a line.

    Args:
        panels: accuracies (fractions) per method, per panel title.
        inks: colour per method.
        x_label: of the common axis.
        labels: what to write for a method, by name.
    """
    labels = labels or {}
    most = max((len(group) for group in panels.values()), default=1)
    columns = min(2, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    figure = style.new_figure(0.4 + rows * (0.55 + 0.27 * most))
    grid = figure.subplots(rows, columns, squeeze=False)
    for position in range(rows * columns):
        axes = grid[position // columns, position % columns]
        if position >= len(panels):
            axes.set_axis_off()
            continue
        title, groups = list(panels.items())[position]
        axes.set_title(title)
        axes.set_xlabel(x_label)
        accuracies = [np.asarray(values, dtype=float) for values in groups.values()]
        flat = np.concatenate(accuracies) if accuracies else np.array([])
        floor = style.error_floor(1 - flat)
        drawn = np.maximum(1 - flat, floor)
        intervals = [stats.mean_interval(values) for values in accuracies]
        ends = np.array([1 - end for interval in intervals for end in interval])
        ends = ends[np.isfinite(ends)]
        style.error_scale(axes, np.concatenate([drawn, ends]), floor, which="x", as_accuracy=True)
        worst = axes.get_xlim()[0]
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_yticks(range(len(groups)), [labels.get(name, name) for name in groups])
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        start = 0
        for row, (name, values) in enumerate(zip(groups, accuracies, strict=True)):
            dots = drawn[start : start + values.size]
            start += values.size
            if values.size == 0:
                continue
            colour = inks[name].colour
            interval = intervals[row]
            if np.isfinite(interval.low):
                ends = np.clip([1 - interval.low, 1 - interval.high], floor, worst)
                axes.plot(
                    ends, [row, row], color=colour, linewidth=4, alpha=0.22, solid_capstyle="butt"
                )
            mean = max(1 - values.mean(), floor)
            axes.plot([mean, mean], [row - 0.26, row + 0.26], color=colour, linewidth=1.8)
            axes.scatter(
                dots,
                np.full(dots.shape, row),
                s=15,
                facecolors="white",
                edgecolors=colour,
                linewidths=1.0,
                zorder=3,
            )
    return figure


@style.styled
def confusion_matrices(
    panels: Mapping[str, Int[np.ndarray, "R C"]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    y_label: str = "true class",
    x_label: str = "predicted class",
) -> Figure:
    """Counts in cells: what is right on a grey diagonal, what is wrong in colour, none left blank.

    Args:
        panels: counts per panel title; rows are the truth, columns the answer.
        rows: name of each row.
        columns: name of each column; the same name in both is the diagonal.
        y_label: of the rows.
        x_label: of the columns.
    """
    across = min(2, max(1, len(panels)))
    down = -(-len(panels) // across)
    long = max(len(name) for name in columns) > 3
    figure = style.new_figure(down * (3.75 + 0.35 * long))
    grid = figure.subplots(down, across, squeeze=False)
    for position in range(across * down):
        axes = grid[position // across, position % across]
        if position >= len(panels):
            axes.set_axis_off()
            continue
        title, counts = list(panels.items())[position]
        counts = np.asarray(counts)
        same = np.array([[r == c for c in columns] for r in rows])
        wrong = np.where(same | (counts == 0), np.nan, counts)
        top = np.nanmax(wrong) if np.isfinite(wrong).any() else 1
        axes.imshow(wrong, cmap=_ERROR_MAP, vmin=0, vmax=top, aspect="equal")
        axes.imshow(np.where(same, 1.0, np.nan), cmap="Greys", vmin=0, vmax=11, aspect="equal")
        for r, c in zip(*np.nonzero(counts), strict=True):
            axes.text(
                c,
                r,
                f"{counts[r, c]}",
                ha="center",
                va="center",
                fontsize=6.8 if counts.max() < 1000 else 5.8,
                color=style.QUIET
                if same[r, c]
                else "white"
                if counts[r, c] > 0.6 * top
                else style.INK,
            )
        axes.set_title(title)
        axes.set_xticks(range(len(columns)), columns)
        for text in axes.get_xticklabels():
            if len(text.get_text()) > 3:
                text.set(rotation=60, horizontalalignment="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        axes.tick_params(length=0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.hlines(np.arange(1, len(rows)) - 0.5, -0.5, len(columns) - 0.5, "white", linewidth=1.2)
        axes.vlines(np.arange(1, len(columns)) - 0.5, -0.5, len(rows) - 0.5, "white", linewidth=1.2)
        for spine in axes.spines.values():
            spine.set_visible(False)
    return figure
