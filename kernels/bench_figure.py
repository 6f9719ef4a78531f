"""The roofline of the benchmark's records: operations per byte against operations per second."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from kernels.bench_report import PASSES, Record, RecordError, digits, groups

_INK, _QUIET, _RULE, _FAINT = "#22262b", "#6b7178", "#b9bec3", "#e9ebed"
# Okabe and Ito's colours, and a brown; ours first.
_OURS = ("#0072B2", "#56B4E9", "#004060", "#8FC1E0")
_PEERS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#4D4D4D", "#8C6D1F")
_OUR_MARKS, _PEER_MARKS = "oPDX", "^sv<>d"
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": _INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _QUIET,
    "ytick.labelcolor": _QUIET,
    "grid.color": _FAINT,
}
_DPI = 150


def write_figure(records: Sequence[Record], path: Path) -> None:
    """Draw a panel for each operation, dtype, pass, device and clock.

    Calls in loops and under ``vmap`` are drawn only where there are no others: tables have them.

    Args:
        records: of the benchmark.
        path: a name that matplotlib knows the format of, .png, .svg or .pdf.

    Raises:
        RecordError: nothing in the records was timed, or the format is unknown.
    """
    alone = [record for record in records if record["pass"] in ("forward", "gradient")]
    panels = {
        group: timed
        for group, members in groups(alone or records).items()
        if (timed := [record for record in members if record["status"] == "timed"])
    }
    if not panels:
        raise RecordError("a figure needs records of contestants that were timed; there are none.")
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise RecordError(f"a figure must be .png, .svg or .pdf; received {path}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context(["default", _STYLE]):
        figure = _draw(panels)
        metadata = {"Software": None} if path.suffix == ".png" else None
        figure.savefig(path, dpi=_DPI, metadata=metadata)


def _draw(panels: dict[tuple, list[Record]]) -> Figure:
    rows = list(dict.fromkeys(_row(group) for group in panels))
    passes = [which for which in PASSES if any(group[2] == which for group in panels)]
    height = 3.6 * len(rows) + 0.8
    figure = Figure(figsize=(5.4 * len(passes), height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(passes), squeeze=False)
    everyone = _inks([record for members in panels.values() for record in members])
    for i, row in enumerate(rows):
        for j, which in enumerate(passes):
            operation, dtype, device, clock = row
            members = panels.get((operation, dtype, which, device, clock))
            if members is None:
                axes[i, j].set_visible(False)
                continue
            _panel(axes[i, j], members, everyone)
            axes[i, j].set_title(f"{operation}, {dtype}, {PASSES[which]}\n{device}, {clock} clock")
    handles = [
        Line2D([], [], linestyle="", label=name, **ink, markersize=7)
        for name, ink in everyone.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    return figure


def _row(group: tuple) -> tuple:
    operation, dtype, _, device, clock = group
    return operation, dtype, device, clock


def _inks(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each contestant that was timed: ours filled, peers hollow."""
    found: dict[str, dict[str, Any]] = {}
    for ours, colours, marks in ((True, _OURS, _OUR_MARKS), (False, _PEERS, _PEER_MARKS)):
        timed = (r for r in records if r["ours"] == ours and r["status"] == "timed")
        names = dict.fromkeys(record["contestant"] for record in timed)
        for i, name in enumerate(names):
            colour = colours[i % len(colours)]
            found[name] = {
                "marker": marks[i % len(marks)],
                "markeredgecolor": "white" if ours else colour,
                "markerfacecolor": colour if ours else "white",
                "markeredgewidth": 0.7 if ours else 1.5,
            }
    return found


def _panel(axes: Axes, records: Sequence[Record], inks: dict[str, dict[str, Any]]) -> None:
    places = [(r["flops"] / r["bytes"], r["flops_per_second"]) for r in records]
    copy = max(r["copy_ceiling"] for r in records)
    matmul = max(r["matmul_ceiling"] for r in records)
    ridge = matmul / copy
    left = min(x for x, _ in places) / 2
    right = max(*(x for x, _ in places), ridge) * 2.5
    low = min(*(y for _, y in places), copy * left) / 2
    high = max(matmul, *(y for _, y in places)) * 2.5
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, high))
    axes.plot([left, ridge, right], [copy * left, matmul, matmul], color=_INK, linewidth=1.2)
    axes.grid(which="major")
    by_shape: dict[str, list[tuple[float, float]]] = {}
    for record, place in zip(records, places, strict=True):
        by_shape.setdefault(record["shape"], []).append(place)
    for shape_places in by_shape.values():
        x, y = zip(*shape_places, strict=True)
        axes.plot(x, y, color=_RULE, linewidth=0.8, zorder=1)
    for record, (x, y) in zip(records, places, strict=True):
        # Smaller and on top, so that equals show as one inside the other.
        size, layer = (6, 4) if record["ours"] else (8, 3)
        axes.plot(x, y, linestyle="", markersize=size, zorder=layer, **inks[record["contestant"]])
    axes.set_xlabel("operations per byte that must be moved")
    axes.set_ylabel("operations per second")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: digits(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _rate(value)))
    text = f"matmul {_rate(matmul)}FLOP/s"
    axes.annotate(
        text, (right, matmul), (-2, 4), textcoords="offset points", ha="right", color=_QUIET
    )
    axes.annotate(
        f"copy {digits(copy / 1e9)} GB/s",
        (left, copy * left),
        (12, -2),
        textcoords="offset points",
        va="top",
        color=_QUIET,
    )
    _name_shapes(axes, {name: max(found, key=lambda p: p[1]) for name, found in by_shape.items()})


def _name_shapes(axes: Axes, places: dict[str, tuple[float, float]]) -> None:
    """Names beside the panel, each with a line to the fastest contestant of its shape."""
    low, high = np.log(axes.get_ylim())
    heights = {name: (np.log(y) - low) / (high - low) for name, (_, y) in places.items()}
    names = sorted(heights, key=lambda name: heights[name])
    gap = 0.065
    placed: list[float] = []
    for name in names:
        placed.append(max(heights[name], placed[-1] + gap if placed else 0.0))
    for i in reversed(range(len(placed))):  # back below the top, keeping the gaps
        placed[i] = min(placed[i], 1.0 - gap * (len(placed) - 1 - i))
    for name, height in zip(names, placed, strict=True):
        axes.annotate(
            name,
            places[name],
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops={
                "arrowstyle": "-",
                "color": _RULE,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 5,
                "relpos": (0, 0.5),
            },
            zorder=2,
        )


def _rate(value: float) -> str:
    """Operations a second, "20 G"."""
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{digits(value / scale)} {prefix}"
    return f"{digits(value)} "
