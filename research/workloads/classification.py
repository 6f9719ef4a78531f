"""Classifiers as workloads, and what the families share: activations by name, hashes of arrays."""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.data.images import ImageDataset
from research.names import look_up
from research.objectives.classification import cross_entropy
from research.workloads.workload import Examples, Workload

_ACTIVATIONS: Mapping[str, Callable] = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
}


def activation(name: str) -> Callable:
    """The activation function of that name.

    Example:
        >>> activation("relu")(jnp.array([-1.0, 1.0])).tolist()
        [0.0, 1.0]
    """
    return look_up(_ACTIVATIONS, name, "activation")


def fingerprint(parts: Iterable[Examples]) -> str:
    """SHA-256 of named arrays, part by part."""
    digest = hashlib.sha256()
    for part in parts:
        for name, array in sorted(part.items()):
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def image_parts(dataset: ImageDataset, sizes: tuple[int | None, ...]) -> tuple[Examples, ...]:
    """Training, validation and test images as they are read, (N, H, W, C) of bytes, with labels.

    Args:
        dataset: the images.
        sizes: how many of each part to keep, the first ones; ``None`` for all.
    """
    splits = (dataset.train, dataset.validation, dataset.test)
    return tuple(
        {"images": split.images[:size], "labels": split.labels[:size]}
        for split, size in zip(splits, sizes, strict=True)
    )


def classifier(
    model: Any,
    parts: tuple[Examples, ...],
    *,
    inputs: str,
    prepare: Callable[[Any], Any] = lambda x: x,
    augment: Callable[[jax.Array, Any], Any] | None = None,
    **described: Any,
) -> Workload:
    """A workload of a model that gives logits of classes; its score is the error rate.

    Args:
        model: a Linen module from prepared inputs to logits (B, K).
        parts: training, validation and test examples, with "labels".
        inputs: the name of the inputs among their arrays.
        prepare: what is done to a batch of inputs before the model sees them.
        augment: (key, prepared inputs) -> those to train on; by default the same.
        **described: the remaining fields of ``Workload``.
    """
    train, validation, test = parts

    def prepared(batch):
        return prepare(jnp.asarray(batch[inputs]))

    def init(key):
        return model.init(key, prepare(jnp.asarray(train[inputs][:1])))["params"]

    def loss(params, batch, key):
        given = prepared(batch)
        logits = model.apply({"params": params}, augment(key, given) if augment else given)
        return cross_entropy(logits, batch["labels"])

    def measure(params, batch):
        outputs = model.apply({"params": params}, prepared(batch))
        wrong = jnp.argmax(outputs, axis=-1) != batch["labels"]
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["labels"])
        return {"loss": losses, "score": wrong.astype(jnp.float32)}

    return Workload(
        metric="error rate",
        target=math.nan,
        train=train,
        validation=validation,
        test=test,
        init=init,
        loss=loss,
        measure=measure,
        **described,
    )
