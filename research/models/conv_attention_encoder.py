"""A small speech encoder: depthwise-separable convolutions, then self-attention.

Axes: B batch, T frames, F features, D width, K classes.
"""

import functools
from collections.abc import Callable

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

import kernels
from research.models.separable_conv import SeparableBlock
from research.models.speech_encoder import CTCHead, FrameForFrame, mask_frames
from research.objectives.ctc_terms import Outputs


class AttentionBlock(nn.Module):
    """x + attention(norm(x)): every frame looks at every valid frame."""

    heads: int
    dropout: float
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], lengths: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Add what the heads gather."""
        attend = functools.partial(kernels.attention_fn, key_value_seq_lengths=lengths)
        attention = nn.MultiHeadDotProductAttention(
            num_heads=self.heads, attention_fn=attend, dtype=self.dtype
        )
        y = attention(nn.LayerNorm(dtype=self.dtype)(x))
        return x + nn.Dropout(self.dropout)(y, deterministic=deterministic)


class ConvAttentionEncoder(FrameForFrame, nn.Module):
    """Convolution blocks, one self-attention block before the last of them, K logits per frame.

    The convolutions carry the order of frames, so attention needs no position of its own.

    Attributes:
        classes: K, the blank among them.
        width: D, a multiple of ``heads``.
        size: taps of the depthwise filters.
        conv_blocks: convolution blocks.
        heads: of the attention.
        dropout: rate after each block.
        intermediate: convolution blocks, counted from 1, that predict too: see ``CTCHead``.
        self_conditioned: whether later blocks know these predictions.
        convolve: in place of ``kernels.depthwise_conv1d``, for comparison.
        dtype: of the computation; parameters and logits are float32.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> features, lengths = jnp.zeros((2, 9, 5)), jnp.array([9, 4])
        >>> model = ConvAttentionEncoder(classes=11, width=8, conv_blocks=2)
        >>> key = jax.random.key(0)
        >>> logits, params = jax.eval_shape(model.init_with_output, key, features, lengths)
        >>> logits.shape
        (2, 9, 11)

    Source: the separable blocks follow Kriman et al., "QuartzNet", ICASSP 2020; convolution beside
    attention, Gulati et al., "Conformer", Interspeech 2020.
    """

    classes: int
    width: int = 96
    size: int = 7
    conv_blocks: int = 4
    heads: int = 4
    dropout: float = 0.2
    intermediate: tuple[int, ...] = ()
    self_conditioned: bool = False
    convolve: Callable = kernels.depthwise_conv1d
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B T F"],
        lengths: Int[Array, " B"],
        *,
        deterministic: bool = True,
    ) -> Outputs:
        """Logits of each frame; those of padded frames mean nothing."""
        x = nn.Dense(self.width, dtype=self.dtype)(mask_frames(features, lengths))
        head = CTCHead(self.classes, self.conv_blocks, self.intermediate, self.self_conditioned)
        between = ()
        for layer in range(1, self.conv_blocks + 1):
            if layer == self.conv_blocks:
                x = AttentionBlock(self.heads, self.dropout, self.dtype)(x, lengths, deterministic)
            block = SeparableBlock(self.size, self.dropout, self.convolve, self.dtype)
            x = block(x, lengths, deterministic)
            x, between = head.after(layer, x, between)
        return head.output(x, between)
