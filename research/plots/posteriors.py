"""Figures that set recognisers side by side on one utterance: front ends, posteriors, alignments.

Axes: S samples, T feature frames, F bins, U frames of posteriors, K classes, N labels.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from research.plots import style
from research.plots.alignment import draw_posteriors, draw_waveform

_SAID = "#0072B2"
_SHADE = 0.10


class Spectrogram(NamedTuple):
    """Log-mel features and the seconds from one of their frames to the next."""

    features: Float[np.ndarray, "T F"]
    hop_seconds: float


@style.styled
def front_ends(
    waveform: Float[np.ndarray, " S"],
    sample_rate: int,
    spectrograms: Mapping[str, Spectrogram],
) -> Figure:
    """A waveform, and below it what each front end makes of it, on one time axis.

    Each panel is shaded over the middle 98 % of its own values; the least and the largest are
    written beside its name, since front ends differ in their units.

    Args:
        waveform: samples in [-1, 1].
        sample_rate: of the waveform, Hz.
        spectrograms: by name.
    """
    rows = -(-len(spectrograms) // 2)
    figure = style.new_figure(1.0 + 1.35 * rows)
    grid = figure.add_gridspec(rows + 1, 2, height_ratios=(0.8, *[1.0] * rows))
    seconds = len(waveform) / sample_rate
    top = figure.add_subplot(grid[0, :])
    draw_waveform(top, waveform, sample_rate)
    top.set_xlim(0, seconds)
    top.set_title("waveform")
    for number, (name, (features, hop)) in enumerate(spectrograms.items()):
        axes = figure.add_subplot(grid[1 + number // 2, number % 2])
        low, high = float(features.min()), float(features.max())
        axes.imshow(
            features.T,
            origin="lower",
            aspect="auto",
            cmap="Greys",
            vmin=np.percentile(features, 1),
            vmax=np.percentile(features, 99),
            extent=(0, len(features) * hop, 0, features.shape[1]),
            interpolation="nearest",
        )
        axes.set_xlim(0, seconds)
        axes.set_title(name)
        axes.set_title(
            f"{len(features)} frames × {features.shape[1]} bins, {low:.3g} to {high:.3g}",
            loc="right",
            fontsize=7.5,
            color=style.QUIET,
        )
        axes.set_yticks([0, features.shape[1]])
        if number // 2 < rows - 1:
            axes.set_xticklabels([])
        else:
            axes.set_xlabel("time (s)")
    return figure


@style.styled
def recogniser_rows(
    log_posteriors: Mapping[str, Float[np.ndarray, "U K"]],
    *,
    frame_seconds: float,
    names: Sequence[str],
    labels: Sequence[int],
    spans: Float[np.ndarray, "N 2"] | None = None,
    blank_id: int = 0,
    notes: Mapping[str, str] | None = None,
) -> Figure:
    """The posteriors of one utterance by several recognisers, a row each, on one time axis.

    Grey is the blank; blue a label that was said, orange one that was not. Shaded is where each
    label was said.

    Args:
        log_posteriors: by recogniser.
        frame_seconds: from one frame to the next.
        names: of the K classes.
        labels: what was said, class ids.
        spans: begin and end of each label in seconds, if known.
        blank_id: class of the blank.
        notes: what to write at the right of a row, such as a transcript.
    """
    rows = len(log_posteriors)
    figure = style.new_figure(0.55 + 0.85 * rows)
    grid = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for number, (axes, (name, row)) in enumerate(zip(grid, log_posteriors.items(), strict=True)):
        if spans is not None:
            for label, (begin, end) in zip(labels, spans, strict=True):
                axes.axvspan(begin, end, color=_SAID, alpha=_SHADE, linewidth=0)
                if number == 0:
                    _above(axes, (begin + end) / 2, names[label])
        draw_posteriors(axes, np.exp(row), set(labels), frame_seconds, names, blank_id)
        axes.set_ylim(0, 1.2)
        axes.set_yticks([0, 1])
        axes.set_xlim(0, len(row) * frame_seconds)
        axes.set_ylabel(name, rotation=0, ha="right", va="center", color=style.INK)
        if notes:
            axes.annotate(
                notes[name],
                xy=(1.01, 0.5),
                xycoords="axes fraction",
                va="center",
                fontsize=8,
                color=style.QUIET,
            )
    grid[-1].set_xlabel("time (s)")
    grid[-1].xaxis.set_major_locator(MaxNLocator(8))
    return figure


@style.styled
def boundary_rows(
    waveform: Float[np.ndarray, " S"],
    sample_rate: int,
    reference: Float[np.ndarray, "N 2"],
    words: Sequence[str],
    aligned: Mapping[str, Float[np.ndarray, "N 2"]],
) -> Figure:
    """A waveform with the true ends of its words, and below it where each aligner puts them.

    Args:
        waveform: samples in [-1, 1].
        sample_rate: of the waveform, Hz.
        reference: begin and end of each word in seconds.
        words: their texts.
        aligned: begins and ends in seconds, by aligner.
    """
    figure = style.new_figure(1.5 + 0.3 * len(aligned))
    heights = (1.0, 0.28 * len(aligned))
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=heights)
    draw_waveform(top, waveform, sample_rate)
    for (begin, end), word in zip(reference, words, strict=True):
        for axes in (top, bottom):
            axes.axvspan(begin, end, color=_SAID, alpha=_SHADE, linewidth=0)
        _above(top, (begin + end) / 2, word)
    for number, spans in enumerate(aligned.values()):
        bottom.broken_barh(
            [(float(begin), float(end - begin)) for begin, end in spans],
            (number - 0.3, 0.6),
            facecolor=_SAID,
            edgecolor="white",
            linewidth=0.8,  # of neighbours without a gap
        )
    bottom.set_yticks(range(len(aligned)), list(aligned))
    bottom.tick_params(axis="y", length=0, labelcolor=style.INK)
    bottom.set_ylim(len(aligned) - 0.4, -0.6)
    bottom.set_xlim(0, len(waveform) / sample_rate)
    bottom.set_xlabel("time (s)")
    bottom.xaxis.set_major_locator(MaxNLocator(8))
    return figure


def span_seconds(spans: Int[np.ndarray, "N 2"], frame_seconds: float) -> Float[np.ndarray, "N 2"]:
    """First frames and those after the last, as ``kernels.ctc_alignment`` gives them, in seconds.

    Example:
        >>> span_seconds(np.array([[1, 3]]), 0.5).tolist()
        [[0.5, 1.5]]
    """
    return np.asarray(spans, np.float64) * frame_seconds


def _above(axes: Axes, x: float, text: str) -> None:
    axes.annotate(
        text,
        xy=(x, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=9,
        color=_SAID,
    )
