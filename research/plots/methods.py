"""Figures of a comparison of many methods: scores, times to a target, profiles, ranks, searches.

Lower scores are better throughout. Where there are more methods than colours, those without a label
are drawn in grey behind the others.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from research import stats
from research.plots import style
from research.plots.style import Ink

_GREY = Ink("#c3c7cb", "solid")


class Ratio(NamedTuple):
    """A ratio to the reference with its interval; ``bound`` says which way the truth may lie."""

    value: float
    low: float
    high: float
    bound: str = ""  # ">" where the true ratio is larger, "<" where it is smaller, "?" unknown


@style.styled
def score_strips(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    inks: Mapping[str, Ink],
    *,
    x_label: str,
    labels: Mapping[str, str],
    reference: str | None = None,
    failure: str = "diverged",
) -> Figure:
    """A dot per seed or study, their mean as an upright stroke, its 95 % t interval as a bar.

    Failures (infinite scores) are counted in words at the right, and such a method has neither
    mean nor interval: they would be those of the survivors.

    Args:
        panels: scores per method, per panel title; the methods are those of the first panel.
        inks: colour per method; grey where absent.
        x_label: of the axes.
        labels: what to write for a method, by name.
        reference: its mean is a line through all rows.
        failure: what is written after the number of failures.
    """
    methods = list(next(iter(panels.values()), {}))
    figure = style.new_figure(0.75 + (0.24 if len(methods) < 20 else 0.17) * max(2, len(methods)))
    grid = style.grid_of(figure, len(panels), columns=max(1, len(panels)), sharey=True)
    for axes, (title, groups) in zip(grid, panels.items(), strict=True):
        scores = {name: np.asarray(values, dtype=float) for name, values in groups.items()}
        every = np.concatenate([*scores.values(), [np.nan]])
        logarithmic = style.wide_range(every)
        if logarithmic:
            style.plain_log(axes.xaxis)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4 if len(panels) > 1 else 7))
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_yticks(range(len(methods)), [labels.get(name, name) for name in methods])
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        for row, (name, values) in enumerate(scores.items()):
            _strip(axes, row, values, inks.get(name, Ink(style.QUIET, "solid")).colour, logarithmic)
            failed = int(np.isinf(values).sum())
            if failed:
                axes.annotate(f"{failed} {failure}", xy=(1.0, row),
                              xycoords=("axes fraction", "data"), ha="right", va="center",
                              fontsize=7, color=style.WARNING)  # fmt: skip
        own = scores.get(reference or "", np.zeros(0))
        if own.size and np.isfinite(own).all():
            axes.axvline(own.mean(), color=style.QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_ylim(max(1, len(methods)) - 0.4, -0.6)
    return figure


def _strip(axes: Axes, row: int, values: np.ndarray, colour: str, logarithmic: bool) -> None:
    finite = values[np.isfinite(values)]
    failed = values.size - finite.size
    if finite.size and not failed:
        low, high = stats.mean_interval(finite)
        if np.isfinite(low):
            low = max(low, 0.8 * finite.min()) if logarithmic else low  # no logarithm below zero
            axes.plot([low, high], [row, row], color=colour, linewidth=4, alpha=0.22,
                      solid_capstyle="butt")  # fmt: skip
        axes.plot([finite.mean()] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=1.8)
    if finite.size:
        rows = np.full(finite.shape, row)
        axes.scatter(finite, rows, s=11, facecolors="white", edgecolors=colour, linewidths=0.9,
                     zorder=3)  # fmt: skip


@style.styled
def reached_curves(
    panels: Mapping[str, Mapping[str, stats.Curve]],
    inks: Mapping[str, Ink],
    *,
    labels: Mapping[str, str],
    horizons: Sequence[float],
) -> Figure:
    """Share of runs that have reached the target against the step (Kaplan-Meier, 1 - S).

    Args:
        panels: curves per method, per panel title.
        inks: colour per method; grey and without a label where absent.
        labels: what to write for a method, by name.
        horizons: length of a run, one per panel.
    """
    figure = style.new_figure(0.35 + 2.3 * -(-max(1, len(panels)) // 2))
    grid = style.grid_of(figure, len(panels))
    for axes, horizon, (title, curves) in zip(grid, horizons, panels.items(), strict=True):
        axes.set_title(title)
        axes.grid(axis="y")
        axes.set_xlim(0, horizon)
        axes.set_ylim(0, 1.03)
        axes.set_xlabel("step")
        axes.set_ylabel("reached the target (%)")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}"))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ends = []
        for name, curve in sorted(curves.items(), key=lambda item: item[0] in inks):
            ink = inks.get(name, _GREY)
            steps = np.concatenate([[0.0], curve.steps, [horizon]])
            share = np.concatenate([[0.0], curve.share, curve.share[-1:]])
            axes.step(steps, share, where="post", color=ink.colour, linestyle=ink.dashes,
                      linewidth=1.6 if name in inks else 0.8)  # fmt: skip
            if name in inks:
                ends.append((horizon, float(share[-1]), labels.get(name, name), ink.colour))
        style.end_labels(axes, ends)
    return figure


@style.styled
def profile_curves(
    factors: Float[np.ndarray, "T"],
    profiles: Mapping[str, Float[np.ndarray, "T"]],
    inks: Mapping[str, Ink],
    *,
    labels: Mapping[str, str],
    problems: int,
) -> Figure:
    """Performance profiles: share of problems solved within a factor of the fastest method.

    Args:
        factors: of the horizontal axis.
        profiles: share per factor, per method.
        inks: colour per method; grey and without a label where absent.
        labels: what to write for a method, by name.
        problems: how many the shares are of; a tick each where they are few.
    """
    figure = style.new_figure(3.0)
    axes = figure.subplots()
    axes.grid(axis="y")
    axes.set_xlim(factors[0], factors[-1])
    axes.set_ylim(0, 1.03)
    if problems <= 10:
        axes.yaxis.set_major_locator(FixedLocator((np.arange(problems + 1) / problems).tolist()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share * problems:.3g}"))
    axes.set_xlabel("steps to the target, times those of the fastest")
    axes.set_ylabel(f"workloads, of {problems}")
    ends = []
    for name, shares in sorted(profiles.items(), key=lambda item: item[0] in inks):
        ink = inks.get(name, _GREY)
        axes.step(factors, shares, where="post", color=ink.colour, linestyle=ink.dashes,
                  linewidth=1.6 if name in inks else 0.8)  # fmt: skip
        if name in inks:
            ends.append((factors[-1], float(shares[-1]), labels.get(name, name), ink.colour))
    style.end_labels(axes, ends)
    return figure


@style.styled
def best_of_curves(
    panels: Mapping[str, Mapping[str, stats.BestOf]],
    inks: Mapping[str, Ink],
    *,
    labels: Mapping[str, str],
    y_labels: Sequence[str],
) -> Figure:
    """Expected score of the best of k search trials, with the bootstrap interval as a band.

    Args:
        panels: curves per method, per panel title.
        inks: colour per method; grey, without band and label where absent.
        labels: what to write for a method, by name.
        y_labels: one per panel.
    """
    figure = style.new_figure(0.35 + 2.5 * -(-max(1, len(panels)) // 2))
    grid = style.grid_of(figure, len(panels))
    for axes, y_label, (title, curves) in zip(grid, y_labels, panels.items(), strict=True):
        axes.set_title(title)
        axes.grid(axis="y")
        axes.set_xlabel("search trials, k")
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if style.wide_range(np.concatenate([[np.nan], *(c.expected for c in curves.values())])):
            style.plain_log(axes.yaxis)
        ends = []
        for name, curve in sorted(curves.items(), key=lambda item: item[0] in inks):
            ink = inks.get(name, _GREY)
            marker = "o" if curve.trials.size == 1 else None
            axes.plot(curve.trials, curve.expected, color=ink.colour, linestyle=ink.dashes,
                      linewidth=1.6 if name in inks else 0.8, marker=marker,
                      markersize=3)  # fmt: skip
            if name in inks:
                axes.fill_between(curve.trials, curve.low, curve.high, color=ink.colour, alpha=0.1,
                                  linewidth=0)  # fmt: skip
                end = float(curve.trials[-1]), float(curve.expected[-1])
                ends.append((*end, labels.get(name, name), ink.colour))
        style.end_labels(axes, ends)
    return figure


@style.styled
def ratio_dots(
    panels: Mapping[str, Mapping[str, Ratio]],
    inks: Mapping[str, Ink],
    *,
    x_label: str,
    labels: Mapping[str, str],
) -> Figure:
    """Ratios to the reference with intervals on a logarithmic axis, a row per method.

    An open triangle is a bound that points to where the truth lies, an open diamond says nothing.

    Args:
        panels: ratios per method, per panel title; a method that a panel lacks has an empty row.
        inks: colour per method; grey where absent.
        x_label: of the axes.
        labels: what to write for a method, by name.
    """
    methods = list(dict.fromkeys(name for group in panels.values() for name in group))
    columns = min(4, max(1, len(panels)))
    rows = -(-max(1, len(panels)) // columns)
    figure = style.new_figure(rows * (0.75 + 0.17 * max(2, len(methods))))
    grid = style.grid_of(figure, len(panels), columns=columns, sharey=True, sharex=True)
    for axes, (title, group) in zip(grid, panels.items(), strict=True):
        style.plain_log(axes.xaxis)
        axes.axvline(1.0, color=style.QUIET, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.tick_params(axis="y", length=0, labelcolor=style.INK)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_yticks(range(len(methods)), [labels.get(name, name) for name in methods])
        for name, ratio in group.items():
            row, colour = methods.index(name), inks.get(name, Ink(style.QUIET, "solid")).colour
            if np.isfinite(ratio.low):
                axes.plot([ratio.low, ratio.high], [row, row], color=colour, linewidth=1.3)
            marker = {"": "o", ">": ">", "<": "<", "?": "D"}[ratio.bound]
            axes.scatter(ratio.value, row, s=18, marker=marker, edgecolors=colour, linewidths=1.0,
                         facecolors="white" if ratio.bound else colour, zorder=3)  # fmt: skip
        axes.set_ylim(max(1, len(methods)) - 0.4, -0.6)
    return figure


@style.styled
def rank_dots(
    ranks: stats.Ranks, methods: list[str], inks: Mapping[str, Ink], labels: Mapping[str, str]
) -> Figure:
    """Mean rank of each method with its bootstrap interval, best first; a grey tick per problem.

    Args:
        ranks: of the methods, in their order.
        methods: names.
        inks: colour per method; grey where absent.
        labels: what to write for a method, by name.
    """
    figure = style.new_figure(0.6 + 0.2 * max(2, len(methods)))
    axes = figure.subplots()
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=style.INK)
    axes.set_xlabel("mean rank over the workloads, 1 is best")
    order = np.argsort(ranks.mean, kind="stable")
    names = [methods[int(i)] for i in order]
    axes.set_yticks(range(order.size), [labels.get(name, name) for name in names])
    for row, (i, name) in enumerate(zip(order, names, strict=True)):
        colour = inks.get(name, Ink(style.QUIET, "solid")).colour
        places = ranks.per_problem[:, i]
        axes.scatter(places, np.full(places.shape, row), marker="|", s=40, color="#b9bdc2",
                     linewidths=1.0)  # fmt: skip
        axes.plot([ranks.low[i], ranks.high[i]], [row, row], color=colour, linewidth=1.6)
        axes.scatter(ranks.mean[i], row, s=22, color=colour, linewidths=0, zorder=3)
    axes.set_xlim(0.5, len(methods) + 0.5)
    axes.set_ylim(order.size - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    return figure
