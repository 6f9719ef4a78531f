"""Figures of the reports, from plain arrays: matplotlib's object interface, no global state.

Every function returns a `matplotlib.figure.Figure`; `to_png` renders it to bytes that depend on
nothing but the figure's data. In a notebook: `IPython.display.Image(to_png(figure))`.
"""

from research.plots.alignment import Heard, alignment_figure, alignment_figures, posterior_rows
from research.plots.comparison import Curve, Scale, confusion_matrices, learning_curves
from research.plots.methods import (
    Ratio,
    best_of_curves,
    profile_curves,
    rank_dots,
    ratio_dots,
    reached_curves,
    score_strips,
)
from research.plots.sensitivity import Trial, learning_rate_sensitivity
from research.plots.style import Ink, palette, to_png, wide_range
from research.plots.systems import (
    LengthError,
    Strip,
    diagnostic_strips,
    error_by_length,
    rate_strips,
    reliability_panels,
)

__all__ = [
    "Curve",
    "Heard",
    "Ink",
    "LengthError",
    "Ratio",
    "Scale",
    "Strip",
    "Trial",
    "alignment_figure",
    "alignment_figures",
    "best_of_curves",
    "confusion_matrices",
    "diagnostic_strips",
    "error_by_length",
    "learning_curves",
    "learning_rate_sensitivity",
    "palette",
    "posterior_rows",
    "profile_curves",
    "rank_dots",
    "rate_strips",
    "ratio_dots",
    "reached_curves",
    "reliability_panels",
    "score_strips",
    "to_png",
    "wide_range",
]
