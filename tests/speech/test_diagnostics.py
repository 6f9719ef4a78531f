"""Diagnostics by cases worked out by hand, and by the pieces that they must agree with."""

import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from research.errors import DataError
from research.speech.decoding import greedy_decode
from research.speech.diagnostics import (
    boundary_errors,
    frame_statistics,
    measure_cost,
    reliability,
    token_confidences,
)
from research.speech.error_rates import correct_symbols


def logits_of(path, probability, classes=4):
    """Each frame gives its class this probability, the others an equal share of the rest."""
    path = np.asarray(path)
    rest = np.full((*path.shape, classes), (1 - probability) / (classes - 1))
    np.put_along_axis(rest, path[..., None], probability, axis=-1)
    return np.log(rest)


def test_boundaries_of_an_alignment_are_compared_in_milliseconds():
    logits = logits_of([[0, 1, 1, 0, 2, 0], [3, 0, 0, 0, 0, 0]], 0.97)
    paddings = np.array([[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    labels, label_paddings = np.array([[1, 2], [3, 0]]), np.array([[0, 0], [0, 1]])
    aligned = kernels.ctc_alignment(
        jnp.asarray(logits), jnp.asarray(paddings), jnp.asarray(labels), jnp.asarray(label_paddings)
    )
    # At 40 ms a frame: label 1 from 40 to 120 ms, label 2 from 160 to 200, label 3 from 0 to 40.
    reference = np.array([[[0.05, 0.10], [0.16, 0.26]], [[0.0, 0.5], [7.0, 8.0]]])
    errors = boundary_errors(np.asarray(aligned.spans), reference, label_paddings > 0, 0.04)
    np.testing.assert_allclose(errors, [[10, 20], [0, 60], [0, 460]], atol=1e-6)


def test_labels_without_a_path_are_left_out():
    spans = np.array([[[0, 0], [0, 0]], [[2, 3], [3, 5]]])
    errors = boundary_errors(spans, np.zeros((2, 2, 2)), np.zeros((2, 2), bool), 0.01)
    np.testing.assert_allclose(errors, [[20, 30], [30, 50]])


def test_a_reference_that_runs_backwards_is_refused_but_not_in_padding():
    spans, backwards = np.array([[[0, 1]]]), np.array([[[2.0, 1.0]]])
    with pytest.raises(DataError, match="before it begins"):
        boundary_errors(spans, backwards, np.array([[False]]), 0.01)
    assert boundary_errors(spans, backwards, np.array([[True]]), 0.01).shape == (0, 2)
    with pytest.raises(DataError, match=r"\(B, N, 2\)"):
        boundary_errors(spans, backwards[0], np.array([[False]]), 0.01)


def test_statistics_of_frames_by_hand():
    path = [[0, 1, 1, 2, 0, 2, 3, 3], [0, 0, 0, 0, 0, 1, 1, 1]]
    found = frame_statistics(logits_of(path, 0.7) + 5.0, np.array([7, 5]))
    np.testing.assert_allclose(found.blank_fraction, [2 / 7, 1.0])
    # Runs of 1, 2, 2 and 3 within seven frames: 2 + 1 + 1 + 1 frames.
    np.testing.assert_allclose(found.width, [5 / 4, np.nan])
    np.testing.assert_allclose(found.peak, [0.7, np.nan])
    entropy = -(0.7 * np.log(0.7) + 0.3 * np.log(0.1))
    np.testing.assert_allclose(found.entropy, entropy)


def test_statistics_know_other_blanks_certainty_and_uniform_frames():
    certain = np.where(np.arange(3) == 2, 0.0, -np.inf)[None, None, :]
    found = frame_statistics(certain, np.array([1]), blank_id=2)
    assert (found.blank_fraction, found.entropy) == (1.0, 0.0)
    assert frame_statistics(certain, np.array([1])).peak == 1.0
    uniform = frame_statistics(np.zeros((1, 2, 8)), np.array([2]))
    np.testing.assert_allclose(uniform.entropy, np.log(8))


@pytest.mark.parametrize("lengths", [[0], [3], [1, 1]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(DataError, match="lengths"):
        frame_statistics(np.zeros((1, 2, 3)), np.array(lengths))


def test_every_greedy_label_has_the_best_confidence_of_its_run():
    rng = np.random.default_rng(0)
    logits, lengths = 2 * rng.normal(size=(5, 20, 4)), np.array([20, 1, 7, 13, 20])
    confidences = token_confidences(logits, lengths)
    tokens, counts = map(np.asarray, greedy_decode(jnp.asarray(logits), jnp.asarray(lengths)))
    probs = np.exp(logits - np.logaddexp.reduce(logits, axis=2, keepdims=True))
    for i, (found, count) in enumerate(zip(confidences, counts, strict=True)):
        assert len(found) == count
        frame = 0
        for label, confidence in zip(tokens[i, :count], found, strict=True):
            path = probs[i, : lengths[i]].argmax(axis=1)
            while path[frame] != label:
                frame += 1
            run = []
            while frame < lengths[i] and path[frame] == label:
                run.append(probs[i, frame, label])
                frame += 1
            assert confidence == pytest.approx(max(run))
    assert sum(counts) > 10


def test_calibration_error_by_hand():
    confidences = [np.array([0.95, 0.85]), np.array([0.75, 0.15, 0.5])]
    correct = correct_symbols(["ab", "xyz"], ["ac", "xyw"])
    assert correct == [[True, False], [True, True, False]]
    found = reliability(confidences, correct, bins=2)
    assert found.counts.tolist() == [2, 3]  # 0.5 belongs to the lower bin
    np.testing.assert_allclose(found.accuracy, [1 / 2, 2 / 3])
    np.testing.assert_allclose(found.confidence, [0.325, 0.85])
    expected = (2 * (0.5 - 0.325) + 3 * (0.85 - 2 / 3)) / 5
    assert found.calibration_error == pytest.approx(expected)


def test_a_calibrated_claim_has_no_calibration_error():
    confidence, right = [np.full(10, 0.7)], [[True] * 7 + [False] * 3]
    found = reliability(confidence, right)
    assert found.calibration_error == pytest.approx(0.0)
    assert np.isnan(found.accuracy).sum() == 9


@pytest.mark.parametrize(
    ("confidences", "correct"),
    [([0.5, 0.5], [True]), ([1.5], [True]), ([-0.1], [True]), ([], []), ([np.nan], [True])],
)
def test_confidences_that_do_not_fit_are_refused(confidences, correct):
    with pytest.raises(DataError, match="confidence"):
        reliability([np.array(confidences)], [correct])


def test_cost_is_the_median_of_calls_after_the_first(monkeypatch):
    now, calls = [0.0], []

    def recognise():
        calls.append(None)
        now[0] += {1: 100.0, 2: 7.0, 3: 1.0, 4: 3.0}[len(calls)]
        return jnp.zeros(())

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    cost = measure_cost(recognise, 60.0, rounds=3)
    assert cost.seconds == 3.0
    assert cost.real_time_factor == pytest.approx(0.05)
    assert cost.seconds_per_hour == pytest.approx(180.0)
    with pytest.raises(DataError, match="audio"):
        measure_cost(recognise, 0.0)
