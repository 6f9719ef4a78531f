"""Beam search against sums over all paths, and against the same search over dictionaries."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste

import kernels
from research.errors import ConfigError
from research.speech.beam_search import (
    LabelAutomaton,
    beam_search,
    begin_beam_search,
    continue_beam_search,
    finish_beam_search,
)


@pytest.fixture(autouse=True)
def in_haste():
    """Most of the time of these tests is compilation."""
    with compiled_in_haste():
        yield


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def collapse(path, blank_id):
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != blank_id)


def sums_over_paths(logits, blank_id):
    """Log-probability of every labelling, from every path."""
    log_probs = log_softmax(logits)
    sums: dict[tuple, float] = {}
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        score = sum(log_probs[t, k] for t, k in enumerate(path))
        labels = collapse(path, blank_id)
        sums[labels] = np.logaddexp(sums.get(labels, -np.inf), score)
    return sums


def found_by(state, row=0):
    """The labellings of a state with their log-probabilities, best first."""
    rows = zip(
        np.asarray(state.labels[row]),
        np.asarray(state.counts[row]),
        np.asarray(state.log_probs[row]).tolist(),
        strict=True,
    )
    return {tuple(labels[:count].tolist()): p for labels, count, p in rows if p > -np.inf}


def search_with_dictionaries(logits, width, *, top=None, automaton=None, blank_id=0):
    """Prefix beam search as it is written in textbooks: prefixes are tuples."""
    log_probs = log_softmax(logits)
    scores: dict[tuple, float] = {(): 0.0}
    states: dict[tuple, int] = {(): 0}
    beam: dict[tuple, tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in log_probs:
        labels = [k for k in range(len(frame)) if k != blank_id]
        allowed = sorted(labels, key=lambda k: -frame[k])[:top]
        moved: dict[tuple, tuple[float, float]] = {}

        def add(prefix, blank, label, moved=moved):
            old = moved.get(prefix, (-math.inf, -math.inf))
            moved[prefix] = (np.logaddexp(old[0], blank), np.logaddexp(old[1], label))

        for prefix, (blank, label) in beam.items():
            total = np.logaddexp(blank, label)
            add(prefix, total + frame[blank_id], label + frame[prefix[-1]] if prefix else -math.inf)
            for k in labels:
                longer = (*prefix, k)
                if k not in allowed and longer not in beam:
                    continue
                add(longer, -math.inf, frame[k] + (blank if prefix[-1:] == (k,) else total))
                if automaton is not None and longer not in scores:
                    scores[longer] = scores[prefix] + float(automaton.scores[states[prefix], k])
                    states[longer] = int(automaton.next_states[states[prefix], k])
        ranked = sorted(
            moved, key=lambda p: -np.logaddexp(moved[p][0], moved[p][1]) - scores.get(p, 0.0)
        )
        beam = {prefix: moved[prefix] for prefix in ranked[:width]}
    return {prefix: float(np.logaddexp(pair[0], pair[1])) for prefix, pair in beam.items()}


@pytest.mark.parametrize("blank_id", [0, 2])
def test_a_beam_as_wide_as_all_labellings_is_exact(blank_id):
    rng = np.random.default_rng(blank_id)
    logits = 1.5 * rng.normal(size=(8, 6, 3))
    lengths = np.array([6, 6, 6, 6, 5, 4, 1, 0])
    with jax.enable_x64(True):
        state = beam_search(jnp.asarray(logits), jnp.asarray(lengths), width=128, blank_id=blank_id)
        assert state.log_probs.dtype == jnp.float64
    for i, length in enumerate(lengths):
        exact = sums_over_paths(logits[i, :length], blank_id)
        found = found_by(state, i)
        assert list(found) == sorted(exact, key=lambda labels: -exact[labels])
        np.testing.assert_allclose([*found.values()], [exact[labels] for labels in found])
        assert sum(map(math.exp, found.values())) == pytest.approx(1)


@pytest.mark.parametrize(("width", "top"), [(4, None), (7, None), (7, 2)])
def test_a_narrow_beam_is_that_over_dictionaries(width, top):
    """Few sharp classes: prefixes are dropped and found again while kept ones go on from them."""
    rng = np.random.default_rng(1)
    logits = 3 * rng.normal(size=(48, 30, 3 if top is None else 4))
    logits[:24, :, 0] += 1.0
    with jax.enable_x64(True):
        state = beam_search(jnp.asarray(logits), jnp.full(48, 30), width=width, top_classes=top)
    for i in range(48):
        expected = search_with_dictionaries(logits[i], width, top=top)
        found = found_by(state, i)
        assert list(found) == list(expected)
        np.testing.assert_allclose([*found.values()], [*expected.values()], rtol=1e-9)


def test_narrow_beams_are_lower_bounds_in_float32():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(2 * rng.normal(size=(4, 40, 6)), jnp.float32)
    state = beam_search(logits, jnp.full(4, 40), width=8)
    paddings = jnp.arange(40)[None, None, :] >= state.counts[:, :, None]
    of_beam = jax.vmap(kernels.ctc_loss, (None, None, 1, 1), 1)
    exact = -jax.jit(of_beam)(logits, jnp.zeros((4, 40)), state.labels, paddings)
    assert (state.log_probs <= exact + 1e-4).all()
    assert (jnp.diff(state.log_probs, axis=1) <= 0).all()
    for i in range(4):
        assert len(found_by(state, i)) == 8  # all different


def test_chunks_give_what_the_whole_gives():
    rng = np.random.default_rng(2)
    logits = jnp.asarray(rng.normal(size=(4, 24, 4)), jnp.float32)
    lengths = jnp.array([24, 17, 8, 0])
    automaton = random_bigrams(rng, 4)
    whole = beam_search(logits, lengths, width=6, top_classes=2, automaton=automaton)
    state = begin_beam_search(4, width=6, max_labels=24)
    for start in range(0, 24, 8):
        state = continue_beam_search(
            state,
            logits[:, start : start + 8],
            jnp.clip(lengths - start, 0, 8),
            top_classes=2,
            automaton=automaton,
        )
    for array, expected in zip(state, whole, strict=True):
        np.testing.assert_array_equal(array, expected)


def random_bigrams(rng, classes):
    scores = np.log(rng.dirichlet(np.ones(classes), classes)) + 0.5
    return LabelAutomaton(
        jnp.asarray(scores, jnp.float32), jnp.broadcast_to(jnp.arange(classes), (classes, classes))
    )


def test_the_automaton_is_added_to_the_posterior():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(5, 5, 3))
    # Three states: not a bigram. One label is forbidden in one of them.
    automaton = LabelAutomaton(
        jnp.asarray(rng.normal(size=(3, 3)), jnp.float32).at[2, 1].set(-jnp.inf),
        jnp.asarray(rng.integers(0, 3, size=(3, 3))),
    )
    with jax.enable_x64(True):
        state = beam_search(jnp.asarray(logits), jnp.full(5, 5), width=64, automaton=automaton)
    for i in range(5):
        expected = {}
        for labels, log_prob in sums_over_paths(logits[i], 0).items():
            score, at = 0.0, 0
            for label in labels:
                score += float(automaton.scores[at, label])
                at = int(automaton.next_states[at, label])
            if score > -math.inf:
                expected[labels] = log_prob + score
        found = found_by(state, i)
        assert list(found) == sorted(expected, key=lambda labels: -expected[labels])
        np.testing.assert_allclose(
            state.scores[i, : len(found)], sorted(expected.values(), reverse=True), rtol=1e-6
        )


def test_the_end_of_a_labelling_has_a_score_too():
    rng = np.random.default_rng(9)
    logits = jnp.asarray(rng.normal(size=(4, 5, 3)))
    ends = jnp.asarray(2 * rng.normal(size=3)).at[1].set(-jnp.inf)
    automaton = random_bigrams(rng, 3)._replace(ends=ends)
    with jax.enable_x64(True):
        arguments = jnp.asarray(logits, jnp.float64), jnp.full(4, 5)
        state = beam_search(*arguments, width=64, automaton=automaton)
        begun = begin_beam_search(4, width=64, max_labels=5, dtype=jnp.float64)
        begun = continue_beam_search(begun, *arguments, automaton=automaton)
        finished = finish_beam_search(begun, automaton)
    for array, expected in zip(finished, state, strict=True):
        np.testing.assert_array_equal(array, expected)
    for i in range(4):
        expected = {}
        for labels, log_prob in sums_over_paths(logits[i], 0).items():
            path = (0, *labels)
            score = sum(float(automaton.scores[a, b]) for a, b in itertools.pairwise(path))
            if path[-1] != 1:  # it is forbidden to end with label 1
                expected[labels] = log_prob + score + float(ends[path[-1]])
        found = found_by(state, i)
        assert list(found) == sorted(expected, key=lambda labels: -expected[labels])
        np.testing.assert_allclose(
            state.scores[i, : len(found)], sorted(expected.values(), reverse=True), rtol=1e-6
        )
        assert not state.labels[i, len(found) :].any()
        assert not state.counts[i, len(found) :].any()


def test_a_narrow_beam_with_an_automaton_is_that_over_dictionaries():
    rng = np.random.default_rng(4)
    logits, automaton = rng.normal(size=(6, 20, 4)), random_bigrams(rng, 4)
    with jax.enable_x64(True):
        state = beam_search(jnp.asarray(logits), jnp.full(6, 20), width=5, automaton=automaton)
    for i in range(6):
        expected = search_with_dictionaries(logits[i], 5, automaton=automaton)
        found = found_by(state, i)
        assert list(found) == list(expected)
        np.testing.assert_allclose([*found.values()], [*expected.values()], rtol=1e-6)


def test_what_lies_beyond_the_length_does_not_matter_even_nan():
    logits = np.random.default_rng(5).normal(size=(2, 8, 4)).astype(np.float32)
    lengths = jnp.array([5, 0])
    clean = beam_search(jnp.asarray(logits), lengths, width=4)
    logits[0, 5:], logits[1] = np.nan, np.inf
    spoilt = beam_search(jnp.asarray(logits), lengths, width=4)
    for array, expected in zip(spoilt, clean, strict=True):
        np.testing.assert_array_equal(array, expected)
    assert found_by(spoilt, 1) == {(): 0.0}


def test_labellings_of_at_most_so_many_labels():
    logits = np.random.default_rng(6).normal(size=(1, 5, 3))
    with jax.enable_x64(True):
        state = beam_search(jnp.asarray(logits), jnp.array([5]), width=64, max_labels=2)
    assert state.labels.shape == (1, 64, 2)
    exact, found = sums_over_paths(logits[0], 0), found_by(state)
    assert set(found) == {labels for labels in exact if len(labels) <= 2}
    np.testing.assert_allclose([*found.values()], [exact[labels] for labels in found])


def test_impossible_classes_make_impossible_labellings():
    logits = np.zeros((1, 3, 3), np.float32)
    logits[0, :, 2] = -np.inf
    logits[0, 1, 0] = -np.inf
    state = beam_search(jnp.asarray(logits), jnp.array([3]), width=16)
    assert set(found_by(state)) == {(1,)}
    assert not jnp.isnan(state.log_probs).any()
    assert not state.counts[0, 1:].any()
    assert not state.labels[0, 1:].any()


def test_long_inputs_lose_no_digits():
    """The sums over 4000 frames are tens of thousands; what tells prefixes apart is not."""
    rng = np.random.default_rng(7)
    logits = np.tile(rng.normal(size=(1, 1, 30)), (1, 4000, 1))
    logits[:, -6:] = 2 * rng.normal(size=(6, 30))
    logits[:, :-6, 0] += 25.0  # nothing is said until the end
    state = beam_search(jnp.asarray(logits, jnp.float32), jnp.array([4000]), width=4, max_labels=8)
    with jax.enable_x64(True):
        exact = beam_search(jnp.asarray(logits), jnp.array([4000]), width=4, max_labels=8)
    np.testing.assert_array_equal(state.labels, exact.labels)
    np.testing.assert_allclose(
        jnp.logaddexp(state.blank, state.label), jnp.logaddexp(exact.blank, exact.label), atol=1e-4
    )


def test_runs_inside_jit_and_vmap():
    rng = np.random.default_rng(8)
    logits = jnp.asarray(rng.normal(size=(2, 3, 7, 4)), jnp.bfloat16)
    lengths = jnp.array([[7, 4, 2], [1, 7, 0]])
    mapped = jax.jit(jax.vmap(lambda x, n: beam_search(x, n, width=3)))(logits, lengths)
    for i in range(2):
        for array, expected in zip(
            mapped, beam_search(logits[i], lengths[i], width=3), strict=True
        ):
            np.testing.assert_array_equal(array[i], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width must be at least 1"),
        ({"max_labels": -1}, "max_labels at least 0"),
        ({"top_classes": 0}, "top_classes must be at least 1"),
        ({"blank_id": 3}, r"0\.\.2"),
        ({"lengths": jnp.array([4, 4])}, "lengths"),
        ({"automaton": LabelAutomaton(jnp.zeros((2, 4)), jnp.zeros((2, 4), int))}, "automaton"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"logits": jnp.zeros((1, 4, 3)), "lengths": jnp.array([4])} | change
    with pytest.raises(ConfigError, match=message):
        beam_search(**arguments)


def test_no_frame_at_all_gives_no_label_and_changes_no_state():
    found = beam_search(jnp.zeros((2, 0, 3)), jnp.zeros(2, jnp.int32), width=2)
    assert found.counts[:, 0].tolist() == [0, 0]
    assert found.log_probs[:, 0].tolist() == [0.0, 0.0]
    state = begin_beam_search(1, width=2, max_labels=3)
    logits = log_softmax(np.random.default_rng(0).normal(size=(1, 4, 3)))
    state = continue_beam_search(state, jnp.asarray(logits), jnp.array([4]))
    after = continue_beam_search(state, jnp.zeros((1, 0, 3)), jnp.array([0]))
    for before, now in zip(state, after, strict=True):
        np.testing.assert_array_equal(before, now)
