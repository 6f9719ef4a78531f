"""Entries of optimizers that see which matrix, or which layer, a coordinate belongs to.

Those for matrices give scalars and vectors (biases, scales) to AdamW with the same learning rate,
and see a convolution's filters (h, w, I, O) as the matrix (h w I, O).
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from research.optimizers.elementwise import decoupled
from research.optimizers.entry import Optimizer, StateSize
from research.optimizers.muon import scale_by_muon, scale_by_normuon
from research.optimizers.parameters import for_matrices, reshaped
from research.optimizers.psgd import scale_by_kron
from research.optimizers.shampoo import scale_by_one_sided_shampoo
from research.optimizers.soap import soap
from research.optimizers.spaces import (
    ADAM_RATE,
    BETA1,
    BETA2,
    EPSILON,
    MOMENTUM,
    WEIGHT_DECAY,
    Range,
)

_MUON = {"learning_rate": ADAM_RATE, "beta": MOMENTUM, "weight_decay": WEIGHT_DECAY}


def _with_adamw(matrices, learning_rate, weight_decay, b1=0.9, b2=0.999, eps=1e-8):
    others = optax.scale_by_adam(b1, b2, eps)
    return decoupled(for_matrices(matrices, others), learning_rate, weight_decay)


def _muon(learning_rate, beta=0.95, weight_decay=0.0):
    return _with_adamw(scale_by_muon(beta), learning_rate, weight_decay)


def _normuon(learning_rate, beta=0.95, b2=0.95, weight_decay=0.0):
    return _with_adamw(scale_by_normuon(beta, b2), learning_rate, weight_decay)


def _one_sided_shampoo(learning_rate, b1=0.9, b2=0.99, weight_decay=0.0):
    matrices = scale_by_one_sided_shampoo(b1, b2)
    return _with_adamw(matrices, learning_rate, weight_decay, b1, b2)


def _kron(learning_rate, b1=0.9, preconditioner_rate=0.1, weight_decay=0.0):
    return _with_adamw(scale_by_kron(b1, preconditioner_rate), learning_rate, weight_decay, b1)


def lars(learning_rate, momentum=0.9, weight_decay=0.0):
    """Heavy ball on gradients whose size in each array is a share of the array's own.

        u = 0.001 |x| / (|g| + weight_decay |x|) (g + weight_decay x)
        m <- momentum m + learning_rate u        x <- x - m

    optax's divides by |g + weight_decay x| where the paper has the sum of both norms. An array of
    zeros, as biases are at first, counts as large as its gradient: u = 0.001 g.
    """

    def layerwise(gradient, x):
        size, of_gradient = jnp.linalg.norm(x), jnp.linalg.norm(gradient)
        total = of_gradient + weight_decay * size
        usable = (size > 0) & (total > 0)
        share = jnp.where(usable, size / jnp.where(usable, total, 1.0), 1.0)
        return 1e-3 * share * (gradient + weight_decay * x)

    return optax.chain(
        optax.stateless(lambda updates, params: jax.tree.map(layerwise, updates, params)),
        optax.scale_by_learning_rate(learning_rate),
        optax.trace(momentum),
    )


def lamb(learning_rate, b1=0.9, b2=0.999, eps=1e-6, weight_decay=0.0):
    """Adam with its decay, scaled in each array to the array's own size.

        r = m^ / (sqrt(v^) + eps) + weight_decay x        x <- x - learning_rate |x| / |r| r

    As in the paper with φ the identity: moments without their bias, no bound on |x|, ratio 1 where
    either norm is zero.
    """
    return optax.lamb(learning_rate, b1, b2, eps, weight_decay=weight_decay)


def _adafactor(learning_rate, decay_rate=0.8):
    return optax.adafactor(learning_rate, min_dim_size_to_factor=1, decay_rate=decay_rate)


def _sm3(learning_rate, momentum=0.9):
    """Of scalars and empty arrays too, which optax's does not take."""
    scalars_too = reshaped(optax.sm3(learning_rate, momentum), jnp.atleast_1d)
    return optax.masked(scalars_too, lambda tree: jax.tree.map(lambda array: array.size > 0, tree))


ENTRIES: Mapping[str, Optimizer] = {
    "lars": Optimizer(
        lars,
        {
            "learning_rate": Range(1e-1, 1e3),  # of a step of 1/1000 of the layer's norm
            "momentum": MOMENTUM,
            "weight_decay": Range(1e-6, 1e-2),
        },
        "You, Gitman & Ginsburg, Large Batch Training of Convolutional Networks, 2017",
        StateSize(1),
    ),
    "lamb": Optimizer(
        lamb,
        {
            "learning_rate": Range(1e-4, 1.0),
            "b1": BETA1,
            "b2": BETA2,
            "eps": EPSILON,
            "weight_decay": WEIGHT_DECAY,
        },
        "You et al., Large Batch Optimization for Deep Learning, ICLR 2020",
        StateSize(2),
    ),
    "novograd": Optimizer(
        optax.novograd,
        {
            "learning_rate": Range(1e-4, 1.0),
            "b1": BETA1,
            "b2": Range(0.2, 0.99, below_one=True),
            "weight_decay": Range(1e-6, 1e-2),
        },
        "Ginsburg et al., Stochastic Gradient Methods with Layer-wise Adaptive Moments, 2019",
        StateSize(1),
    ),
    "fromage": Optimizer(
        optax.fromage,
        {"learning_rate": Range(1e-4, 1e-1)},
        "Bernstein et al., On the distance between two neural networks, NeurIPS 2020",
        schedule_inside=True,
    ),
    "adafactor": Optimizer(
        _adafactor,
        {"learning_rate": Range(1e-4, 1.0), "decay_rate": Range(0.5, 0.95, below_one=True)},
        "Shazeer & Stern, Adafactor, ICML 2018",
        StateSize(rows=1, columns=1),
    ),
    "sm3": Optimizer(
        _sm3,
        {"learning_rate": Range(1e-3, 1.0), "momentum": MOMENTUM},
        "Anil et al., Memory-Efficient Adaptive Optimization, NeurIPS 2019",
        StateSize(copies=1, rows=1, columns=1),
    ),
    "muon": Optimizer(
        _muon,
        _MUON,
        "Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024",
        StateSize(1),
    ),
    "normuon": Optimizer(
        _normuon,
        _MUON | {"b2": Range(0.8, 0.999, below_one=True)},
        "Li et al., NorMuon: Making Muon more efficient and scalable, 2025",
        StateSize(copies=1, columns=1),
    ),
    "soap": Optimizer(
        soap,
        {
            "learning_rate": ADAM_RATE,
            "b1": BETA1,
            "b2": Range(0.8, 0.999, below_one=True),
            "weight_decay": WEIGHT_DECAY,
        },
        "Vyas et al., SOAP: Improving and Stabilizing Shampoo using Adam, ICLR 2025",
        StateSize(copies=2, row_squares=2, column_squares=2),
        schedule_inside=True,
    ),
    "one_sided_shampoo": Optimizer(
        _one_sided_shampoo,
        {
            "learning_rate": ADAM_RATE,
            "b1": BETA1,
            "b2": Range(0.8, 0.999, below_one=True),
            "weight_decay": WEIGHT_DECAY,
        },
        "Xie et al., Structured Preconditioners in Adaptive Optimization, 2025",
        StateSize(copies=1, smaller_squares=1),
    ),
    "kron": Optimizer(
        _kron,
        {
            "learning_rate": ADAM_RATE,
            "b1": BETA1,
            "preconditioner_rate": Range(0.01, 0.5),
            "weight_decay": WEIGHT_DECAY,
        },
        "Li, Preconditioned Stochastic Gradient Descent, 2018",
        StateSize(copies=1, row_squares=1, column_squares=1),
    ),
}
