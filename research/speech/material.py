"""What a CTC system is trained and tested on, as arrays: log-mel features and labels of each part.

Axes: E examples, T log-mel frames, F mel bins, N labels.
"""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from research.data.digit_strings import StringBatch, StringConfig, digit_strings
from research.data.spoken_digits import (
    DigitRecordings,
    SpeakerSplit,
    SpokenDigits,
    default_speakers,
    load_spoken_digits,
    split_speakers,
)
from research.errors import ConfigError
from research.speech.features import log_mel, normalise_features
from research.speech.log_mel_config import LogMel
from research.workloads.workload import Examples

STRINGS = StringConfig(3, 5, gap_seconds=(0.0, 0.2), edge_seconds=(0.0, 0.2))
SECONDS = 3.0  # longest string
CORPORA = ("fsdd", "espeak", "fsdd+espeak")
SIZES = {"train": 4096, "validation": 256, "test": 512}  # strings
DIGITS = tuple("0123456789")

_SEED = 20_060_625  # of the training strings; validation and test follow
_STEP_SIZE = 128  # strings made at a time
_ACROSS = "train"  # whose strings have digits by several speakers


class Material(NamedTuple):
    """The parts of a corpus for one fold.

    ``train``, ``validation`` and ``test`` have the arrays ``features`` (E, T, F), normalised, in
    half precision, which is finer than the noise in them; ``frames`` (E,); ``labels`` and
    ``label_paddings`` (E, N). Of the test part there are the waveforms and, where somebody knows
    them, the ``spans`` of the labels in seconds.
    """

    source: str
    sha256: str
    description: str
    symbols: tuple[str, ...]  # the texts of labels 1, 2, ...; class 0 is the blank
    front_end: LogMel
    train: Examples
    validation: Examples
    test: Examples
    waveforms: Sequence[Float[np.ndarray, " S"]]
    spans: Float[np.ndarray, "E N 2"] | None


def digit_recordings(corpus: str, data_dir: str | os.PathLike[str] | None) -> DigitRecordings:
    """The recordings that a corpus of spoken digits tests on, read once.

    Args:
        corpus: of ``CORPORA``: real voices, synthetic ones, or real ones whose trainings hear
            synthetic ones too.
        data_dir: where data lie.

    Raises:
        ConfigError: no such corpus.
        DataError: recordings that are missing or cannot be used.
    """
    if corpus not in CORPORA:
        raise ConfigError(f"the corpus must be one of {', '.join(CORPORA)}; received {corpus!r}.")
    return _recordings(corpus.partition("+")[0], None if data_dir is None else str(data_dir))


@functools.lru_cache(maxsize=2)
def _recordings(name: SpokenDigits, data_dir: str | None) -> DigitRecordings:
    return load_spoken_digits(name, data_dir)


def folds(recordings: DigitRecordings) -> tuple[str, ...]:
    """Who can be held out: each speaker in turn, or the fixed test voices where they are synthetic.

    Many synthetic voices are variations of one another: only the fixed lists keep near copies of a
    test voice out of training.
    """
    test, validation = default_speakers(recordings)
    return (f"{len(test)} unseen voices",) if validation else recordings.speaker_names


def validator(recordings: DigitRecordings, fold: str) -> str:
    """Who validates the search of a fold: the next speaker, or the fixed validation voices.

    Example:
        >>> from research.data.digit_recordings import make_recordings
        >>> clips = [np.array([0.5, -0.5])] * 3
        >>> validator(make_recordings("x", clips, [1] * 3, ["ann", "bob", "cy"], [0] * 3, ""), "cy")
        'ann'
    """
    voices = default_speakers(recordings)[1]
    if voices:
        return f"{len(voices)} voices"
    names = recordings.speaker_names
    return names[(names.index(fold) + 1) % len(names)]


def digit_material(
    corpus: str, test: str, validated_on: str | None, data_dir: str | os.PathLike[str] | None
) -> Material:
    """Strings of spoken digits, the test ones by a speaker that no other part has.

    The digits of a training string are by any of the training speakers, so that nothing in it but
    the digit itself tells how it will sound; others are by one speaker. Of "fsdd+espeak" every
    second training string is by espeak-ng's voices: a handful of speakers is too few to learn what
    speakers have in common.

    Args:
        corpus: of ``CORPORA``.
        test: of ``folds``.
        validated_on: of ``validator``; that speaker is not trained on. None: all other speakers are
            trained on, and validation has other recordings of theirs.
        data_dir: where data lie.

    Raises:
        ConfigError: no such corpus, or no such fold of it.
        DataError: recordings that are missing or cannot be used.
    """
    return _digit_material(corpus, test, validated_on, None if data_dir is None else str(data_dir))


@functools.lru_cache(maxsize=2)
def _digit_material(
    corpus: str, test: str, validated_on: str | None, data_dir: str | None
) -> Material:
    recordings = digit_recordings(corpus, data_dir)
    split = _split(recordings, test, validated_on)
    config = _front_end(recordings)
    parts, batches = {}, []
    for part, (name, size) in enumerate(SIZES.items()):
        batches = _strings(recordings, split[part], _SEED + part, size, name == _ACROSS)
        parts[name] = _features(batches, config, size)
    synthetic = _synthetic(corpus, data_dir)
    if synthetic is not None:
        everyone, half = np.arange(len(synthetic)), SIZES["train"] // 2
        more = _features(
            _strings(synthetic, everyone, _SEED + len(SIZES), half, True), config, half
        )
        for name, array in parts["train"].items():
            parts["train"][name] = np.concatenate([array[: len(array) - half], more[name]])
    return Material(
        source=recordings.source,
        sha256=fingerprint(corpus, test, validated_on, data_dir),
        description=f"strings of {STRINGS.min_digits} to {STRINGS.max_digits} spoken digits"
        + (", half of the training by synthetic voices" if synthetic is not None else ""),
        symbols=DIGITS,
        front_end=config,
        waveforms=[
            waveform[:length]
            for batch in batches
            for waveform, length in zip(batch.waveforms, batch.lengths, strict=True)
        ][: SIZES["test"]],
        spans=np.concatenate([_known(batch.spans) for batch in batches])[: SIZES["test"]],
        **parts,
    )


def fingerprint(
    corpus: str, test: str, validated_on: str | None, data_dir: str | os.PathLike[str] | None
) -> str:
    """The sha256 of what ``digit_material`` makes, without making it.

    Of the recordings, who is in which part and how they are joined: features differ in their last
    bit by machine.

    Raises:
        ConfigError: no such corpus, or no such fold of it.
        DataError: recordings that are missing or cannot be used.
    """
    recordings = digit_recordings(corpus, data_dir)
    split = _split(recordings, test, validated_on)
    speakers = [sorted({recordings.speakers[i] for i in positions}) for positions in split]
    synthetic = _synthetic(corpus, None if data_dir is None else str(data_dir))
    spoken = [recordings.sha256, synthetic and synthetic.sha256]
    config = asdict(_front_end(recordings))
    definition = [spoken, speakers, asdict(STRINGS), SECONDS, SIZES, _SEED, config, _ACROSS]
    return hashlib.sha256(json.dumps(definition).encode()).hexdigest()


def _front_end(recordings: DigitRecordings) -> LogMel:
    """Nothing is heard that is 35 dB below the loudest: silence is the same in every recording."""
    return LogMel(sample_rate=recordings.sample_rate, dynamic_range=8.0)


def _synthetic(corpus: str, data_dir: str | None) -> DigitRecordings | None:
    """The voices that training hears besides the recordings."""
    return _recordings("espeak", data_dir) if corpus.endswith("+espeak") else None


def _strings(
    recordings: DigitRecordings, indices: np.ndarray, seed: int, count: int, across: bool
) -> list[StringBatch]:
    """At least so many strings."""
    return [
        digit_strings(
            recordings,
            indices,
            STRINGS,
            seed=seed,
            step=step,
            batch_size=min(count, _STEP_SIZE),
            max_samples=round(SECONDS * recordings.sample_rate),
            across_speakers=across,
        )
        for step in range(-(-count // _STEP_SIZE))
    ]


def _split(recordings: DigitRecordings, test: str, validated_on: str | None) -> SpeakerSplit:
    if test not in folds(recordings):
        raise ConfigError(
            f"the speaker to test must be one of {', '.join(folds(recordings))}; received {test!r}."
        )
    if validated_on not in (None, validator(recordings, test)):
        raise ConfigError(
            f"the search of {test} must be validated on {validator(recordings, test)}; received "
            f"{validated_on!r}."
        )
    voices = default_speakers(recordings)
    if not voices[1]:
        voices = (test,), (() if validated_on is None else (validated_on,))
    return split_speakers(recordings, *voices)


def _known(spans: np.ndarray | None) -> np.ndarray:
    assert spans is not None
    return spans


def _features(batches: Sequence[StringBatch], config: LogMel, size: int) -> dict[str, np.ndarray]:
    """The first so many strings as examples."""
    parts = []
    for batch in batches:
        features, frames = _normalised(batch.waveforms, batch.lengths, config)
        parts.append(
            {
                "features": np.asarray(features, np.float16),
                "frames": np.asarray(frames),
                "labels": batch.labels,
                "label_paddings": batch.label_paddings,
            }
        )
    return {name: np.concatenate([part[name] for part in parts])[:size] for name in parts[0]}


@functools.partial(jax.jit, static_argnums=2)
def _normalised(waveforms, lengths, config: LogMel):
    features, frames = log_mel(waveforms, lengths, config)
    return normalise_features(features, frames), frames
