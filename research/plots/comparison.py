"""Learning curves of several methods side by side, and what they confuse."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from research.plots import style
from research.plots.style import Ink

_ERROR_MAP = LinearSegmentedColormap.from_list("errors", ["#fff6ee", "#f2a662", "#b3430a"])


Scale = Literal["error", "log", "linear"]


class Curve(NamedTuple):
    """One method's course: R repetitions (seeds) at N steps, NaN where one has no value."""

    name: str
    steps: Int[np.ndarray, "N"]
    values: Float[np.ndarray, "R N"]


@style.styled
def learning_curves(
    panels: Mapping[str, Sequence[Curve]],
    inks: Mapping[str, Ink],
    *,
    y_labels: Sequence[str],
    scales: Sequence[Scale],
    targets: Sequence[float | None] = (),
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Mean over repetitions against the step, with a band from the lowest to the highest.

    Mean and band are drawn where every repetition has a value; one that went further alone (the
    others diverged) goes on as a thin line.

    Args:
        panels: curves per panel, by title.
        inks: colour per curve name.
        y_labels: one per panel.
        scales: one per panel: "error" (fractions, in per cent on a logarithmic axis), "log" (any
            positive quantity) or "linear".
        targets: one per panel where given: a value marked by a dashed line.
        labels: what to write beside a curve, by name; the name itself where absent.
    """
    figure = style.new_figure(0.35 + 2.75 * -(-max(1, len(panels)) // 2))
    grid = style.grid_of(figure, len(panels))
    for position, (axes, (title, curves)) in enumerate(zip(grid, panels.items(), strict=True)):
        target = targets[position] if targets else None
        _curve_panel(axes, curves, inks, scales[position], target, labels or {})
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.set_ylabel(y_labels[position])
    return figure


def _curve_panel(
    axes: Axes,
    curves: Sequence[Curve],
    inks: Mapping[str, Ink],
    scale: Scale,
    target: float | None,
    labels: Mapping[str, str],
) -> None:
    raw = [np.asarray(curve.values, dtype=float) for curve in curves]
    shown = np.concatenate([np.ravel(values) for values in raw] or [np.array([])])
    floor = style.error_floor(shown) if scale == "error" else -np.inf
    axes.grid(axis="y")
    axes.margins(x=0.0)
    if scale == "error":
        extra = [] if target is None else [target]
        style.error_scale(axes, np.concatenate([shown, extra]), floor)
    elif scale == "log":
        style.plain_log(axes.yaxis)
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
    if target is not None:
        axes.axhline(target, color=style.QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        ends.append((0.0, target, "target", style.QUIET))
    style.end_labels(axes, ends)


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
