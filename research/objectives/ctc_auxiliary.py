"""Objectives that add to CTC what other layers, views or alignments say.

They have the signature and the mean of those in ``research.objectives.ctc``.

Axes: B batch, T frames, K classes, N labels, D features.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import kernels
from research.errors import ConfigError
from research.objectives.ctc import ctc
from research.objectives.ctc_terms import (
    EncoderOutput,
    Outputs,
    Paddings,
    expected,
    log_probs_of,
    logits_of,
    losses_of,
    mean_per_label,
)


def intermediate_ctc(
    outputs: Outputs,
    lengths: Int[Array, " B"],
    labels: Int[Array, "B N"],
    label_paddings: Paddings,
    *,
    weight: float = 0.3,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """(1 - w) CTC of the last layer + w mean of CTC of the intermediate ones.

    Args:
        outputs: an ``EncoderOutput`` with one intermediate prediction or more.
        lengths: as in ``ctc``.
        labels: as in ``ctc``.
        label_paddings: as in ``ctc``.
        weight: w in [0, 1]; 0 is CTC.
        blank_id: the class that emits nothing.

    Returns:
        A scalar.

    Raises:
        ConfigError: there are no intermediate predictions.

    Example:
        >>> import jax.numpy as jnp
        >>> args = jnp.array([4]), jnp.array([[1, 2]]), jnp.zeros((1, 2))
        >>> logits = jnp.zeros((1, 4, 3))
        >>> print(f"{intermediate_ctc(EncoderOutput(logits, (logits, logits)), *args):.4f}")
        0.8432

    Source: Lee, Watanabe, "Intermediate Loss Regularization for CTC-based Speech Recognition",
    ICASSP 2021.
    """
    if not isinstance(outputs, EncoderOutput) or not outputs.intermediate:
        raise ConfigError(
            "outputs must be an EncoderOutput with intermediate logits for intermediate_ctc; "
            f"received {type(outputs).__name__} without. Use an encoder that gives them, or ctc."
        )
    last, *between = (
        ctc(logits, lengths, labels, label_paddings, blank_id=blank_id)
        for logits in (outputs.logits, *outputs.intermediate)
    )
    return (1 - weight) * last + weight * sum(between) / len(between)


def self_conditioned_ctc(
    outputs: Outputs,
    lengths: Int[Array, " B"],
    labels: Int[Array, "B N"],
    label_paddings: Paddings,
    *,
    weight: float = 0.5,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """``intermediate_ctc`` for an encoder that goes on from its predictions: see ``condition``.

    Args:
        outputs: an ``EncoderOutput`` with one intermediate prediction or more.
        lengths: as in ``ctc``.
        labels: as in ``ctc``.
        label_paddings: as in ``ctc``.
        weight: of the intermediate losses, in [0, 1].
        blank_id: the class that emits nothing.

    Returns:
        A scalar.

    Raises:
        ConfigError: there are no intermediate predictions.

    Source: Nozaki, Komatsu, "Relaxing the Conditional Independence Assumption of CTC-based ASR by
    Conditioning on Intermediate Predictions", Interspeech 2021.
    """
    return intermediate_ctc(
        outputs, lengths, labels, label_paddings, weight=weight, blank_id=blank_id
    )


def condition(
    hidden: Float[Array, "B T D"], logits: Float[Array, "B T K"], projection: Float[Array, "K D"]
) -> Float[Array, "B T D"]:
    """Input of the next layer of a self-conditioned encoder: hidden + softmax(logits) projection.

    Example:
        >>> import jax.numpy as jnp
        >>> condition(jnp.ones((1, 1, 2)), jnp.zeros((1, 1, 4)), jnp.ones((4, 2))).tolist()
        [[[2.0, 2.0]]]

    Source: Nozaki, Komatsu, Interspeech 2021, equations 8 and 9.
    """
    return hidden + jax.nn.softmax(logits) @ projection


def consistency_ctc(
    outputs: Outputs,
    lengths: Int[Array, " B"],
    labels: Int[Array, "B N"],
    label_paddings: Paddings,
    *,
    weight: float = 0.2,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """CR-CTC: the mean CTC of two views + w times how far they are apart.

    CTC + w / 2 sum_t ( KL(stop(q_t) || p_t) + KL(stop(p_t) || q_t) ), with p and q the views: each
    learns from the other.

    Args:
        outputs: as in ``ctc``, the rows in two halves: row b and row b + B / 2 are of one
            utterance, augmented differently.
        lengths: as in ``ctc``; frames valid in both views are compared.
        labels: as in ``ctc``, repeated for the second view.
        label_paddings: as in ``ctc``, repeated for the second view.
        weight: w; 0 is CTC. The authors' program raises it from 0 over its first 2000 steps.
        blank_id: the class that emits nothing.

    Returns:
        A scalar.

    Raises:
        ConfigError: an odd number of rows.

    Example:
        >>> import jax.numpy as jnp
        >>> args = jnp.zeros((2, 4, 3)), jnp.full(2, 4), jnp.array([[1, 2]] * 2), jnp.zeros((2, 2))
        >>> print(f"{consistency_ctc(*args):.4f}")  # equal views
        0.8432

    Source: Yao et al., "CR-CTC: Consistency regularization on CTC for improved speech recognition",
    ICLR 2025 (arXiv:2410.05101).
    """
    logits = logits_of(outputs)
    if logits.shape[0] % 2:
        raise ConfigError(
            "consistency_ctc takes two views of each utterance, an even number of rows; received "
            f"{logits.shape[0]}. Join the views along the batch."
        )
    losses = losses_of(logits, lengths, labels, label_paddings, blank_id)
    log_probs, valid = log_probs_of(logits, lengths)
    other = jax.lax.stop_gradient(_other_view(log_probs))
    apart = expected(jnp.exp(other), other) - expected(jnp.exp(other), log_probs)
    apart = jnp.sum(jnp.where(valid & _other_view(valid), apart, 0), axis=1)
    return mean_per_label(losses + weight * apart, losses, label_paddings)


def framewise_cross_entropy(
    outputs: Outputs,
    lengths: Int[Array, " B"],
    labels: Int[Array, "B N"],
    label_paddings: Paddings,
    *,
    aligner_logits: Float[Array, "B T K"] | None = None,
    blank_id: int = 0,
) -> Float[Array, ""]:
    """Cross entropy with the likeliest path of the labels: -sum_t log p_t[path_t].

    Args:
        outputs: as in ``ctc``.
        lengths: as in ``ctc``.
        labels: as in ``ctc``.
        label_paddings: as in ``ctc``.
        aligner_logits: whose path to take, (B, T, K), such as a trained model's; those of
            ``outputs`` if not given. No gradient goes there.
        blank_id: the class that emits nothing.

    Returns:
        A scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> args = jnp.zeros((1, 4, 3)), jnp.array([4]), jnp.array([[1, 2]]), jnp.zeros((1, 2))
        >>> print(f"{framewise_cross_entropy(*args):.4f}")  # 4 ln 3 / 2
        2.1972

    Source: Zeyer, Beck, Schlueter, Ney, "CTC in the Context of Generalized Full-Sum HMM Training",
    Interspeech 2017, where it is what the sum over all paths is compared with.
    """
    logits = logits_of(outputs)
    log_probs, valid = log_probs_of(logits, lengths)
    aligner = logits if aligner_logits is None else aligner_logits
    aligned = kernels.ctc_alignment(
        jax.lax.stop_gradient(aligner), ~valid, labels, label_paddings, blank_id=blank_id
    )
    chosen = jnp.take_along_axis(log_probs, aligned.frames[:, :, None], axis=2)[:, :, 0]
    # A label's score is -inf where no path exists, NaN where the logits are no numbers.
    impossible = jnp.any(jnp.isneginf(aligned.scores), axis=1)
    too_short = ~kernels.ctc_feasible(~valid, labels, label_paddings)
    alone = jnp.sum(jnp.where(valid, -chosen, 0.0), axis=1)
    broken = jnp.any(jnp.isnan(aligned.scores), axis=1)
    losses = jnp.where(impossible | too_short, jnp.inf, jnp.where(broken, jnp.nan, alone))
    return mean_per_label(losses, losses, label_paddings)


def _other_view(array: Array) -> Array:
    return jnp.roll(array, array.shape[0] // 2, axis=0)
