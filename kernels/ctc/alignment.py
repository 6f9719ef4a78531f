"""The likeliest path of labels through frames (Viterbi), batched.

Axes: B batch, T frames, K classes (the blank among them), N labels. A path is at each frame in one
of 2N + 1 states: ``blank_n``, the blank after n labels (n = 0..N), or ``label_n`` (n = 1..N).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from kernels.ctc.api import _prepared
from kernels.varying import map_rows

# Where a path came from, for both states of one n in one number: _ENTERED, plus one of the rest.
_ENTERED = 1  # blank_n from label_n; without it from itself
_STEPPED = 2  # label_n from blank_(n-1); without either from itself
_SKIPPED = 4  # label_n from label_(n-1)


class Alignment(NamedTuple):
    """The likeliest path of each sequence.

    Attributes:
        frames: the label of each frame, or the blank; the blank in padded frames. int32 (B, T).
        spans: the first frame of each label, and the one after its last. int32 (B, N, 2). Padded
            labels, and all labels of a sequence without a path, have the empty span (0, 0).
        scores: the sum of the log-probabilities of each label over the valid frames of its span,
            in nats. float32, or float64 for such logits, (B, N). 0 for padded labels; -inf for
            those of a sequence without a path; NaN where ``ctc_loss`` is NaN.
    """

    frames: Int[Array, "B T"]
    spans: Int[Array, "B N 2"]
    scores: Float[Array, "B N"]


def ctc_alignment(
    logits: Float[Array, "B T K"],
    logit_paddings: Num[Array, "B T"] | Bool[Array, "B T"],
    labels: Int[Array, "B N"],
    label_paddings: Num[Array, "B N"] | Bool[Array, "B N"],
    *,
    blank_id: int = 0,
) -> Alignment:
    """The frame path of greatest probability among those that collapse to each label sequence.

    path[b] = argmax over the paths that collapse to labels[b] of
    sum over valid frames t of log softmax(logits[b, t])[path[t]].

    Of equally likely paths the one is taken that, seen from the last frame back, stays longest in
    each state. Padded frames are skipped, in mid-sequence too: a span may contain some, its score
    does not. The scores have a gradient, that of the path found; frames and spans have none.

    Memory besides the results: B T (N + 1) bytes.

    Args:
        logits: unnormalised log probabilities, (B, T, K).
        logit_paddings: 0 for a valid frame, 1 (or True) for a padded one, (B, T).
        labels: label ids in [0, K), padded on the right, (B, N).
        label_paddings: 0 for a valid label, 1 (or True) for a padded one, (B, N).
        blank_id: the class that emits nothing.

    Returns:
        Frames, spans and scores. A sequence that no path can produce has blank frames, empty spans
        and scores of -inf.

    Raises:
        ValueError: as ``ctc_loss``. What is traced (under jit) cannot be looked at: the scores of a
            sequence with an unusable label, or one after a padded one, are then NaN, its frames
            blank.

    Example:
        >>> import jax.numpy as jnp
        >>> probabilities = jnp.array([[[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]]])
        >>> path = ctc_alignment(
        ...     jnp.log(probabilities), jnp.zeros((1, 4)), jnp.array([[1]]), jnp.zeros((1, 1))
        ... )
        >>> path.frames.tolist(), path.spans.tolist(), f"{path.scores[0, 0]:.2f}"
        ([[0, 1, 1, 0]], [[[1, 3]]], '-0.58')

    Source: Graves et al., "Connectionist Temporal Classification", ICML 2006, section 4.1, with the
    maximum in place of the sum.
    """
    operands, blank_id, frames = _prepared(logits, logit_paddings, labels, label_paddings, blank_id)
    found = _align_rows(*operands, jnp.int32(blank_id))
    return found._replace(frames=found.frames[:, :frames])


@jax.jit
def _align_rows(logits, valid, labels, label_lengths, usable, blank_id) -> Alignment:
    def align(logits_TK, valid_T, labels_N, count, usable):
        dtype = jnp.float64 if logits_TK.dtype == jnp.float64 else jnp.float32
        peaks_T = jnp.max(logits_TK, axis=1).astype(dtype)
        valid_T = valid_T > 0
        usable &= ~jnp.any(valid_T & ~(peaks_T < jnp.inf))  # neither NaN nor +inf
        fixed_TK = jax.lax.stop_gradient(logits_TK)
        codes_TN, in_label, possible = _viterbi(
            fixed_TK, peaks_T, valid_T, labels_N, count, blank_id
        )
        possible &= usable
        position_T, in_label_T = _trace_back(codes_TN, count, in_label)
        emits_T = in_label_T & valid_T & possible
        frames_T = _classes(position_T, emits_T, labels_N, blank_id)
        spans = _spans(position_T, emits_T, len(labels_N))
        log_probs_T = _log_probs(logits_TK, valid_T & possible, frames_T)
        scores_N = jnp.zeros(len(labels_N), dtype)
        scores_N = scores_N.at[_label_index(position_T, emits_T, len(labels_N))].add(
            log_probs_T, mode="drop"
        )
        impossible = jnp.where(usable, -jnp.inf, jnp.nan).astype(dtype)
        padded_N = jnp.arange(len(labels_N), dtype=jnp.int32) >= count
        scores_N = jnp.where(possible | padded_N, scores_N, impossible)
        return Alignment(frames_T, spans, scores_N)

    return map_rows(align, logits, valid, labels, label_lengths, usable)


def _viterbi(logits_TK, peaks_T, valid_T, labels_N, count, blank_id):
    """Codes (T, N + 1) of where the best path to each state came from, and its end.

    Scores are relative to the best state of the frame before: on long inputs, sums of
    log-probabilities would be too coarse in float32 to tell paths apart.
    """
    dtype = peaks_T.dtype
    # Both states of all n = 0..N; there is no label_0, and the shift below keeps it at -inf.
    classes = jnp.concatenate([blank_id[None], labels_N])
    repeats = classes == jnp.roll(classes, 1)
    unreachable = jnp.where(repeats, -jnp.inf, 0.0).astype(dtype)
    peaks_T = jnp.where(jnp.isfinite(peaks_T), peaks_T, 0)

    def step(scores, t):
        blank, label = scores
        best = jnp.maximum(jnp.max(blank), jnp.max(label))
        shift = peaks_T[t] + jnp.where(jnp.isfinite(best), best, 0)
        emitted = logits_TK[t].at[classes].get(mode="promise_in_bounds").astype(dtype) - shift
        stepped, skipped = (
            jnp.concatenate([jnp.full_like(state[:1], -jnp.inf), state[:-1]]) for state in scores
        )
        skipped = skipped + unreachable
        steps = (stepped > label) & (stepped >= skipped)
        skips = (skipped > label) & (skipped > stepped)
        code = jnp.where(steps, _STEPPED, jnp.where(skips, _SKIPPED, 0))
        code = code + jnp.where(label > blank, _ENTERED, 0)
        valid = valid_T[t]
        moved = (
            jnp.where(valid, jnp.maximum(blank, label) + emitted[0], blank),
            jnp.where(valid, jnp.maximum(jnp.maximum(label, stepped), skipped) + emitted, label),
        )
        return moved, jnp.where(valid, code, 0).astype(jnp.uint8)

    blank = jnp.where(jnp.arange(len(classes)) == 0, 0.0, -jnp.inf).astype(dtype)
    # Under shard_map a scan starts with what varies over the same axes as what it goes on with.
    nothing = jnp.sum(valid_T[:0], dtype=jnp.int32) + 0 * (count + classes[-1])
    blank = blank + jnp.sum(peaks_T[:0]) + nothing.astype(dtype)
    start = (blank, jnp.where(blank > 0, blank, -jnp.inf))
    (blank, label), codes_TN = jax.lax.scan(step, start, jnp.arange(len(peaks_T)))
    return codes_TN, label[count] > blank[count], jnp.maximum(blank, label)[count] > -jnp.inf


def _trace_back(codes_TN, count, in_label):
    """For each frame how many labels have begun, and whether the path is in the last of them."""

    def step(state, code_N):
        position, in_label = state
        code = code_N[position]
        entered = ~in_label & ((code & _ENTERED) > 0)
        stepped = in_label & ((code & _STEPPED) > 0)
        skipped = in_label & ((code & _SKIPPED) > 0)
        before = position - (stepped | skipped).astype(position.dtype)
        return (before, entered | (in_label & ~stepped)), (position, in_label)

    count = jnp.where(in_label, count, count)  # which varies as in_label does under shard_map
    return jax.lax.scan(step, (count, in_label), codes_TN, reverse=True)[1]


def _label_index(position_T, emits_T, labels):
    """Which label each frame belongs to; ``labels``, which is none, for blank and padded frames."""
    return jnp.where(emits_T, position_T - 1, labels)


def _classes(position_T, emits_T, labels_N, blank_id):
    classes = jnp.concatenate([labels_N, blank_id[None]])
    return classes[_label_index(position_T, emits_T, len(labels_N))]


def _spans(position_T, emits_T, labels):
    index_T, frame_T = _label_index(position_T, emits_T, labels), jnp.arange(len(emits_T))
    frame_T = frame_T.astype(jnp.int32)
    latest = jnp.full(labels, len(emits_T), jnp.int32)
    starts = latest.at[index_T].min(frame_T, mode="drop")
    ends = jnp.zeros(labels, jnp.int32).at[index_T].max(frame_T + 1, mode="drop")
    return jnp.stack([jnp.where(ends > 0, starts, 0), ends], axis=1)


def _log_probs(logits_TK, counts_T, classes_T):
    """Log-probability of the class of each frame that counts, 0 elsewhere, where junk may be."""
    dtype = jnp.float64 if logits_TK.dtype == jnp.float64 else jnp.float32
    logits_TK = jnp.where(counts_T[:, None], logits_TK, 0).astype(dtype)
    shifted_TK = logits_TK - jax.lax.stop_gradient(jnp.max(logits_TK, axis=1, keepdims=True))
    chosen_T = jnp.take_along_axis(shifted_TK, classes_T[:, None], axis=1)[:, 0]
    log_probs_T = chosen_T - jnp.log(jnp.sum(jnp.exp(shifted_TK), axis=1))
    return jnp.where(counts_T, log_probs_T, 0)
