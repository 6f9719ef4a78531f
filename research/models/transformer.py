"""The pre-norm Transformer block that several models are made of.

Axes: B batch, T positions, D width, N heads, H width of a head.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

import kernels
from research.models.norms import normalise


class SelfAttention(nn.Module):
    """Every position looks at every other, or with ``causal`` at those before it and itself.

    The projections are matrices (D, D), so that optimizers for matrices see them as such.
    """

    heads: int
    causal: bool

    @nn.compact
    def __call__(self, x_BTD: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """What the heads gather, projected."""
        batch, length, width = x_BTD.shape
        per_head = (batch, length, self.heads, width // self.heads)
        query, key, value = (
            nn.Dense(width, use_bias=False, name=name)(x_BTD).reshape(per_head)
            for name in ("query", "key", "value")
        )
        gathered = kernels.attention(query, key, value, is_causal=self.causal)
        return nn.Dense(width, use_bias=False, name="out")(jnp.reshape(gathered, x_BTD.shape))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + W2 activation(W1 norm(x)) with four times the width inside.

    Example:
        >>> import jax
        >>> block = TransformerBlock(heads=2, causal=True)
        >>> x = jnp.zeros((1, 5, 8))
        >>> params = block.init(jax.random.key(0), x)["params"]
        >>> block.apply({"params": params}, x).shape
        (1, 5, 8)

    Source: Vaswani et al., "Attention is all you need", NeurIPS 2017; the norm at the start of each
    branch, Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020.
    """

    heads: int
    causal: bool
    activation: Callable = nn.gelu
    norm: str | None = "layer"

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Add what the other positions say, then what each makes of it.

        Raises:
            ValueError: a width that the heads do not divide, or a norm that looks at later
                positions where none may be seen.
        """
        if self.causal and self.norm == "group":
            raise ValueError(
                'a causal block must have a norm of each position alone, "layer" or "rms"; '
                'received "group", whose mean is over all positions, later ones too.'
            )
        width = x.shape[-1]
        if width % self.heads:
            raise ValueError(
                f"the width must be a multiple of the number of heads; received {width} and "
                f"{self.heads}."
            )
        x = x + SelfAttention(self.heads, self.causal)(normalise(x, self.norm))
        y = nn.Dense(4 * width)(normalise(x, self.norm))
        return x + nn.Dense(width)(self.activation(y))
