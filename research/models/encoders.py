"""The speech encoders by name; their defaults are sizes that train on a few CPU cores."""

from collections.abc import Callable, Mapping
from typing import Any

from research.models.bilstm_encoder import BiLSTMEncoder
from research.models.conformer import Conformer
from research.models.conv_attention_encoder import ConvAttentionEncoder
from research.models.convolved_key_transformer import ConvolvedKeyTransformer
from research.models.deep_speech2 import DeepSpeech2
from research.models.pooled_conv_encoder import PooledConvEncoder
from research.models.separable_conv_encoder import SeparableConvEncoder

ENCODERS: Mapping[str, Callable[..., Any]] = {
    "bilstm": BiLSTMEncoder,
    "conv_attention": ConvAttentionEncoder,
    "separable_conv": SeparableConvEncoder,
    "pooled_conv": PooledConvEncoder,
    "deep_speech2": DeepSpeech2,
    "conformer": Conformer,
    "convolved_keys": ConvolvedKeyTransformer,
}
