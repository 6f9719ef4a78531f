"""A deep autoencoder on scikit-learn's digits of 8x8 pixels. Axes: B batch, P pixels."""

import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.data.images import ImageSplit, load_images
from research.models.autoencoder import Autoencoder
from research.workloads.classification import activation as find_activation
from research.workloads.workload import Examples, Workload


def build(
    name: str, data_dir: str | os.PathLike[str] | None, *, activation: str = "sigmoid"
) -> Workload:
    """64-128-64-32-8 and back; trained by cross entropy, scored by squared error."""
    digits = load_images("digits", data_dir)
    model = Autoencoder(activation=find_activation(activation))
    train, validation, test = map(_part, (digits.train, digits.validation, digits.test))

    def init(key):
        return model.init(key, jnp.asarray(train["pixels"][:1]))["params"]

    def losses(logits, pixels):
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, pixels), axis=1)

    def loss(params, batch, key):
        del key
        return jnp.mean(losses(model.apply({"params": params}, batch["pixels"]), batch["pixels"]))

    def measure(params, batch):
        pixels = batch["pixels"]
        logits = jnp.asarray(model.apply({"params": params}, pixels))
        squares = (jax.nn.sigmoid(logits) - pixels) ** 2
        return {"loss": losses(logits, pixels), "score": jnp.mean(squares, axis=1)}

    return Workload(
        name=name,
        description=f"autoencoder 64-128-64-32-8, {activation}, on 8x8 digits",
        metric="mean squared error of a pixel in [0, 1]",
        target=math.nan,
        steps=2000,
        batch_size=64,
        source=digits.source,
        sha256=digits.sha256,
        train=train,
        validation=validation,
        test=test,
        init=init,
        loss=loss,
        measure=measure,
    )


def _part(split: ImageSplit) -> Examples:
    flat = split.images.reshape(len(split.images), -1)
    return {"pixels": flat.astype(np.float32) / np.float32(255)}
