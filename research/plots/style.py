"""What all figures share: size, ink, type, a colour per name, labels that do not collide."""

import functools
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple, ParamSpec

import matplotlib.style
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

WIDTH = 7.8  # inches; 1170 pixels at DPI
DPI = 150
INK = "#22262b"
QUIET = "#6b7178"
RULE = "#c9cdd1"
FAINT = "#e9ebed"
WARNING = "#b3261e"

# Okabe and Ito's colours without the yellow, which does not carry on white.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
_DASHES = ("solid", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.2, 1, 1.2)))

_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same pixels everywhere
    "font.size": 8.5,
    "text.color": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 7,
    "axes.labelsize": 8.5,
    "axes.labelcolor": QUIET,
    "axes.edgecolor": RULE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
}

_P = ParamSpec("_P")


class Ink(NamedTuple):
    """Colour and line style of one name."""

    colour: str
    dashes: str | tuple


def palette(names: Sequence[str]) -> dict[str, Ink]:
    """A colour-blind safe ink per name, in the order given; dashes tell names apart past seven.

    Example:
        >>> palette(["adam", "sgd"])["adam"].colour
        '#0072B2'
    """
    return {
        name: Ink(_COLOURS[i % len(_COLOURS)], _DASHES[(i // len(_COLOURS)) % len(_DASHES)])
        for i, name in enumerate(dict.fromkeys(names))
    }


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Runs a drawing function in the style of the reports, whatever the user's own settings are."""

    @functools.wraps(draw)
    def inner(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with matplotlib.style.context(["default", _STYLE]):
            return draw(*args, **kwargs)

    return inner


def new_figure(height: float) -> Figure:
    """An empty figure of the common width, `height` inches high, drawn by Agg."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as PNG bytes; the same figure gives the same bytes (no date, no version inside).

    Example:
        >>> to_png(new_figure(1.0))[1:4]
        b'PNG'
    """
    buffer = io.BytesIO()
    with matplotlib.style.context(["default", _STYLE]):  # fonts are looked up while drawing
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Positions moved as little as possible (least squares) to lie at least `gap` apart, in order.

    Example:
        >>> spread([0.0, 0.0, 10.0], 2.0)
        [-1.0, 1.0, 10.0]
    """
    order = np.argsort(positions, kind="stable")
    # With the gaps taken out this is isotonic regression: pool neighbours that are out of order.
    blocks: list[tuple[float, int]] = []
    for rank, index in enumerate(order):
        blocks.append((float(positions[index]) - rank * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (mean_a, n_a), (mean_b, n_b) = blocks[-2:]
            blocks[-2:] = [((mean_a * n_a + mean_b * n_b) / (n_a + n_b), n_a + n_b)]
    flat = [mean for mean, n in blocks for _ in range(n)]
    moved = [0.0] * len(flat)
    for rank, index in enumerate(order):
        moved[int(index)] = flat[rank] + rank * gap
    return moved


def end_labels(
    axes: Axes, ends: Sequence[tuple[float, float, str, str]], *, points: float = 11.0
) -> None:
    """Writes each (x, y, text, colour) beside the right edge of the axes, without overlaps.

    Call it when the limits of the axes are final; a thin line joins a label to an end it left.
    """
    height = axes.bbox.height * 72 / axes.figure.dpi  # of the axes in points, before layout
    fractions = [
        float(axes.transAxes.inverted().transform(axes.transData.transform(end[:2]))[1])
        for end in ends
    ]
    fractions = [min(max(value, 0.0), 1.0) for value in fractions]
    places = spread(fractions, points / height)
    if places:  # a label below the axes would run into the ticks
        lift = max(0.0, 0.03 - min(places))
        places = [place + lift for place in places]
    for (_, _, text, colour), at, moved in zip(ends, fractions, places, strict=True):
        axes.annotate(
            text,
            xy=(1.0, at),
            xycoords="axes fraction",
            xytext=(1.045, moved),
            textcoords="axes fraction",
            va="center",
            ha="left",
            color=colour,
            fontsize=8,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.6,
                "alpha": 0.7,
                "shrinkA": 1,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )


def error_floor(errors: Float[np.ndarray, "n"]) -> float:
    """Where a logarithmic axis shows an error of zero: at half the smallest error above zero.

    Example:
        >>> error_floor(np.array([0.0, 0.02, 0.5]))
        0.01
    """
    positive = errors[errors > 1e-12]  # 1 - accuracy may miss zero by a rounding
    return float(positive.min()) / 2 if positive.size else 0.005


def error_scale(
    axes: Axes,
    errors: np.ndarray,
    floor: float,
) -> None:
    """A logarithmic y axis over error rates (fractions), labelled in per cent.

    Args:
        axes: to set up.
        errors: every value that will be drawn; NaN is left out.
        floor: where an error of zero is drawn, see `error_floor`; it is labelled as zero.
    """
    finite = np.maximum(errors[np.isfinite(errors)], floor)
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.01, 1.0)
    low, high = low / 1.25, max(high * 1.25, low * 2)
    if high > 1:
        high = max(1.0, float(finite.max()) * 1.04) if finite.size else 1.0

    def written(error: float) -> str:
        return f"{0.0 if error <= floor else 100 * error:.6g}"

    axis = axes.yaxis
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    # 1-2-5 steps; the three decades cover what a small comparison resolves.
    steps = [s * 10.0**d for d in range(-4, 1) for s in (1, 2, 5)]
    ticks = [step for step in steps if low <= step <= high]
    if finite.size and finite.min() <= floor:
        ticks = [floor, *(tick for tick in ticks if tick > 1.5 * floor)]
    axis.set_ticks(ticks)
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda error, _: written(error)))


def plain_log(axis: Axis) -> None:
    """A logarithmic axis with ticks at 1, 2 and 5 times powers of ten, written out."""
    if axis is axis.axes.xaxis:
        axis.axes.set_xscale("log")
    else:
        axis.axes.set_yscale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def grid_of(
    figure: Figure, panels: int, columns: int = 2, *, sharex: bool = False, sharey: bool = False
) -> list[Axes]:
    """That many axes, row by row; the places that are left over stay empty.

    Example:
        >>> len(grid_of(new_figure(2.0), 3))
        3
    """
    columns = min(columns, max(1, panels))
    rows = -(-max(1, panels) // columns)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    for axes in grid.flat[panels:]:
        axes.set_axis_off()
    return list(grid.flat[:panels])


def wide_range(values: np.ndarray) -> bool:
    """Whether values are all positive and so far apart that only a logarithmic axis shows them.

    Example:
        >>> wide_range(np.array([0.01, 1.0])), wide_range(np.array([-1.0, 0.01, 1.0]))
        (True, False)
    """
    finite = values[np.isfinite(values)]
    return bool(finite.size and finite.min() > 0 and finite.max() > 5 * finite.min())
