"""Models of published recognisers: padding, lengths, masks, dropout and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_cases import CONFIGS, FAMILIES, apply_of, batch_of, variables_of

from research.errors import ConfigError
from research.models.parakeet import ParakeetEncoderConfig
from research.models.wav2vec2 import Wav2Vec2Config
from research.models.wav2vec2_bert import Wav2Vec2BertConfig
from research.speech.pretrained.configuration import model_of


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_changes_no_valid_frame(name):
    inputs, lengths = batch_of(name)
    config, apply, variables = CONFIGS[name], apply_of(name), variables_of(name)
    assert config.padding_is_inert
    junk = inputs.copy()
    for row, length in enumerate(lengths):
        junk[row, length:] = 50.0
    clean, dirty = (apply(variables, x, jnp.asarray(lengths)) for x in (inputs, junk))
    for row, frames in enumerate(config.frames(lengths)):
        np.testing.assert_allclose(clean[row, :frames], dirty[row, :frames], atol=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_utterance_gives_the_same_alone_as_in_a_padded_batch(name):
    inputs, lengths = batch_of(name)
    config, apply, variables = CONFIGS[name], apply_of(name), variables_of(name)
    together = apply(variables, inputs, jnp.asarray(lengths))
    alone = apply(variables, inputs[1:2, : lengths[1]], jnp.asarray(lengths[1:2]))
    frames = config.frames(int(lengths[1]))
    assert alone.shape[1] == frames
    np.testing.assert_allclose(together[1, :frames], alone[0], atol=2e-5)


def test_padding_reaches_what_says_so():
    name = "hubert"
    inputs, lengths = batch_of(name)
    frames = CONFIGS[name].frames(int(lengths[1]))
    together = apply_of(name)(variables_of(name), inputs, jnp.asarray(lengths))
    alone = apply_of(name)(variables_of(name), inputs[1:2, : lengths[1]], jnp.asarray(lengths[1:2]))
    assert not CONFIGS[name].padding_is_inert
    assert np.abs(np.asarray(together[1, :frames] - alone[0])).max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_reach_every_parameter(name):
    inputs, lengths = batch_of(name)
    variables, model = variables_of(name), model_of(CONFIGS[name])
    weights = np.random.default_rng(0).normal(size=len(CONFIGS[name].frames(lengths)))
    extra = {}
    if "parakeet" not in name:
        frames = CONFIGS[name].frames(inputs.shape[1])
        extra["masked"] = jnp.arange(frames)[None] % 7 == jnp.zeros((3, 1), jnp.int32)

    @jax.jit
    def gradient(params):
        def summed(params):
            logits = model.apply(
                {**variables, "params": params}, inputs, jnp.asarray(lengths), **extra
            )
            return jnp.sum(jnp.sin(jnp.asarray(logits)) * weights[:, None, None])

        return jax.grad(summed)(params)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        where = jax.tree_util.keystr(path)
        # keys shifted alike change no softmax, so their bias has no gradient
        if not ("k_proj" in where or "linear_k" in where) or "bias" not in where:
            assert jnp.abs(leaf).max() > 0, where


def test_dropout_needs_a_key_and_follows_it():
    name = "wav2vec2-layer"
    inputs, lengths = batch_of(name)
    model = model_of(CONFIGS[name])

    @jax.jit
    def logits(key):
        rngs = {"dropout": key}
        return model.apply(
            variables_of(name), inputs, jnp.asarray(lengths), deterministic=False, rngs=rngs
        )

    one, two = logits(jax.random.key(0)), logits(jax.random.key(1))
    assert np.abs(np.asarray(one - two)).max() > 1e-2
    np.testing.assert_array_equal(one, logits(jax.random.key(0)))


def test_masked_frames_do_not_depend_on_their_samples():
    name = "wav2vec2-layer"
    inputs, lengths = batch_of(name)
    masked = jnp.ones((3, CONFIGS[name].frames(inputs.shape[1])), bool)
    apply = apply_of(name)
    one, two = (
        apply(variables_of(name), x, jnp.asarray(lengths), masked=masked)
        for x in (inputs, inputs[::-1].copy())
    )
    np.testing.assert_array_equal(one, two)


def test_masks_need_an_embedding():
    config = Wav2Vec2Config(**{**vars(CONFIGS["wav2vec2-layer"]), "mask_time_prob": 0.0})
    inputs, lengths = batch_of("wav2vec2-layer")
    masked = jnp.ones((3, config.frames(inputs.shape[1])), bool)
    with pytest.raises(ValueError, match="mask_time_prob"):
        jax.eval_shape(
            lambda key: model_of(config).init(key, inputs, jnp.asarray(lengths), masked=masked),
            jax.random.key(0),
        )


def test_frames_of_numbers_and_arrays_agree_and_are_never_negative():
    for name, config in CONFIGS.items():
        sizes = np.arange(200)
        counts = np.asarray(config.frames(sizes))
        assert counts[0] == 0, name
        assert (np.diff(counts) >= 0).all(), name
        assert [config.frames(int(n)) for n in sizes[::17]] == counts[::17].tolist(), name


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (Wav2Vec2Config, {"hidden_act": "gelu_new"}, "hidden_act.*'gelu'.*'gelu_new'"),
        (Wav2Vec2Config, {"feat_extract_norm": "batch"}, "feat_extract_norm.*'group'.*'batch'"),
        (Wav2Vec2Config, {"num_attention_heads": 7}, "multiple.*768 and 7"),
        (Wav2Vec2Config, {"conv_dim": (512,)}, "conv_dim.*1, 7 and 7"),
        (Wav2Vec2Config, {"adapter_attn_dim": 16}, "do_stable_layer_norm"),
        (Wav2Vec2BertConfig, {"position_embeddings_type": "rotary"}, "relative_key.*'rotary'"),
        (Wav2Vec2BertConfig, {"hidden_act": "relu"}, "hidden_act.*'swish'.*'relu'"),
        (ParakeetEncoderConfig, {"subsampling_factor": 6}, "subsampling_factor.*6"),
    ],
)
def test_an_option_that_is_not_supported_is_an_error(make, options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)
