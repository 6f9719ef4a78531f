"""Depthwise-separable convolution along time. Axes: B batch, T frames, D width."""

from collections.abc import Callable

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

import kernels
from research.models.speech_encoder import mask_frames


class DepthwiseConv(nn.Module):
    """One filter per channel along time: y[t, d] = sum_w x[t + w - W // 2, d] f[w, d].

    Attributes:
        size: taps, W.
        convolve: in place of ``kernels.depthwise_conv1d``, for comparison.
    """

    size: int
    convolve: Callable = kernels.depthwise_conv1d

    @nn.compact
    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Filter every channel; frames beyond both ends count as zero."""
        shape = (self.size, x_BTD.shape[2])
        filters = self.param("filters", nn.initializers.normal(self.size**-0.5), shape)
        before = self.size // 2
        padding = (before, self.size - 1 - before)
        return self.convolve(x_BTD, filters.astype(x_BTD.dtype), padding=padding)


class SeparableBlock(nn.Module):
    """x + W2 silu(W1 depthwise(norm(x))), with an inner width of twice the outer.

    Attributes:
        size: taps of the depthwise filters.
        dropout: rate of what is added.
        convolve: in place of ``kernels.depthwise_conv1d``, for comparison.
        dtype: of the computation; parameters stay float32.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> x, lengths = jnp.ones((2, 9, 8)), jnp.array([9, 4])
        >>> y, _ = SeparableBlock(7, 0.0).init_with_output(jax.random.key(0), x, lengths, True)
        >>> y.shape
        (2, 9, 8)
    """

    size: int
    dropout: float
    convolve: Callable = kernels.depthwise_conv1d
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], lengths: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Padded frames enter the convolution as zero, as those beyond the ends do."""
        width = x.shape[-1]
        y = mask_frames(nn.LayerNorm(dtype=self.dtype)(x), lengths)
        y = DepthwiseConv(self.size, self.convolve)(y)
        y = nn.silu(nn.Dense(2 * width, dtype=self.dtype)(y))
        y = nn.Dense(width, dtype=self.dtype)(y)
        return x + nn.Dropout(self.dropout)(y, deterministic=deterministic)
