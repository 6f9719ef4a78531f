"""Small configurations of every kind of published recogniser, and random weights for them."""

from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from research.models.parakeet import ParakeetConfig, ParakeetEncoderConfig
from research.models.wav2vec2 import Wav2Vec2Config
from research.models.wav2vec2_bert import Wav2Vec2BertConfig
from research.speech.presets import PARAKEET, SEAMLESS
from research.speech.pretrained import (
    Characters,
    Checkpoint,
    RawWaveform,
    StackedLogMel,
    WordPieces,
)
from research.speech.pretrained.checkpoint import shapes_of
from research.speech.pretrained.configuration import model_of

TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"abcdefg")
_GROUP = Wav2Vec2Config(
    vocab_size=len(TOKENS),
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    conv_dim=(8, 12, 12),
    conv_kernel=(10, 3, 2),
    conv_stride=(5, 2, 2),
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
)
_LAYER = replace(_GROUP, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True)
_BERT = Wav2Vec2BertConfig(
    vocab_size=len(TOKENS),
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    feature_projection_input_dim=160,
    conv_depthwise_kernel_size=7,
    left_max_position_embeddings=12,
    right_max_position_embeddings=3,
)
_FAST_CONFORMER = ParakeetEncoderConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    conv_kernel_size=5,
    subsampling_conv_channels=6,
    num_mel_bins=80,
)
_PARAKEET = ParakeetConfig(
    vocab_size=len(TOKENS), pad_token_id=len(TOKENS) - 1, encoder_config=_FAST_CONFORMER
)

CONFIGS = {
    "wav2vec2": replace(_GROUP, num_hidden_layers=2),
    "wav2vec2-layer": _LAYER,
    "wav2vec2-adapter": replace(_LAYER, adapter_attn_dim=6, num_conv_pos_embeddings=7),
    "hubert": replace(_GROUP, model_type="hubert"),
    "hubert-layer": replace(_LAYER, model_type="hubert", feat_proj_layer_norm=False),
    "hubert-batch-norm": replace(_LAYER, model_type="hubert", conv_pos_batch_norm=True),
    "wav2vec2-bert": _BERT,
    "wav2vec2-bert-relative": replace(
        _BERT, position_embeddings_type="relative", num_hidden_layers=2
    ),
    "wav2vec2-bert-no-positions": replace(_BERT, position_embeddings_type=None),
    "wav2vec2-bert-adapter": replace(
        _BERT,
        add_adapter=True,
        num_adapter_layers=2,
        output_hidden_size=12,
        use_intermediate_ffn_before_adapter=True,
    ),
    "parakeet": _PARAKEET,
    "parakeet-no-bias": replace(
        _PARAKEET,
        encoder_config=replace(
            _FAST_CONFORMER,
            attention_bias=False,
            convolution_bias=False,
            scale_input=False,
            subsampling_factor=4,
            num_hidden_layers=2,
        ),
    ),
}
FAMILIES = ("wav2vec2-layer", "wav2vec2-bert", "parakeet")


@cache
def variables_of(name):
    """Random weights with every bias and norm off its start, so that each takes part."""
    rng = np.random.default_rng(sum(map(ord, name)))

    def fill(path, leaf):
        kind = path[-1].key
        if kind == "variance":
            values = rng.uniform(0.5, 1.5, leaf.shape)
        else:
            fan = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 16.0
            values = rng.normal(size=leaf.shape) * fan**-0.5
            values += kind in ("scale", "weight_g")
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes_of(CONFIGS[name]))


@cache
def batch_of(name):
    """Inputs of three lengths with zeros in padding, and the lengths."""
    config = CONFIGS[name]
    rng = np.random.default_rng(7)
    if config.input_width is None:
        lengths, shape = np.array([900, 620, 401]), (3, 900)
    else:
        lengths, shape = np.array([90, 61, 40]), (3, 90, config.input_width)
    inputs = rng.normal(size=shape).astype(np.float32)
    for row, length in enumerate(lengths):
        inputs[row, length:] = 0
    return inputs, lengths


@cache
def apply_of(name):
    """The model as a jitted function of variables, inputs and lengths."""
    return jax.jit(model_of(CONFIGS[name]).apply)


def word_pieces():
    """A tokenizer with a few merges, in which a blank comes last, of as many labels as TOKENS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = ["<unk>", "▁", "▁a", "▁b", "a", "b", "c", "ab", "▁ab", "▁c", "bc", "<pad>"]
    merges = [("a", "b"), ("▁", "ab"), ("▁", "a"), ("▁", "b"), ("▁", "c"), ("b", "c")]
    numbers = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>"])
    return WordPieces(tokenizer.to_str())


def checkpoint_of(name):
    """Everything that belongs to a model of this name."""
    front_ends = {
        "wav2vec2": (RawWaveform(), Characters(TOKENS)),
        "hubert": (RawWaveform(normalise=False), Characters(TOKENS)),
        "wav2vec2-bert": (StackedLogMel(SEAMLESS, 2), Characters(TOKENS)),
        "parakeet_ctc": (StackedLogMel(PARAKEET), None),
    }
    front_end, vocabulary = front_ends[CONFIGS[name].model_type]
    return Checkpoint(CONFIGS[name], variables_of(name), front_end, vocabulary or word_pieces())
