"""What is drawn of an utterance lies where it was said, whoever recognised it."""

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import Rectangle

from research import plots
from research.plots import posteriors

SPANS = np.array([[0.1, 0.3], [0.5, 0.9]])
NAMES = ["blank", "a", "b", "c"]


def log_posteriors(path, certainty=0.9):
    rest = (1 - certainty) / (len(NAMES) - 1)
    return np.log(np.where(np.eye(len(NAMES))[path] > 0, certainty, rest))


def shades(axes):
    """Begin and end of each shaded stretch."""
    patches = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [[patch.get_x(), patch.get_x() + patch.get_width()] for patch in patches]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def draw_rows():
    rows = {"sure": log_posteriors([0, 1, 0, 2, 2]), "wrong": log_posteriors([0, 3, 0, 2, 0])}
    return posteriors.recogniser_rows(
        rows,
        frame_seconds=0.2,
        names=NAMES,
        labels=[1, 2],
        spans=SPANS,
        notes={"sure": "a b", "wrong": "c b"},
    )


def draw_boundaries():
    aligned = {"one": SPANS, "other": posteriors.span_seconds(np.array([[1, 2], [3, 5]]), 0.2)}
    return posteriors.boundary_rows(np.sin(np.arange(8000.0)), 8000, SPANS, ["a", "b"], aligned)


def draw_front_ends():
    rng = np.random.default_rng(0)
    spectrograms = {
        name: posteriors.Spectrogram(rng.normal(size=(frames, 8)), 1 / frames)
        for name, frames in (("x", 100), ("y", 50), ("z", 20))
    }
    return posteriors.front_ends(np.sin(np.arange(8000.0)), 8000, spectrograms)


def test_every_row_is_shaded_where_its_labels_were_said():
    first, second = draw_rows().axes
    for axes in (first, second):
        np.testing.assert_allclose(shades(axes), SPANS)
        assert axes.get_xlim() == (0.0, 1.0)
    # Above the row where each was said, then where it is heard, then the transcript.
    assert texts(first) == ["a", "b", "blank", "a", "b", "a b"]
    assert texts(second) == ["blank", "b", "c", "c b"]


def test_aligned_words_lie_in_seconds():
    top, bottom = draw_boundaries().axes
    np.testing.assert_allclose(shades(top), SPANS)
    boxes = [[p.get_extents() for p in bars.get_paths()] for bars in bottom.collections]
    bars = np.array([[[box.x0, box.x1] for box in row] for row in boxes])
    np.testing.assert_allclose(bars[0], SPANS)
    np.testing.assert_allclose(bars[1], [[0.2, 0.4], [0.6, 1.0]])
    assert [label.get_text() for label in bottom.get_yticklabels()] == ["one", "other"]


def test_front_ends_share_the_time_of_the_waveform():
    figure = draw_front_ends()
    assert [axes.get_title("left") for axes in figure.axes] == ["waveform", "x", "y", "z"]
    for axes in figure.axes:
        assert axes.get_xlim() == (0.0, 1.0)
    for axes in figure.axes[1:]:
        assert axes.images[0].get_extent() == pytest.approx([0, 1, 0, 8])


@pytest.mark.parametrize("draw", [draw_rows, draw_boundaries, draw_front_ends])
def test_the_same_data_give_the_same_bytes(draw):
    before = dict(matplotlib.rcParams)
    assert plots.to_png(draw()) == plots.to_png(draw())
    assert dict(matplotlib.rcParams) == before
