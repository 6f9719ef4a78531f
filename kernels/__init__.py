"""Fused operations as pure JAX functions: arrays in, arrays out, no framework above JAX."""

from importlib.metadata import PackageNotFoundError, version

from kernels.attention import (
    alibi,
    attention,
    attention_fn,
    clamped_bias,
    conv_attention,
    relative_attention,
    shaw_position_keys,
    t5_bias,
)
from kernels.convolution import (
    conformer_convolution,
    conv2d,
    depthwise_conv1d,
    depthwise_conv2d,
)
from kernels.ctc import ctc_alignment, ctc_feasible, ctc_loss, ctc_posteriors
from kernels.explanation import explain

__all__ = [
    "alibi",
    "attention",
    "attention_fn",
    "clamped_bias",
    "conformer_convolution",
    "conv2d",
    "conv_attention",
    "ctc_alignment",
    "ctc_feasible",
    "ctc_loss",
    "ctc_posteriors",
    "depthwise_conv1d",
    "depthwise_conv2d",
    "explain",
    "relative_attention",
    "shaw_position_keys",
    "t5_bias",
]
try:
    __version__ = version("trellis-lab")
except PackageNotFoundError:  # a tree that is used without being installed
    __version__ = "0+unknown"
