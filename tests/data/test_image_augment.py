import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.data.image_augment import random_crop, random_flip, random_rotation, rotate
from research.errors import ConfigError

KEY = jax.random.key(0)
IMAGES = jnp.asarray(np.random.default_rng(0).uniform(1, 2, (16, 7, 6, 3)), jnp.float32)

AUGMENTATIONS = {
    "flip": random_flip,
    "crop": lambda key, images: random_crop(key, images, padding=2),
    "rotation": lambda key, images: random_rotation(key, images, max_degrees=30.0),
}
each_augmentation = pytest.mark.parametrize(
    "augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS.keys()
)


@each_augmentation
def test_pure_and_jittable(augment) -> None:
    once, again = augment(KEY, IMAGES), augment(KEY, IMAGES)
    assert once.shape == IMAGES.shape
    assert once.dtype == IMAGES.dtype
    assert (once == again).all()
    np.testing.assert_allclose(jax.jit(augment)(KEY, IMAGES), once, atol=1e-5)
    assert (augment(jax.random.key(1), IMAGES) != once).any()


@each_augmentation
def test_images_of_a_batch_change_apart(augment) -> None:
    same = jnp.broadcast_to(IMAGES[:1], IMAGES.shape)
    assert len({image.tobytes() for image in np.asarray(augment(KEY, same))}) > 1


def test_flip_mirrors_about_half_of_the_images() -> None:
    images = jnp.broadcast_to(IMAGES[:1], (400, *IMAGES.shape[1:]))
    flipped = np.asarray(random_flip(KEY, images))
    mirrored = (flipped == np.asarray(images[:, :, ::-1])).all((1, 2, 3))
    kept = (flipped == np.asarray(images)).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 150 < mirrored.sum() < 250  # expected 200, standard deviation 10


def test_crop_is_a_shift_with_zeros_and_reaches_every_place() -> None:
    padding, image = 1, np.asarray(IMAGES[0])
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    shifts = {
        padded[row : row + 7, column : column + 6].tobytes(): (row, column)
        for row in range(3)
        for column in range(3)
    }
    images = jnp.broadcast_to(IMAGES[:1], (200, *IMAGES.shape[1:]))
    seen = {shifts[crop.tobytes()] for crop in np.asarray(random_crop(KEY, images, padding))}
    assert len(seen) == 9


def test_nothing_to_do_changes_nothing() -> None:
    assert (random_crop(KEY, IMAGES, padding=0) == IMAGES).all()
    assert (random_rotation(KEY, IMAGES, max_degrees=0.0) == IMAGES).all()


@pytest.mark.parametrize("quarters", [-1, 1, 2, 3])
@pytest.mark.parametrize("side", [6, 7])
def test_quarter_turns_are_those_of_numpy(quarters: int, side: int) -> None:
    images = IMAGES[:, :6, :6] if side == 6 else jnp.pad(IMAGES, ((0, 0), (0, 0), (0, 1), (0, 0)))
    turned = rotate(images, jnp.full(len(images), 90.0 * quarters))
    np.testing.assert_allclose(turned, np.rot90(images, quarters, axes=(1, 2)), atol=1e-5)


def test_small_turns_keep_the_middle_and_the_mass() -> None:
    image = np.zeros((1, 21, 21, 1), np.float32)
    image[:, 7:14, 7:14] = 1
    turned = np.asarray(rotate(jnp.asarray(image), jnp.array([17.0])))
    np.testing.assert_allclose(turned[:, 10, 10], 1, atol=1e-5)
    np.testing.assert_allclose(turned.sum(), image.sum(), rtol=0.02)
    assert np.abs(turned - image).max() > 0.3


def test_rotation_stays_within_the_largest_angle() -> None:
    # A dot on the right edge of a disc moves along the rim: its angle is the turn.
    image = np.zeros((300, 41, 41, 1), np.float32)
    image[:, 20, 38] = 1
    turned = np.asarray(random_rotation(KEY, jnp.asarray(image), max_degrees=25.0))[..., 0]
    weights = turned / turned.sum((1, 2), keepdims=True)
    rows = (weights.sum(2) * np.arange(41)).sum(1) - 20
    columns = (weights.sum(1) * np.arange(41)).sum(1) - 20
    degrees = np.rad2deg(np.arctan2(-rows, columns))
    assert degrees.min() > -27
    assert degrees.max() < 27
    assert degrees.min() < -20
    assert degrees.max() > 20


def test_gradients_reach_the_images() -> None:
    gradient = jax.grad(lambda images: random_rotation(KEY, images, 30.0).sum())(IMAGES)
    assert jnp.isfinite(gradient).all()
    assert (gradient != 0).any()


def test_negative_amounts() -> None:
    with pytest.raises(ConfigError, match="0 pixels or more; received -1"):
        random_crop(KEY, IMAGES, padding=-1)
    with pytest.raises(ConfigError, match=r"0 degrees or more; received -5\.0"):
        random_rotation(KEY, IMAGES, max_degrees=-5.0)
