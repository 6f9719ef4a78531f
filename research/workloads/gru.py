"""Gated recurrent units on MNIST-1D: sequences of 40 values, ten classes."""

import os

from research.data.mnist1d import SOURCE, Sequences, load_mnist1d
from research.models.gru_classifier import GRUClassifier
from research.workloads.classification import classifier, fingerprint
from research.workloads.workload import Examples, Workload

_TRAINED = 3200  # of the 4,000 training sequences; the rest is for validation


def build(name: str, data_dir: str | os.PathLike[str] | None, *, width: int = 32) -> Workload:
    """One layer; the class is read from the last state."""
    del data_dir
    published, test = load_mnist1d()
    parts = (
        _part(published, slice(None, _TRAINED)),
        _part(published, slice(_TRAINED, None)),
        _part(test, slice(None)),
    )
    return classifier(
        GRUClassifier(10, width),
        parts,
        inputs="sequences",
        name=name,
        description=f"GRU of width {width} on MNIST-1D, 40 values",
        steps=500,
        batch_size=64,
        source=f"{SOURCE}, {len(parts[1]['labels'])} of the former for validation",
        sha256=fingerprint(parts),
    )


def _part(sequences: Sequences, rows: slice) -> Examples:
    return {"sequences": sequences.values[rows, :, None], "labels": sequences.digits[rows]}
