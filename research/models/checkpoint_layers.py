"""Layers that the published speech recognisers share, with PyTorch's definitions.

The names of modules are those of the checkpoints, so that a path of parameters is a key there (see
`research.speech.pretrained.weights`). Axes: B batch, T frames, I and O channels, W width.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

import kernels

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "relu": nn.relu,
    "silu": nn.silu,
    "swish": nn.silu,
}


class LayerNorm(nn.LayerNorm):
    """Linen's, with PyTorch's default epsilon, and a variance that does not cancel."""

    epsilon: float = 1e-5
    use_fast_variance: bool = False


class NormParameters(nn.Module):
    """Scale and bias of a layer norm, for an operation that computes it."""

    features: int

    @nn.compact
    def __call__(self) -> tuple[Float[Array, " I"], Float[Array, " I"]]:
        """One of each per channel."""
        scale = self.param("scale", nn.initializers.ones, (self.features,))
        return scale, self.param("bias", nn.initializers.zeros, (self.features,))


class BatchNormParameters(nn.Module):
    """Scale, bias, mean and variance of a batch norm, for an operation that computes it.

    The statistics are in the collection ``batch_stats`` and never change: fine-tuning keeps those
    of the checkpoint.
    """

    features: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array, Array, Array]:
        """One of each per channel, (I,)."""
        shape = (self.features,)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variance = self.variable("batch_stats", "variance", jnp.ones, shape)
        return scale, bias, mean.value, variance.value


class DepthwiseFilters(nn.Module):
    """The parameters of a depthwise convolution, for the fused operation."""

    features: int
    width: int
    use_bias: bool

    @nn.compact
    def __call__(self) -> tuple[Float[Array, "W I"], Float[Array, " I"] | None]:
        """Filters and bias."""
        init = nn.initializers.normal(self.width**-0.5)
        filters = self.param("channel_filters", init, (self.width, self.features))
        if not self.use_bias:
            return filters, None
        return filters, self.param("bias", nn.initializers.zeros, (self.features,))


class Conv1d(nn.Module):
    """y[t, o] = bias[o] + sum_wi x[t stride + w - left, i] filters[w, i, o], i in o's group."""

    features: int
    width: int = 1
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    use_bias: bool = True
    weight_norm: bool = False
    """Filters are g[w] v[w] / |v[w]|: direction and length are separate parameters."""

    @nn.compact
    def __call__(self, x: Float[Array, "B T I"]) -> Float[Array, "B U O"]:
        """Frames beyond both ends count as zero."""
        shape = (self.width, x.shape[2] // self.groups, self.features)
        init = nn.initializers.lecun_normal()
        if self.weight_norm:
            length = self.param("weight_g", nn.initializers.ones, shape[:1])
            direction = self.param("weight_v", init, shape)
            norm = jnp.sqrt(jnp.sum(direction**2, axis=(1, 2), keepdims=True))
            filters = length[:, None, None] * direction / norm
        else:
            filters = self.param("filters", init, shape)
        bias = (
            self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        )
        rows = kernels.conv2d(
            x[:, None],
            filters[None],
            bias,
            strides=(1, self.stride),
            padding=((0, 0), self.padding),
            groups=self.groups,
        )
        return rows[:, 0]


class FeedForward(nn.Module):
    """W2 act(W1 x), with dropout after either."""

    hidden: int
    activation: str
    dropout: tuple[float, float] = (0.0, 0.0)
    names: tuple[str, str] = ("intermediate_dense", "output_dense")
    use_bias: bool = True

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T I"], deterministic: bool = True
    ) -> Float[Array, "B T I"]:
        """Each frame on its own."""
        y = nn.Dense(self.hidden, use_bias=self.use_bias, name=self.names[0])(x)
        y = ACTIVATIONS[self.activation](y)
        y = nn.Dropout(self.dropout[0])(y, deterministic=deterministic)
        y = nn.Dense(x.shape[-1], use_bias=self.use_bias, name=self.names[1])(y)
        return nn.Dropout(self.dropout[1])(y, deterministic=deterministic)


def valid_frames(frames: Int[Array, " B"], total: int) -> Bool[Array, "B T"]:
    """True for the first ``frames[b]`` of ``total``.

    Example:
        >>> valid_frames(jnp.array([1, 2]), 2).tolist()
        [[True, False], [True, True]]
    """
    return jnp.arange(total)[None, :] < frames[:, None]


def mask_latents(
    x: Float[Array, "B T I"],
    masked: Bool[Array, "B T"] | None,
    embedding: Float[Array, " I"] | None,
) -> Float[Array, "B T I"]:
    """Put the learned embedding in place of masked frames (SpecAugment on latent features).

    Raises:
        ValueError: frames are masked, but the checkpoint has no embedding for them.
    """
    if masked is None:
        return x
    if embedding is None:
        raise ValueError(
            "masked frames need the embedding that stands for them, but this configuration has "
            "none: mask_time_prob and mask_feature_prob must not both be 0."
        )
    return jnp.where(masked[:, :, None], embedding[None, None].astype(x.dtype), x)


def heads_of(x: Float[Array, "B T I"], heads: int) -> Float[Array, "B T N H"]:
    """Divide channels among heads.

    Example:
        >>> heads_of(jnp.zeros((1, 3, 8)), 2).shape
        (1, 3, 2, 4)
    """
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads)


def interleaved_sinusoids(frames: int, width: int) -> Float[np.ndarray, "R D"]:
    """Sines and cosines of the offsets T - 1 down to -(T - 1), interleaved, R = 2 T - 1.

    row r, columns 2i and 2i + 1: sin and cos of (T - 1 - r) / 10000^(2i / D)

    Example:
        >>> interleaved_sinusoids(2, 2).round(2).tolist()
        [[0.84, 0.54], [0.0, 1.0], [-0.84, 0.54]]

    Source: Dai et al., "Transformer-XL", 2019.
    """
    offsets = np.arange(frames - 1, -frames, -1, dtype=np.float64)
    angles = offsets[:, None] * 10000.0 ** (-np.arange(0, width, 2) / width)[None, :]
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(offsets), -1)


def batch_norm(
    x: Float[Array, "B T I"],
    scale: Float[Array, " I"],
    bias: Float[Array, " I"],
    mean: Float[Array, " I"],
    variance: Float[Array, " I"],
) -> Float[Array, "B T I"]:
    """(x - mean) / sqrt(variance + 1e-5) scale + bias, with given statistics.

    Example:
        >>> one, zero = jnp.ones(1), jnp.zeros(1)
        >>> batch_norm(jnp.full((1, 1, 1), 3.0), one, zero, one, 4 * one).round(3).item()
        1.0
    """
    rate = scale * jax.lax.rsqrt(variance + 1e-5)
    return (x - mean[None, None]) * rate[None, None] + bias[None, None]
