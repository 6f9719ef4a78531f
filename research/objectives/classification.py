"""Objectives for one label per example. Axes: B batch, K classes."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def cross_entropy(
    logits: Float[Array, "B K"], labels: Int[Array, "B"], *, label_smoothing: float = 0.0
) -> Float[Array, ""]:
    """Mean cross entropy in nats: -sum_k q_k log softmax(logits)_k, averaged over the batch.

    q is one-hot, or with label smoothing e: q_k = (1 - e) [k = label] + e / K.

    Args:
        logits: unnormalised log probabilities, (B, K).
        labels: class ids in [0, K), (B,).
        label_smoothing: e in [0, 1).

    Returns:
        A scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> print(f"{cross_entropy(jnp.zeros((2, 4)), jnp.array([0, 3])):.4f}")  # ln 4
        1.3863

    Source: label smoothing, Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016.
    """
    one_hot = jax.nn.one_hot(labels, logits.shape[-1])
    targets = optax.smooth_labels(one_hot, label_smoothing)
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))
