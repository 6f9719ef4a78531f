"""Speech encoders: padding never leaks, gradients reach everything, lengths fit, layers predict."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_matrix import compiled_in_haste

from research.models.bilstm_encoder import GRAVES_2013, BiLSTMEncoder
from research.models.conformer import Conformer
from research.models.conv_attention_encoder import ConvAttentionEncoder
from research.models.convolved_key_transformer import ConvolvedKeyTransformer
from research.models.deep_speech2 import DeepSpeech2
from research.models.encoders import ENCODERS as REGISTERED
from research.models.pooled_conv_encoder import PooledConvEncoder
from research.models.separable_conv_encoder import SeparableConvEncoder
from research.objectives.ctc_auxiliary import self_conditioned_ctc

ENCODERS = {
    "bilstm": BiLSTMEncoder(classes=5, width=6, layers=2),
    "conv_attention": ConvAttentionEncoder(classes=5, width=8, size=3, conv_blocks=2, heads=2),
    "separable_conv": SeparableConvEncoder(classes=5, width=8, size=3, layers=2),
    "pooled_conv": PooledConvEncoder(classes=5, channels=(4, 8), width=8, size=3, layers=2),
    "deep_speech2": DeepSpeech2(
        classes=5, channels=(2, 3), sizes=((3, 3), (5, 3)), width=6, layers=2
    ),
    "conformer": Conformer(classes=5, width=8, layers=1, heads=2, size=3),
    "convolved_keys": ConvolvedKeyTransformer(classes=5, width=8, layers=1, heads=2, size=3),
}
LENGTHS = jnp.array([27, 14])
BINS = 6


def random_parameters(model, *arguments, seed=0):
    """Parameters away from their start, without compiling what makes them."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *arguments)["params"]

    def draw(path, leaf):
        start = 1.0 if "scale" in jax.tree_util.keystr(path[-1:]) else 0.0
        return jnp.asarray(start + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class Tried:
    """An encoder, its parameters and the compiled functions that the tests share."""

    def __init__(self, model):
        self.model, self.classes = model, model.classes
        self.features = jnp.asarray(np.random.default_rng(0).normal(size=(2, 27, BINS)), "float32")
        self.params = random_parameters(model, self.features, LENGTHS)
        self.apply = jax.jit(self.logits)
        self.slopes = jax.jit(jax.grad(self.weighted, argnums=(0, 1)))

    def logits(self, params, features, lengths):
        return self.model.apply({"params": params}, features, lengths)

    def weighted(self, params, features, weights):
        return jnp.sum(self.logits(params, features, LENGTHS) * weights)

    def one_frame(self, row, frame):
        """Weights that pick a frame of logits."""
        frames = self.model.output_lengths(self.features.shape[1])
        weights = jax.random.normal(jax.random.key(2), (self.classes,))
        return jnp.zeros((2, frames, self.classes)).at[row, frame].set(weights)

    def difference(self, found, expected):
        """The largest in valid frames."""
        frames = self.model.output_lengths(LENGTHS)
        return max(float(jnp.abs(found - expected)[i, :n].max()) for i, n in enumerate(frames))


@pytest.fixture(scope="module", params=ENCODERS)
def tried(request):
    with compiled_in_haste():
        yield Tried(ENCODERS[request.param])


def test_what_lies_in_padding_changes_no_valid_frame(tried):
    junk = tried.features.at[1, 14:].set(100.0).at[1, 20].set(jnp.nan)
    valid = int(tried.model.output_lengths(LENGTHS)[1])
    clean, dirty = (
        tried.apply(tried.params, x, LENGTHS)[1, :valid] for x in (tried.features, junk)
    )
    assert jnp.abs(clean).max() > 1e-2
    np.testing.assert_allclose(clean, dirty, atol=1e-5)


def test_a_sequence_gives_the_same_alone_as_in_a_padded_batch(tried):
    valid = int(tried.model.output_lengths(LENGTHS)[1])
    alone = tried.apply(tried.params, tried.features[1:, :14], LENGTHS[1:])
    assert alone.shape[1] == valid
    together = tried.apply(tried.params, tried.features, LENGTHS)
    np.testing.assert_allclose(together[1, :valid], alone[0], atol=1e-5)


def test_outputs_are_as_long_as_is_said(tried):
    logits = jax.eval_shape(tried.logits, tried.params, tried.features, LENGTHS)
    frames = int(tried.model.output_lengths(27))
    assert logits.shape == (2, frames, tried.classes)
    assert frames == -(-27 // tried.model.subsampling)


def test_frames_reach_outputs_as_they_should(tried):
    """All of them, but where the reach is limited by definition; no padded one ever."""
    last = int(tried.model.output_lengths(LENGTHS)[0]) - 1
    for frame in (0, last):
        _, slopes = tried.slopes(tried.params, tried.features, tried.one_frame(0, frame))
        reached = np.flatnonzero(jnp.abs(slopes[0]).sum(axis=-1))
        expected = range(27)
        if isinstance(tried.model, SeparableConvEncoder):
            expected = range(3) if frame == 0 else range(24, 27)
        if isinstance(tried.model, PooledConvEncoder):
            expected = range(12) if frame == 0 else range(13, 27)
        np.testing.assert_array_equal(reached, expected)
    weights = tried.one_frame(1, int(tried.model.output_lengths(LENGTHS)[1]) - 1)
    _, slopes = tried.slopes(tried.params, tried.features, weights)
    assert not jnp.any(slopes[1, 14:])


def test_gradients_reach_every_parameter(tried):
    weights = jnp.asarray(np.random.default_rng(1).normal(size=tried.one_frame(0, 0).shape))
    gradients, _ = tried.slopes(tried.params, tried.features, weights.astype(jnp.float32))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        name = jax.tree_util.keystr(path)
        assert jnp.isfinite(leaf).all(), name
        # keys shifted alike change no softmax, so their bias has no gradient
        if "['key']['bias']" not in name or isinstance(tried.model, ConvolvedKeyTransformer):
            assert jnp.abs(leaf).max() > 1e-6, name


def test_several_models_at_once_give_what_each_gives(tried):
    other = random_parameters(tried.model, tried.features, LENGTHS, seed=1)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), other, tried.params)
    several = jax.jit(jax.vmap(tried.logits, in_axes=(0, None, None)))
    found = several(params, tried.features, LENGTHS)
    expected = tried.apply(tried.params, tried.features, LENGTHS)
    assert tried.difference(found[1], expected) < 1e-5
    assert tried.difference(found[0], expected) > 1e-2


def test_bfloat16_is_near_float32_and_gives_float32_logits(tried):
    half = tried.model.clone(dtype=jnp.bfloat16)
    found = jax.jit(half.apply)({"params": tried.params}, tried.features, LENGTHS)
    expected = tried.apply(tried.params, tried.features, LENGTHS)
    assert found.dtype == jnp.float32
    assert 1e-5 < tried.difference(found, expected) < 0.05 * jnp.abs(expected).max()


def test_layers_between_predict_with_the_weights_of_the_last(tried):
    """Predicting changes nothing else; conditioning on it does."""
    blocks = "conv_blocks" if isinstance(tried.model, ConvAttentionEncoder) else "layers"
    two: dict[str, Any] = {blocks: 2}
    last = tried.model.clone(**two)
    plain = last.clone(intermediate=(1,))
    model = plain.clone(self_conditioned=True)
    params = random_parameters(model, tried.features, LENGTHS)
    lengths, labels = model.output_lengths(LENGTHS), jnp.array([[1, 2], [3, 0]])

    @jax.jit
    def run(params):
        alone, ours, conditioned = (
            cast(Any, which.apply({"params": params}, tried.features, LENGTHS))
            for which in (last, plain, model)
        )
        paddings = jnp.array([[0, 0], [0, 1]])
        return (
            alone,
            ours,
            conditioned,
            self_conditioned_ctc(conditioned, lengths, labels, paddings),
        )

    alone, ours, conditioned, loss = run(params)
    assert jnp.isfinite(loss)
    assert tried.difference(ours.logits, alone) < 1e-5
    assert tried.difference(conditioned.intermediate[0], ours.intermediate[0]) < 1e-5
    assert tried.difference(ours.intermediate[0], ours.logits) > 1e-2
    assert tried.difference(conditioned.logits, ours.logits) > 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"intermediate": (2,)},
        {"intermediate": (0,)},
        {"intermediate": (1, 1)},
        {"self_conditioned": True},
    ],
)
def test_layers_that_cannot_predict_are_refused(wrong):
    model = ENCODERS["bilstm"].clone(**wrong)
    with pytest.raises(ValueError, match="intermediate"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 3, 2)), jnp.array([3]))


def test_the_deep_lstm_of_2013_has_its_parameters():
    """Graves, Mohamed, Hinton, table 1: CTC-5l-250h has 6.8 million weights, on 123 features."""
    model = BiLSTMEncoder(classes=62, **GRAVES_2013)
    x = jnp.zeros((1, 3, 123))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, jnp.array([3]))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6, 1) == 6.8


def test_what_can_be_compared_is_tested():
    assert {name: type(model) for name, model in ENCODERS.items()} == REGISTERED
