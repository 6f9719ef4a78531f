"""A bidirectional LSTM over speech frames. Axes: B batch, T frames, F features, K classes."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int


class BiLSTMEncoder(nn.Module):
    """Layers of two LSTMs, one per direction, joined; then K logits per frame.

    The backward LSTM starts at the last valid frame of each sequence, so padding changes nothing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> features, lengths = jnp.zeros((2, 9, 5)), jnp.array([9, 4])
        >>> model = BiLSTMEncoder(classes=11, width=8, layers=1)
        >>> params = model.init(jax.random.key(0), features, lengths)["params"]
        >>> model.apply({"params": params}, features, lengths).shape
        (2, 9, 11)

    Source: Graves & Schmidhuber, "Framewise Phoneme Classification with Bidirectional LSTM",
    Neural Networks 2005; with CTC, Graves et al., ICML 2006.
    """

    classes: int
    width: int = 128
    layers: int = 1
    dropout: float = 0.2

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B T F"],
        lengths: Int[Array, "B"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B T K"]:
        """Logits of each frame; those of padded frames mean nothing."""
        x = features
        for _ in range(self.layers):
            forward = nn.RNN(nn.OptimizedLSTMCell(self.width))
            backward = nn.RNN(nn.OptimizedLSTMCell(self.width), reverse=True, keep_order=True)
            both = [jnp.asarray(rnn(x, seq_lengths=lengths)) for rnn in (forward, backward)]
            x = jnp.concatenate(both, axis=-1)
            x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        return nn.Dense(self.classes)(x)
