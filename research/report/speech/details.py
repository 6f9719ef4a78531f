"""What a finished final training says of its test strings, checked and as arrays."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from research import stats
from research.errors import RunError
from research.report.common import need, need_counts
from research.stats import UtteranceErrors

DECODERS = ("greedy", "beam", "beam_ngram")
KINDS = ("substitutions", "deletions", "insertions")

# Means over the test strings: key, as people write it, unit.
DIAGNOSTICS = {
    "boundary_error_milliseconds": ("Boundary error", "ms"),
    "blank_fraction": ("Blank frames", "%"),
    "peak": ("Height of peaks", ""),
    "width": ("Width of peaks", "frames"),
    "entropy": ("Entropy of a frame", "nats"),
    "calibration_error": ("Calibration error", "%"),
}


class Reliability(NamedTuple):
    """Symbols in each bin of confidence, their mean confidence and how many were right."""

    counts: Int[np.ndarray, "R"]
    confidence: Float[np.ndarray, "R"]
    accuracy: Float[np.ndarray, "R"]


def decoders_of(result: Mapping[str, Any], words: bool = False) -> list[str]:
    """The decoders that were used, in their order."""
    found = result["details"]["decoders"]
    found = (found.get("words") or {}) if words else found
    return [decoder for decoder in DECODERS if decoder in found]


def counts_of(
    result: Mapping[str, Any], decoder: str = "greedy", words: bool = False
) -> Int[np.ndarray, "U 4"]:
    """Substitutions, deletions, insertions and reference labels of each test string."""
    found = result["details"]["decoders"]
    counts = (found["words"] if words else found)[decoder]
    return np.array([counts[kind] for kind in (*KINDS, "labels")], dtype=np.int64).T


def errors_of(
    result: Mapping[str, Any], decoder: str = "greedy", words: bool = False
) -> UtteranceErrors:
    """The same as errors and totals."""
    counts = counts_of(result, decoder, words)
    return stats.utterance_errors(counts[:, :3].sum(axis=1), counts[:, 3])


def diagnostic_of(result: Mapping[str, Any], key: str) -> float:
    """One of `DIAGNOSTICS`; NaN where it was not measured."""
    details = result["details"]
    source = details.get("reliability") or {} if key == "calibration_error" else details
    value = source.get(key)
    return math.nan if value is None else float(value)


def reliability_of(result: Mapping[str, Any]) -> Reliability | None:
    """Confidence and correctness; None where not measured, or where nothing was recognised."""
    found = result["details"].get("reliability")
    if not found or not found["counts"]:
        return None
    counts, confidence, accuracy = (
        np.array([math.nan if value is None else value for value in found[key]], dtype=float)
        for key in ("counts", "confidence", "accuracy")
    )
    return Reliability(counts.astype(np.int64), confidence, accuracy)


def confusion_of(
    result: Mapping[str, Any],
) -> tuple[tuple[str, ...], Int[np.ndarray, "K K"]] | None:
    """The symbols, and how often each was heard as which; None for large alphabets."""
    details = result["details"]
    if details.get("confusion") is None:
        return None
    return tuple(details["symbols"]), np.array(details["confusion"], dtype=np.int64)


def check_details(result: Mapping[str, Any], where: str) -> None:
    """A RunError where a finished final training has not what the report reads."""
    details = need(result, "details", dict, where)
    decoders = need(details, "decoders", dict, where)
    need(decoders, "greedy", dict, where)
    sizes = [
        _check_counts(decoders[decoder], f"{decoder!r} of {where}")
        for decoder in DECODERS
        if decoder in decoders
    ]
    if any(not np.array_equal(labels, sizes[0]) for labels in sizes):
        raise RunError(f"{where} must have the same test strings for every decoder: it is damaged")
    if decoders.get("words") is not None:
        words = need(decoders, "words", dict, where)
        for decoder in DECODERS:
            if decoder in words:
                _check_counts(words[decoder], f"{decoder!r} of the words of {where}")
    for symbol in need(details, "symbols", list, where):
        need({"symbols": symbol}, "symbols", str, where)
    for key in ("audio_seconds", "frame_seconds"):
        need(details, key, float, where)
    need(details, "parameters", int, where)
    if details.get("confusion") is not None:
        counts = need_counts(details["confusion"], f"the confusions of {where}")
        if len(counts) != len(details["symbols"]) + 1:
            raise RunError(f"{where} must have confusions with a row per symbol and one more")
    for key in DIAGNOSTICS:
        if details.get(key) is not None:
            need(details, key, float, where)
    _check_reliability(details, where)


def _check_counts(value: Any, where: str) -> Int[np.ndarray, "U"]:
    if not isinstance(value, dict):
        raise RunError(f"{where} must be an object of counts: the file is damaged")
    columns = [need(value, key, list, where) for key in (*KINDS, "labels")]
    if len({len(column) for column in columns}) != 1 or not columns[0]:
        raise RunError(f"{where} must have one count of each kind per test string, and some")
    counts = need_counts(list(zip(*columns, strict=True)), where, 4)
    if not counts[:, 3].sum():
        raise RunError(f"{where} must have test strings with labels, got none")
    return counts[:, 3]


def _check_reliability(details: Mapping[str, Any], where: str) -> None:
    if details.get("reliability") is None:
        return
    found = need(details, "reliability", dict, where)
    counts = need(found, "counts", list, where)
    for n in counts:
        need({"counts": n}, "counts", int, where)
    for key in ("confidence", "accuracy"):
        values = need(found, key, list, where)
        if len(values) != len(counts):
            need({}, key, list, f"{where}, of the length of 'counts' ({len(counts)}),")
        for value in values:
            if value is not None:
                need({key: value}, key, float, where)
    if found.get("calibration_error") is not None:
        need(found, "calibration_error", float, where)
