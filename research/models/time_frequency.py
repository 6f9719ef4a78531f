"""Convolution of spectrograms over time and frequency, which shortens them.

Axes: B batch, T frames, U frames out, M bins of frequency, N bins out, C channels, O channels out.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

import kernels
from research.models.speech_encoder import mask_frames


def shortened(lengths: Any, stride: int) -> Any:
    """Frames that are left of so many: ceil(lengths / stride).

    Example:
        >>> shortened(7, 2), shortened(jnp.array([8, 9]), 4).tolist()
        (4, [2, 3])
    """
    return -(-lengths // stride)


class TimeFrequencyConv(nn.Module):
    """A dense convolution of (frames, bins) with strides; U = ceil(T / s), N = ceil(M / s').

    Frame u of the result is centred on frame u s, or with ``causal`` ends there. Neither depends on
    how far a sequence was padded, unlike padding "SAME".

    Attributes:
        channels: O.
        size: taps over frames and over bins.
        strides: frames and bins from one result to the next.
        causal: whether no frame knows of later ones.
        dtype: of the computation; parameters stay float32.

    Example:
        >>> import jax
        >>> x, lengths = jnp.ones((2, 7, 6, 1)), jnp.array([7, 3])
        >>> layer = TimeFrequencyConv(4, (3, 3), (2, 2))
        >>> init = layer.init_with_output
        >>> (y, fewer, _), _ = jax.eval_shape(init, jax.random.key(0), x, lengths)
        >>> y.shape
        (2, 4, 3, 4)
    """

    channels: int
    size: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (2, 2)
    causal: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T M C"],
        lengths: Int[Array, " B"],
        before: Float[Array, "B S M C"] | None = None,
    ) -> tuple[Float[Array, "B U N O"], Int[Array, " B"], Float[Array, "B S M C"]]:
        """Filter the valid frames.

        Args:
            x: (B, T, M, C).
            lengths: valid frames, (B,).
            before: the S = taps - 1 frames before the first of a chunk; causal only. Zeros if not
                given.

        Returns:
            The result, how many of its frames are valid, and the last S frames: ``before`` of the
            next chunk, if T is a multiple of the stride.
        """
        reach, across = self.size[0] - 1, self.size[1] - 1
        shape = (*self.size, x.shape[3], self.channels)
        filters = self.param("filters", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.channels,))
        dtype = x.dtype if self.dtype is None else self.dtype
        x = mask_frames(x, lengths).astype(dtype)
        left = reach if self.causal else reach // 2
        if before is None:
            before = jnp.zeros((x.shape[0], left, *x.shape[2:]), dtype)
        x = jnp.concatenate([before.astype(dtype), x], axis=1)
        y = kernels.conv2d(
            x,
            filters.astype(dtype),
            bias.astype(dtype),
            strides=self.strides,
            padding=((0, reach - left), (across // 2, across - across // 2)),
        )
        return y, shortened(lengths, self.strides[0]), x[:, x.shape[1] - reach :]
