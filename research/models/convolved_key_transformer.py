"""A Transformer whose keys pass through a short filter, so that a query meets a stretch of speech.

Axes: B batch, T frames, F features, D width, N heads, H = D / N, W taps, K classes.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

import kernels
from research.models.conformer import FeedForward
from research.models.speech_encoder import (
    CTCHead,
    FrameForFrame,
    head_width,
    mask_frames,
    sinusoids,
)
from research.objectives.ctc_terms import Outputs


class ConvolvedKeyAttention(nn.Module):
    """softmax(Q (K * filter)' / sqrt(H)) V of norm(x); every frame looks at every valid frame."""

    heads: int
    size: int
    dropout: float
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], lengths: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """What is added to x."""
        width, shape = x.shape[-1], (self.heads, head_width(x.shape[-1], self.heads))
        x = nn.LayerNorm(dtype=self.dtype)(x)
        query, key, value = (
            nn.DenseGeneral(shape, dtype=self.dtype, name=name)(x)
            for name in ("query", "key", "value")
        )
        filters = self.param("filters", _only_itself, (self.size, *shape)).astype(key.dtype)
        y = kernels.conv_attention(query, key, value, filters, key_value_seq_lengths=lengths)
        y = nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype)(y)
        return nn.Dropout(self.dropout)(y, deterministic=deterministic)


class ConvolvedKeyTransformer(FrameForFrame, nn.Module):
    """A projection of the features with sinusoidal positions, Transformer blocks, K logits a frame.

    Each block is x + attention(norm(x)), x + feed-forward(norm(x)). The filters begin as the
    identity: before training it is a plain Transformer.

    Attributes:
        classes: K, the blank among them.
        width: D, even and a multiple of ``heads``.
        layers: blocks.
        heads: N.
        size: W, taps of the filters of the keys.
        expansion: inner width of the feed-forward layers over D.
        dropout: rate after each part.
        intermediate: blocks, counted from 1, that predict too: see ``CTCHead``.
        self_conditioned: whether later blocks know these predictions.
        dtype: of the computation; parameters and logits are float32.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> features, lengths = jnp.zeros((2, 9, 5)), jnp.array([9, 4])
        >>> model = ConvolvedKeyTransformer(classes=11, width=8, layers=1, heads=2)
        >>> key = jax.random.key(0)
        >>> logits, params = jax.eval_shape(model.init_with_output, key, features, lengths)
        >>> logits.shape
        (2, 9, 11)

    Sources: Vaswani et al., "Attention Is All You Need", NeurIPS 2017; So et al., "Primer:
    Searching for Efficient Transformers for Language Modeling", NeurIPS 2021, whose filters are
    causal, of three taps, and on queries and values too.
    """

    classes: int
    width: int = 96
    layers: int = 4
    heads: int = 4
    size: int = 7
    expansion: int = 4
    dropout: float = 0.1
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
        x = nn.Dense(self.width, dtype=self.dtype)(mask_frames(features, lengths))
        x = x + sinusoids(jnp.arange(x.shape[1]), self.width)[None].astype(x.dtype)
        x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        head = CTCHead(self.classes, self.layers, self.intermediate, self.self_conditioned)
        between = ()
        for layer in range(1, self.layers + 1):
            attention = ConvolvedKeyAttention(self.heads, self.size, self.dropout, self.dtype)
            x = x + attention(x, lengths, deterministic)
            x = x + FeedForward(self.expansion, self.dropout, self.dtype)(x, deterministic)
            x, between = head.after(layer, x, between)
        return head.output(x, between)


def _only_itself(key, shape):
    del key
    return jnp.zeros(shape).at[shape[0] // 2].set(1.0)
