"""A deep autoencoder of images. Axes: B batch, P pixels."""

from collections.abc import Callable

from flax import linen as nn
from jaxtyping import Array, Float


class Autoencoder(nn.Module):
    """Dense layers down to a small linear code, and the mirror image of them back to the pixels.

    Sigmoids between the layers, as in the paper, make it hard to train from random weights.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> pixels = jnp.zeros((2, 64))
        >>> model = Autoencoder(widths=(16, 8), code=3)
        >>> params = model.init(jax.random.key(0), pixels)["params"]
        >>> model.apply({"params": params}, pixels).shape
        (2, 64)

    Source: Hinton & Salakhutdinov, "Reducing the Dimensionality of Data with Neural Networks",
    Science 2006; as a problem for optimizers, Martens, "Deep learning via Hessian-free
    optimization", ICML 2010.
    """

    widths: tuple[int, ...] = (128, 64, 32)
    code: int = 8
    activation: Callable = nn.sigmoid

    @nn.compact
    def __call__(self, pixels: Float[Array, "B P"]) -> Float[Array, "B P"]:
        """Logits of the pixels, whose sigmoids are the intensities in [0, 1]."""
        x = pixels
        for width in self.widths:
            x = self.activation(nn.Dense(width)(x))
        x = nn.Dense(self.code)(x)
        for width in reversed(self.widths):
            x = self.activation(nn.Dense(width)(x))
        return nn.Dense(pixels.shape[1])(x)
