"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Axes: R rows, C columns of a matrix.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from research.optimizers.decay import step_then_decay
from research.optimizers.parameters import as_matrix, debiased, per_parameter, reshaped


class _Side(NamedTuple):
    """Of one side of a matrix: the gradients' second moment and, nearly, its eigenvectors."""

    moment: Float[Array, "N N"]
    basis: Float[Array, "N N"]


class _Kept(NamedTuple):
    mean: Float[Array, "*shape"]
    square: Float[Array, "*shape"]  # in the eigenbases
    sides: tuple[_Side, ...]  # of rows and of columns; none of a vector


def soap(
    learning_rate: Any,
    b1: Any = 0.95,
    b2: Any = 0.95,
    weight_decay: Any = 0.0,
    eps: Any = 1e-8,
    every: int = 10,
) -> optax.GradientTransformation:
    """SOAP as its authors run it: nothing moves at the first update, nor decays.

        x <- (1 - learning_rate weight_decay) (x - learning_rate u)

    Filters (h, w, I, O) are seen as the matrix (h w I, O).

    Args:
        learning_rate: a number, or a function of the updates made before this one.
        b1: decay of the mean.
        b2: decay of the squares and of both second moments.
        weight_decay: of every array.
        eps: added to the root.
        every: updates between two looks at the eigenvectors.

    Example:
        >>> optimizer, x = soap(0.1, weight_decay=0.5), jnp.ones((2, 2))
        >>> first, state = optimizer.update(x, optimizer.init(x), x)
        >>> second, state = optimizer.update(0 * x, state, x)
        >>> print(jnp.all(first == 0), second.round(3).min())
        True -0.05

    Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", ICLR 2025,
    arXiv:2409.11321, and the authors' code.
    """

    def shrinkage(rate, count):
        return jnp.where(count == 0, 0.0, rate * weight_decay)

    return optax.chain(
        reshaped(scale_by_soap(b1, b2, eps, every), as_matrix),
        step_then_decay(learning_rate, shrinkage),
    )


def scale_by_soap(
    b1: Any = 0.95, b2: Any = 0.95, eps: Any = 1e-8, every: int = 10
) -> optax.GradientTransformation:
    """SOAP's direction: of matrices, and Adam's of scalars and vectors.

        L <- b2 L + (1 - b2) g g'        with eigenvectors Q_L; likewise R, Q_R of g' g
        m <- b1 m + (1 - b1) g           v <- b2 v + (1 - b2) (Q_L' g Q_R)²
        u = Q_L (Q_L' m^ Q_R / (sqrt(v^) + eps)) Q_R'

    The first gradient gives the first eigenvectors, and no update to any array. After that a step
    of the power method and a QR decomposition follow them every few updates; v is sorted as they
    are. 2 + 2 (R² + C²) / (R C) values are kept of each parameter of a matrix: this is not for
    embeddings of many rows.

    Args:
        b1: decay of the mean.
        b2: decay of the squares and of both second moments.
        eps: added to the root.
        every: updates between two looks at the eigenvectors.

    Example:
        >>> directions = scale_by_soap(eps=1e-3)  # in its eigenbasis a gradient is diagonal
        >>> gradient = jnp.asarray([[2.0, 1.0], [1.0, 3.0]])
        >>> first, state = directions.update(gradient, directions.init(gradient))
        >>> second, state = directions.update(gradient, state)
        >>> print(jnp.all(first == 0), second.round(2))
        True [[1. 0.]
         [0. 1.]]

    Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", ICLR 2025,
    arXiv:2409.11321.
    """

    def init(parameter):
        zero = jnp.zeros_like(parameter)
        sizes = parameter.shape if parameter.ndim == 2 else ()
        sides = (_Side(jnp.zeros((n, n), zero.dtype), jnp.eye(n, dtype=zero.dtype)) for n in sizes)
        return _Kept(zero, zero, tuple(sides))

    def follow(gradient, sides):
        seen = zip(sides, (gradient, gradient.T), strict=False)  # a vector has no sides
        return tuple(
            side._replace(moment=b2 * side.moment + (1 - b2) * g @ g.T) for side, g in seen
        )

    def start(gradient, kept, count):
        del count
        sides = tuple(
            side._replace(basis=jnp.linalg.eigh(side.moment)[1][:, ::-1])
            for side in follow(gradient, kept.sides)
        )
        return jnp.zeros_like(gradient), kept._replace(sides=sides)

    def move(gradient, kept, count):
        mean = b1 * kept.mean + (1 - b1) * gradient
        square = b2 * kept.square + (1 - b2) * _into(kept.sides, gradient) ** 2
        rotated = _into(kept.sides, debiased(mean, b1, count - 1))
        scaled = rotated / (jnp.sqrt(debiased(square, b2, count - 1)) + eps)
        direction = _back(kept.sides, scaled)
        kept = _Kept(mean, square, follow(gradient, kept.sides))
        if kept.sides:
            kept = jax.lax.cond((count - 1) % every == 0, _turned, lambda same: same, kept)
        return direction, kept

    def update(gradient, kept, count):
        return jax.lax.cond(count == 1, start, move, gradient, kept, count)

    return per_parameter(init, update)


def _into(sides, array):
    """The array in the eigenbases."""
    if not sides:
        return array
    rows, columns = sides
    return rows.basis.T @ array @ columns.basis


def _back(sides, array):
    if not sides:
        return array
    rows, columns = sides
    return rows.basis @ array @ columns.basis.T


def _turned(kept: _Kept) -> _Kept:
    """With both bases brought nearer to the eigenvectors, largest eigenvalue first."""
    (left, rows), (right, columns) = (_power_step(side) for side in kept.sides)
    return kept._replace(square=kept.square[rows][:, columns], sides=(left, right))


def _power_step(side: _Side) -> tuple[_Side, Array]:
    """The side with its new basis, and where each vector of it was in the old one."""
    product = side.moment @ side.basis
    order = jnp.argsort(jnp.sum(side.basis * product, axis=0), descending=True)
    return side._replace(basis=jnp.linalg.qr(product[:, order])[0]), order
