"""Waveforms to text with the time of each word.

Axes: B batch, S samples, T frames, K classes, N labels.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

import kernels
from research.errors import DataError
from research.speech.audio import read_audio
from research.speech.pretrained.checkpoint import Checkpoint
from research.speech.pretrained.chunks import chunks_of
from research.speech.pretrained.configuration import ModelConfig, model_of
from research.speech.pretrained.front_end import FrontEnd
from research.speech.pretrained.weights import Variables

CHUNK_SECONDS = 30.0
"""Audio of more than twice this is heard in chunks of it, unless something else is asked for."""

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
    return read_audio(path, sample_rate=sample_rate, resample=True)


def emissions(
    checkpoint: Checkpoint,
    waveform: Float[np.ndarray, " S"],
    *,
    chunk_seconds: float | None = CHUNK_SECONDS,
    stride_seconds: float | None = None,
) -> Float[Array, "T K"]:
    """Logits of one utterance, float32.

    Audio that is longer than two chunks is heard chunk by chunk, each with as many frames; memory
    and the cost of attention then grow with the chunk, not with the square of the audio. Where two
    chunks overlap, the logits are those of the first up to the middle, and of the second from
    there on: every frame has ``stride_seconds`` of context to both sides. A model that looks no
    further gives what it gives for the whole. Norms over the utterance are over the chunk.

    Where padding changes nothing, waveforms are padded to whole seconds, so that few lengths are
    compiled.

    Args:
        checkpoint: the recogniser.
        waveform: samples at the rate of its front end, (S,).
        chunk_seconds: of each chunk; None hears everything at once.
        stride_seconds: the context that a frame keeps, so that chunks overlap by twice as much; a
            sixth of the chunk if not given.

    Returns:
        (T, K), a frame every ``checkpoint.frame_seconds``.

    Raises:
        DataError: the waveform is too short for a frame, or the logits are not finite.
        ConfigError: chunks that consist of overlap.
    """
    config, front_end = checkpoint.config, checkpoint.front_end

    def frames_of(samples):
        return config.frames(front_end.inputs(samples))

    if frames_of(len(waveform)) < 1:
        raise DataError(
            f"audio must be long enough for one frame of the model, but {len(waveform)} samples at "
            f"{front_end.sample_rate} Hz are not; record more or join recordings"
        )
    if chunk_seconds is None or len(waveform) <= 2 * chunk_seconds * front_end.sample_rate:
        return _finite(_heard(checkpoint, waveform, frames_of))
    stride_seconds = chunk_seconds / 6 if stride_seconds is None else stride_seconds
    chunks = chunks_of(
        len(waveform),
        round(chunk_seconds / checkpoint.frame_seconds),
        round(stride_seconds / checkpoint.frame_seconds),
        hop=config.stride * front_end.hop,
        frames_of=frames_of,
    )
    parts = []
    for chunk in chunks:
        logits = _heard(checkpoint, waveform[chunk.samples], frames_of)
        parts.append(logits[chunk.frames])
    return _finite(np.concatenate(parts))


def _finite(logits: Float[np.ndarray, "T K"]) -> Float[Array, "T K"]:
    """As an array of JAX; NaN would be read as silence."""
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits)).any(axis=1).sum())
        raise DataError(
            f"a recogniser must give finite logits, but {bad} of {len(logits)} frames are not; is "
            "a sample or a weight not finite, or too large for the checkpoint's precision?"
        )
    return jnp.asarray(logits)


def transcribe(
    checkpoint: Checkpoint,
    waveform: Float[np.ndarray, " S"],
    *,
    chunk_seconds: float | None = CHUNK_SECONDS,
) -> Transcript:
    """The likeliest label of each frame, repeats merged, blanks dropped, as text with times.

    Args:
        checkpoint: the recogniser.
        waveform: samples at the rate of its front end, (S,).
        chunk_seconds: as in `emissions`.

    Returns:
        Text and words.

    Raises:
        DataError: the waveform is too short for a frame.
    """
    logits = np.asarray(emissions(checkpoint, waveform, chunk_seconds=chunk_seconds))
    # The likeliest path of these labels is the likeliest of all, so no alignment is needed, which
    # would take frames times labels of memory.
    path, scores = logits.argmax(axis=1), logits.max(axis=1)
    scores = scores - np.logaddexp.reduce(logits, axis=1)
    begins = np.flatnonzero(path != np.concatenate([[-1], path[:-1]]))
    ends = np.append(begins[1:], len(path))
    says = path[begins] != checkpoint.config.pad_token_id
    spans = np.stack([begins, ends], axis=1)[says]
    totals = np.add.reduceat(scores, begins)[says]
    return _located(checkpoint, path[begins[says]].tolist(), spans, totals)


def align(
    checkpoint: Checkpoint,
    waveform: Float[np.ndarray, " S"],
    text: str,
    *,
    chunk_seconds: float | None = CHUNK_SECONDS,
) -> Transcript:
    """When each word of a known text was said: the likeliest path through its labels.

    The path is looked for over the whole audio: memory grows with frames times labels.

    Args:
        checkpoint: the recogniser.
        waveform: samples at the rate of its front end, (S,).
        text: what was said, in the spelling of the vocabulary.
        chunk_seconds: as in `emissions`.

    Returns:
        The text and its words.

    Raises:
        DataError: the text has unknown characters, or more labels than the audio has frames.
    """
    logits = emissions(checkpoint, waveform, chunk_seconds=chunk_seconds)
    labels = checkpoint.vocabulary.encode(text)
    needed = len(labels) + sum(a == b for a, b in pairwise(labels))
    if needed > len(logits):
        raise DataError(
            f"the text must fit the audio, but its labels need {needed} frames and there are "
            f"{len(logits)} of {checkpoint.frame_seconds:g} s"
        )
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
    return _located(checkpoint, labels, spans, scores)


def _heard(
    checkpoint: Checkpoint,
    waveform: Float[np.ndarray, " S"],
    frames_of: Callable[[int], int],
) -> Float[np.ndarray, "T K"]:
    """Logits of all of a waveform at once, on the host, where they take no memory of the device."""
    config, front_end = checkpoint.config, checkpoint.front_end
    samples = len(waveform)
    if config.padding_is_inert:
        waveform = np.pad(waveform, (0, -samples % front_end.sample_rate))
    arguments = jnp.asarray(waveform)[None], jnp.array([samples])
    logits = _emissions(checkpoint.variables, *arguments, config, front_end)
    return np.asarray(logits[0, : frames_of(samples)])


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


def _located(
    checkpoint: Checkpoint,
    labels: Sequence[int],
    spans: Int[np.ndarray, "N 2"],
    scores: Float[np.ndarray, " N"],
) -> Transcript:
    """Labels as text, with the words where the frames of their labels are."""
    vocabulary, seconds = checkpoint.vocabulary, checkpoint.frame_seconds
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
