"""What a search found over its learning rates, with those that diverged."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from research.plots import style
from research.plots.style import Ink

_BAND = 0.13  # of the height of a panel, above the scores


class Trial(NamedTuple):
    """One search trial: its score (lower is better), None where it diverged."""

    learning_rate: float
    score: float | None
    chosen: bool = False


@style.styled
def learning_rate_sensitivity(
    trials: Mapping[str, Sequence[Trial]],
    inks: Mapping[str, Ink],
    *,
    y_label: str,
    labels: Mapping[str, str],
) -> Figure:
    """Score of every search trial over its learning rate, a panel per method.

    Each panel shows the other methods' trials in grey behind. Diverged trials are crosses in a band
    above the scores, those that ended far above nearly all others triangles there; the trial that
    was chosen has a ring.

    Args:
        trials: search trials per method.
        inks: colour per method; grey where absent.
        y_label: of the scores.
        labels: what to write above a panel, by name.
    """
    columns = 5
    figure = style.new_figure(0.5 + 1.6 * -(-max(1, len(trials)) // columns))
    grid = style.grid_of(figure, len(trials), columns=columns, sharex=True, sharey=True)
    every = [trial for group in trials.values() for trial in group]
    rates = np.array([trial.learning_rate for trial in every])
    scores = np.array([np.nan if trial.score is None else trial.score for trial in every])
    ceiling = highest_shown(scores)
    scores[scores > ceiling] = np.nan
    logarithmic = style.wide_range(scores)
    for position, (axes, (name, group)) in enumerate(zip(grid, trials.items(), strict=True)):
        colour = inks.get(name, Ink(style.QUIET, "solid")).colour
        axes.set_xscale("log")
        axes.set_xlim(rates.min() / 1.7, rates.max() * 1.7)
        axes.xaxis.set_major_locator(LogLocator(numticks=4))
        axes.xaxis.set_minor_locator(NullLocator())
        _scale(axes, scores, logarithmic)
        axes.fill_between([0, 1], 1 - _BAND, 1, transform=axes.transAxes, color=style.WARNING,
                          alpha=0.07, linewidth=0)  # fmt: skip
        if position % columns == 0:
            axes.text(0.02, 1 - _BAND / 2, "diverged", transform=axes.transAxes, va="center",
                      fontsize=6.5, color=style.WARNING)  # fmt: skip
        axes.scatter(rates, scores, s=3, color="#dfe1e4", linewidths=0)
        _mark(axes, group, colour, ceiling)
        axes.set_title(labels.get(name, name), color=style.INK, fontsize=8.5)
        axes.tick_params(labelsize=7)
        if position + columns >= len(trials):
            axes.set_xlabel("learning rate", fontsize=7.5)
            axes.tick_params(labelbottom=True)
    figure.supylabel(y_label, fontsize=8.5, color=style.QUIET)
    return figure


def highest_shown(scores: ArrayLike) -> float:
    """The score up to which trials are drawn to scale: as far above nine tenths as those reach.

    Trainings that nearly diverged may end at any number, and leave the others no room.

    Example:
        >>> highest_shown([1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 1e8])
        5.0
    """
    known = np.asarray(scores, float)
    known = known[np.isfinite(known)]
    if not known.size:
        return np.inf
    most = float(np.quantile(known, 0.9))
    return most + (most - float(known.min()))


def _scale(axes: Axes, scores: np.ndarray, logarithmic: bool) -> None:
    finite = scores[np.isfinite(scores)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if logarithmic:
        style.plain_log(axes.yaxis)
        if high > 100 * low:
            axes.yaxis.set_major_locator(LogLocator(numticks=5))
        low, high = np.log(low), np.log(high)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(4))
    room = max(high - low, 1e-9)
    ends = np.array([low - 0.08 * room, low + 1.06 * room / (1 - _BAND)])
    axes.set_ylim(*(np.exp(ends) if logarithmic else ends))
    axes.grid(axis="y")


def _mark(axes: Axes, group: Sequence[Trial], colour: str, ceiling: float) -> None:
    # Empty artists would have boxes without an extent, which the layout takes into account.
    lost = [trial.learning_rate for trial in group if trial.score is None]
    if lost:
        axes.plot(lost, [1 - _BAND / 2] * len(lost), transform=axes.get_xaxis_transform(),
                  marker="x", markersize=4, color=style.WARNING, linestyle="none",
                  clip_on=False)  # fmt: skip
    high = [t.learning_rate for t in group if t.score is not None and t.score > ceiling]
    if high:
        axes.plot(high, [1 - _BAND / 2] * len(high), transform=axes.get_xaxis_transform(),
                  marker="^", markersize=3.5, color=colour, linestyle="none",
                  clip_on=False)  # fmt: skip
    ended = [
        (t.learning_rate, t.score) for t in group if t.score is not None and t.score <= ceiling
    ]
    if ended:
        axes.scatter(*np.array(ended).T, s=11, color=colour, linewidths=0, zorder=3)
    for trial in group:
        if trial.chosen and trial.score is not None and trial.score <= ceiling:
            axes.scatter(trial.learning_rate, trial.score, s=55, facecolors="none",
                         edgecolors=style.INK, linewidths=1.0, zorder=4, clip_on=False)  # fmt: skip
