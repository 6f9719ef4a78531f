"""LeNet on Fashion-MNIST."""

import os

import jax

from research.data.image_augment import random_crop, random_flip
from research.data.images import load_images
from research.models.lenet import LeNet
from research.workloads.classification import activation as find_activation
from research.workloads.classification import classifier, fingerprint, image_parts
from research.workloads.workload import Workload

MOST_SHIFTED = 2  # pixels
VALIDATED = 2000  # of 6,000 images: validation must not cost more than training


def build(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    *,
    activation: str = "relu",
    norm: str | None = None,
    augmented: bool = False,
) -> Workload:
    """A few hundred steps: a fraction of an epoch."""
    images = load_images("fashion_mnist", data_dir)
    parts = image_parts(images, (None, VALIDATED, None))
    return classifier(
        LeNet(10, activation=find_activation(activation), norm=norm),
        parts,
        inputs="images",
        prepare=images.normalise,
        augment=shifted if augmented else None,
        name=name,
        description="LeNet on Fashion-MNIST, 28x28",
        steps=300,
        batch_size=32,
        source=f"{images.source}, {len(parts[1]['labels']):,} for validation",
        sha256=fingerprint(parts),
    )


def shifted(key: jax.Array, images: jax.Array) -> jax.Array:
    """Each image mirrored or not, and moved by up to two pixels each way."""
    flip, crop = jax.random.split(key)
    return random_crop(crop, random_flip(flip, images), MOST_SHIFTED)
