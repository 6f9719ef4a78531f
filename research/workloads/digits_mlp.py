"""A multilayer perceptron on scikit-learn's digits of 8x8 pixels."""

import os

from research.data.images import load_images
from research.models.mlp import MLP
from research.workloads.classification import activation as find_activation
from research.workloads.classification import classifier, image_parts
from research.workloads.workload import Workload


def build(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    *,
    widths: tuple[int, ...] = (128, 128),
    activation: str = "relu",
    norm: str | None = None,
) -> Workload:
    """Two hidden layers; a quarter of a second of one core."""
    digits = load_images("digits", data_dir)
    return classifier(
        MLP(10, widths, find_activation(activation), norm),
        image_parts(digits, (None, None, None)),
        inputs="images",
        prepare=digits.normalise,
        name=name,
        description=f"MLP {'-'.join(map(str, widths))} on 8x8 digits",
        steps=300,
        batch_size=64,
        source=digits.source,
        sha256=digits.sha256,
    )
