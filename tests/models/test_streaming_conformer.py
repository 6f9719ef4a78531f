"""The streaming Conformer: chunk by chunk it gives what it gives for the whole."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_matrix import compiled_in_haste

from research.models.conformer import SIZES, Conformer

BINS, CHUNK = 6, 3
LENGTHS = jnp.array([48, 29])


def conformer(left: int = 5, layers: int = 2, intermediate: tuple[int, ...] = ()):
    return Conformer(
        classes=5,
        width=8,
        layers=layers,
        heads=2,
        size=4,
        dropout=0.0,
        chunk=CHUNK,
        left=left,
        intermediate=intermediate,
        self_conditioned=bool(intermediate),
    )


def features(seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2, 48, BINS)), jnp.float32)


def random_parameters(model):
    """Parameters away from their start, without compiling what makes them."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), features(), LENGTHS)
    return jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), x.dtype), shapes)


class Streamed:
    """A model, its parameters, and its step compiled once."""

    def __init__(self, model):
        self.model, self.params = model, random_parameters(model)
        apply = functools.partial(model.apply, self.params, method="stream")
        self.traced = 0

        def step(*arguments):
            self.traced += 1
            return apply(*arguments)

        self.step = jax.jit(step)

    def __call__(self, x, lengths, state=None):
        """The last state and the outputs of all chunks."""
        size = self.model.subsampling * self.model.chunk
        state = self.model.begin_stream(len(x), x.shape[2]) if state is None else state
        found = []
        for start in range(0, x.shape[1], size):
            ready = jnp.clip(lengths - start, 0, size)
            state, outputs = self.step(state, x[:, start : start + size], ready)
            found.append(outputs)
        assert self.traced == 1  # one compiled step for every chunk
        return state, found


@pytest.fixture(scope="module")
def streamed():
    with compiled_in_haste():
        yield Streamed(conformer(intermediate=(1,)))


def check_chunks(streamed):
    model = streamed.model
    with compiled_in_haste():
        whole = jax.jit(model.apply)(streamed.params, features(), LENGTHS)
        state, chunks = streamed(features(), LENGTHS)
    assert state.frames.tolist() == model.output_lengths(LENGTHS).tolist()
    for expected, *found in zip(*map(jax.tree.leaves, (whole, *chunks)), strict=True):
        found = jnp.concatenate(found, axis=1)
        for row, frames in enumerate(model.output_lengths(LENGTHS)):
            np.testing.assert_allclose(found[row, :frames], expected[row, :frames], atol=2e-5)
        assert jnp.abs(expected).max() > 0.1


def test_chunks_give_what_the_whole_gives(streamed):
    check_chunks(streamed)


def test_chunks_without_left_context_give_what_the_whole_gives():
    check_chunks(Streamed(conformer(left=0, layers=1)))


def test_a_new_stream_in_the_row_of_an_old_one_knows_nothing_of_it(streamed):
    old, _ = streamed(features(1), jnp.array([48, 48]))
    fresh = streamed.model.begin_stream(2, BINS)
    mixed = jax.tree.map(lambda old, new: old.at[1].set(new[1]), old, fresh)
    _, found = streamed(features(), LENGTHS, mixed)
    _, expected = streamed(features(), LENGTHS)
    difference = jnp.abs(found[0].logits - expected[0].logits)
    assert difference[1].max() < 1e-5
    assert difference[0].max() > 1e-3


def test_nothing_is_known_of_later_chunks_and_little_of_earlier_ones():
    model = conformer(left=2, layers=1)
    params = random_parameters(model)

    @jax.jit
    def reach(x):
        def chosen(x):
            logits = jnp.asarray(model.apply(params, x, jnp.array([48])))
            return jnp.sum(logits[0, 10] * jnp.arange(5.0))

        return jnp.abs(jax.grad(chosen)(x)[0]).sum(axis=1)

    with compiled_in_haste():
        reached = np.flatnonzero(reach(features()[:1]))
    # Frame 10 is in the chunk of 9 to 11, and frame u knows features 4 u - 6 to 4 u. The depthwise
    # filter of 4 taps takes in frame 7, of the chunk before, whose attention begins at 6 - 2.
    np.testing.assert_array_equal(reached, np.arange(4 * 4 - 6, 4 * 11 + 1))


def test_what_cannot_stream_says_so():
    with pytest.raises(ValueError, match="chunk=None"):
        Conformer(classes=5).begin_stream(1, BINS)
    model = conformer()
    state = model.begin_stream(2, BINS)
    with pytest.raises(ValueError, match="Fill up the last chunk"):
        jax.eval_shape(
            lambda: model.init(
                jax.random.key(0), state, features()[:, :7], LENGTHS, method="stream"
            )
        )


@pytest.mark.parametrize(("name", "published"), [("S", 10.3e6), ("M", 30.7e6), ("L", 118.8e6)])
def test_the_published_sizes_have_the_published_parameters(name, published):
    """Gulati et al., table 1, count the decoder too, one LSTM: ours must be below, not far."""
    x = jnp.zeros((1, 16, 80))

    def count(layers):
        model = Conformer(classes=1024, **{**SIZES[name], "layers": layers})
        shapes = jax.eval_shape(model.init, jax.random.key(0), x, jnp.array([16]))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    total = count(1) + (SIZES[name]["layers"] - 1) * (count(2) - count(1))
    assert 0.75 * published < total < published, total
