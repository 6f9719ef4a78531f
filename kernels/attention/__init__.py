"""Attention with its gradients, on CPU, GPU and TPU."""

from kernels.attention.api import attention, conv_attention, relative_attention
from kernels.attention.bias_functions import alibi, clamped_bias, shaw_position_keys, t5_bias
from kernels.attention.linen import attention_fn

__all__ = [
    "alibi",
    "attention",
    "attention_fn",
    "clamped_bias",
    "conv_attention",
    "relative_attention",
    "shaw_position_keys",
    "t5_bias",
]
