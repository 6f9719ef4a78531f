"""Depthwise-separable convolutions all the way: a small encoder that is fast to train on a CPU.

Axes: B batch, T frames, F features, D width, K classes.
"""

from collections.abc import Callable

from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

import kernels
from research.models.separable_conv import SeparableBlock
from research.models.speech_encoder import CTCHead, FrameForFrame, mask_frames
from research.objectives.ctc_terms import Outputs


class SeparableConvEncoder(FrameForFrame, nn.Module):
    """A projection of the features, then residual separable blocks, K logits per frame.

    A frame of logits knows ``layers (size - 1) / 2`` frames to each side, and no more: what is in
    the rest of a string cannot be learnt by heart.

    Attributes:
        classes: K, the blank among them.
        width: D.
        layers: blocks.
        size: taps of the depthwise filters.
        dropout: rate after each block.
        intermediate: blocks, counted from 1, that predict too: see ``CTCHead``.
        self_conditioned: whether later blocks know these predictions.
        convolve: in place of ``kernels.depthwise_conv1d``, for comparison.
        dtype: of the computation; parameters and logits are float32.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> features, lengths = jnp.zeros((2, 9, 5)), jnp.array([9, 4])
        >>> model = SeparableConvEncoder(classes=11, width=8, layers=2)
        >>> key = jax.random.key(0)
        >>> logits, params = jax.eval_shape(model.init_with_output, key, features, lengths)
        >>> logits.shape
        (2, 9, 11)

    Sources: Kriman et al., "QuartzNet: Deep Automatic Speech Recognition with 1D Time-Channel
    Separable Convolutions", ICASSP 2020; Majumdar et al., "Citrinet: Closing the Gap between
    Non-Autoregressive and Autoregressive End-to-End Models for Automatic Speech Recognition", 2021,
    arXiv 2104.01721. Theirs have batch norm, one wide layer for each block and, Citrinet, squeeze
    and excitation over time; here a layer norm comes first, and two layers follow.
    """

    classes: int
    width: int = 144
    layers: int = 4
    size: int = 7
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
        head = CTCHead(self.classes, self.layers, self.intermediate, self.self_conditioned)
        between = ()
        for layer in range(1, self.layers + 1):
            block = SeparableBlock(self.size, self.dropout, self.convolve, self.dtype)
            x = block(x, lengths, deterministic)
            x, between = head.after(layer, x, between)
        return head.output(x, between)
