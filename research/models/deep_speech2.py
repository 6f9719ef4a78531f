"""Deep Speech 2: convolutions over time and frequency, then recurrent layers in both directions.

Axes: B batch, T feature frames, U frames after the convolutions, F features, D width, K classes.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from research.models.recurrent import BothDirections
from research.models.speech_encoder import CTCHead, mask_frames
from research.models.time_frequency import TimeFrequencyConv, shortened
from research.objectives.ctc_terms import Outputs


class DeepSpeech2(nn.Module):
    """Convolutions with clipped rectifiers, bidirectional GRUs whose directions add up, K logits.

    The paper normalises each product with the input of a layer over all frames of a batch
    ("sequence-wise"), and keeps running statistics for the test. Here each frame is normalised over
    its units (Ba, Kiros, Hinton, "Layer Normalization", 2016): nothing depends on the rest of the
    batch or on padding, and nothing is kept.

    Attributes:
        classes: K, the blank among them.
        channels: of each convolution.
        sizes: taps of each over (frames, bins).
        strides: of each over (frames, bins).
        width: D, units of each direction.
        layers: recurrent layers.
        cell: "gru" or "lstm".
        dropout: rate after each recurrent layer.
        intermediate: recurrent layers, counted from 1, that predict too: see ``CTCHead``.
        self_conditioned: whether later layers know these predictions.
        dtype: of the computation; parameters and logits are float32.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> features, lengths = jnp.zeros((2, 9, 8)), jnp.array([9, 4])
        >>> model = DeepSpeech2(classes=11, channels=(2, 3), width=8, layers=1)
        >>> key = jax.random.key(0)
        >>> logits, params = jax.eval_shape(model.init_with_output, key, features, lengths)
        >>> logits.shape
        (2, 3, 11)
        >>> model.output_lengths(lengths).tolist()
        [3, 1]

    Source: Amodei et al., "Deep Speech 2: End-to-End Speech Recognition in English and Mandarin",
    ICML 2016.
    """

    classes: int
    channels: tuple[int, ...] = (16, 32)
    sizes: tuple[tuple[int, int], ...] = ((7, 11), (5, 7))
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 2))
    width: int = 96
    layers: int = 2
    cell: Literal["lstm", "gru"] = "gru"
    dropout: float = 0.2
    intermediate: tuple[int, ...] = ()
    self_conditioned: bool = False
    dtype: DTypeLike | None = None

    @property
    def subsampling(self) -> int:
        """Feature frames for each frame of logits."""
        return math.prod(frames for frames, _ in self.strides)

    def output_lengths(self, lengths: Int[Array, " B"]) -> Int[Array, " B"]:
        """How many frames of logits are valid."""
        return shortened(lengths, self.subsampling)

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B T F"],
        lengths: Int[Array, " B"],
        *,
        deterministic: bool = True,
    ) -> Outputs:
        """Logits of each frame after subsampling; those of padded frames mean nothing."""
        x = features[:, :, :, None]
        for channels, size, strides in zip(self.channels, self.sizes, self.strides, strict=True):
            layer = TimeFrequencyConv(channels, size, strides, dtype=self.dtype)
            x, lengths, _ = layer(x, lengths)
            norm = nn.LayerNorm(reduction_axes=(-2, -1), feature_axes=-1, dtype=self.dtype)
            x = jnp.clip(norm(x), 0.0, 20.0)
        x = mask_frames(x.reshape(*x.shape[:2], -1), lengths)
        head = CTCHead(self.classes, self.layers, self.intermediate, self.self_conditioned)
        between = ()
        for layer in range(1, self.layers + 1):
            recurrent = BothDirections(self.width, self.cell, normalise=True, dtype=self.dtype)
            forwards, backwards = recurrent(x, lengths)
            x = nn.Dropout(self.dropout)(forwards + backwards, deterministic=deterministic)
            x, between = head.after(layer, x, between)
        return head.output(x, between)


FIVE_LAYERS: Mapping[str, Any] = {
    "channels": (32, 32),
    "sizes": ((11, 41), (11, 21)),
    "strides": ((2, 2), (1, 2)),
    "width": 1024,
    "layers": 5,
}
"""Two of the paper's convolutions and five recurrent layers, as it is usually reproduced; its
largest has three and seven. ``DeepSpeech2(classes, **FIVE_LAYERS)``."""
