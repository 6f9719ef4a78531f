"""Figures of the reports, from plain arrays: matplotlib's object interface, no global state.

Every function returns a `matplotlib.figure.Figure`; `to_png` renders it to bytes that depend on
nothing but the figure's data. In a notebook: `IPython.display.Image(to_png(figure))`.
"""

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
from research.plots.speech import (
    LengthError,
    alignment_figure,
    error_by_length,
)
from research.plots.style import Ink, palette, to_png, wide_range

__all__ = [
    "Curve",
    "Ink",
    "LengthError",
    "Ratio",
    "Scale",
    "Trial",
    "alignment_figure",
    "best_of_curves",
    "confusion_matrices",
    "error_by_length",
    "learning_curves",
    "learning_rate_sensitivity",
    "palette",
    "profile_curves",
    "rank_dots",
    "ratio_dots",
    "reached_curves",
    "score_strips",
    "to_png",
    "wide_range",
]
