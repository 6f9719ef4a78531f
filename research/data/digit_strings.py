"""Strings of spoken digits joined from single recordings: a batch per (seed, step), no state.

Axis suffixes: B batch, S samples, N labels, M recordings.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from research.data.digit_recordings import DigitRecordings
from research.errors import ConfigError, DataError

FADE_SECONDS = 0.005
"""Linear fade at both ends of a clip, so that a join does not click."""

_ATTEMPTS = 1000
_REEL_SEED = 0
_REEL_SAMPLES = 2**19


@dataclass(frozen=True)
class StringConfig:
    """How strings are put together; every range is drawn from uniformly.

    Attributes:
        min_digits: fewest digits in a string.
        max_digits: most digits in a string.
        gap_seconds: silence between two digits.
        edge_seconds: silence before the first and after the last digit.
        level_decibels: gain of each digit relative to the common level.
        snr_decibels: speech power over noise power, of the whole string.
    """

    min_digits: int = 1
    max_digits: int = 7
    gap_seconds: tuple[float, float] = (0.0, 0.35)
    edge_seconds: tuple[float, float] = (0.05, 0.3)
    level_decibels: tuple[float, float] = (-6.0, 6.0)
    snr_decibels: tuple[float, float] = (10.0, 40.0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 1 <= self.min_digits <= self.max_digits:
            raise ConfigError(
                "digits must satisfy 1 <= min_digits <= max_digits, but got "
                f"{self.min_digits} and {self.max_digits}"
            )
        for name in ("gap_seconds", "edge_seconds", "level_decibels", "snr_decibels"):
            low, high = getattr(self, name)
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ConfigError(f"{name} must be a range (low, high), but got ({low}, {high})")
            if name.endswith("seconds") and low < 0:
                raise ConfigError(f"{name} must not be negative, but got ({low}, {high})")


class StringBatch(NamedTuple):
    """A batch for CTC training.

    Attributes:
        waveforms: float32 (B, S), zero beyond `lengths`.
        lengths: samples of each string, int32 (B,).
        labels: int32 (B, N), digit + 1 (0 is the CTC blank), 0 in padding.
        label_paddings: float32 (B, N), 1 where `labels` is padding, else 0.
        spans: float32 (B, N, 2), where each label begins and ends in seconds, 0 in padding; None
            where nobody knows.
    """

    waveforms: Float[np.ndarray, "B S"]
    lengths: Int[np.ndarray, " B"]
    labels: Int[np.ndarray, "B N"]
    label_paddings: Float[np.ndarray, "B N"]
    spans: Float[np.ndarray, "B N 2"] | None = None


class _Plan(NamedTuple):
    clips: Int[np.ndarray, " n"]
    starts: Int[np.ndarray, " n"]
    length: int


def digit_strings(
    recordings: DigitRecordings,
    indices: Int[np.ndarray, " M"],
    config: StringConfig,
    *,
    seed: int,
    step: int,
    batch_size: int,
    max_samples: int,
    across_speakers: bool = False,
) -> StringBatch:
    """Make the batch of strings that belongs to (seed, step): same arguments, same bits.

    A string is by one speaker, drawn uniformly among those of `indices`, or each of its digits by
    any of them. The number of digits uniformly in
    min_digits..max_digits, each clip uniformly among the speaker's, with replacement. Each clip
    gets a level of its own and 5 ms fades; then noise n + a n' is added at the drawn ratio of
    speech to noise power: n is white gaussian noise (a window at a drawn position of a reel of
    more than a minute), n' is n delayed by a sample, and a is drawn from [0, 1), which takes the
    noise from white to low-pass. A string longer than `max_samples` is drawn again as a whole, so
    a tight limit favours short strings.

    Args:
        recordings: where the clips come from.
        indices: positions of the recordings to use (one split), (M,).
        config: how strings are put together.
        seed: stream of batches, >= 0.
        step: which batch of the stream, >= 0.
        batch_size: strings B.
        max_samples: samples S of the padded waveforms; also the longest string.
        across_speakers: whether the digits of a string are by any of the speakers.

    Returns:
        The batch, with N = config.max_digits.

    Raises:
        ConfigError: a negative seed or step, or no batch.
        DataError: no recordings, or `max_samples` too small for them.

    Example:
        >>> from research.data.digit_recordings import make_recordings
        >>> clips = [np.sin(np.arange(800)), np.cos(np.arange(900))]
        >>> r = make_recordings("x", clips, [3, 4], ["ann", "ann"], [0, 0], "two clips")
        >>> batch = digit_strings(
        ...     r,
        ...     np.arange(2),
        ...     StringConfig(max_digits=2),
        ...     seed=0,
        ...     step=0,
        ...     batch_size=4,
        ...     max_samples=10_000,
        ... )
        >>> batch.waveforms.shape, batch.labels.shape, sorted(set(batch.labels.flat))
        ((4, 10000), (4, 2), [np.int32(0), np.int32(4), np.int32(5)])
    """
    if seed < 0 or step < 0 or batch_size < 1:
        raise ConfigError(
            "seed and step must be >= 0 and batch_size >= 1, but got "
            f"{seed}, {step} and {batch_size}"
        )
    pools = _speaker_pools(recordings, indices)
    rate = recordings.sample_rate
    sizes = recordings.sizes
    _check_room(recordings, pools, sizes, config, max_samples)
    if across_speakers:
        pools = [np.concatenate(pools)]

    rng = np.random.Generator(np.random.Philox(key=[seed, step]))
    waveforms = np.zeros((batch_size, max_samples), np.float32)
    lengths = np.zeros(batch_size, np.int32)
    labels = np.zeros((batch_size, config.max_digits), np.int32)
    label_paddings = np.ones((batch_size, config.max_digits), np.float32)
    spans = np.zeros((batch_size, config.max_digits, 2), np.float32)
    reel = _noise_reel(max_samples)
    fade = _fade(round(FADE_SECONDS * rate))
    for b in range(batch_size):
        plan = _draw_plan(rng, pools, sizes, config, rate, max_samples)
        count = len(plan.clips)
        gains = 10.0 ** (rng.uniform(*config.level_decibels, size=count) / 20.0)
        string = waveforms[b, : plan.length]
        for index, start, gain in zip(plan.clips, plan.starts, gains, strict=True):
            clip = recordings.clips[index]
            target = string[start : start + clip.size]
            np.multiply(clip, np.float32(gain), out=target)
            ramp = fade[: clip.size]
            target[: ramp.size] *= ramp
            target[clip.size - ramp.size :] *= ramp[::-1]
        speech_power = float(np.dot(string, string)) / float(sizes[plan.clips].sum())
        _add_noise(rng, string, reel, speech_power, rng.uniform(*config.snr_decibels))
        lengths[b] = plan.length
        labels[b, :count] = recordings.digits[plan.clips] + 1
        label_paddings[b, :count] = 0.0
        spans[b, :count, 0] = plan.starts / rate
        spans[b, :count, 1] = (plan.starts + sizes[plan.clips]) / rate
    return StringBatch(waveforms, lengths, labels, label_paddings, spans)


def _speaker_pools(recordings: DigitRecordings, indices: np.ndarray) -> list[np.ndarray]:
    """The given recordings, grouped by speaker."""
    indices = np.asarray(indices)
    if indices.size == 0:
        raise DataError("strings need at least one recording, but no indices were given")
    if indices.min() < 0 or indices.max() >= len(recordings):
        raise DataError(
            f"indices must lie in 0..{len(recordings) - 1}, but they span "
            f"{indices.min()}..{indices.max()}"
        )
    ids = recordings.speaker_ids[indices]
    order = np.argsort(ids, kind="stable")
    cuts = np.flatnonzero(np.diff(ids[order])) + 1
    return np.split(indices[order], cuts)


def _check_room(
    recordings: DigitRecordings,
    pools: list[np.ndarray],
    sizes: np.ndarray,
    config: StringConfig,
    max_samples: int,
) -> None:
    """Every speaker must have a string that fits, or that speaker would silently vanish."""
    silence = (config.min_digits - 1) * config.gap_seconds[0] + 2 * config.edge_seconds[0]
    for pool in pools:
        least = config.min_digits * int(sizes[pool].min())
        least += math.ceil(silence * recordings.sample_rate)
        if least > max_samples:
            speaker = recordings.speakers[int(pool[0])]
            raise DataError(
                f"max_samples must leave room for {config.min_digits} digit(s) of every speaker, "
                f"but {speaker}'s shortest string has {least} samples and max_samples is "
                f"{max_samples}; raise max_samples or lower min_digits"
            )


def _draw_plan(
    rng: np.random.Generator,
    pools: list[np.ndarray],
    sizes: np.ndarray,
    config: StringConfig,
    rate: int,
    max_samples: int,
) -> _Plan:
    """Who says which clips, and where each starts."""
    for _ in range(_ATTEMPTS):
        pool = pools[rng.integers(len(pools))]
        count = int(rng.integers(config.min_digits, config.max_digits + 1))
        clips = pool[rng.integers(len(pool), size=count)]
        silences = np.concatenate(
            [
                rng.uniform(*config.edge_seconds, size=1),
                rng.uniform(*config.gap_seconds, size=count - 1),
                rng.uniform(*config.edge_seconds, size=1),
            ]
        )
        silences = np.floor(silences * rate).astype(np.int64)
        spoken = sizes[clips]
        length = int(silences.sum() + spoken.sum())
        if length <= max_samples:
            starts = np.cumsum(silences[:-1]) + np.concatenate([[0], np.cumsum(spoken[:-1])])
            return _Plan(clips, starts, length)
    raise DataError(
        f"strings must fit in max_samples, but {_ATTEMPTS} strings in a row were longer than "
        f"{max_samples} samples; raise max_samples or lower max_digits"
    )


def _fade(samples: int) -> Float[np.ndarray, " n"]:
    return ((np.arange(samples) + 0.5) / max(samples, 1)).astype(np.float32)


def _add_noise(
    rng: np.random.Generator,
    string: np.ndarray,
    reel: np.ndarray,
    speech_power: float,
    snr_decibels: float,
) -> None:
    """Add noise to the string in place; the power of n + a n' is 1 + a²."""
    tilt = rng.random()
    start = int(rng.integers(1, reel.size - string.size + 1))
    power = speech_power * 10.0 ** (-snr_decibels / 10.0)
    scale = math.sqrt(power / (1.0 + tilt * tilt))
    string += np.float32(scale) * reel[start : start + string.size]
    string += np.float32(scale * tilt) * reel[start - 1 : start - 1 + string.size]


@lru_cache(maxsize=4)
def _noise_reel(max_samples: int) -> Float[np.ndarray, " n"]:
    """White gaussian noise, many times longer than a string.

    Drawing fresh noise would cost more than the rest of a batch; a window of the reel at a drawn
    position costs next to nothing, and there are hundreds of thousands of them.
    """
    rng = np.random.Generator(np.random.Philox(key=_REEL_SEED))
    reel = rng.standard_normal(_REEL_SAMPLES + max_samples, dtype=np.float32)
    reel.flags.writeable = False
    return reel
