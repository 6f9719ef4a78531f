"""One-sided Shampoo: gradients whitened along the shorter side of a matrix.

Axes: R rows, C columns of a matrix, N = min(R, C).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from research.optimizers.parameters import debiased, per_parameter


class _Kept(NamedTuple):
    mean: Float[Array, "R C"]
    second_moment: Float[Array, "N N"]  # of the longer side's vectors


def scale_by_one_sided_shampoo(
    b1: Any = 0.9, b2: Any = 0.99, eps: Any = 1e-8
) -> optax.GradientTransformation:
    """The mean gradient, with its covariance along the shorter side taken out.

        m <- b1 m + (1 - b1) g        L <- b2 L + (1 - b2) g g'
        u = (L^ / C)^(-1/2) m^        for R <= C, ^ without the bias of a start from zero

    and from the right, with g' g / R, for R > C. An eigenvalue l becomes 1 / (sqrt(l) + eps); those
    that rounding could have made count as no smaller than rounding makes them. Independent
    coordinates give updates of size about one, as in Adam, so that one learning rate serves both.
    1 + N² / (R C) values are kept of each parameter; an update costs the eigenvectors of an (N, N)
    matrix.

    Args:
        b1: decay of the mean.
        b2: decay of the second moment.
        eps: added to the root.

    Example:
        >>> shampoo = scale_by_one_sided_shampoo(eps=0.0)
        >>> gradient = jnp.asarray([[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]])
        >>> u, _ = shampoo.update(gradient, shampoo.init(gradient))
        >>> print((u @ u.T).round(4))
        [[3. 0.]
         [0. 3.]]

    Source: Xie et al., "Structured Preconditioners in Adaptive Optimization: A Unified Analysis",
    2025, arXiv:2503.10537; with moving averages, An et al., "ASGO: Adaptive Structured Gradient
    Optimization", 2025, arXiv:2503.20762; the first, Gupta et al., "Shampoo", ICML 2018.
    """

    def init(parameter):
        size = min(parameter.shape)
        return _Kept(jnp.zeros_like(parameter), jnp.zeros((size, size), parameter.dtype))

    def update(gradient, kept, count):
        rows, columns = gradient.shape
        wide = gradient if rows <= columns else gradient.T
        mean = b1 * kept.mean + (1 - b1) * gradient
        second_moment = b2 * kept.second_moment + (1 - b2) * wide @ wide.T
        inverse_root = _inverse_root(debiased(second_moment, b2, count) / wide.shape[1], eps)
        smooth = debiased(mean, b1, count)
        direction = inverse_root @ smooth if rows <= columns else smooth @ inverse_root
        return direction, _Kept(mean, second_moment)

    return per_parameter(init, update)


def _inverse_root(matrix, eps):
    values, vectors = jnp.linalg.eigh(matrix)  # ascending
    values = jnp.maximum(values, len(values) * jnp.finfo(values.dtype).eps * values[-1])
    return vectors / (jnp.sqrt(values) + eps)[None, :] @ vectors.T
