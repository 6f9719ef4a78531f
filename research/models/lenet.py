"""A LeNet-style convolutional network. Axes: B batch, H height, W width, C channels, K classes."""

from collections.abc import Callable

from flax import linen as nn
from jaxtyping import Array, Float

from kernels import conv2d
from research.models.norms import normalise


class Conv(nn.Module):
    """A square convolution with zero padding ("SAME").

    By default ``kernels.conv2d``; another function of (images, filters, bias) may take its place.

    For few channels it takes a fraction of the time of XLA's convolution on a CPU, most where many
    models are trained at once or the step is in a loop (kernels/convolution/README.md).
    """

    features: int
    size: int
    convolve: Callable = conv2d

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B H W K"]:
        """Apply the filters."""
        shape = (self.size, self.size, images.shape[3], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return self.convolve(images, kernel, bias)


def max_pool(images: Float[Array, "B H W C"]) -> Float[Array, "B H2 W2 C"]:
    """The largest of each 2x2 square; an odd last row or column is left out.

    Example:
        >>> import jax.numpy as jnp
        >>> max_pool(jnp.arange(10.0).reshape(1, 2, 5, 1)).ravel().tolist()
        [6.0, 8.0]
    """
    batch, height, width, channels = images.shape
    images = images[:, : height // 2 * 2, : width // 2 * 2]
    squares = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return squares.max(axis=(2, 4))


class LeNet(nn.Module):
    """Convolution to 6 maps, pool, convolution to 16 maps, pool, then 120, 84, K units.

    Both filters are 5x5. Both convolutions pad, so any image of 4x4 pixels or more fits; the 1998
    network had no padding, and subsampled with trained weights where this one takes the maximum.
    Another ``activation`` may take the place of ReLU (in 1998 it was tanh); ``norm`` names a layer
    before each of them.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> images = jnp.zeros((2, 32, 32, 3))
        >>> params = LeNet(classes=10).init(jax.random.key(0), images)["params"]
        >>> LeNet(classes=10).apply({"params": params}, images).shape
        (2, 10)

    Source: LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document
    Recognition", Proc. IEEE 1998.
    """

    classes: int
    convolve: Callable = conv2d
    activation: Callable = nn.relu
    norm: str | None = None

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float[Array, "B K"]:
        """Logits of the classes.

        Raises:
            ValueError: images below 4x4 pixels.
        """
        if min(images.shape[1:3]) < 4:
            raise ValueError(
                f"LeNet needs images of at least 4x4 pixels; received {images.shape[1:3]}. "
                "Resize them, or use MLP."
            )
        x = images
        for maps in (6, 16):
            x = normalise(Conv(maps, 5, self.convolve)(x), self.norm)
            x = max_pool(self.activation(x))
        x = x.reshape(x.shape[0], -1)
        for width in (120, 84):
            x = self.activation(normalise(nn.Dense(width)(x), self.norm))
        return nn.Dense(self.classes)(x)
