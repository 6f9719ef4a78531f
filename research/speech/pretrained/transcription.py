"""Waveforms to text with the time of each word.

Axes: B batch, S samples, T frames, K classes, N labels.
"""

import os
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import soundfile
import soxr
from jaxtyping import Array, Float, Int

import kernels
from research.errors import DataError
from research.speech.audio import read_audio
from research.speech.decoding import greedy_decode
from research.speech.pretrained.checkpoint import Checkpoint
from research.speech.pretrained.configuration import ModelConfig, model_of
from research.speech.pretrained.front_end import FrontEnd
from research.speech.pretrained.weights import Variables

_LABELS_AT_ONCE = 64  # alignments are compiled for multiples of it


class Word(NamedTuple):
    """A word and where it is.

    Attributes:
        text: as the vocabulary writes it.
        start: seconds from the start of the audio to the first frame of its first label.
        end: seconds to the end of the last frame of its last label. CTC models emit labels in
            peaks, so words end early.
        probability: the geometric mean over the frames of its labels.
    """

    text: str
    start: float
    end: float
    probability: float


class Transcript(NamedTuple):
    """What was said, and when."""

    text: str
    words: list[Word]


def read_speech(path: str | os.PathLike[str], sample_rate: int) -> Float[np.ndarray, " S"]:
    """Read a mono audio file of any sample rate and resample it.

    Args:
        path: the file.
        sample_rate: the rate in Hz that is wanted.

    Returns:
        Samples, float32, (S,).

    Raises:
        DataError: as `research.speech.audio.read_audio`, except for the rate.
    """
    try:
        rate = soundfile.info(os.fspath(path)).samplerate
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        rate = sample_rate  # the reader below says what is wrong
    samples = read_audio(Path(path), sample_rate=rate)
    if rate == sample_rate:
        return samples
    return np.asarray(soxr.resample(samples, rate, sample_rate), np.float32)


def emissions(checkpoint: Checkpoint, waveform: Float[np.ndarray, " S"]) -> Float[Array, "T K"]:
    """Logits of one utterance, float32.

    Where padding changes nothing, the waveform is padded to whole seconds, so that few lengths are
    compiled.

    Args:
        checkpoint: the recogniser.
        waveform: samples at the rate of its front end, (S,).

    Returns:
        (T, K), a frame every ``checkpoint.frame_seconds``.

    Raises:
        DataError: the waveform is too short for a frame.
    """
    config, front_end = checkpoint.config, checkpoint.front_end
    samples = len(waveform)
    if config.padding_is_inert:
        waveform = np.pad(waveform, (0, -samples % front_end.sample_rate))
    inputs = front_end.inputs(samples)
    frames = config.frames(inputs)
    if frames < 1:
        raise DataError(
            f"audio must be long enough for one frame of the model, but {samples} samples at "
            f"{front_end.sample_rate} Hz are not; record more or join recordings"
        )
    arguments = jnp.asarray(waveform)[None], jnp.array([samples])
    return _emissions(checkpoint.variables, *arguments, config, front_end)[0, :frames]


def transcribe(checkpoint: Checkpoint, waveform: Float[np.ndarray, " S"]) -> Transcript:
    """The likeliest label of each frame, repeats merged, blanks dropped, as text with times.

    Args:
        checkpoint: the recogniser.
        waveform: samples at the rate of its front end, (S,).

    Returns:
        Text and words.

    Raises:
        DataError: the waveform is too short for a frame.
    """
    logits = emissions(checkpoint, waveform)
    tokens, counts = greedy_decode(
        logits[None], jnp.array([len(logits)]), checkpoint.config.pad_token_id
    )
    return _located(checkpoint, logits, np.asarray(tokens[0, : int(counts[0])]).tolist())


def align(checkpoint: Checkpoint, waveform: Float[np.ndarray, " S"], text: str) -> Transcript:
    """When each word of a known text was said: the likeliest path through its labels.

    Args:
        checkpoint: the recogniser.
        waveform: samples at the rate of its front end, (S,).
        text: what was said, in the spelling of the vocabulary.

    Returns:
        The text and its words.

    Raises:
        DataError: the text has unknown characters, or more labels than the audio has frames.
    """
    logits = emissions(checkpoint, waveform)
    labels = checkpoint.vocabulary.encode(text)
    needed = len(labels) + sum(a == b for a, b in pairwise(labels))
    if needed > len(logits):
        raise DataError(
            f"the text must fit the audio, but its labels need {needed} frames and there are "
            f"{len(logits)} of {checkpoint.frame_seconds:g} s"
        )
    return _located(checkpoint, logits, labels)


@partial(jax.jit, static_argnames=("config", "front_end"))
def _emissions(
    variables: Variables,
    waveforms: Float[Array, "B S"],
    lengths: Int[Array, " B"],
    config: ModelConfig,
    front_end: FrontEnd,
) -> Float[Array, "B T K"]:
    inputs, counts = front_end(waveforms, lengths)
    dtype = jax.tree.leaves(variables["params"])[0].dtype
    logits = model_of(config).apply(variables, inputs.astype(dtype), counts)
    return jnp.asarray(logits, jnp.float32)


def _located(checkpoint: Checkpoint, logits: Array, labels: Sequence[int]) -> Transcript:
    """Labels as text, with the words where the likeliest path has them."""
    vocabulary, seconds = checkpoint.vocabulary, checkpoint.frame_seconds
    padding = -len(labels) % _LABELS_AT_ONCE
    padded = np.pad(np.array(labels, np.int32), (0, padding))[None]
    aligned = kernels.ctc_alignment(
        logits[None],
        jnp.zeros((1, len(logits))),
        jnp.asarray(padded),
        jnp.asarray(np.arange(padded.shape[1])[None] >= len(labels)),
        blank_id=checkpoint.config.pad_token_id,
    )
    spans, scores = np.asarray(aligned.spans[0]), np.asarray(aligned.scores[0])
    frames = spans[:, 1] - spans[:, 0]
    words = []
    for word in vocabulary.words(labels):
        span = slice(word.start, word.stop)
        words.append(
            Word(
                vocabulary.decode(labels[span]),
                float(spans[word.start, 0]) * seconds,
                float(spans[word.stop - 1, 1]) * seconds,
                float(np.exp(scores[span].sum() / frames[span].sum())),
            )
        )
    return Transcript(vocabulary.decode(labels), words)
