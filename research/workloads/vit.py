"""A small vision Transformer on Fashion-MNIST."""

import os

from research.data.images import load_images
from research.models.vit import ViT
from research.workloads.classification import activation as find_activation
from research.workloads.classification import classifier, fingerprint, image_parts
from research.workloads.fashion_lenet import VALIDATED
from research.workloads.workload import Workload


def build(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    *,
    activation: str = "gelu",
    norm: str | None = "layer",
) -> Workload:
    """Sixteen patches of 7x7 pixels, two blocks of width 48."""
    images = load_images("fashion_mnist", data_dir)
    parts = image_parts(images, (None, VALIDATED, None))
    return classifier(
        ViT(10, activation=find_activation(activation), norm=norm),
        parts,
        inputs="images",
        prepare=images.normalise,
        name=name,
        description="vision Transformer (2 blocks, width 48) on Fashion-MNIST, 7x7 patches",
        steps=500,
        batch_size=32,
        source=f"{images.source}, {len(parts[1]['labels']):,} for validation",
        sha256=fingerprint(parts),
    )
