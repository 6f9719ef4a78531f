"""Figures that compare systems: error rates with their intervals, diagnostics, calibration."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from research.plots import style
from research.plots.style import Ink
from research.stats import UNKNOWN, Interval

_PLAIN = Ink(style.QUIET, "solid")


class Strip(NamedTuple):
    """A row of a figure of rates: the points, their mean and its intervals, what is missing."""

    points: Sequence[float]
    value: float = float("nan")
    inner: Interval = UNKNOWN
    outer: Interval = UNKNOWN
    note: str = ""  # written at the right, where something diverged or was not run


class LengthError(NamedTuple):
    """Label error rate (fraction) of the strings of one length, with its interval."""

    length: str
    rate: float
    low: float
    high: float
    strings: int


@style.styled
def rate_strips(
    panels: Mapping[str, Mapping[str, Strip]],
    inks: Mapping[str, Ink],
    *,
    x_label: str,
    labels: Mapping[str, str],
    zero: bool = False,
) -> Figure:
    """A row per system: open dots, the mean as a stroke, its intervals as a thick and a thin bar.

    Args:
        panels: rows (fractions, shown in per cent) per panel title, in the order of the first one.
        inks: colour per row.
        x_label: of the axes.
        labels: what to write for a row, by name.
        zero: mark zero, for differences; else the axis begins there.
    """
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    columns = min(2, max(1, len(panels)))
    down = -(-max(1, len(panels)) // columns)
    figure = style.new_figure(down * (0.75 + 0.27 * max(2, len(names))))
    grid = style.grid_of(figure, len(panels), columns=columns, sharex=True, sharey=True)
    for position, (axes, (title, rows)) in enumerate(zip(grid, panels.items(), strict=True)):
        axes.set_title(title)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.set_yticks(range(len(names)), [labels.get(name, name) for name in names])
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}".replace("-", "−")))
        if position + columns >= len(panels):
            axes.set_xlabel(x_label)
            axes.tick_params(labelbottom=True)
        if zero:
            axes.axvline(0.0, color=style.QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        for name, strip in rows.items():
            _strip(axes, names.index(name), strip, inks.get(name, _PLAIN).colour)
        axes.set_ylim(max(1, len(names)) - 0.4, -0.6)
    if not zero and grid:
        grid[0].set_xlim(left=0)
    return figure


@style.styled
def diagnostic_strips(
    panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
    inks: Mapping[str, Ink],
    *,
    labels: Mapping[str, str],
    groups: Mapping[str, str],
) -> Figure:
    """A panel per quantity, a row per method, a dot per training, colours and heights by group.

    Args:
        panels: values per group, per method, per title of a panel.
        inks: colour per group.
        labels: what to write for a method, by name.
        groups: what to write for a group, by name.
    """
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    figure = style.new_figure(-(-max(1, len(panels)) // 3) * (0.8 + 0.24 * max(2, len(names))))
    grid = style.grid_of(figure, len(panels), columns=3, sharey=True)
    for axes, (title, rows) in zip(grid, panels.items(), strict=True):
        axes.set_title(title)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.set_yticks(range(len(names)), [labels.get(name, name) for name in names])
        axes.xaxis.set_major_locator(MaxNLocator(4))
        for name, by_group in rows.items():
            for group, values in by_group.items():
                shift = 0.5 * ((list(groups).index(group) + 0.5) / len(groups) - 0.5)
                row, colour = names.index(name) + shift, inks.get(group, _PLAIN).colour
                known = np.asarray(values, dtype=float)
                known = known[np.isfinite(known)]
                axes.scatter(known, np.full(known.shape, row), s=9, facecolors="white",
                             edgecolors=colour, linewidths=0.8, zorder=3)  # fmt: skip
                if known.size:
                    half = 0.3 / max(1, len(groups))
                    axes.plot([known.mean()] * 2, [row - half, row + half], color=colour)
        axes.set_ylim(max(1, len(names)) - 0.4, -0.6)
    _legend(figure, inks, groups)
    return figure


@style.styled
def reliability_panels(
    panels: Mapping[str, Mapping[str, tuple[Float[np.ndarray, "R"], Float[np.ndarray, "R"],
                                            Int[np.ndarray, "R"]]]],
    inks: Mapping[str, Ink],
    *,
    groups: Mapping[str, str],
) -> Figure:  # fmt: skip
    """How often a symbol is right by how sure the network was of it; the diagonal is calibrated.

    Args:
        panels: per title and group: confidence and accuracy of R bins, NaN where a bin is empty,
            and the symbols in each; dots grow with these.
        inks: colour per group.
        groups: what to write for a group, by name.
    """
    columns = min(4, max(1, len(panels)))
    figure = style.new_figure(0.4 + 1.95 * -(-max(1, len(panels)) // columns))
    grid = style.grid_of(figure, len(panels), columns=columns, sharex=True, sharey=True)
    for position, (axes, (title, curves)) in enumerate(zip(grid, panels.items(), strict=True)):
        axes.set_title(title, fontsize=8.5)
        axes.plot([0, 1], [0, 1], color=style.RULE, linewidth=0.9, linestyle=(0, (4, 3)))
        for group, (confidence, accuracy, counts) in curves.items():
            there = counts > 0
            ink = inks.get(group, _PLAIN)
            sizes = 4 + 40 * counts[there] / max(1, counts.sum())
            axes.plot(confidence[there], accuracy[there], color=ink.colour, linestyle=ink.dashes,
                      linewidth=1.0)  # fmt: skip
            axes.scatter(confidence[there], accuracy[there], s=sizes, color=ink.colour,
                         linewidths=0, zorder=3)  # fmt: skip
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks([0, 0.5, 1])
            axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
        if position % columns == 0:
            axes.set_ylabel("right (%)")
        if position + columns >= len(panels):
            axes.set_xlabel("confidence (%)")
            axes.tick_params(labelbottom=True)
    _legend(figure, inks, groups)
    return figure


@style.styled
def error_by_length(
    series: Mapping[str, Sequence[LengthError]],
    inks: Mapping[str, Ink],
    *,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Label error rate over the number of labels in the string, with intervals.

    Args:
        series: points per system; their lengths, or ranges of lengths, in ascending order.
        inks: colour per system.
        labels: what to write for a system, by name.
    """
    figure = style.new_figure(2.7)
    axes = figure.subplots()
    axes.grid(axis="y")
    ends = []
    strings = {point.length: point.strings for points in series.values() for point in points}
    lengths = list(strings)
    for number, (name, points) in enumerate(series.items()):
        if not points:
            continue
        ink = inks[name]
        places = np.array([lengths.index(p.length) for p in points])
        x = places + 0.09 * (number - (len(series) - 1) / 2)
        rate, low, high = (100 * np.array([p[i] for p in points]) for i in (1, 2, 3))
        axes.vlines(x, low, high, color=ink.colour, linewidth=1.2, alpha=0.55)
        axes.plot(x, rate, color=ink.colour, linestyle=ink.dashes, marker="o", markersize=4)
        text = (labels or {}).get(name, name)
        ends.append((float(x[-1]), float(rate[-1]), text, ink.colour))
    axes.set_ylim(bottom=0)
    if lengths:
        units = {n: "string" if strings[n] == 1 else "strings" for n in lengths}
        axes.set_xlim(-0.4, len(lengths) - 0.6)
        axes.set_xticks(range(len(lengths)), [f"{n}\n{strings[n]} {units[n]}" for n in lengths])
    axes.set_xlabel("labels in the string")
    axes.set_ylabel("label error rate (%)")
    style.end_labels(axes, ends)
    return figure


def _strip(axes: Axes, row: int, strip: Strip, colour: str) -> None:
    for interval, width, alpha in ((strip.outer, 1.1, 0.9), (strip.inner, 4.5, 0.25)):
        if np.isfinite(interval.low):
            axes.plot(interval, [row, row], color=colour, linewidth=width, alpha=alpha,
                      solid_capstyle="butt")  # fmt: skip
    if np.isfinite(strip.value):
        axes.plot([strip.value] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=1.8)
    points = np.asarray(strip.points, dtype=float)
    points = points[np.isfinite(points)]
    axes.scatter(points, np.full(points.shape, row), s=11, facecolors="white", edgecolors=colour,
                 linewidths=0.9, zorder=3)  # fmt: skip
    if strip.note:
        colour = style.WARNING if "diverged" in strip.note else style.QUIET
        axes.annotate(strip.note, xy=(1.0, row), xycoords=("axes fraction", "data"), ha="right",
                      va="center", fontsize=7, color=colour)  # fmt: skip


def _legend(figure: Figure, inks: Mapping[str, Ink], groups: Mapping[str, str]) -> None:
    """Names of the groups in their colours above the figure; none where there is one group."""
    if len(groups) < 2:
        return
    handles = [
        figure.axes[0].plot([], [], color=inks.get(group, _PLAIN).colour, marker="o", markersize=4,
                            linestyle="none", label=text)[0]
        for group, text in groups.items()
    ]  # fmt: skip
    columns = max(1, 105 // (6 + max(map(len, groups.values()))))
    figure.legend(handles=handles, loc="outside upper left", ncols=min(columns, len(groups)),
                  frameon=False, fontsize=8)  # fmt: skip
