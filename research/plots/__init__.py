"""Figures of the reports, from plain arrays: matplotlib's object interface, no global state.

Every function returns a `matplotlib.figure.Figure`; `to_png` renders it to bytes that depend on
nothing but the figure's data. In a notebook: `IPython.display.Image(to_png(figure))`.
"""

from research.plots.comparison import (
    Curve,
    Scale,
    Score,
    confusion_matrices,
    learning_curves,
    learning_rate_sensitivity,
    score_strips,
)
from research.plots.speech import (
    LengthError,
    alignment_figure,
    error_by_length,
)
from research.plots.style import Ink, palette, to_png

__all__ = [
    "Curve",
    "Ink",
    "LengthError",
    "Scale",
    "Score",
    "alignment_figure",
    "confusion_matrices",
    "error_by_length",
    "learning_curves",
    "learning_rate_sensitivity",
    "palette",
    "score_strips",
    "to_png",
]
