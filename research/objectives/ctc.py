"""Objectives over label sequences. Axes: B batch, T frames, K classes, N labels."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import kernels


def ctc(
    logits: Float[Array, "B T K"],
    lengths: Int[Array, "B"],
    labels: Int[Array, "B N"],
    label_paddings: Float[Array, "B N"],
    *,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """Mean CTC loss in nats per label: mean_b( -log p(labels_b | logits_b) / max(1, N_b) ).

    Dividing by the number of labels keeps long strings from dominating the batch. A string that has
    more labels than frames can carry counts as zero and gives no gradient.

    Args:
        logits: unnormalised log probabilities, (B, T, K).
        lengths: valid frames of each sequence, (B,).
        labels: label ids, padded on the right, (B, N).
        label_paddings: 0 for a valid label, 1 for a padded one, (B, N).
        blank_id: the class that emits nothing.

    Returns:
        A scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> args = jnp.zeros((1, 4, 3)), jnp.array([4]), jnp.array([[1, 2]]), jnp.zeros((1, 2))
        >>> print(f"{ctc(*args):.4f}")  # (4 ln 3 - ln 15) / 2
        0.8432

    Source: Graves et al., "Connectionist Temporal Classification", ICML 2006.
    """
    frames = jnp.arange(logits.shape[1])
    logit_paddings = (frames[None, :] >= lengths[:, None]).astype(logits.dtype)
    losses = kernels.ctc_loss(
        logits, logit_paddings, labels, label_paddings, blank_id=blank_id, zero_infinity=True
    )
    label_counts = jnp.sum(1.0 - label_paddings, axis=1)
    return jnp.mean(losses / jnp.maximum(label_counts, 1.0))
