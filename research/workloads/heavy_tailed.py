"""Classes of which most are rare: where gradient descent falls behind Adam.

Kunstner, Yadav, Milligan, Schmidt and Bietti, "Heavy-Tailed Class Imbalance and Why Adam
Outperforms Gradient Descent on Language Models", NeurIPS 2024: a linear classifier on inputs that
say nothing of the classes, trained on all examples at once. What is measured is the training loss,
so training, validation and test examples are the same.
"""

import hashlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

_GROUPS = 6
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


def heavy_tailed():
    """The workload: 384 examples of 63 classes in 448 dimensions."""
    classes = imbalanced_classes(_GROUPS)
    inputs = inputs_of(_GROUPS, _SEED)
    examples = {"inputs": inputs, "labels": classes}
    dimensions, number = inputs.shape[1], int(classes[-1]) + 1

    def init(key: jax.Array):
        bound = 1 / math.sqrt(dimensions)
        shape = (dimensions, number)
        weights = jax.random.uniform(key, shape, minval=-bound, maxval=bound)
        return {"weights": weights, "bias": jnp.zeros(number)}

    def losses(params, batch):
        logits = batch["inputs"] @ params["weights"] + params["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])

    return losses, init, examples, hashlib.sha256(inputs.tobytes() + classes.tobytes()).hexdigest()
