"""Which frames a CTC model gives to which label.

Axis suffixes: T frames, K classes, N labels, S states of the lattice (2N + 1).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from research.errors import DataError


class Alignment(NamedTuple):
    """The likeliest path of the labels through the frames.

    Attributes:
        frames: the label of each frame, or the blank, int32 (T,).
        spans: first frame and the one after the last of each label, int32 (N, 2).
        scores: sum of log probabilities of each label over its span, float64 (N,), <= 0.
    """

    frames: Int[np.ndarray, " T"]
    spans: Int[np.ndarray, "N 2"]
    scores: Float[np.ndarray, " N"]


def viterbi_alignment(
    log_probs: Float[np.ndarray, "T K"], labels: Int[np.ndarray, " N"], blank_id: int = 0
) -> Alignment:
    """Find the likeliest of all paths that collapse to the labels.

    The lattice of CTC (Graves et al. 2006, section 4.1) has the states blank, label 1, blank, ...,
    label N, blank. A path goes from a state to itself, to the next, or over a blank between
    two different labels; its score is the sum of log_probs over the frames. Of equally likely
    paths the one is taken that, seen from the last frame back, stays longest in each state.

    Args:
        log_probs: log probabilities of the classes (T, K); -inf is allowed, NaN is not.
        labels: the labels (N,), none of them the blank; N may be 0.
        blank_id: the class that stands for no label.

    Returns:
        The alignment.

    Raises:
        DataError: a label outside the classes or equal to the blank, NaN, too few frames for the
            labels (N plus one for each label equal to the one before), or every path impossible.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
        >>> path = viterbi_alignment(np.log(probabilities), np.array([1]))
        >>> path.frames.tolist(), path.spans.tolist(), path.scores.round(2).tolist()
        ([0, 1, 1, 0], [[1, 3]], [-0.58])
    """
    log_probs = np.asarray(log_probs, np.float64)
    labels = np.asarray(labels, np.int64).reshape(-1)
    _check(log_probs, labels, blank_id)
    frames, count = len(log_probs), len(labels)
    states = np.full(2 * count + 1, blank_id, np.int64)
    states[1::2] = labels
    may_skip = np.zeros(len(states), bool)
    may_skip[3::2] = labels[1:] != labels[:-1]

    emitted_TS = log_probs[:, states]
    came_from_TS = np.zeros((frames, len(states)), np.int8)  # how many states back: 0, 1 or 2
    score = np.full(len(states), -np.inf)
    score[:2] = emitted_TS[0, :2]
    for t in range(1, frames):
        options = np.full((3, len(states)), -np.inf)
        options[0] = score
        options[1, 1:] = score[:-1]
        options[2, 2:] = np.where(may_skip[2:], score[:-2], -np.inf)
        came_from_TS[t] = options.argmax(axis=0)
        score = options.max(axis=0) + emitted_TS[t]

    last = len(states) - 1
    if count and score[last - 1] > score[last]:
        last -= 1
    if score[last] == -np.inf:
        raise DataError(
            f"the labels must have a possible path, but every path of {labels.tolist()} through "
            f"{frames} frames has probability 0; check for -inf in log_probs"
        )
    path = np.empty(frames, np.int64)
    path[-1] = last
    for t in range(frames - 1, 0, -1):
        path[t - 1] = path[t] - came_from_TS[t, path[t]]
    return _describe(path, states, emitted_TS)


def _describe(path: np.ndarray, states: np.ndarray, emitted_TS: np.ndarray) -> Alignment:
    label_states = np.arange(1, len(states), 2)
    # The path never goes back, so the frames of a state are those between two insertion points.
    spans = np.stack(
        [np.searchsorted(path, label_states, side) for side in ("left", "right")], axis=1
    )
    chosen = np.take_along_axis(emitted_TS, path[:, None], axis=1)[:, 0]
    scores = np.array([chosen[start:end].sum() for start, end in spans])
    return Alignment(states[path].astype(np.int32), spans.astype(np.int32), scores)


def _check(log_probs: np.ndarray, labels: np.ndarray, blank_id: int) -> None:
    if log_probs.ndim != 2 or log_probs.shape[0] == 0:
        raise DataError(
            f"log_probs must be (frames, classes) with a frame or more, but got {log_probs.shape}"
        )
    frames, classes = log_probs.shape
    if not 0 <= blank_id < classes:
        raise DataError(f"blank_id must lie in 0..{classes - 1}, but got {blank_id}")
    if not (log_probs < np.inf).all():
        raise DataError("log_probs must not be NaN or +inf, but some are; did the model diverge?")
    wrong = labels[(labels < 0) | (labels >= classes) | (labels == blank_id)]
    if wrong.size:
        raise DataError(
            f"labels must lie in 0..{classes - 1} and differ from the blank {blank_id}, but got "
            f"{wrong[0]}"
        )
    needed = len(labels) + int((labels[1:] == labels[:-1]).sum())
    if frames < needed:
        raise DataError(
            f"{len(labels)} labels need at least {needed} frames (one more for each repeat), but "
            f"there are {frames}; use a longer input or less subsampling"
        )
