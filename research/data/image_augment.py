"""Random changes of images that keep their class; pure functions, to be used under `jax.jit`.

Images are floats, (B, H, W, C); what comes in at the border is zero, which is the mean colour of
normalised images. Each image of a batch is changed on its own.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from research.errors import ConfigError


def random_flip(key: PRNGKeyArray, images: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
    """Mirror each image left to right with probability one half.

    Args:
        key: Random key.
        images: (B, H, W, C).

    Returns:
        Images of the same shape and type.

    Example:
        >>> image = jnp.arange(4.0).reshape(1, 1, 4, 1)
        >>> flipped = random_flip(jax.random.key(2), image).ravel().tolist()
        >>> flipped in ([0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0])
        True
    """
    mirrored = jax.random.bernoulli(key, shape=(images.shape[0],))
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def random_crop(
    key: PRNGKeyArray, images: Float[Array, "B H W C"], padding: int
) -> Float[Array, "B H W C"]:
    """Shift each image by up to `padding` pixels along each axis, filling in with zeros.

    The same as padding with zeros on every side and cropping to the old size at a random place.

    Args:
        key: Random key.
        images: (B, H, W, C).
        padding: Largest shift in pixels, 0 or more.

    Returns:
        Images of the same shape and type.

    Raises:
        ConfigError: `padding` is negative.

    Example:
        >>> random_crop(jax.random.key(0), jnp.ones((2, 8, 8, 1)), padding=1).shape
        (2, 8, 8, 1)
    """
    if padding < 0:
        raise ConfigError(f"the padding of a crop must be 0 pixels or more; received {padding}.")
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    offsets = jax.random.randint(key, (images.shape[0], 2), 0, 2 * padding + 1)

    def crop(image_HWC: Array, offset: Array) -> Array:
        return jax.lax.dynamic_slice(image_HWC, (offset[0], offset[1], 0), images.shape[1:])

    return jax.vmap(crop)(padded, offsets)


def random_rotation(
    key: PRNGKeyArray, images: Float[Array, "B H W C"], max_degrees: float
) -> Float[Array, "B H W C"]:
    """Turn each image by an angle drawn uniformly from -max_degrees to max_degrees.

    Args:
        key: Random key.
        images: (B, H, W, C).
        max_degrees: Largest angle, 0 or more.

    Returns:
        Images of the same shape and type.

    Raises:
        ConfigError: `max_degrees` is negative.

    Example:
        >>> images = jnp.ones((2, 8, 8, 1))
        >>> bool((random_rotation(jax.random.key(0), images, max_degrees=0.0) == images).all())
        True
    """
    if max_degrees < 0:
        raise ConfigError(f"the largest angle must be 0 degrees or more; received {max_degrees}.")
    degrees = jax.random.uniform(
        key, (images.shape[0],), images.dtype, minval=-max_degrees, maxval=max_degrees
    )
    return rotate(images, degrees)


def rotate(images: Float[Array, "B H W C"], degrees: Float[Array, " B"]) -> Float[Array, "B H W C"]:
    """Turn each image about its centre, counter-clockwise, with linear interpolation.

    Args:
        images: (B, H, W, C).
        degrees: Angle for each image, (B,).

    Returns:
        Images of the same shape and type; zero where the old image has no pixel.

    Example:
        >>> image = jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None]
        >>> rotate(image, jnp.array([90.0]))[0, :, :, 0].round().tolist()
        [[2.0, 4.0], [1.0, 3.0]]
    """
    _, height, width, _ = images.shape
    rows = jnp.arange(height, dtype=images.dtype)[:, None] - (height - 1) / 2
    columns = jnp.arange(width, dtype=images.dtype)[None, :] - (width - 1) / 2

    def turn(image_HWC: Array, angle: Array) -> Array:
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        # Where each new pixel comes from: the inverse rotation, with rows counted downwards.
        source = [
            cosine * rows + sine * columns + (height - 1) / 2,
            cosine * columns - sine * rows + (width - 1) / 2,
        ]
        sample = jax.vmap(
            lambda plane_HW: jax.scipy.ndimage.map_coordinates(plane_HW, source, order=1),
            in_axes=-1,
            out_axes=-1,
        )
        return sample(image_HWC)

    return jax.vmap(turn)(images, jnp.deg2rad(degrees))
