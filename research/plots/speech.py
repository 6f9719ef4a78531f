"""Figures of a recogniser: what it hears, frame by frame, and how errors grow with length."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from research.plots import style
from research.plots.style import Ink

_SPAN = "#0072B2"
_WRONG = "#D55E00"


class LengthError(NamedTuple):
    """Label error rate (fraction) of the strings of one length, with its interval."""

    length: int
    rate: float
    low: float
    high: float
    strings: int


@style.styled
def error_by_length(
    series: Mapping[str, Sequence[LengthError]],
    inks: Mapping[str, Ink],
    *,
    labels: Mapping[str, str] | None = None,
) -> Figure:
    """Label error rate over the number of labels in the string, with intervals.

    Args:
        series: points per system.
        inks: colour per system.
        labels: what to write for a system, by name.
    """
    figure = style.new_figure(2.7)
    axes = figure.subplots()
    axes.grid(axis="y")
    ends = []
    lengths = sorted({point.length for points in series.values() for point in points})
    for number, (name, points) in enumerate(series.items()):
        if not points:
            continue
        ink = inks[name]
        x = np.array([p.length for p in points]) + 0.09 * (number - (len(series) - 1) / 2)
        rate = 100 * np.array([point.rate for point in points])
        low = 100 * np.array([point.low for point in points])
        high = 100 * np.array([point.high for point in points])
        axes.vlines(x, low, high, color=ink.colour, linewidth=1.2, alpha=0.55)
        axes.plot(x, rate, color=ink.colour, linestyle=ink.dashes, marker="o", markersize=4)
        text = (labels or {}).get(name, name)
        ends.append((float(x[-1]), float(rate[-1]), text, ink.colour))
    axes.set_ylim(bottom=0)
    if lengths:
        strings = {p.length: p.strings for points in series.values() for p in points}
        units = {n: "string" if strings[n] == 1 else "strings" for n in lengths}
        axes.set_xlim(lengths[0] - 0.4, lengths[-1] + 0.4)
        axes.set_xticks(lengths, [f"{n}\n{strings[n]} {units[n]}" for n in lengths])
    axes.set_xlabel("digits in the string")
    axes.set_ylabel("label error rate (%)")
    style.end_labels(axes, ends)
    return figure


@style.styled
def alignment_figure(
    log_mel: Float[np.ndarray, "T F"],
    log_posteriors: Float[np.ndarray, "U K"],
    alignment: Int[np.ndarray, "U"],
    *,
    hop_seconds: float,
    frame_seconds: float,
    names: Sequence[str],
    blank_id: int = 0,
    title: str = "",
) -> Figure:
    """Log-mel spectrogram above the CTC posteriors, on one time axis, with the forced alignment.

    Bars mark the frames that the Viterbi alignment gives to each reference label. A posterior curve
    is blue for a label that the reference contains and orange for one that it does not.

    Args:
        log_mel: T frames, F mel bins.
        log_posteriors: U frames, K classes with the blank.
        alignment: label or blank of each of the U frames.
        hop_seconds: of `log_mel`.
        frame_seconds: of the posteriors and the alignment.
        names: of the K classes.
        blank_id: class of the blank.
        title: above the figure.
    """
    figure = style.new_figure(3.9)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1.25, 1))
    seconds = max(len(log_mel) * hop_seconds, len(log_posteriors) * frame_seconds)
    low, high = np.percentile(log_mel, [5, 99.5]) if log_mel.size else (0.0, 1.0)
    top.imshow(
        log_mel.T,
        origin="lower",
        aspect="auto",
        cmap="Greys",
        vmin=low,
        vmax=high,
        extent=(0, len(log_mel) * hop_seconds, 0, log_mel.shape[1]),
        interpolation="nearest",
    )
    top.set_ylabel("mel bin")
    top.set_title(title, pad=20)
    bottom.set_ylabel("posterior")
    bottom.set_xlabel("time (s)")
    bottom.set_ylim(0, 1.18)
    bottom.set_yticks([0, 0.5, 1])
    bottom.set_xlim(0, seconds)
    bottom.xaxis.set_major_locator(MaxNLocator(8))
    for label, start, stop in label_spans(alignment, blank_id):
        begin, end = start * frame_seconds, stop * frame_seconds
        bottom.axvspan(begin, end, color=_SPAN, alpha=0.16, linewidth=0)
        # A bar on the upper edge, because a shade would hide the spectrogram.
        top.plot(
            [begin, end],
            [1.02, 1.02],
            transform=top.get_xaxis_transform(),
            color=_SPAN,
            linewidth=3,
            solid_capstyle="butt",
            clip_on=False,
        )
        top.annotate(
            names[label],
            xy=((begin + end) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 6),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=10,
            color=_SPAN,
            annotation_clip=False,
        )
    _posteriors(
        bottom, np.exp(log_posteriors), set(alignment.tolist()), frame_seconds, names, blank_id
    )
    return figure


def label_spans(alignment: Int[np.ndarray, "U"], blank_id: int = 0) -> list[tuple[int, int, int]]:
    """(label, first frame, frame after the last) of every run of one label in an alignment.

    Example:
        >>> label_spans(np.array([0, 3, 3, 0, 3]))
        [(3, 1, 3), (3, 4, 5)]
    """
    frames = np.asarray(alignment)
    cuts = [0, *(np.flatnonzero(np.diff(frames)) + 1).tolist(), len(frames)]
    return [
        (int(frames[start]), start, stop)
        for start, stop in pairwise(cuts)
        if stop > start and frames[start] != blank_id
    ]


def _posteriors(
    axes: Axes,
    posteriors: np.ndarray,
    reference: set[int],
    frame_seconds: float,
    names: Sequence[str],
    blank_id: int,
) -> None:
    centres = (np.arange(len(posteriors)) + 0.5) * frame_seconds
    axes.plot(centres, posteriors[:, blank_id], color=style.RULE, linewidth=1.0)
    axes.annotate(
        "blank",
        xy=(1.0, float(posteriors[-1, blank_id])),
        xytext=(4, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=style.QUIET,
        annotation_clip=False,
    )
    for k in range(posteriors.shape[1]):
        if k == blank_id or posteriors[:, k].max() < 0.05:
            continue
        colour = _SPAN if k in reference else _WRONG
        axes.plot(centres, posteriors[:, k], color=colour, linewidth=1.3)
        axes.fill_between(centres, 0, posteriors[:, k], color=colour, alpha=0.15, linewidth=0)
        # A peak is the top of a stretch above a quarter; fainter ones would only be clutter.
        loud = np.flatnonzero(posteriors[:, k] >= 0.25)
        for run in np.split(loud, np.flatnonzero(np.diff(loud) > 1) + 1):
            if run.size:
                peak = int(run[np.argmax(posteriors[run, k])])
                axes.annotate(
                    names[k],
                    xy=(centres[peak], posteriors[peak, k]),
                    xytext=(0, 2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    color=colour,
                    annotation_clip=False,
                )
