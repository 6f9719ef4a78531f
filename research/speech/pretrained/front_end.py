"""preprocessor_config.json of a checkpoint to a function from samples to what its model takes.

Axes: B batch, S samples, T frames, F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.errors import ConfigError
from research.speech.features import log_mel, stack_frames
from research.speech.log_mel_config import LogMel
from research.speech.presets import PARAKEET, SEAMLESS
from research.speech.pretrained.files import typed

_EPSILON = 1e-7


@dataclass(frozen=True)
class RawWaveform:
    """Samples as they are or, if ``normalise``, with zero mean and unit deviation per utterance.

    Example:
        >>> inputs, lengths = RawWaveform()(jnp.array([[1.0, 3.0, 9.0]]), jnp.array([2]))
        >>> inputs.round(3).tolist(), lengths.tolist()
        ([[-1.0, 1.0, 0.0]], [2])
    """

    sample_rate: int = 16_000
    normalise: bool = True

    @property
    def hop(self) -> int:
        """Samples from one input of the model to the next."""
        return 1

    def inputs(self, samples: int) -> int:
        """How many inputs so many samples give."""
        return samples

    def __call__(
        self, waveforms: Float[Array, "B S"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B S"], Int[Array, " B"]]:
        """Inputs of the model, zero in padding; and how many are valid."""
        valid = jnp.arange(waveforms.shape[1])[None, :] < lengths[:, None]
        if not self.normalise:
            return jnp.where(valid, waveforms, 0), lengths
        count = jnp.maximum(lengths, 1)[:, None]
        mean = jnp.sum(jnp.where(valid, waveforms, 0), axis=1, keepdims=True) / count
        centred = jnp.where(valid, waveforms - mean, 0)
        variance = jnp.sum(centred**2, axis=1, keepdims=True) / count
        return centred / jnp.sqrt(variance + _EPSILON), lengths


@dataclass(frozen=True)
class StackedLogMel:
    """Log-mel features, ``stack`` neighbouring frames joined into one.

    Of the frames that do not fill a stack, nothing counts as valid.
    """

    log_mel: LogMel
    stack: int = 1

    @property
    def sample_rate(self) -> int:
        """Samples per second that the features are made for."""
        return self.log_mel.sample_rate

    @property
    def hop(self) -> int:
        """Samples from one input of the model to the next."""
        return self.log_mel.hop * self.stack

    def inputs(self, samples: int) -> int:
        """How many inputs so many samples give."""
        return self.log_mel.frames(samples) // self.stack

    def __call__(
        self, waveforms: Float[Array, "B S"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B T F"], Int[Array, " B"]]:
        """Inputs of the model; and how many are valid."""
        features, frames = log_mel(waveforms, lengths, self.log_mel)
        stacked, _ = stack_frames(features, frames, self.stack)
        return stacked, frames // self.stack


FrontEnd = RawWaveform | StackedLogMel


def front_end_of(described: Mapping[str, Any]) -> FrontEnd:
    """The front end that preprocessor_config.json describes.

    Args:
        described: the contents of the file.

    Returns:
        A function of waveforms and lengths.

    Raises:
        ConfigError: a kind of features that is not known here, or sizes that do not go together.
        DataError: a value of another type, or a rate or size below 1.

    Example:
        >>> front_end_of({"feature_extractor_type": "SeamlessM4TFeatureExtractor"}).hop
        320
    """

    def value_of(name: str, default: Any) -> Any:
        value = described.get(name, default)
        return typed(value, type(default), f"{name} in preprocessor_config.json")

    kind = described.get("feature_extractor_type")
    rate = value_of("sampling_rate", 16_000)
    if kind == "Wav2Vec2FeatureExtractor":
        return RawWaveform(rate, value_of("do_normalize", True))
    if kind == "SeamlessM4TFeatureExtractor":
        bins = value_of("num_mel_bins", SEAMLESS.n_mels)
        mel = replace(SEAMLESS, sample_rate=rate, n_mels=bins)
        return StackedLogMel(mel, value_of("stride", 2))
    if kind == "ParakeetFeatureExtractor":
        names = {
            "sampling_rate": "sample_rate",
            "feature_size": "n_mels",
            "hop_length": "hop",
            "n_fft": "n_fft",
            "win_length": "window",
            "preemphasis": "pre_emphasis",
        }
        if described.get("preemphasis", 0.0) is None:
            described = {**described, "preemphasis": 0.0}
        given = {ours: value_of(name, getattr(PARAKEET, ours)) for name, ours in names.items()}
        return StackedLogMel(replace(PARAKEET, **given))
    raise ConfigError(
        "feature_extractor_type in preprocessor_config.json must be one of "
        "Wav2Vec2FeatureExtractor, SeamlessM4TFeatureExtractor and ParakeetFeatureExtractor, but "
        f"is {kind!r}"
    )


def described(front_end: FrontEnd) -> dict[str, Any]:
    """The contents of preprocessor_config.json, for `front_end_of` and transformers to read.

    Raises:
        ConfigError: features that the file cannot describe.

    Example:
        >>> front_end_of(described(RawWaveform(normalise=False))).normalise
        False
    """
    if isinstance(front_end, RawWaveform):
        text: dict[str, Any] = {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "sampling_rate": front_end.sample_rate,
            "do_normalize": front_end.normalise,
            "feature_size": 1,
            "padding_value": 0.0,
            "return_attention_mask": True,
        }
    elif front_end.stack > 1:
        text = {
            "feature_extractor_type": "SeamlessM4TFeatureExtractor",
            "sampling_rate": front_end.sample_rate,
            "num_mel_bins": front_end.log_mel.n_mels,
            "feature_size": front_end.log_mel.n_mels,
            "stride": front_end.stack,
            "padding_value": 0.0,
        }
    else:
        mel = front_end.log_mel
        text = {
            "feature_extractor_type": "ParakeetFeatureExtractor",
            "sampling_rate": mel.sample_rate,
            "feature_size": mel.n_mels,
            "hop_length": mel.hop,
            "n_fft": mel.n_fft,
            "win_length": mel.window,
            "preemphasis": mel.pre_emphasis,
            "padding_value": 0.0,
        }
    if front_end_of(text) != front_end:
        raise ConfigError(
            "a checkpoint can have raw waveforms, or log-mel features that differ from the presets "
            f"'seamless' and 'parakeet' in sizes only, but got {front_end}"
        )
    return text
