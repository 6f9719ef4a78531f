import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.speech.decoding import greedy_decode

pytestmark = pytest.mark.usefixtures("in_haste")


def collapse(path: list[int], blank_id: int) -> list[int]:
    """Merge repeats, then drop blanks, as the definition says."""
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != blank_id]


@pytest.mark.parametrize("blank_id", [0, 2, 3])
def test_decoding_collapses_the_best_path(blank_id):
    rng = np.random.default_rng(blank_id)
    batch, frames, classes = 300, 9, 4
    logits = rng.normal(size=(batch, frames, classes))
    # Few classes and a favoured one make repeats and blanks frequent.
    logits[..., blank_id] += 0.7
    lengths = rng.integers(0, frames + 1, batch)
    tokens, counts = greedy_decode(jnp.asarray(logits), jnp.asarray(lengths), blank_id)
    assert tokens.shape == (batch, frames)
    assert tokens.dtype == counts.dtype == jnp.int32
    tokens, counts = np.asarray(tokens), np.asarray(counts)
    for i in range(batch):
        expected = collapse(logits[i, : lengths[i]].argmax(axis=-1).tolist(), blank_id)
        assert tokens[i, : counts[i]].tolist() == expected
        assert (tokens[i, counts[i] :] == blank_id).all()


def test_every_path_of_four_frames():
    paths = np.array(list(itertools.product(range(3), repeat=4)))
    tokens, counts = greedy_decode(jax.nn.one_hot(paths, 3), jnp.full(len(paths), 4))
    rows = zip(paths.tolist(), np.asarray(tokens), np.asarray(counts), strict=True)
    for path, row, count in rows:
        assert row[:count].tolist() == collapse(path, 0)


def test_what_lies_beyond_the_length_does_not_matter_even_nan():
    logits = np.random.default_rng(0).normal(size=(4, 8, 5))
    lengths = jnp.array([8, 5, 1, 0])
    tokens, counts = greedy_decode(jnp.asarray(logits), lengths)
    for i, length in enumerate(lengths.tolist()):
        logits[i, length:] = np.nan
    again, again_counts = greedy_decode(jnp.asarray(logits), lengths)
    np.testing.assert_array_equal(tokens, again)
    np.testing.assert_array_equal(counts, again_counts)


def test_decoding_runs_inside_jit_and_vmap():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 7, 4)))
    lengths = jnp.array([[7, 4, 2], [1, 7, 0]])
    tokens, counts = jax.jit(jax.vmap(greedy_decode))(logits, lengths)
    for i in range(2):
        expected, expected_counts = greedy_decode(logits[i], lengths[i])
        np.testing.assert_array_equal(tokens[i], expected)
        np.testing.assert_array_equal(counts[i], expected_counts)
