"""A multilayer perceptron for images. Axes: B batch, H height, W width, C channels, K classes."""

from collections.abc import Callable

from flax import linen as nn
from jaxtyping import Array, Float

from research.models.norms import normalise


class MLP(nn.Module):
    """Flatten, then dense layers with ReLU between them.

    Another ``activation`` may take the place of ReLU; ``norm`` names a layer before each of them.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> images = jnp.zeros((2, 8, 8, 1))
        >>> model = MLP(classes=10, widths=(32,))
        >>> params = model.init(jax.random.key(0), images)["params"]
        >>> model.apply({"params": params}, images).shape
        (2, 10)
    """

    classes: int
    widths: tuple[int, ...] = (128, 128)
    activation: Callable = nn.relu
    norm: str | None = None

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B K"]:
        """Logits of the classes."""
        x = images.reshape(images.shape[0], -1)
        for width in self.widths:
            x = self.activation(normalise(nn.Dense(width)(x), self.norm))
        return nn.Dense(self.classes)(x)
