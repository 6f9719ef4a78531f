"""PSGD-Kron: a Kronecker-factored preconditioner that learns to whiten the gradient.

Axes: R rows, C columns of a matrix, N either.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int

from research.optimizers.parameters import debiased, per_parameter

_BALANCE_EVERY = 100  # learnings; the product of the factors stays, their sizes become alike
_LARGEST = 1.1  # root mean square of an update


class _Kept(NamedTuple):
    mean: Float[Array, "R C"]
    left: Float[Array, "R R"]  # upper triangular, as the right one
    right: Float[Array, "C C"]
    waited: Int[Array, ""]  # updates since the factors learned
    learned: Int[Array, ""]  # times


def scale_by_kron(
    b1: Any = 0.9, preconditioner_rate: Any = 0.1, seed: int = 0
) -> optax.GradientTransformation:
    """PSGD-Kron's direction for matrices: u = Q_L'Q_L m^ Q_R'Q_R.

    Its root mean square is at most 1.1. The triangular factors of this preconditioner P go down
    E[m'P m + v'P^(-1)v], v standard normal:

        A = Q_L m^ Q_R'        B = Q_L^(-T) v Q_R^(-1)
        Q_L <- Q_L - rate triu(A A' - B B') Q_L / ||A A' + B B'||        Q_R with A'A and B'B

    at each of the first 500 updates, then less and less often, down to one update in 33. The
    minimum whitens: coordinates of u are uncorrelated and of size one. 1 + (R² + C²) / (R C) values
    are kept of each parameter.

    Args:
        b1: decay of the mean gradient, m.
        preconditioner_rate: learning rate of the factors, in (0, 1).
        seed: of v, which is a function of it, of the update's number and of the shape.

    Example:
        >>> kron = scale_by_kron()
        >>> gradient = jnp.diag(jnp.asarray([100.0, 100.0]))
        >>> update, _ = jax.jit(kron.update)(gradient, kron.init(gradient))
        >>> print(f"{jnp.sqrt(jnp.mean(update**2)):.3f}")  # the preconditioner starts from 1
        1.100

    Source: Li, "Preconditioned Stochastic Gradient Descent", 2018, arXiv:1512.04202; Pooladzandi &
    Li, "Curvature-Informed SGD via General Purpose Lie-Group Preconditioners", 2024,
    arXiv:2402.04553.
    """

    def init(parameter):
        rows, columns = (jnp.eye(n, dtype=parameter.dtype) for n in parameter.shape)
        zero = jnp.zeros((), jnp.int32)
        return _Kept(jnp.zeros_like(parameter), rows, columns, zero, zero)

    def learn(kept, mean, count):
        key = jax.random.fold_in(jax.random.key(seed), count)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        balance = kept.learned % _BALANCE_EVERY == _BALANCE_EVERY - 1
        left, right = _balanced(kept.left, kept.right, balance)
        along, across = left @ mean @ right.T, _divided(noise, left, right)
        return kept._replace(
            left=_descended(left, along @ along.T, across @ across.T, preconditioner_rate),
            right=_descended(right, along.T @ along, across.T @ across, preconditioner_rate),
            waited=jnp.zeros_like(kept.waited),
            learned=kept.learned + 1,
        )

    def update(gradient, kept, count):
        mean = b1 * kept.mean + (1 - b1) * gradient
        kept = kept._replace(mean=mean, waited=kept.waited + 1)
        smooth = debiased(mean, b1, count)
        often = jnp.clip(jnp.exp(-0.001 * (count - 501.0)), 0.03, 1.0)  # 500 updates of one
        # Of zeros there is nothing to learn, and the factors would grow without end.
        due = (kept.waited >= 1.0 / often) & jnp.any(smooth != 0)
        kept = jax.lax.cond(due, learn, lambda kept, *_: kept, kept, smooth, count)
        direction = kept.left.T @ (kept.left @ smooth @ kept.right.T) @ kept.right
        size = _root_mean_square(direction)
        return direction * jnp.minimum(1.0, _LARGEST / (size + 1e-6)), kept

    return per_parameter(init, update)


def _root_mean_square(array):
    largest = jnp.max(jnp.abs(array))
    return largest * jnp.sqrt(jnp.mean((array / jnp.where(largest > 0, largest, 1.0)) ** 2))


def _balanced(left, right, now):
    sizes = jnp.max(jnp.abs(left)), jnp.max(jnp.abs(right))
    factor = jnp.where(now, jnp.sqrt(sizes[1] / sizes[0]), 1.0)
    return left * factor, right / factor


def _divided(noise, left, right):
    """Q_L^(-T) v Q_R^(-1)."""
    rows = solve_triangular(left, noise, trans="T")
    return solve_triangular(right, rows.T, trans="T").T


def _descended(factor, along, across, rate):
    size = _norm_from_below(along + across) + jnp.finfo(factor.dtype).tiny
    return factor - rate * (jnp.triu(along - across) / size) @ factor


def _norm_from_below(matrix: Float[Array, "N N"]) -> Float[Array, ""]:
    """A lower bound of the spectral norm, within a factor of two in practice.

    One step of the power method from the column or row of the largest norm.
    """
    largest = jnp.max(jnp.abs(matrix))
    matrix = matrix / jnp.where(largest > 0, largest, 1.0)
    # The matrix is symmetric, so that its columns do.
    longest = matrix[:, jnp.argmax(jnp.sum(matrix**2, axis=0))]
    direction = longest @ matrix
    direction = direction / jnp.maximum(jnp.linalg.norm(direction), jnp.finfo(matrix.dtype).tiny)
    return largest * jnp.linalg.norm(direction @ matrix)
