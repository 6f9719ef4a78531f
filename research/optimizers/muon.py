"""Muon and NorMuon: momentum whose singular values are all made alike.

Axes: R rows, C columns of a matrix; each column is an output.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from research.optimizers.parameters import per_parameter

# Maximal slope at zero: five steps bring singular values from 0.01 to about one, give or take 0.3.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STEPS = 5


def orthogonalised(matrix: Float[Array, "R C"], eps: float = 1e-7) -> Float[Array, "R C"]:
    """About U V' of the singular value decomposition U S V', by Newton's and Schulz's iteration.

        X <- a X + (b A + c A²) X,   A = X X',   from X = M / ||M||, five times

    Args:
        matrix: (R, C).
        eps: the least norm to divide by.

    Returns:
        (R, C), with singular values near one.

    Example:
        >>> matrix = jnp.diag(jnp.asarray([3.0, 0.5]))
        >>> print(orthogonalised(matrix).round(1))
        [[0.7 0. ]
         [0.  1. ]]

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    rows, columns = matrix.shape
    x = matrix.T if rows > columns else matrix  # the smaller Gram matrix
    x = x / jnp.maximum(jnp.sqrt(jnp.sum(x**2)), eps)
    a, b, c = _COEFFICIENTS
    for _ in range(_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if rows > columns else x


def scale_by_muon(beta: Any = 0.95) -> optax.GradientTransformation:
    """Muon's direction for matrices, as large as Adam's.

        m <- beta m + (1 - beta) g
        u = 0.2 sqrt(max(R, C)) orthogonalised((1 - beta) g + beta m)

    One value is kept of each parameter. The factor gives u a root mean square of about 0.2, as
    Adam's updates have in practice, so that one learning rate serves both. optax's Muon divides the
    two terms by bias corrections that differ, which the author's does not.

    Args:
        beta: decay of the momentum, used in Nesterov's way.

    Example:
        >>> muon = scale_by_muon()
        >>> u, _ = muon.update(jnp.eye(4), muon.init(jnp.eye(4)))
        >>> bool(0.05 < jnp.sqrt(jnp.mean(u**2)) < 0.4)
        True

    Source: as for ``orthogonalised``; the factor from Liu et al., "Muon is Scalable for LLM
    Training", 2025, arXiv:2502.16982.
    """

    def update(gradient, momentum, count):
        del count
        direction, momentum = _nesterov(gradient, momentum, beta)
        return 0.2 * math.sqrt(max(gradient.shape)) * orthogonalised(direction), momentum

    return per_parameter(jnp.zeros_like, update)


class _Kept(NamedTuple):
    momentum: Float[Array, "R C"]
    square: Float[Array, " C"]  # of each output


def scale_by_normuon(
    beta: Any = 0.95, b2: Any = 0.95, eps: Any = 1e-10
) -> optax.GradientTransformation:
    """NorMuon's direction for matrices: Muon's, and each output's part of it of about equal size.

        O = orthogonalised((1 - beta) g + beta m)        v <- b2 v + (1 - b2) mean over rows of O²
        w = O / (sqrt(v) + eps)        u = 0.2 sqrt(R C) w / ||w||

    1 + 1 / R values are kept of each parameter.

    Args:
        beta: decay of the momentum, used in Nesterov's way.
        b2: decay of each output's mean square.
        eps: added to the root and to the norm.

    Example:
        >>> normuon = scale_by_normuon()
        >>> u, _ = normuon.update(jnp.eye(4), normuon.init(jnp.eye(4)))
        >>> print(f"{jnp.sqrt(jnp.mean(u**2)):.4f}")
        0.2000

    Source: Li et al., "NorMuon: Making Muon more efficient and scalable", 2025, arXiv:2510.05491.
    """

    def init(parameter):
        return _Kept(jnp.zeros_like(parameter), jnp.zeros_like(parameter[0]))

    def update(gradient, kept, count):
        del count
        direction, momentum = _nesterov(gradient, kept.momentum, beta)
        alike = orthogonalised(direction)
        square = b2 * kept.square + (1 - b2) * jnp.mean(alike**2, axis=0)
        even = alike / (jnp.sqrt(square) + eps)[None, :]
        size = 0.2 * math.sqrt(gradient.size) / (jnp.sqrt(jnp.sum(even**2)) + eps)
        return size * even, _Kept(momentum, square)

    return per_parameter(init, update)


def _nesterov(gradient, momentum, beta):
    momentum = beta * momentum + (1 - beta) * gradient
    return (1 - beta) * gradient + beta * momentum, momentum
