"""Ill-conditioned quadratics f(x) = x' A x / 2, of which the best rates are known.

The eigenvalues of A lie at equal distances on a logarithmic scale from L / kappa to L, in a random
basis, so that no coordinate has a curvature of its own. Axis: n coordinates.
"""

import hashlib
import json
import math
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from research.workloads.workload import Workload

DIMENSION = 32
LARGEST = 10.0  # eigenvalue L: the best learning rates then lie inside the search spaces
FLOOR = 1e-12  # of f relative to the start, below which float32 says little

_BASIS_SEED = 7


class Rate(NamedTuple):
    """The best constant hyperparameters and the factor by which they shrink the distance a step."""

    learning_rate: float
    momentum: float
    factor: float


def gradient_descent_rate(condition: float, largest: float = LARGEST) -> Rate:
    """Of x <- x - lr grad f(x): lr = 2 / (L + mu), factor (kappa - 1) / (kappa + 1).

    Args:
        condition: kappa = L / mu, of at least 1.
        largest: the largest eigenvalue L; mu is the smallest.

    Example:
        >>> print(f"{gradient_descent_rate(100.0).factor:.4f}")
        0.9802

    Source: Polyak, Introduction to Optimization, 1987, section 1.4.
    """
    smallest = largest / condition
    return Rate(2 / (largest + smallest), 0.0, (condition - 1) / (condition + 1))


def heavy_ball_rate(condition: float, largest: float = LARGEST) -> Rate:
    """With momentum: lr = (2 / (sqrt L + sqrt mu))², momentum q², factor q.

    q = (sqrt kappa - 1) / (sqrt kappa + 1). The factor holds in the limit: at the edge of its
    stability the method first grows, and the distance after t steps is bounded by t q^t.

    Example:
        >>> print(f"{heavy_ball_rate(100.0).factor:.4f}")
        0.8182

    Source: Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    """
    root, smallest = math.sqrt(condition), largest / condition
    factor = (root - 1) / (root + 1)
    rate = (2 / (math.sqrt(largest) + math.sqrt(smallest))) ** 2
    return Rate(rate, factor**2, factor)


def matrix(condition: float) -> Float64[np.ndarray, "n n"]:
    """A: symmetric, with the eigenvalues of the module's first lines."""
    exponents = np.linspace(-math.log10(condition), 0.0, DIMENSION)
    rng = np.random.Generator(np.random.Philox(key=_BASIS_SEED))
    basis, _ = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))
    return (basis * (LARGEST * 10.0**exponents)[None, :]) @ basis.T


def build(
    name: str, data_dir: str | os.PathLike[str] | None, *, condition: float, steps: int
) -> Workload:
    """The quadratic of a condition number; its one example, in every part, is the matrix."""
    del data_dir
    whole = matrix(condition)
    mean_start = float(np.trace(whole)) / 2  # of x ~ N(0, 1) in every coordinate
    examples = {"matrix": whole[None].astype(np.float32)}
    definition = json.dumps([condition, DIMENSION, LARGEST, _BASIS_SEED, FLOOR])

    def init(key):
        return {"x": jax.random.normal(key, (DIMENSION,))}

    def values(params, batch) -> Array:
        x = params["x"]
        return jnp.einsum("i,bij,j->b", x, batch["matrix"], x, precision="highest") / 2

    def loss(params, batch, key):
        del key
        return jnp.mean(values(params, batch))

    def measure(params, batch):
        value = values(params, batch)
        return {"loss": value, "score": jnp.log10(jnp.maximum(value / mean_start, FLOOR))}

    return Workload(
        name=name,
        description=f"quadratic in {DIMENSION} dimensions, condition number {condition:g}",
        metric="log10 of f / mean f at the start",
        target=math.nan,
        steps=steps,
        batch_size=1,
        source=f"computed: {DIMENSION} eigenvalues on a logarithmic scale, in a random basis",
        # Of what defines the matrix: its last bits are those of the machine's linear algebra.
        sha256=hashlib.sha256(definition.encode()).hexdigest(),
        train=examples,
        validation=examples,
        test=examples,
        init=init,
        loss=loss,
        measure=measure,
    )
