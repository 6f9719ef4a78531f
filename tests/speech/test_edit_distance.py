"""Edit distances in JAX are jiwer's."""

import jax
import jax.numpy as jnp
import numpy as np

from research.speech.edit_distance import edit_distance
from research.speech.error_rates import count_errors


def test_as_many_edits_as_jiwer_counts_whatever_lies_in_padding():
    rng = np.random.default_rng(0)
    rows, longest, heard = 300, 6, 9
    references = rng.integers(0, 4, (rows, longest))
    hypotheses = rng.integers(0, 4, (rows, heard))
    lengths = rng.integers(0, longest + 1, rows), rng.integers(0, heard + 1, rows)
    expected = [
        count.errors
        for count in count_errors(
            [row[:n].tolist() for row, n in zip(references, lengths[0], strict=True)],
            [row[:n].tolist() for row, n in zip(hypotheses, lengths[1], strict=True)],
        )
    ]
    arrays = [jnp.asarray(a) for a in (references, lengths[0], hypotheses, lengths[1])]
    found = jax.jit(edit_distance)(*arrays)
    assert found.tolist() == expected
    assert min(e for e in expected if e) > 0
    assert max(expected) == heard


def test_it_maps_over_hypotheses_of_many_models():
    said, lengths = jnp.array([[1, 2, 3]]), jnp.array([3])
    heard = jnp.array([[[1, 2, 3]], [[3, 2, 1]], [[1, 1, 1]]])
    mapped = jax.vmap(edit_distance, in_axes=(None, None, 0, None))
    assert mapped(said, lengths, heard, lengths).ravel().tolist() == [0, 2, 2]
