"""A CTC recogniser as pure functions: waveforms in, frame logits out, labels decoded and counted.

Axis suffixes: B batch, S samples, T encoder frames, K classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

import kernels
from research.data.digit_strings import StringBatch
from research.errors import ConfigError
from research.names import suggestion
from research.objectives.ctc import ctc
from research.objectives.ctc_terms import Outputs, logits_of, losses_of
from research.speech.augment import add_noise, random_gain, speed_perturb
from research.speech.decoding import greedy_decode
from research.speech.features import log_mel, normalise_features, stack_frames
from research.speech.log_mel_config import LogMel
from research.speech.spec_augment import SpecAugment, spec_augment
from research.train import State, TrainStep, init_state, make_train_step


@dataclass(frozen=True)
class FrontEnd:
    """How waveforms become what the encoder sees."""

    log_mel: LogMel = field(default_factory=LogMel)
    stack: int = 4
    """Neighbouring log-mel frames joined into one encoder frame."""
    policy: SpecAugment = field(default_factory=SpecAugment)
    """What ``masked`` hides."""

    @property
    def frame_seconds(self) -> float:
        """Seconds from one encoder frame to the next."""
        return self.stack * self.log_mel.hop / self.log_mel.sample_rate

    def __call__(
        self, waveforms: Float[Array, "B S"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B T F"], Int[Array, " B"]]:
        """Log-mel features, normalised per utterance and bin, stacked; and valid frames of each."""
        features, frames = self._normalised(waveforms, lengths)
        return stack_frames(features, frames, self.stack)

    def masked(
        self, key: Array, waveforms: Float[Array, "B S"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B T F"], Int[Array, " B"]]:
        """The same with SpecAugment between normalising and stacking."""
        features, frames = self._normalised(waveforms, lengths)
        hidden = spec_augment(key, features, frames, self.policy)
        return stack_frames(hidden, frames, self.stack)

    def _normalised(self, waveforms, lengths):
        features, frames = log_mel(waveforms, lengths, self.log_mel)
        return normalise_features(features, frames), frames


class Output(NamedTuple):
    """What the encoder says of a batch, without augmentation or dropout.

    Attributes:
        logits: of the last layer.
        frames: how many of them are valid.
        losses: CTC of each utterance in nats per label, +inf where its labels do not fit.
    """

    logits: Float[Array, "B T K"]
    frames: Int[Array, " B"]
    losses: Float[Array, " B"]

    @property
    def loss(self) -> float:
        """`mean_loss` of the batch."""
        return mean_loss(np.asarray(self.losses))


class Recogniser(NamedTuple):
    """Jitted functions of one encoder and one optimizer.

    ``init(key, batch)`` -> State; ``step(state, batch, key)`` -> (State, metrics), which consumes
    the state; ``evaluate(params, batch)`` -> Output, with the valid frames of the logits, which are
    ``frame_seconds`` apart. ``blank_id`` is the class that emits nothing.
    """

    init: Callable[[Array, StringBatch], State]
    step: TrainStep
    evaluate: Callable[[Any, StringBatch], Output]
    frame_seconds: float
    blank_id: int = 0


AUGMENTATIONS = ("speed", "gain", "noise", "mask")


def make_recogniser(
    encoder: Any,
    front_end: FrontEnd,
    optimizer: optax.GradientTransformation,
    *,
    augment: tuple[str, ...] = (),
    objective: Callable[..., Float[Array, ""]] = ctc,
    views: int = 1,
    blank_id: int = 0,
) -> Recogniser:
    """Put front end, encoder, objective and optimizer together.

    Args:
        encoder: a Linen module from (features, lengths, deterministic=...) to logits; see
            ``research.models.speech_encoder``.
        front_end: from waveforms to features.
        optimizer: an optax transformation.
        augment: random changes in training, any of "speed" (0.9, 1.0 or 1.1), "gain", "noise" and
            "mask" (SpecAugment, the front end's).
        objective: of training, with the signature of those in ``research.objectives.ctc``.
        views: how many times an utterance is in a batch of training, each time with another gain,
            noise and mask, at the same speed; row b + B is the second view of row b. Two for
            ``consistency_ctc``.
        blank_id: the class that emits nothing.

    Returns:
        The functions; each compiles once per batch shape. The losses of ``evaluate`` are CTC.

    Raises:
        ConfigError: an unknown augmentation, or no view.
    """
    unknown = [name for name in augment if name not in AUGMENTATIONS]
    if isinstance(augment, str) or unknown:
        near = "" if isinstance(augment, str) else suggestion(unknown[0], AUGMENTATIONS)
        raise ConfigError(
            f"augment must be a tuple of {', '.join(AUGMENTATIONS)}; received {augment!r}.{near}"
        )
    if views < 1:
        raise ConfigError(f"views must be at least 1; received {views}.")

    def features(waveforms, lengths, key):
        gain_key, noise_key, mask_key = jax.random.split(key, 3)
        if "gain" in augment:
            waveforms = random_gain(gain_key, waveforms, (-10.0, 10.0))
        if "noise" in augment:
            waveforms = add_noise(noise_key, waveforms, lengths, (5.0, 40.0))
        if "mask" in augment:
            return front_end.masked(mask_key, waveforms, lengths)
        return front_end(waveforms, lengths)

    def repeated(rows):
        return jnp.concatenate([rows] * views) if views > 1 else rows

    def apply(params, batch, key):
        augment_key, dropout_key = jax.random.split(key)
        waveforms, lengths = batch.waveforms, batch.lengths
        if "speed" in augment:
            speed_key, augment_key = jax.random.split(augment_key)
            waveforms, lengths = speed_perturb(speed_key, waveforms, lengths)
        inputs, frames = features(repeated(waveforms), repeated(lengths), augment_key)
        rngs = {"dropout": dropout_key}
        outputs = encoder.apply({"params": params}, inputs, frames, deterministic=False, rngs=rngs)
        return outputs, encoder.output_lengths(frames)

    def loss(results, batch):
        outputs, frames = results
        labels, paddings = repeated(batch.labels), repeated(batch.label_paddings)
        return objective(outputs, frames, labels, paddings, blank_id=blank_id)

    def evaluate(params, batch):
        inputs, frames = front_end(batch.waveforms, batch.lengths)
        outputs: Outputs = encoder.apply({"params": params}, inputs, frames)
        logits, frames = logits_of(outputs), encoder.output_lengths(frames)
        losses = losses_of(logits, frames, batch.labels, batch.label_paddings, blank_id)
        counts = jnp.sum(1 - batch.label_paddings, axis=1)
        return Output(logits, frames, losses / jnp.maximum(counts, 1))

    def init(key, batch):
        inputs, frames = front_end(batch.waveforms, batch.lengths)
        return init_state(encoder.init(key, inputs, frames)["params"], optimizer)

    step = make_train_step(apply, loss, optimizer)
    return Recogniser(
        init=jax.jit(init),
        step=jax.jit(step, donate_argnums=0),
        evaluate=jax.jit(evaluate),
        frame_seconds=encoder.subsampling * front_end.frame_seconds,
        blank_id=blank_id,
    )


def mean_loss(losses: Float[np.ndarray, " B"]) -> float:
    """Mean over the utterances whose labels fit, as ``ctc`` has it; NaN goes on.

    Unlike there, +inf where none fits: 0 would be the loss of a perfect recogniser.

    Example:
        >>> mean_loss(np.array([1.0, np.inf, 3.0])), mean_loss(np.array([np.inf]))
        (2.0, inf)
    """
    possible = losses[~np.isposinf(losses)]
    return float(possible.mean()) if possible.size else np.inf


def transcribe(
    logits: Float[Array, "B T K"], frames: Int[Array, " B"], blank_id: int = 0
) -> list[list[int]]:
    """Greedy transcripts as lists of label ids.

    Example:
        >>> transcribe(jax.nn.one_hot(jnp.array([[1, 1, 0, 1, 2]]), 3), jnp.array([5]))
        [[1, 1, 2]]
    """
    tokens, counts = map(np.asarray, greedy_decode(logits, frames, blank_id))
    return [row[:count].tolist() for row, count in zip(tokens, counts, strict=True)]


def references(batch: StringBatch) -> list[list[int]]:
    """The labels of a batch as lists, without padding."""
    labels, paddings = np.asarray(batch.labels), np.asarray(batch.label_paddings)
    return [row[padding == 0].tolist() for row, padding in zip(labels, paddings, strict=True)]


def example_arrays(
    recogniser: Recogniser, front_end: FrontEnd, params: Any, batch: StringBatch, count: int
) -> Mapping[str, np.ndarray]:
    """What figures and the notebook need of the first strings of a batch.

    For string i: waveform_i (S,), log_mel_i (T', F), log_posteriors_i (T, K), labels_i,
    hypothesis_i, and alignment_i (T,), the likeliest path of the true labels. Each is cut to its
    valid length. Besides: sample_rate, hop_seconds of log_mel_i, frame_seconds of the posteriors.
    """
    mel = front_end.log_mel
    spectrograms, mel_frames = map(np.asarray, log_mel(batch.waveforms, batch.lengths, mel))
    logits, frames, _ = recogniser.evaluate(params, batch)
    hypotheses, labels = transcribe(logits, frames, recogniser.blank_id), references(batch)
    log_posteriors = np.asarray(jax.nn.log_softmax(logits))
    paddings = np.arange(logits.shape[1])[None, :] >= np.asarray(frames)[:, None]
    aligned = kernels.ctc_alignment(
        logits,
        jnp.asarray(paddings),
        jnp.asarray(batch.labels),
        jnp.asarray(batch.label_paddings),
        blank_id=recogniser.blank_id,
    )
    alignments = np.asarray(aligned.frames)
    arrays: dict[str, np.ndarray] = {
        "sample_rate": np.array(mel.sample_rate),
        "hop_seconds": np.array(mel.hop_seconds),
        "frame_seconds": np.array(recogniser.frame_seconds),
    }
    for i in range(min(count, len(labels))):
        arrays |= numbered(
            i,
            waveform=batch.waveforms[i, : batch.lengths[i]],
            log_mel=spectrograms[i, : mel_frames[i]],
            log_posteriors=log_posteriors[i, : int(frames[i])],
            labels=np.array(labels[i], np.int32),
            hypothesis=np.array(hypotheses[i], np.int32),
            alignment=alignments[i, : int(frames[i])],
        )
    return arrays


def numbered(
    i: int,
    *,
    waveform: Float[np.ndarray, " S"],
    log_mel: Float[np.ndarray, "T F"],
    log_posteriors: Float[np.ndarray, "U K"],
    labels: Int[np.ndarray, " N"],
    hypothesis: Int[np.ndarray, " M"],
    alignment: Int[np.ndarray, " U"],
    boundaries: Float[np.ndarray, "N 2"] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of the i-th utterance of an examples file, by the names they have there.

    Boundaries are begins and ends of the labels in seconds, where somebody knows them.
    """
    known = {} if boundaries is None else {"boundaries": boundaries}
    arrays = {
        "waveform": waveform,
        "log_mel": log_mel,
        "log_posteriors": log_posteriors,
        "labels": labels,
        "hypothesis": hypothesis,
        "alignment": alignment,
    }
    return {f"{name}_{i}": np.asarray(array) for name, array in (arrays | known).items()}
