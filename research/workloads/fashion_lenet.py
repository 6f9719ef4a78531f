"""LeNet on Fashion-MNIST."""

import os

from research.data.images import load_images
from research.models.lenet import LeNet
from research.workloads.classification import activation as find_activation
from research.workloads.classification import classifier, fingerprint, image_parts
from research.workloads.workload import Workload

VALIDATED = 2000  # of 6,000 images: validation must not cost more than training


def build(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    *,
    activation: str = "relu",
    norm: str | None = None,
) -> Workload:
    """A few hundred steps: a fraction of an epoch."""
    images = load_images("fashion_mnist", data_dir)
    parts = image_parts(images, (None, VALIDATED, None))
    return classifier(
        LeNet(10, activation=find_activation(activation), norm=norm),
        parts,
        inputs="images",
        prepare=images.normalise,
        name=name,
        description="LeNet on Fashion-MNIST, 28x28",
        steps=300,
        batch_size=32,
        source=f"{images.source}, {len(parts[1]['labels']):,} for validation",
        sha256=fingerprint(parts),
    )
