"""A decoder-only Transformer over characters. Axes: B batch, T positions, D width, K symbols."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.models.norms import normalise
from research.models.transformer import TransformerBlock


class TransformerLM(nn.Module):
    """Embeddings of symbols and positions, causal blocks, a norm, K logits for the next symbol.

    The logits at position t depend on symbols 0 to t only.

    Example:
        >>> import jax
        >>> model = TransformerLM(symbols=97, max_length=16, width=8, heads=2, blocks=1)
        >>> text = jnp.zeros((2, 16), jnp.int32)
        >>> params = model.init(jax.random.key(0), text)["params"]
        >>> model.apply({"params": params}, text).shape
        (2, 16, 97)

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    """

    symbols: int
    max_length: int
    width: int = 64
    heads: int = 4
    blocks: int = 2
    activation: Callable = nn.gelu
    norm: str | None = "layer"

    @nn.compact
    def __call__(self, text: Int[Array, "B T"]) -> Float[Array, "B T K"]:
        """Logits of the symbol after each position.

        Raises:
            ValueError: a text longer than ``max_length``.
        """
        length = text.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"a text must have at most max_length = {self.max_length} symbols; received "
                f"{length}. Cut it, or make the model with a larger max_length."
            )
        small = nn.initializers.normal(0.02)
        positions = self.param("positions", small, (self.max_length, self.width))
        x = nn.Embed(self.symbols, self.width, embedding_init=small)(text)
        x = x + jnp.asarray(positions)[None, :length]
        for _ in range(self.blocks):
            x = TransformerBlock(self.heads, True, self.activation, self.norm)(x)
        return nn.Dense(self.symbols)(normalise(x, self.norm))
