"""Classes of which most are rare: where gradient descent falls behind Adam.

Kunstner, Yadav, Milligan, Schmidt and Bietti, "Heavy-Tailed Class Imbalance and Why Adam
Outperforms Gradient Descent on Language Models", NeurIPS 2024: a linear classifier on inputs that
say nothing of the classes, trained on all examples at once. What is measured is the training loss,
so training, validation and test examples are the same.
"""

import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from research.workloads.classification import fingerprint
from research.workloads.workload import Workload

GROUPS = 6
_SEED = 2024


def imbalanced_classes(groups: int) -> Int[np.ndarray, " n"]:
    """The class of each example: group g has 2^g classes of 2^(groups - g) examples each.

    Every group has as many examples as the next, so most examples are of rare classes.

    Args:
        groups: how many; there are 2^groups - 1 classes and groups 2^groups examples.

    Example:
        >>> imbalanced_classes(2)
        array([0, 0, 0, 0, 1, 1, 2, 2], dtype=int32)
    """
    sizes = [2 ** (groups - group) for group in range(groups) for _ in range(2**group)]
    return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)


def inputs_of(groups: int, seed: int) -> Float[np.ndarray, "n d"]:
    """Inputs uniform in [0, 1), independent of the classes, in (groups + 1) 2^groups dimensions.

    There are more dimensions than examples: a linear classifier can fit every one.
    """
    size = (groups * 2**groups, (groups + 1) * 2**groups)
    return np.random.Generator(np.random.Philox(seed)).random(size, np.float32)


def build(name: str, data_dir: str | os.PathLike[str] | None) -> Workload:
    """A linear classifier of 384 examples of 63 classes in 448 dimensions, all in every batch."""
    del data_dir
    inputs, labels = inputs_of(GROUPS, _SEED), imbalanced_classes(GROUPS)
    examples = {"inputs": inputs, "labels": labels}
    size, dimensions = inputs.shape
    classes = int(labels[-1]) + 1

    def init(key):
        bound = 1 / math.sqrt(dimensions)
        weights = jax.random.uniform(key, (dimensions, classes), minval=-bound, maxval=bound)
        return {"weights": weights, "bias": jnp.zeros(classes)}

    def losses(params, batch):
        logits = batch["inputs"] @ params["weights"] + params["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])

    def loss(params, batch, key):
        del key
        return jnp.mean(losses(params, batch))

    def measure(params, batch):
        nats = losses(params, batch)
        return {"loss": nats, "score": nats}

    return Workload(
        name=name,
        description=f"linear classifier of {classes} classes, most of them rare, full batch",
        metric="training cross-entropy, nats",
        target=math.nan,
        steps=200,
        batch_size=size,
        source=f"computed: {size} random inputs in {dimensions} dimensions",
        sha256=fingerprint((examples,)),
        train=examples,
        validation=examples,
        test=examples,
        init=init,
        loss=loss,
        measure=measure,
    )
