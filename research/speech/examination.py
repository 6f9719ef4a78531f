"""What a trained CTC system does on its test utterances, beyond a score.

Errors of each utterance by decoder, how its posteriors look, where its alignments lie.

Axes: B batch, U frames of logits, N labels, K classes.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernels
from research.speech.beam_search import LabelAutomaton, beam_search
from research.speech.decoding import greedy_decode
from research.speech.diagnostics import (
    boundary_errors,
    frame_statistics,
    reliability,
    token_confidences,
)
from research.speech.error_rates import confusion_counts, correct_symbols, count_errors
from research.speech.features import log_mel
from research.speech.material import Material
from research.speech.recogniser import numbered
from research.workloads.workload import Batch, Examination

BEAM_WIDTH = 16

_BATCH = 128
_EXAMPLES = 6
_MOST_CONFUSED = 40  # larger tables than this are of no use to anyone

Labels = list[int]
Recognise = Callable[[Any, Batch], tuple[jax.Array, jax.Array]]


def examine(
    recognise: Recognise,
    material: Material,
    frame_seconds: float,
    params: Any,
    *,
    automaton: LabelAutomaton | None = None,
) -> Examination:
    """Recognise the whole test part and count.

    Args:
        recognise: (params, batch) -> logits (B, U, K) and their valid frames (B,), compiled.
        material: whose test part.
        frame_seconds: from one frame of logits to the next.
        params: of the trained system.
        automaton: an n-gram model of the labels, for a third decoder.

    Returns:
        The details are, for each decoder, the errors of each utterance by kind; the confusions of
        the greedy one; means over utterances of the frame statistics; reliability; the mean error
        of aligned boundaries. The arrays are those of the utterances with most errors, and of some
        without. Seconds are of the network and the greedy decoder, the second time they run.
    """
    test = material.test
    logits, frames, seconds = _logits(recognise, params, test)
    said = _cut(test["labels"], np.sum(test["label_paddings"] == 0, axis=1))
    heard = {"greedy": _cut(*_arrays(greedy_decode(logits, frames)))}
    heard["beam"] = _searched(logits, frames, test, None)
    if automaton is not None:
        heard["beam_ngram"] = _searched(logits, frames, test, automaton)
    counts = {name: count_errors(said, texts) for name, texts in heard.items()}
    aligned = kernels.ctc_alignment(
        logits,
        _padding(logits, frames),
        jnp.asarray(test["labels"]),
        jnp.asarray(test["label_paddings"]),
    )
    numbers = np.asarray(logits), np.asarray(frames)
    audio = sum(len(waveform) for waveform in material.waveforms) / material.front_end.sample_rate
    details = {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "frame_seconds": frame_seconds,
        "audio_seconds": audio,
        "symbols": list(material.symbols),
        "decoders": {name: _columns(found) for name, found in counts.items()},
        "confusion": _confusion(said, heard["greedy"], len(material.symbols)),
        **_frame_means(*numbers),
        "reliability": _reliability(*numbers, said, heard["greedy"]),
        "boundary_error_milliseconds": _boundary_error(aligned.spans, material, frame_seconds),
    }
    errors = [count.errors for count in counts["greedy"]]
    shown = _chosen(errors)
    arrays = _example_arrays(material, shown, said, heard["greedy"], numbers, aligned.frames)
    arrays["frame_seconds"] = np.array(frame_seconds)
    return Examination(details, arrays, {"seconds": seconds, "audio_seconds": audio})


def _logits(recognise: Recognise, params, test) -> tuple[jax.Array, jax.Array, float]:
    size = len(test["frames"])
    starts = range(0, size, _BATCH)

    def once():
        # Rows are repeated to fill the last batch: one shape, one program.
        rows = [np.arange(start, start + _BATCH) % size for start in starts]
        found = [recognise(params, {n: jnp.asarray(a[r]) for n, a in test.items()}) for r in rows]
        logits, frames = (jnp.concatenate(parts)[:size] for parts in zip(*found, strict=True))
        jax.block_until_ready(greedy_decode(logits, frames))
        return logits, frames

    once()
    started = time.perf_counter()
    logits, frames = once()
    return logits, frames, time.perf_counter() - started


def _padding(logits, frames) -> jax.Array:
    return jnp.arange(logits.shape[1])[None, :] >= frames[:, None]


def _searched(logits, frames, test, automaton: LabelAutomaton | None) -> list[Labels]:
    most = min(2 * test["labels"].shape[1], logits.shape[1])
    texts: list[Labels] = []
    for start in range(0, len(frames), _BATCH):
        rows = slice(start, start + _BATCH)
        found = beam_search(
            logits[rows], frames[rows], width=BEAM_WIDTH, max_labels=most, automaton=automaton
        )
        texts += _cut(*_arrays((found.labels[:, 0], found.counts[:, 0])))
    return texts


def _arrays(pair) -> tuple[np.ndarray, np.ndarray]:
    first, second = map(np.asarray, pair)
    return first, second


def _cut(labels: np.ndarray, counts: np.ndarray) -> list[Labels]:
    return [row[:count].tolist() for row, count in zip(labels, counts, strict=True)]


def _columns(counts) -> dict[str, list[int]]:
    names = ("substitutions", "deletions", "insertions", "labels")
    return {name: [int(count[i]) for count in counts] for i, name in enumerate(names)}


def _confusion(said, heard, symbols: int) -> list[list[int]] | None:
    if symbols > _MOST_CONFUSED:
        return None
    return confusion_counts(said, heard, range(1, symbols + 1)).tolist()


def _frame_means(logits, frames) -> dict[str, float | None]:
    found = frame_statistics(logits, frames)._asdict()
    return {name: _mean(values) for name, values in found.items()}


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None


def _reliability(logits, frames, said, heard) -> dict[str, Any]:
    if not any(heard):
        return {"counts": [], "confidence": [], "accuracy": [], "calibration_error": None}
    found = reliability(token_confidences(logits, frames), correct_symbols(said, heard))
    curves = {"confidence": found.confidence, "accuracy": found.accuracy}
    known = {n: [None if np.isnan(v) else float(v) for v in vs] for n, vs in curves.items()}
    error = float(found.calibration_error)
    return {"counts": found.counts.tolist(), **known, "calibration_error": error}


def _boundary_error(spans, material: Material, frame_seconds: float) -> float | None:
    if material.spans is None:
        return None
    padded = material.test["label_paddings"] != 0
    return _mean(boundary_errors(np.asarray(spans), material.spans, padded, frame_seconds))


def _chosen(errors: Sequence[int]) -> list[int]:
    """The worst utterances, and the first ones without an error."""
    worst = sorted(range(len(errors)), key=lambda i: -errors[i])[: _EXAMPLES // 2]
    right = [i for i, wrong in enumerate(errors) if wrong == 0 and i not in worst]
    return [*worst, *right[: _EXAMPLES - len(worst)]]


def _example_arrays(material: Material, shown, said, heard, numbers, aligned):
    """For the i-th utterance shown what figures need: see ``read_examples`` of the report."""
    config, (logits, frames) = material.front_end, numbers
    log_probs, paths = np.asarray(jax.nn.log_softmax(logits)), np.asarray(aligned)
    arrays: dict[str, np.ndarray] = {
        "sample_rate": np.array(config.sample_rate),
        "hop_seconds": np.array(config.hop_seconds),
    }
    for i, row in enumerate(shown):
        waveform = material.waveforms[row]
        mel, _ = log_mel(jnp.asarray(waveform)[None], jnp.array([len(waveform)]), config)
        spans = None if material.spans is None else material.spans[row, : len(said[row])]
        arrays |= numbered(
            i,
            waveform=np.asarray(waveform, np.float32),
            log_mel=np.asarray(mel[0]),
            log_posteriors=log_probs[row, : frames[row]],
            labels=np.array(said[row], np.int32),
            hypothesis=np.array(heard[row], np.int32),
            alignment=paths[row, : frames[row]],
            boundaries=spans,
        )
    return arrays
