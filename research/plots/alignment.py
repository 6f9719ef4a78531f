"""What a recogniser hears, frame by frame: waveform, spectrogram, posteriors, alignment."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from research.plots import style

_SPAN = "#0072B2"
_WRONG = "#D55E00"
_TRUE = "#009E73"


class Heard(NamedTuple):
    """One utterance as a CTC network heard it.

    Attributes:
        log_mel: T frames, F mel bins.
        log_posteriors: U frames, K classes with the blank.
        alignment: label or blank of each of the U frames.
        hop_seconds: of ``log_mel``.
        frame_seconds: of the posteriors and the alignment.
        waveform: S samples, or None.
        sample_rate: of the waveform.
        boundaries: begin and end of each of the N labels in seconds, or None.
        title: above it.
    """

    log_mel: Float[np.ndarray, "T F"]
    log_posteriors: Float[np.ndarray, "U K"]
    alignment: Int[np.ndarray, "U"]
    hop_seconds: float
    frame_seconds: float
    waveform: Float[np.ndarray, "S"] | None = None
    sample_rate: float = 0.0
    boundaries: Float[np.ndarray, "N 2"] | None = None
    title: str = ""

    @property
    def seconds(self) -> float:
        """How long it is."""
        mel = len(self.log_mel) * self.hop_seconds
        return max(mel, len(self.log_posteriors) * self.frame_seconds)


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
    """`alignment_figures` of one utterance, from its arrays."""
    heard = Heard(log_mel, log_posteriors, alignment, hop_seconds, frame_seconds, title=title)
    return alignment_figures([heard], names=names, blank_id=blank_id)


@style.styled
def alignment_figures(heard: Sequence[Heard], *, names: Sequence[str], blank_id: int = 0) -> Figure:
    """Waveform, spectrogram and posteriors of utterances beside each other, each with its times.

    Bars mark the frames that the Viterbi alignment gives to each reference label, brackets below
    the spectrogram where a label begins and ends in truth. A posterior curve is blue for a label
    that the reference contains and orange for one that it does not.

    Args:
        heard: the utterances, one column each. The waveforms are drawn if all have one.
        names: of the K classes.
        blank_id: class of the blank.
    """
    waves = all(item.waveform is not None for item in heard)
    heights = [0.45] * waves + [1.25, 1]
    figure = style.new_figure(3.9 + 0.6 * waves)
    grid = figure.subplots(
        len(heights), max(1, len(heard)), squeeze=False, sharex="col", height_ratios=heights
    )
    for column, item in enumerate(heard):
        axes: list[Axes] = list(grid[:, column])
        axes[0].set_title(item.title, pad=4 if waves else 20)
        if waves and item.waveform is not None:
            draw_waveform(axes[0], item.waveform, item.sample_rate)
        _spectrogram(axes[-2], item, names, blank_id)
        _posterior_panel(axes[-1], item, names, blank_id)
        axes[-1].set_xlabel("time (s)")
        axes[-1].set_xlim(0, item.seconds)
        axes[-1].xaxis.set_major_locator(MaxNLocator(8 if len(heard) == 1 else 5))
        if column == 0:
            axes[-2].set_ylabel("mel bin")
            axes[-1].set_ylabel("posterior")
    return figure


@style.styled
def posterior_rows(rows: Mapping[str, Heard], *, names: Sequence[str], blank_id: int = 0) -> Figure:
    """One utterance by several networks: its spectrogram, then the posteriors of each in a row.

    Args:
        rows: what each network made of the same utterance, by what to write above its row.
        names: of the K classes.
        blank_id: class of the blank.
    """
    first = next(iter(rows.values()))
    figure = style.new_figure(1.7 + 1.05 * len(rows))
    grid = figure.subplots(1 + len(rows), 1, sharex=True, height_ratios=[1.3] + [1] * len(rows))
    _spectrogram(grid[0], first, names, blank_id, bars=False)
    grid[0].set_title(first.title)
    grid[0].set_ylabel("mel bin")
    for axes, (title, item) in zip(grid[1:], rows.items(), strict=True):
        _posterior_panel(axes, item, names, blank_id)
        axes.set_title(title, fontsize=8.5, pad=3)
    grid[-1].set_xlim(0, first.seconds)
    grid[-1].set_xlabel("time (s)")
    grid[-1].xaxis.set_major_locator(MaxNLocator(8))
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


def draw_posteriors(
    axes: Axes,
    posteriors: Float[np.ndarray, "U K"],
    reference: set[int],
    frame_seconds: float,
    names: Sequence[str],
    blank_id: int,
) -> None:
    """Probabilities over time: grey the blank, blue what was said, orange what was not."""
    centres = (np.arange(len(posteriors)) + 0.5) * frame_seconds
    axes.plot(centres, posteriors[:, blank_id], color=style.RULE, linewidth=1.0)
    axes.annotate(
        "blank", xy=(1.0, float(posteriors[-1, blank_id])), xytext=(4, 0),
        xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
        fontsize=7.5, color=style.QUIET, annotation_clip=False,
    )  # fmt: skip
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
                    names[k], xy=(centres[peak], posteriors[peak, k]), xytext=(0, 2),
                    textcoords="offset points", ha="center", va="bottom", fontsize=8,
                    color=colour, annotation_clip=False,
                )  # fmt: skip


def draw_waveform(axes: Axes, waveform: Float[np.ndarray, " S"], sample_rate: float) -> None:
    """Its envelope, without axes."""
    samples = np.asarray(waveform, dtype=float)
    # The range of every few samples: what a plot of all of them would show at this width.
    step = max(1, samples.size // 1200)
    whole = samples[: samples.size // step * step].reshape(-1, step)
    times = (np.arange(len(whole)) + 0.5) * step / sample_rate
    low, high = whole.min(axis=1), whole.max(axis=1)
    axes.fill_between(times, low, high, color=style.QUIET, linewidth=0.3)
    axes.set_axis_off()


def _spectrogram(
    axes: Axes, item: Heard, names: Sequence[str], blank_id: int, bars: bool = True
) -> None:
    low, high = np.percentile(item.log_mel, [5, 99.5]) if item.log_mel.size else (0.0, 1.0)
    seconds, bins = len(item.log_mel) * item.hop_seconds, item.log_mel.shape[1]
    axes.imshow(
        item.log_mel.T, origin="lower", aspect="auto", cmap="Greys", vmin=low, vmax=high,
        extent=(0, seconds, 0, bins), interpolation="nearest",
    )  # fmt: skip
    spans = label_spans(item.alignment, blank_id) if bars else []
    for label, start, stop in spans:
        begin, end = start * item.frame_seconds, stop * item.frame_seconds
        # A bar on the upper edge, because a shade would hide the spectrogram.
        axes.plot([begin, end], [1.02, 1.02], transform=axes.get_xaxis_transform(), color=_SPAN,
                  linewidth=3, solid_capstyle="butt", clip_on=False)  # fmt: skip
        axes.annotate(
            names[label], xy=((begin + end) / 2, 1.0), xycoords=("data", "axes fraction"),
            xytext=(0, 5), textcoords="offset points", ha="center", va="bottom",
            fontsize=10 if len(spans) < 12 else 7, color=_SPAN, annotation_clip=False,
        )  # fmt: skip
    for begin, end in [] if item.boundaries is None else item.boundaries:
        for x in (begin, end):
            axes.plot([x, x], [0, 0.09], transform=axes.get_xaxis_transform(), color=_TRUE,
                      linewidth=1.0)  # fmt: skip
        axes.plot([begin, end], [0.01, 0.01], transform=axes.get_xaxis_transform(), color=_TRUE,
                  linewidth=1.6, solid_capstyle="butt")  # fmt: skip


def _posterior_panel(axes: Axes, item: Heard, names: Sequence[str], blank_id: int) -> None:
    axes.set_ylim(0, 1.18)
    axes.set_yticks([0, 0.5, 1])
    for _, start, stop in label_spans(item.alignment, blank_id):
        axes.axvspan(start * item.frame_seconds, stop * item.frame_seconds, color=_SPAN,
                     alpha=0.16, linewidth=0)  # fmt: skip
    said = set(item.alignment.tolist())
    draw_posteriors(axes, np.exp(item.log_posteriors), said, item.frame_seconds, names, blank_id)
