"""A deep bidirectional LSTM over speech frames. Axes: B batch, T frames, F features, K classes."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from research.models.recurrent import BothDirections
from research.models.speech_encoder import CTCHead, FrameForFrame, mask_frames
from research.objectives.ctc_terms import Outputs

GRAVES_2013: Mapping[str, Any] = {"width": 250, "layers": 5}
"""The network "CTC-5l-250h" of Graves et al. 2013, there with peepholes and weight noise."""


class BiLSTMEncoder(FrameForFrame, nn.Module):
    """Layers of two LSTMs, one per direction, both fed with both below; then K logits per frame.

    The backward LSTM starts at the last valid frame of each sequence, so padding changes nothing.
    The cells have no peepholes.

    Attributes:
        classes: K, the blank among them.
        width: units of each direction.
        layers: how many pairs.
        dropout: rate after each layer, between the layers and before the logits.
        intermediate: layers, counted from 1, that predict too: see ``CTCHead``.
        self_conditioned: whether later layers know these predictions.
        dtype: of the computation; parameters and logits are float32.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> features, lengths = jnp.zeros((2, 9, 5)), jnp.array([9, 4])
        >>> model = BiLSTMEncoder(classes=11, width=8, layers=2)
        >>> key = jax.random.key(0)
        >>> logits, params = jax.eval_shape(model.init_with_output, key, features, lengths)
        >>> logits.shape
        (2, 9, 11)

    Sources: Graves, Mohamed, Hinton, "Speech Recognition with Deep Recurrent Neural Networks",
    ICASSP 2013; of one layer, Graves & Schmidhuber, Neural Networks 2005; with CTC, Graves et al.,
    ICML 2006.
    """

    classes: int
    width: int = 96
    layers: int = 2
    dropout: float = 0.2
    intermediate: tuple[int, ...] = ()
    self_conditioned: bool = False
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
        x = mask_frames(features, lengths)
        head = CTCHead(
            self.classes, self.layers, self.intermediate, self.self_conditioned, normalise=False
        )
        between = ()
        for layer in range(1, self.layers + 1):
            both = BothDirections(self.width, "lstm", dtype=self.dtype)(x, lengths)
            x = jnp.concatenate(both, axis=-1)
            x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
            x, between = head.after(layer, x, between)
        return head.output(x, between)
