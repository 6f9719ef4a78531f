"""How a recogniser is right or wrong, beyond its error rate: where, how surely, at what cost.

Host functions on NumPy arrays, in float64. Errors by kind are in ``error_rates``.

Axes: B batch, T frames, K classes, N labels, M labels of all utterances, R bins.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from research.errors import DataError


def boundary_errors(
    spans: Int[np.ndarray, "B N 2"],
    reference: Float[np.ndarray, "B N 2"],
    label_paddings: Bool[np.ndarray, "B N"],
    frame_seconds: float,
) -> Float[np.ndarray, "M 2"]:
    """How far the ends of aligned labels are from those of a reference segmentation.

    error = 1000 |frame_seconds span - reference|, for the first and for the last end of each label.
    Its mean is the alignment error.

    Args:
        spans: first frame of each label and the one after its last, from ``kernels.ctc_alignment``;
            frame t lasts from t to t + 1 times ``frame_seconds``.
        reference: begin and end of each label in seconds.
        label_paddings: true where there is no label.
        frame_seconds: from one frame to the next.

    Returns:
        Milliseconds, two for each label. Labels of utterances without a path have none.

    Raises:
        DataError: shapes that do not fit, or a reference that ends before it begins.

    Example:
        >>> spans, reference = np.array([[[1, 3]]]), np.array([[[0.05, 0.10]]])
        >>> boundary_errors(spans, reference, np.array([[False]]), 0.04).round(3).tolist()
        [[10.0, 20.0]]

    Source: Huang et al., "Less Peaky and More Accurate CTC Forced Alignment by Label Priors",
    ICASSP 2024 (arXiv 2406.02560), who measure phonemes and words so.
    """
    spans, reference = np.asarray(spans), np.asarray(reference, np.float64)
    there = ~np.asarray(label_paddings).astype(bool)
    if spans.shape != reference.shape or spans.shape != (*there.shape, 2):
        raise DataError(
            "spans and reference must be (B, N, 2), label_paddings (B, N); received "
            f"{spans.shape}, {reference.shape}, {there.shape}."
        )
    if np.any(reference[there][:, 0] > reference[there][:, 1]):
        raise DataError("a label of the reference must not end before it begins; one does.")
    aligned = there & (spans[..., 0] < spans[..., 1])
    return 1000 * np.abs(frame_seconds * spans[aligned] - reference[aligned])


class FrameStatistics(NamedTuple):
    """How a network spreads its probability over frames; one number for each utterance, (B,).

    Attributes:
        blank_fraction: frames in which the blank is likeliest, over all.
        peak: mean probability of the likeliest class, over frames in which that is a label; near 1
            for peaky networks. NaN without such a frame.
        width: mean frames in a row that say one label; 1 for the peakiest. NaN likewise.
        entropy: mean over the frames of -sum_k p_k log p_k, nats; near 0 for peaky networks.
    """

    blank_fraction: Float[np.ndarray, " B"]
    peak: Float[np.ndarray, " B"]
    width: Float[np.ndarray, " B"]
    entropy: Float[np.ndarray, " B"]


def frame_statistics(
    logits: Float[np.ndarray, "B T K"], lengths: Int[np.ndarray, " B"], *, blank_id: int = 0
) -> FrameStatistics:
    """Blank fraction and peakiness of each utterance; only valid frames count.

    Args:
        logits: unnormalised log-probabilities, (B, T, K).
        lengths: valid frames, (B,), 1 or more each.
        blank_id: the class that emits nothing.

    Returns:
        The statistics.

    Raises:
        DataError: an utterance without a frame.

    Example:
        >>> probabilities = np.array([[[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [1.0, 0.0]]])
        >>> with np.errstate(divide="ignore"):
        ...     found = frame_statistics(np.log(probabilities), np.array([4]))
        >>> [f"{statistic[0]:.2f}" for statistic in found]
        ['0.50', '0.70', '2.00', '0.37']

    Sources: Zeyer, Schlüter, Ney, "Why does CTC result in peaky behavior?", 2021, arXiv 2105.14849;
    entropy: Liu, Jin, Zhang, "Connectionist Temporal Classification with Maximum Entropy
    Regularization", NeurIPS 2018.
    """
    rows = []
    for log_probs in _valid_log_probs(logits, lengths):
        probs, path = np.exp(log_probs), log_probs.argmax(axis=1)
        entropy = -np.sum(probs * np.where(probs > 0, log_probs, 0), axis=1).mean()
        says = path != blank_id
        begins = says & (path != np.concatenate([[-1], path[:-1]]))
        labels = begins.sum()
        peak = probs.max(axis=1)[says].mean() if labels else np.nan
        width = says.sum() / labels if labels else np.nan
        rows.append(((~says).mean(), peak, width, entropy))
    return FrameStatistics(*np.array(rows, np.float64).reshape(-1, 4).T)


def token_confidences(
    logits: Float[np.ndarray, "B T K"], lengths: Int[np.ndarray, " B"], *, blank_id: int = 0
) -> list[Float[np.ndarray, " N"]]:
    """How sure the network is of each label of the best path.

    The largest probability of the label over the frames in a row that say it.

    Args:
        logits: unnormalised log-probabilities, (B, T, K).
        lengths: valid frames, (B,).
        blank_id: the class that emits nothing.

    Returns:
        For each utterance one probability for each label of ``decoding.greedy_decode``.

    Example:
        >>> probabilities = np.array([[[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]]])
        >>> token_confidences(np.log(probabilities), np.array([4]))[0].round(2).tolist()
        [0.8]
    """
    found = []
    for log_probs in _valid_log_probs(logits, lengths):
        path, best = log_probs.argmax(axis=1), np.exp(log_probs.max(axis=1))
        begins = np.flatnonzero(path != np.concatenate([[-1], path[:-1]]))
        runs = np.maximum.reduceat(best, begins)
        found.append(runs[path[begins] != blank_id])
    return found


class Reliability(NamedTuple):
    """What was claimed and what came true, by bins of confidence.

    Attributes:
        counts: labels in each bin, (R,).
        confidence: their mean confidence, NaN in an empty bin.
        accuracy: which part of them is correct, NaN likewise.
    """

    counts: Int[np.ndarray, " R"]
    confidence: Float[np.ndarray, " R"]
    accuracy: Float[np.ndarray, " R"]

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: sum of counts |accuracy - confidence| / sum of counts."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.sum(self.counts * np.nan_to_num(gaps)) / np.sum(self.counts))


def reliability(
    confidences: Sequence[Float[np.ndarray, " N"]],
    correct: Sequence[Sequence[bool]],
    *,
    bins: int = 10,
) -> Reliability:
    """Compare confidence with correctness in bins of equal width from 0 to 1.

    Args:
        confidences: of each label of each utterance, from ``token_confidences``.
        correct: whether each is right, from ``error_rates.correct_symbols``.
        bins: R. A confidence on an edge is in the lower bin.

    Returns:
        The bins; see ``calibration_error``.

    Raises:
        DataError: numbers that do not fit, no labels, or a confidence outside of [0, 1].

    Example:
        >>> found = reliability([np.array([0.9, 0.8, 0.3])], [[True, False, False]], bins=2)
        >>> found.counts.tolist(), f"{found.calibration_error:.3f}"
        ([1, 2], '0.333')

    Sources: Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian
    Binning", AAAI 2015; Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    sizes = [len(c) for c in confidences], [len(c) for c in correct]
    if sizes[0] != sizes[1] or sum(sizes[0]) == 0:
        raise DataError(
            "there must be one truth for each confidence, and some at all; received "
            f"{sizes[1]} for {sizes[0]}, by utterance."
        )
    confidence = np.concatenate([np.asarray(c, np.float64) for c in confidences])
    right = np.concatenate([np.asarray(c, bool) for c in correct])
    # a softmax in float32 may exceed 1 in its last digit
    if not np.all((confidence >= 0) & (confidence <= 1 + 1e-6)):
        raise DataError(
            f"confidences must be in [0, 1]; received {confidence.min()} to {confidence.max()}."
        )
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    some = np.where(counts > 0, counts, np.nan)
    return Reliability(
        counts,
        np.bincount(bin_of, confidence, bins) / some,
        np.bincount(bin_of, right, bins) / some,
    )


class Cost(NamedTuple):
    """What it takes to recognise audio.

    Attributes:
        seconds: of computation.
        audio_seconds: how much was recognised in it.

    Example:
        >>> cost = Cost(seconds=2.0, audio_seconds=100.0)
        >>> cost.real_time_factor, cost.seconds_per_hour, cost.price(per_hour=3.0)
        (0.02, 72.0, 0.06)
    """

    seconds: float
    audio_seconds: float

    @property
    def real_time_factor(self) -> float:
        """Seconds of computation for a second of audio."""
        return self.seconds / self.audio_seconds

    @property
    def seconds_per_hour(self) -> float:
        """Seconds of computation for an hour of audio."""
        return 3600 * self.real_time_factor

    def price(self, per_hour: float) -> float:
        """Of an hour of audio, on a machine that costs so much an hour."""
        return self.real_time_factor * per_hour


def measure_cost(recognise: Callable[[], Any], audio_seconds: float, *, rounds: int = 5) -> Cost:
    """Time something that recognises ``audio_seconds`` of audio: the median of some calls.

    A first call, which compiles, is not timed. Each call is waited for.

    Raises:
        DataError: no audio, or no rounds.

    Example:
        >>> measure_cost(lambda: None, 60.0).real_time_factor < 1
        True
    """
    if rounds < 1 or not audio_seconds > 0:
        raise DataError(
            "there must be a round and audio to measure; received "
            f"rounds={rounds}, audio_seconds={audio_seconds}."
        )
    jax.block_until_ready(recognise())
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(recognise())
        taken.append(time.perf_counter() - start)
    return Cost(float(np.median(taken)), audio_seconds)


def _valid_log_probs(logits, lengths):
    logits, lengths = np.asarray(logits, np.float64), np.asarray(lengths)
    if lengths.shape != logits.shape[:1] or np.any((lengths < 1) | (lengths > logits.shape[1])):
        raise DataError(
            "lengths must be one for each utterance, from 1 to the frames of the logits, "
            f"{logits.shape[:2]}; received {lengths.tolist()}."
        )
    for row, length in zip(logits, lengths, strict=True):
        yield row[:length] - np.logaddexp.reduce(row[:length], axis=1, keepdims=True)
