"""A small vision Transformer.

Axes: B batch, H height, W width, C channels, T patches, P values of a patch, K classes.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from research.models.norms import normalise
from research.models.transformer import TransformerBlock


def patches(images: Float[Array, "B H W C"], size: int) -> Float[Array, "B T P"]:
    """Cut images into squares, row by row, each as a vector of its P = size² C pixels.

    Raises:
        ValueError: a side that is no multiple of ``size``.

    Example:
        >>> patches(jnp.arange(16.0).reshape(1, 4, 4, 1), 2)[0, 1].tolist()
        [2.0, 3.0, 6.0, 7.0]
    """
    batch, height, width, channels = images.shape
    if height % size or width % size:
        raise ValueError(
            f"both sides of an image must be multiples of the patch of {size} pixels; received "
            f"{height}x{width}. Pad the images, or choose another patch."
        )
    rows, columns = height // size, width // size
    squares = images.reshape(batch, rows, size, columns, size, channels)
    squares = jnp.transpose(squares, (0, 1, 3, 2, 4, 5))
    return squares.reshape(batch, rows * columns, size * size * channels)


class ViT(nn.Module):
    """Patches with learned positions, Transformer blocks, the mean over patches, K logits.

    Example:
        >>> import jax
        >>> images = jnp.zeros((2, 28, 28, 1))
        >>> model = ViT(classes=10, width=8, heads=2, blocks=1)
        >>> params = model.init(jax.random.key(0), images)["params"]
        >>> model.apply({"params": params}, images).shape
        (2, 10)

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021; the mean in the place of
    a class token, Beyer, Zhai & Kolesnikov, "Better plain ViT baselines for ImageNet-1k", 2022.
    """

    classes: int
    patch: int = 7
    width: int = 48
    heads: int = 4
    blocks: int = 2
    activation: Callable = nn.gelu
    norm: str | None = "layer"

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B K"]:
        """Logits of the classes."""
        x = nn.Dense(self.width)(patches(images, self.patch))
        positions = self.param("positions", nn.initializers.normal(0.02), x.shape[1:])
        x = x + jnp.asarray(positions)[None]
        for _ in range(self.blocks):
            x = TransformerBlock(self.heads, False, self.activation, self.norm)(x)
        return nn.Dense(self.classes)(jnp.mean(normalise(x, self.norm), axis=1))
