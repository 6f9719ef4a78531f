"""Beam search over a stream: labels that are certain leave the beam, and nothing else changes."""

import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste

from research.speech.beam_search import (
    LabelAutomaton,
    beam_search,
    begin_beam_search,
    continue_beam_search,
)
from research.speech.streaming import commit_labels

FRAMES, CHUNK, BLANK = 160, 16, 3


@pytest.fixture(autouse=True)
def in_haste():
    """Most of the time of these tests is compilation."""
    with compiled_in_haste():
        yield


def utterances():
    """Logits, lengths and bigrams: much is said, often the same twice, or nothing at all."""
    rng = np.random.default_rng(0)
    logits = 2.5 * rng.normal(size=(4, FRAMES, 4))
    logits[:3, 1::2, BLANK] += 2.0
    logits[3, :, BLANK] += 20.0
    scores = np.log(rng.dirichlet(np.ones(4), 4)) + 0.5
    following = jnp.broadcast_to(jnp.arange(4), (4, 4))
    automaton = LabelAutomaton(jnp.asarray(scores, jnp.float32), following)
    return jnp.asarray(logits, jnp.float32), jnp.array([FRAMES, FRAMES, 141, FRAMES]), automaton


def stream(logits, lengths, automaton, *, max_labels, commit):
    """What each utterance came to, and the last state."""
    said: list[list[int]] = [[] for _ in lengths]
    state = begin_beam_search(len(lengths), width=4, max_labels=max_labels, blank_id=BLANK)
    for start in range(0, FRAMES, CHUNK):
        chunk, left = logits[:, start : start + CHUNK], jnp.clip(lengths - start, 0, CHUNK)
        state = continue_beam_search(state, chunk, left, automaton=automaton, blank_id=BLANK)
        if commit:
            done = commit_labels(state, blank_id=BLANK)
            state = done.state
            for words, labels, count in zip(said, done.labels, done.counts, strict=True):
                words += labels[:count].tolist()
                assert (labels[count:] == BLANK).all()
    return [
        [[*words, *labels[:count].tolist()] for labels, count in zip(beams, counts, strict=True)]
        for words, beams, counts in zip(said, state.labels, state.counts, strict=True)
    ], state


def test_a_stream_longer_than_its_beam_is_what_it_is_as_a_whole():
    logits, lengths, automaton = utterances()
    expected = beam_search(logits, lengths, width=4, automaton=automaton, blank_id=BLANK)
    assert expected.counts[:3, 0].min() > 40
    found, state = stream(logits, lengths, automaton, max_labels=40, commit=True)
    for i, beams in enumerate(found):
        for labels, row, count in zip(beams, expected.labels[i], expected.counts[i], strict=True):
            assert labels == row[:count].tolist()
    np.testing.assert_array_equal(state.scores, expected.scores)
    assert state.counts.max() < 40
    full, _ = stream(logits, lengths, automaton, max_labels=40, commit=False)
    assert [len(beams[0]) for beams in full] == [40, 40, 40, 0]


def test_what_is_not_common_stays():
    logits = jnp.log(jnp.array([[[0.1, 0.5, 0.4], [0.8, 0.1, 0.1]]]))
    state = beam_search(logits, jnp.array([2]), width=2)
    done = commit_labels(state)
    assert done.counts.tolist() == [0]
    for array, expected in zip(done.state, state, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_label_may_go_on_in_the_next_chunk():
    """By the last label alone the search knows that 1, 1 is one label and not two."""
    chunk = 9.0 * jnp.eye(3)[jnp.array([[1, 1]])]
    state = begin_beam_search(1, width=1, max_labels=2)
    for _ in range(2):
        state = commit_labels(continue_beam_search(state, chunk, jnp.array([2]))).state
    assert state.labels[0, 0, : state.counts[0, 0]].tolist() == [1]
