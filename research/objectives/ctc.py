"""Objectives over label sequences, all of one signature, over ``kernels.ctc_loss``.

``objective(outputs, lengths, labels, label_paddings, *, blank_id=0, ...)`` gives the mean over the
utterances of nats per label. What an objective adds to CTC is, like CTC itself, a sum over the
frames of an utterance, and divided by its labels too, so that weights mean what they mean in the
papers. An utterance with more labels than its frames can carry is left out of the mean and has no
gradient; padded frames have none either, whatever they hold.

Axes: B batch, T frames, K classes, N labels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.ctc import ctc_posteriors
from research.objectives.ctc_terms import (
    Outputs,
    Paddings,
    expected,
    log_probs_of,
    logits_of,
    losses_of,
    mean_per_label,
)


def ctc(
    outputs: Outputs,
    lengths: Int[Array, " B"],
    labels: Int[Array, "B N"],
    label_paddings: Paddings,
    *,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """Mean CTC loss in nats per label: mean_b( -log p(labels_b | logits_b) / max(1, N_b) ).

    Dividing by the number of labels keeps long strings from dominating the batch. A string that has
    more labels than frames can carry is left out and gives no gradient; if all do, the mean is 0.

    Args:
        outputs: unnormalised log probabilities, (B, T, K), or what has them as ``logits``.
        lengths: valid frames of each sequence, (B,).
        labels: label ids, padded on the right, (B, N).
        label_paddings: 0 for a valid label, 1 (or True) for a padded one, (B, N).
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
    losses = losses_of(logits_of(outputs), lengths, labels, label_paddings, blank_id)
    return mean_per_label(losses, losses, label_paddings)


def label_smoothed_ctc(
    outputs: Outputs,
    lengths: Int[Array, " B"],
    labels: Int[Array, "B N"],
    label_paddings: Paddings,
    *,
    smoothing: float = 0.05,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """(1 - e) CTC + e sum_t KL(p_t || uniform), which keeps frames from becoming certain.

    Args:
        outputs: as in ``ctc``.
        lengths: as in ``ctc``.
        labels: as in ``ctc``.
        label_paddings: as in ``ctc``.
        smoothing: e in [0, 1]; 0 is CTC.
        blank_id: the class that emits nothing.

    Returns:
        A scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> args = jnp.zeros((1, 4, 3)), jnp.array([4]), jnp.array([[1, 2]]), jnp.zeros((1, 2))
        >>> print(f"{label_smoothed_ctc(*args, smoothing=0.5) / ctc(*args):.2f}")
        0.50

    Source: Kim, Seltzer, Li, Zhao, "Improved Training for Online End-to-end Speech Recognition
    Systems", Interspeech 2018.
    """
    logits = logits_of(outputs)
    losses = losses_of(logits, lengths, labels, label_paddings, blank_id)
    log_probs, valid = log_probs_of(logits, lengths)
    divergence = expected(jnp.exp(log_probs), log_probs) + jnp.log(logits.shape[2])
    smoothed = (1 - smoothing) * losses + smoothing * jnp.sum(
        jnp.where(valid, divergence, 0), axis=1
    )
    return mean_per_label(smoothed, losses, label_paddings)


def entropy_regularised_ctc(
    outputs: Outputs,
    lengths: Int[Array, " B"],
    labels: Int[Array, "B N"],
    label_paddings: Paddings,
    *,
    weight: float = 0.2,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """EnCTC: CTC - w H(path | labels), which keeps the model from settling on one path early.

    The entropy is that of the paths that collapse to the labels:
    H = log p(labels) - sum_tk P(path_t = k | labels) log p_tk.

    Args:
        outputs: as in ``ctc``.
        lengths: as in ``ctc``.
        labels: as in ``ctc``.
        label_paddings: as in ``ctc``.
        weight: w; 0 is CTC. The gradient goes through the posterior: it is of second order. The
            authors' program trains (1 - b) CTC - b H with b = 0.2, which is w = 0.25.
        blank_id: the class that emits nothing.

    Returns:
        A scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> args = jnp.zeros((1, 4, 3)), jnp.array([4]), jnp.array([[1, 2]]), jnp.zeros((1, 2))
        >>> print(f"{2 * (ctc(*args) - entropy_regularised_ctc(*args, weight=1.0)):.4f}")  # ln 15
        2.7081

    Source: Liu, Jin, Zhang, "Connectionist Temporal Classification with Maximum Entropy
    Regularization", NeurIPS 2018.
    """
    logits = logits_of(outputs)
    losses = losses_of(logits, lengths, labels, label_paddings, blank_id)
    log_probs, valid = log_probs_of(logits, lengths)
    posteriors = ctc_posteriors(logits, ~valid, labels, label_paddings, blank_id=blank_id).astype(
        log_probs.dtype
    )
    mean_path = jnp.sum(expected(posteriors, log_probs), axis=1)
    entropy = -jnp.where(jnp.isposinf(losses), 0.0, losses) - mean_path
    return mean_per_label(losses - weight * entropy, losses, label_paddings)


def focal_ctc(
    outputs: Outputs,
    lengths: Int[Array, " B"],
    labels: Int[Array, "B N"],
    label_paddings: Paddings,
    *,
    focus: float = 0.5,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """(1 - p(labels))^g CTC, which counts utterances less that are recognised well.

    It differs from CTC only for utterances of a considerable probability p: short or learnt ones.

    Args:
        outputs: as in ``ctc``.
        lengths: as in ``ctc``.
        labels: as in ``ctc``.
        label_paddings: as in ``ctc``.
        focus: g >= 0; 0 is CTC.
        blank_id: the class that emits nothing.

    Returns:
        A scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> args = jnp.zeros((1, 4, 3)), jnp.array([4]), jnp.array([[1, 2]]), jnp.zeros((1, 2))
        >>> print(f"{focal_ctc(*args, focus=1.0) / ctc(*args):.4f}")  # 1 - 15 / 3^4
        0.8148

    Source: Feng, Yao, Zhang, "Focal CTC Loss for Chinese Optical Character Recognition on
    Unbalanced Datasets", Complexity 2019, without its constant factor, which is a learning rate.
    """
    losses = losses_of(logits_of(outputs), lengths, labels, label_paddings, blank_id)
    # At zero the product has slope zero, but the power alone an infinite one.
    some = jnp.isnan(losses) | ((losses > 0) & (losses < jnp.inf))
    safe = jnp.where(some, losses, 1.0)
    focal = jnp.where(some, jnp.power(-jnp.expm1(-safe), focus) * safe, 0.0)
    return mean_per_label(focal, losses, label_paddings)


def prior_ctc(
    outputs: Outputs,
    lengths: Int[Array, " B"],
    labels: Int[Array, "B N"],
    label_paddings: Paddings,
    *,
    log_priors: Float[Array, " K"],
    weight: float = 0.3,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """CTC over p_tk / prior_k^w: less peaky, since the blank, frequent as it is, counts less.

    -log sum over paths prod_t p_t[path_t] / prior[path_t]^w. The quotients are not normalised
    again, so that this can be negative. Log priors below -12 count as -12, as in the authors'
    program: a class that never was likely could otherwise make the loss infinite.

    Args:
        outputs: as in ``ctc``.
        lengths: as in ``ctc``.
        labels: as in ``ctc``.
        label_paddings: as in ``ctc``.
        log_priors: log frequency of each class, such as the ``mean_posterior`` of the epoch before,
            (K,); no gradient goes there.
        weight: w; 0 is CTC.
        blank_id: the class that emits nothing.

    Returns:
        A scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> args = jnp.zeros((1, 4, 3)), jnp.array([4]), jnp.array([[1, 2]]), jnp.zeros((1, 2))
        >>> priors = jnp.log(jnp.array([0.5, 0.25, 0.25]))
        >>> bool(prior_ctc(*args, log_priors=priors) < ctc(*args))
        True

    Source: Huang et al., "Less Peaky and More Accurate CTC Forced Alignment by Label Priors",
    ICASSP 2024 (arXiv:2406.02560).
    """
    logits = logits_of(outputs)
    log_probs, valid = log_probs_of(logits, lengths)
    log_priors = jnp.maximum(jax.lax.stop_gradient(log_priors), -12.0).astype(log_probs.dtype)
    scaled = log_probs - weight * log_priors[None, None, :]
    losses = losses_of(scaled, lengths, labels, label_paddings, blank_id)
    # Log-probabilities are finite in a frame that allows no class, through which no path leads.
    blocked = jnp.any(valid & jnp.all(jnp.isneginf(logits), axis=2), axis=1)
    losses = jnp.where(blocked, jnp.inf, losses)
    # The loss normalises what it is given; this takes that back.
    normalisers = jnp.sum(jnp.where(valid, jax.nn.logsumexp(scaled, axis=2), 0), axis=1)
    return mean_per_label(losses - normalisers, losses, label_paddings)


def mean_posterior(logits: Float[Array, "B T K"], lengths: Int[Array, " B"]) -> Float[Array, " K"]:
    """Mean probability of each class over all valid frames, for ``prior_ctc`` (take its log).

    Example:
        >>> import jax.numpy as jnp
        >>> mean_posterior(jnp.zeros((2, 3, 4)), jnp.array([3, 1])).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    log_probs, valid = log_probs_of(logits, lengths)
    total = jnp.sum(jnp.where(valid[:, :, None], jnp.exp(log_probs), 0), axis=(0, 1))
    return total / jnp.maximum(jnp.sum(valid, dtype=total.dtype), 1)
