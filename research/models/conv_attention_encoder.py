"""A small speech encoder: depthwise-separable convolutions, then self-attention.

Axes: B batch, T frames, F features, D width, K classes.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

import kernels


class DepthwiseConv(nn.Module):
    """One filter per channel along time: y[t, d] = sum_w x[t + w - W // 2, d] f[w, d]."""

    size: int
    convolve: Callable = kernels.depthwise_conv1d

    @nn.compact
    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Filter every channel; frames beyond both ends count as zero."""
        shape = (self.size, x_BTD.shape[2])
        filters = self.param("filters", nn.initializers.normal(self.size**-0.5), shape)
        before = self.size // 2
        return self.convolve(x_BTD, filters, padding=(before, self.size - 1 - before))


class ConvBlock(nn.Module):
    """x + W2 silu(W1 depthwise(norm(x))), with an inner width of twice the outer."""

    size: int
    dropout: float
    convolve: Callable = kernels.depthwise_conv1d

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], valid: Bool[Array, "B T"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Padded frames enter the convolution as zero, as those beyond the ends do."""
        width = x.shape[-1]
        y = nn.LayerNorm()(x) * valid[:, :, None]
        y = DepthwiseConv(self.size, self.convolve)(y)
        y = nn.Dense(width)(nn.silu(nn.Dense(2 * width)(y)))
        return x + nn.Dropout(self.dropout)(y, deterministic=deterministic)


class AttentionBlock(nn.Module):
    """x + attention(norm(x)): every frame looks at every valid frame."""

    heads: int
    dropout: float

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], valid: Bool[Array, "B T"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Add what the heads gather."""
        attention = nn.MultiHeadDotProductAttention(num_heads=self.heads)
        y = attention(nn.LayerNorm()(x), mask=valid[:, None, None, :])
        return x + nn.Dropout(self.dropout)(y, deterministic=deterministic)


class ConvAttentionEncoder(nn.Module):
    """Convolution blocks, one self-attention block before the last of them, K logits per frame.

    The convolutions carry the order of frames, so attention needs no position of its own.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> features, lengths = jnp.zeros((2, 9, 5)), jnp.array([9, 4])
        >>> model = ConvAttentionEncoder(classes=11, width=8, conv_blocks=2)
        >>> params = model.init(jax.random.key(0), features, lengths)["params"]
        >>> model.apply({"params": params}, features, lengths).shape
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
    convolve: Callable = kernels.depthwise_conv1d

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B T F"],
        lengths: Int[Array, " B"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B T K"]:
        """Logits of each frame; those of padded frames mean nothing."""
        valid = jnp.arange(features.shape[1])[None, :] < lengths[:, None]
        x = nn.Dense(self.width)(features)
        for block in range(self.conv_blocks):
            if block == self.conv_blocks - 1:
                x = AttentionBlock(self.heads, self.dropout)(x, valid, deterministic)
            x = ConvBlock(self.size, self.dropout, self.convolve)(x, valid, deterministic)
        return nn.Dense(self.classes)(nn.LayerNorm()(x))
