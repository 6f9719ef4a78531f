import itertools

import numpy as np
import pytest

from research.errors import DataError
from research.speech.alignment import viterbi_alignment


def collapse(path, blank_id: int) -> list[int]:
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != blank_id]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def path_score(log_probs: np.ndarray, path) -> float:
    return float(log_probs[np.arange(len(path)), list(path)].sum())


@pytest.mark.parametrize("blank_id", [0, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_no_path_of_the_labels_is_likelier(blank_id, count):
    rng = np.random.default_rng(10 * count + blank_id)
    frames, classes = 6, 3
    others = [c for c in range(classes) if c != blank_id]
    for _ in range(12):
        log_probs = log_softmax(2 * rng.normal(size=(frames, classes)))
        labels = rng.choice(others, count)
        best = max(
            path_score(log_probs, path)
            for path in itertools.product(range(classes), repeat=frames)
            if collapse(path, blank_id) == labels.tolist()
        )
        alignment = viterbi_alignment(log_probs, labels, blank_id)
        assert collapse(alignment.frames.tolist(), blank_id) == labels.tolist()
        assert path_score(log_probs, alignment.frames) == pytest.approx(best, abs=1e-9)


def test_spans_and_scores_describe_the_path():
    rng = np.random.default_rng(0)
    for _ in range(30):
        log_probs = log_softmax(rng.normal(size=(15, 4)))
        labels = rng.integers(1, 4, 5)
        frames, spans, scores = viterbi_alignment(log_probs, labels)
        assert frames.shape == (15,)
        assert spans.shape == (5, 2)
        rebuilt = np.zeros(15, int)
        for label, (start, end), score in zip(labels, spans, scores, strict=True):
            assert 0 <= start < end <= 15
            assert not rebuilt[start:end].any()
            rebuilt[start:end] = label
            assert score == pytest.approx(log_probs[start:end, label].sum())
        np.testing.assert_array_equal(rebuilt, frames)
        assert (np.diff(spans[:, 0]) > 0).all()


def test_as_many_frames_as_the_labels_need_leave_one_path():
    frames, spans, _ = viterbi_alignment(np.log(np.full((4, 3), 1 / 3)), np.array([1, 1, 2]))
    assert frames.tolist() == [1, 0, 1, 2]
    assert spans.tolist() == [[0, 1], [2, 3], [3, 4]]


def test_no_labels_are_all_blank():
    frames, spans, scores = viterbi_alignment(np.log(np.full((3, 2), 0.5)), np.array([], int))
    assert frames.tolist() == [0, 0, 0]
    assert spans.shape == (0, 2)
    assert scores.shape == (0,)


def test_impossible_classes_are_avoided():
    log_probs = np.log(np.full((3, 3), 1 / 3))
    log_probs[0, 1] = -np.inf
    assert viterbi_alignment(log_probs, np.array([1])).frames[0] == 0


def test_labels_out_of_the_sharpest_frames_are_found():
    probabilities = np.full((30, 5), 0.02)
    probabilities[:, 0] = 0.92
    for frame, label in ((4, 2), (5, 2), (17, 4), (28, 2)):
        probabilities[frame] = 0.02
        probabilities[frame, label] = 0.92
    _, spans, _ = viterbi_alignment(np.log(probabilities), np.array([2, 4, 2]))
    assert spans.tolist() == [[4, 6], [17, 18], [28, 29]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 1, 2], "at least 4 frames"),
        ([1, 1, 2], "at least 4 frames"),
        ([0], "differ from the blank"),
        ([3], r"0\.\.2"),
        ([-1], r"0\.\.2"),
    ],
)
def test_labels_that_cannot_be_aligned_are_errors(labels, message):
    with pytest.raises(DataError, match=message):
        viterbi_alignment(np.log(np.full((3, 3), 1 / 3)), np.array(labels))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_log_probabilities_must_be_numbers(value):
    log_probs = np.log(np.full((3, 3), 1 / 3))
    log_probs[1, 2] = value
    with pytest.raises(DataError, match="NaN"):
        viterbi_alignment(log_probs, np.array([1]))


def test_a_label_that_is_impossible_everywhere_is_an_error():
    log_probs = np.log(np.full((3, 3), 1 / 3))
    log_probs[:, 1] = -np.inf
    with pytest.raises(DataError, match="probability 0"):
        viterbi_alignment(log_probs, np.array([1]))


@pytest.mark.parametrize(("shape", "blank_id"), [((0, 3), 0), ((3,), 0), ((3, 3), 3)])
def test_shapes_and_blank_are_checked(shape, blank_id):
    with pytest.raises(DataError):
        viterbi_alignment(np.zeros(shape), np.array([1]), blank_id)
