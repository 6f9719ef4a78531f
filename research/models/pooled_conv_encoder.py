"""Convolutions over time and frequency with pooling over frequency, then separable blocks.

Axes: B batch, T frames, F mel bins, U frames of logits, D width, K classes.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from research.models.separable_conv import SeparableBlock
from research.models.speech_encoder import CTCHead, mask_frames
from research.models.time_frequency import TimeFrequencyConv, shortened
from research.objectives.ctc_terms import Outputs

_SIZES = ((3, 5), (3, 3))  # taps over frames and over bins


class PooledConvEncoder(nn.Module):
    """Two convolutions that halve the frames and pool pairs of bins, a projection, blocks.

    The same sound lies at other frequencies with a longer or shorter vocal tract. A filter that is
    moved over the bins, and the larger of two neighbours, find it there too: of a few speakers
    more is learnt that holds for others.

    Attributes:
        classes: K, the blank among them.
        channels: of the two convolutions.
        width: D.
        layers: separable blocks.
        size: taps of their depthwise filters.
        dropout: rate after each convolution and each block.
        intermediate: blocks, counted from 1, that predict too: see ``CTCHead``.
        self_conditioned: whether later blocks know these predictions.
        dtype: of the computation; parameters and logits are float32.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> features, lengths = jnp.zeros((2, 9, 8)), jnp.array([9, 4])
        >>> model = PooledConvEncoder(classes=11, width=8, layers=2)
        >>> key = jax.random.key(0)
        >>> logits, params = jax.eval_shape(model.init_with_output, key, features, lengths)
        >>> logits.shape, model.output_lengths(lengths).tolist()
        ((2, 3, 11), [3, 1])

    Sources: Abdel-Hamid et al., "Convolutional Neural Networks for Speech Recognition", IEEE/ACM
    TASLP 2014, for the pooling over frequency; blocks as in ``SeparableConvEncoder``.
    """

    classes: int
    channels: tuple[int, int] = (16, 32)
    width: int = 144
    layers: int = 4
    size: int = 7
    dropout: float = 0.2
    intermediate: tuple[int, ...] = ()
    self_conditioned: bool = False
    dtype: DTypeLike | None = None

    @property
    def subsampling(self) -> int:
        """Feature frames for each frame of logits."""
        return 4

    def output_lengths(self, lengths: Int[Array, " B"]) -> Int[Array, " B"]:
        """How many frames of logits are valid."""
        return shortened(shortened(lengths, 2), 2)

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B T F"],
        lengths: Int[Array, " B"],
        *,
        deterministic: bool = True,
    ) -> Outputs:
        """Logits of each frame; those of padded frames mean nothing.

        Raises:
            ValueError: fewer than four bins, of which two poolings leave none.
        """
        if features.shape[-1] < 4:
            raise ValueError(
                f"features must have at least 4 bins to be pooled twice; received shape "
                f"{features.shape}."
            )
        x = features[..., None]
        for channels, size in zip(self.channels, _SIZES, strict=True):
            x, lengths, _ = TimeFrequencyConv(channels, size, (2, 1), dtype=self.dtype)(x, lengths)
            x = nn.relu(_pool_bins(x))
            x = nn.Dropout(self.dropout, broadcast_dims=(1,))(x, deterministic=deterministic)
        x = mask_frames(x.reshape(*x.shape[:2], -1), lengths)
        x = nn.Dense(self.width, dtype=self.dtype)(x)
        head = CTCHead(self.classes, self.layers, self.intermediate, self.self_conditioned)
        between = ()
        for layer in range(1, self.layers + 1):
            block = SeparableBlock(self.size, self.dropout, dtype=self.dtype)
            x = block(x, lengths, deterministic)
            x, between = head.after(layer, x, between)
        return head.output(x, between)


def _pool_bins(x: Float[Array, "B U F C"]) -> Float[Array, "B U G C"]:
    """The larger of two neighbouring bins; of an odd number the last is left out."""
    batch, frames, bins, channels = x.shape
    pairs = x[:, :, : bins // 2 * 2].reshape(batch, frames, bins // 2, 2, channels)
    return jnp.max(pairs, axis=3)
