"""What a training problem is to a comparison: arrays and pure functions."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Examples = Mapping[str, np.ndarray]
Batch = Mapping[str, Any]


class Examination(NamedTuple):
    """What a trained model is found to do on the test split, beyond its loss and score.

    ``details`` are plain values, the same on every machine, and become part of the row; ``arrays``
    are kept in a file of their own, for figures; ``timings`` depend on the machine.
    """

    details: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    timings: Mapping[str, float]


class Workload(NamedTuple):
    """A training problem with a target.

    ``init(key)`` -> params; ``loss(params, batch, key)`` -> the scalar that is trained, with a key
    for dropout and augmentation; ``measure(params, batch)`` -> {"loss": (B,), "score": (B,)}, one
    value per example, without randomness. Lower scores are better, whatever the ``metric`` is: an
    error rate, bits per character. A training reaches the ``target`` when the mean score over the
    validation examples is at most that.

    ``train``, ``validation`` and ``test`` are named arrays with the examples along the first axis;
    a batch is ``batch_size`` rows of ``train``, as ``research.data.sampler`` draws them.
    """

    name: str
    description: str  # one line for the report: model, data, size
    metric: str  # what the score is, with its unit
    target: float
    steps: int  # the usual length of a training
    batch_size: int
    source: str  # where the data are from
    sha256: str  # of the data, split included
    train: Examples
    validation: Examples
    test: Examples
    init: Callable[[jax.Array], Any]
    loss: Callable[[Any, Batch, jax.Array], jax.Array]
    measure: Callable[[Any, Batch], Mapping[str, jax.Array]]
    examine: Callable[[Any], Examination] | None = None  # params -> of final trainings
