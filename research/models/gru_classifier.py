"""A recurrent classifier of sequences. Axes: B batch, T frames, F features, K classes."""

from flax import linen as nn
from jaxtyping import Array, Float


class GRUClassifier(nn.Module):
    """A layer of gated recurrent units; K logits from its state after the last frame.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> sequences = jnp.zeros((2, 40, 1))
        >>> model = GRUClassifier(classes=10, width=8)
        >>> params = model.init(jax.random.key(0), sequences)["params"]
        >>> model.apply({"params": params}, sequences).shape
        (2, 10)

    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014.
    """

    classes: int
    width: int = 32

    @nn.compact
    def __call__(self, sequences: Float[Array, "B T F"]) -> Float[Array, "B K"]:
        """Logits of the classes."""
        last, _ = nn.RNN(nn.GRUCell(self.width), return_carry=True)(sequences)
        return nn.Dense(self.classes)(last)
