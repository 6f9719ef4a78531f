"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

Axes: R rows, C columns of a matrix.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from research.optimizers.parameters import debiased, per_parameter


class _Side(NamedTuple):
    """Of one side of a matrix: the gradients' second moment and, nearly, its eigenvectors."""

    moment: Float[Array, "N N"]
    basis: Float[Array, "N N"]


class _Kept(NamedTuple):
    mean: Float[Array, "R C"]
    square: Float[Array, "R C"]  # in the eigenbasis
    left: _Side
    right: _Side


def scale_by_soap(
    b1: Any = 0.95, b2: Any = 0.95, eps: Any = 1e-8, every: int = 10
) -> optax.GradientTransformation:
    """SOAP's direction for matrices.

        L <- b2 L + (1 - b2) g g'        with eigenvectors Q_L; likewise R, Q_R of g' g
        m <- b1 m + (1 - b1) g           v <- b2 v + (1 - b2) (Q_L' g Q_R)²
        u = Q_L (Q_L' m^ Q_R / (sqrt(v^) + eps)) Q_R'

    The first gradient gives the first eigenvectors and no update. After that a step of the power
    method and a QR decomposition follow them every few updates; v is sorted as they are.
    2 + 2 (R² + C²) / (R C) values are kept of each parameter: this is not for embeddings of many
    rows.

    Args:
        b1: decay of the mean.
        b2: decay of the squares and of both second moments.
        eps: added to the root.
        every: updates between two looks at the eigenvectors.

    Example:
        >>> soap = scale_by_soap(eps=1e-3)  # in its eigenbasis a gradient is diagonal
        >>> gradient = jnp.asarray([[2.0, 1.0], [1.0, 3.0]])
        >>> first, state = soap.update(gradient, soap.init(gradient))
        >>> second, state = soap.update(gradient, state)
        >>> print(jnp.all(first == 0), second.round(2))
        True [[1. 0.]
         [0. 1.]]

    Source: Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", ICLR 2025,
    arXiv:2409.11321.
    """

    def init(parameter):
        zero = jnp.zeros_like(parameter)
        sides = [
            _Side(jnp.zeros((n, n), zero.dtype), jnp.eye(n, dtype=zero.dtype)) for n in zero.shape
        ]
        return _Kept(zero, zero, *sides)

    def follow(gradient, left, right):
        return (
            left._replace(moment=b2 * left.moment + (1 - b2) * gradient @ gradient.T),
            right._replace(moment=b2 * right.moment + (1 - b2) * gradient.T @ gradient),
        )

    def start(gradient, kept, count):
        del count
        sides = follow(gradient, kept.left, kept.right)
        bases = [jnp.linalg.eigh(side.moment)[1][:, ::-1] for side in sides]
        left, right = (side._replace(basis=b) for side, b in zip(sides, bases, strict=True))
        return jnp.zeros_like(gradient), kept._replace(left=left, right=right)

    def move(gradient, kept, count):
        rows, columns = kept.left.basis, kept.right.basis
        mean = b1 * kept.mean + (1 - b1) * gradient
        square = b2 * kept.square + (1 - b2) * (rows.T @ gradient @ columns) ** 2
        rotated = rows.T @ debiased(mean, b1, count - 1) @ columns
        scaled = rotated / (jnp.sqrt(debiased(square, b2, count - 1)) + eps)
        kept = _Kept(mean, square, *follow(gradient, kept.left, kept.right))
        kept = jax.lax.cond((count - 1) % every == 0, _turned, lambda same: same, kept)
        return rows @ scaled @ columns.T, kept

    def update(gradient, kept, count):
        return jax.lax.cond(count == 1, start, move, gradient, kept, count)

    return per_parameter(init, update)


def _turned(kept: _Kept) -> _Kept:
    """With both bases brought nearer to the eigenvectors, largest eigenvalue first."""
    left, rows = _power_step(kept.left)
    right, columns = _power_step(kept.right)
    return kept._replace(square=kept.square[rows][:, columns], left=left, right=right)


def _power_step(side: _Side) -> tuple[_Side, Array]:
    """The side with its new basis, and where each vector of it was in the old one."""
    product = side.moment @ side.basis
    order = jnp.argsort(jnp.sum(side.basis * product, axis=0), descending=True)
    return side._replace(basis=jnp.linalg.qr(product[:, order])[0]), order
