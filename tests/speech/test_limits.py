"""Speech at the limits: 64 bits enabled, long audio, NaN, names that do not exist."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.errors import ConfigError
from research.models.conformer import Conformer
from research.models.convolved_key_transformer import ConvolvedKeyTransformer
from research.models.pooled_conv_encoder import PooledConvEncoder
from research.models.transformer_lm import TransformerLM
from research.speech import presets
from research.speech.augment import change_speed, room_responses
from research.speech.beam_search import (
    LabelAutomaton,
    beam_search,
    begin_beam_search,
    continue_beam_search,
)
from research.speech.features import log_mel, normalise_features
from research.speech.ngram import read_arpa
from research.speech.recogniser import FrontEnd, make_recogniser
from research.speech.vtlp import vtlp

pytestmark = pytest.mark.usefixtures("in_haste")


@pytest.mark.parametrize("name", ["librosa", "kaldi", "whisper"])
def test_features_are_float32_where_jax_has_64_bits_too(name):
    config = presets.preset(name)
    waveforms = np.random.default_rng(0).normal(size=(1, 4000)).astype(np.float32) / 9
    lengths = np.array([3000], np.int32)
    expected, frames = log_mel(waveforms, lengths, config)
    with jax.enable_x64(True):
        found, same_frames = log_mel(waveforms, lengths, config)
        warped, _ = vtlp(jax.random.key(0), waveforms, lengths, config)
        rooms = room_responses(jax.random.key(0), 1, 8000)
    assert found.dtype == warped.dtype == rooms.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert same_frames == frames


def test_features_of_half_precision_have_sums_that_hold_them():
    rng = np.random.default_rng(0)
    features = jnp.asarray(300 + rng.normal(size=(1, 3000, 2)), jnp.float16)
    found = normalise_features(features, jnp.array([3000]))
    assert found.dtype == jnp.float16
    np.testing.assert_allclose(np.std(np.asarray(found, np.float32), axis=1), 1.0, atol=0.01)


def test_a_change_of_speed_keeps_minutes_of_audio():
    """The length times a thousand is more than 32 bits hold."""
    samples = 2_200_000
    _, lengths = jax.eval_shape(
        lambda: change_speed(jnp.ones((1, samples)), jnp.array([samples]), Fraction(999, 1000))
    )
    assert lengths.dtype == jnp.int32
    speed = Fraction(2, 3)
    for length in (0, 1, 2, 3, 7, 1000):
        _, found = change_speed(jnp.ones((1, 1000)), jnp.array([length]), speed)
        assert int(found[0]) == math.ceil(length / speed)


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_a_language_model_does_not_see_what_follows(norm):
    model = TransformerLM(symbols=5, max_length=6, width=8, heads=2, blocks=1, norm=norm)
    text = jnp.array([[0, 1, 2, 3, 4, 0]])
    variables = model.init(jax.random.key(0), text)
    first, other = (model.apply(variables, t) for t in (text, text.at[0, -1].set(3)))
    np.testing.assert_array_equal(np.asarray(first)[:, :-1], np.asarray(other)[:, :-1])


def test_a_norm_over_positions_is_refused_where_none_may_be_seen():
    model = TransformerLM(symbols=5, max_length=6, width=8, heads=2, blocks=1, norm="group")
    with pytest.raises(ValueError, match="later ones too"):
        model.init(jax.random.key(0), jnp.zeros((1, 6), jnp.int32))


@pytest.mark.parametrize(
    ("encoder", "bins", "message"),
    [
        (Conformer(classes=3, width=10, layers=1, heads=4, size=3), 8, "multiple of heads"),
        (ConvolvedKeyTransformer(classes=3, width=10, layers=1, heads=4), 8, "multiple of heads"),
        (PooledConvEncoder(classes=3, width=8, layers=1), 3, "at least 4 bins"),
    ],
    ids=["conformer", "convolved keys", "pooled"],
)
def test_encoders_say_what_they_cannot_be_made_of(encoder, bins, message):
    with pytest.raises(ValueError, match=message):
        encoder.init(jax.random.key(0), jnp.zeros((1, 16, bins)), jnp.array([16]))


def test_an_arpa_file_may_leave_weights_out(tmp_path):
    path = tmp_path / "other.arpa"
    path.write_text(
        "\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-99\t<s>\n-0.5\ta\n-0.5\tb\n"
        "-0.9\t</s>\n\n\\2-grams:\n-0.01\ta b\n-0.02\t<s> a\n\n\\end\\\n"
    )
    model = read_arpa(path)
    assert model.log_prob("b", ["a"]) / math.log(10) == pytest.approx(-0.01)
    assert model.log_prob("a", ["<s>"]) / math.log(10) == pytest.approx(-0.02)


@pytest.mark.parametrize("augment", [("masks",), ("Noise",), "mask"])
def test_an_augmentation_that_does_not_exist_is_refused(augment):
    optimizer = optax.sgd(0.1)
    with pytest.raises(ConfigError, match="augment must be a tuple of speed"):
        make_recogniser(PooledConvEncoder(classes=3), FrontEnd(), optimizer, augment=augment)


def test_a_frame_of_nan_makes_the_probabilities_nan():
    logits = jnp.zeros((2, 4, 3)).at[0, 1].set(jnp.nan)
    found = beam_search(logits, jnp.array([4, 4]), width=2)
    assert np.isnan(found.log_probs[0]).all()
    assert np.isfinite(found.log_probs[1]).all()


def test_what_an_automaton_has_added_before_costs_no_digits():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(1, 6, 3)), jnp.float32)
    automaton = LabelAutomaton(
        jnp.asarray(rng.normal(size=(2, 3)), jnp.float32), jnp.asarray(rng.integers(0, 2, (2, 3)))
    )
    states = [begin_beam_search(1, width=4, max_labels=6)] * 2
    states[1] = states[1]._replace(fusion_offset=jnp.full(1, -1e7))
    near, far = (
        continue_beam_search(state, logits, jnp.array([6]), automaton=automaton) for state in states
    )
    np.testing.assert_array_equal(near.labels, far.labels)
    np.testing.assert_array_equal(near.fusion, far.fusion)
    assert float(jnp.abs(near.fusion[0, 0])) == 0  # the best carries no sum of its own
    expected = near.fusion + near.fusion_offset[:, None]
    whole = beam_search(logits, jnp.array([6]), width=4, max_labels=6, automaton=automaton)
    np.testing.assert_allclose(whole.scores - whole.log_probs, expected, rtol=1e-5)
