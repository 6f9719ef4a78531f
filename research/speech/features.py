"""Log-mel features in JAX.

Axis suffixes: B batch, S samples, T frames, F mel bins, W samples of a frame, K frequency bins.
"""

from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from research.errors import ConfigError, DataError

_VARIANCE_FLOOR = 1e-5


@dataclass(frozen=True)
class LogMel:
    """Settings of `log_mel`.

    Attributes:
        sample_rate: samples per second of the waveforms.
        n_fft: length of the Fourier transform; frames are padded to it with zeros.
        window: samples of a frame (25 ms at 8 kHz), weighted by a periodic Hann window.
        hop: samples between the starts of two frames (10 ms at 8 kHz).
        n_mels: mel bins F.
        low_hz: where the lowest filter starts.
        high_hz: where the highest filter ends; None means half the sample rate.
        floor: added to the mel power before the logarithm.
    """

    sample_rate: int = 8000
    n_fft: int = 256
    window: int = 200
    hop: int = 80
    n_mels: int = 40
    low_hz: float = 20.0
    high_hz: float | None = None
    floor: float = 1e-6

    def __post_init__(self) -> None:
        """Check that the settings describe a transform."""
        if min(self.sample_rate, self.hop, self.n_mels) < 1 or not 1 <= self.window <= self.n_fft:
            raise ConfigError(
                "LogMel needs sample_rate, hop and n_mels >= 1 and 1 <= window <= n_fft, but got "
                f"{self.sample_rate}, {self.hop}, {self.n_mels}, {self.window} and {self.n_fft}"
            )
        if not 0 <= self.low_hz < self.top_hz <= self.sample_rate / 2:
            raise ConfigError(
                f"LogMel needs 0 <= low_hz < high_hz <= {self.sample_rate / 2:g}, but got "
                f"{self.low_hz:g} and {self.top_hz:g}"
            )
        if not self.floor > 0:
            raise ConfigError(f"LogMel needs floor > 0, but got {self.floor:g}")
        empty = np.flatnonzero(mel_filters(self).sum(axis=0) == 0)
        if empty.size:
            raise ConfigError(
                f"every mel filter must cover a frequency bin, but {empty.size} of {self.n_mels} "
                f"(first: {empty[0]}) cover none; use fewer n_mels or a longer n_fft"
            )

    @property
    def top_hz(self) -> float:
        """Where the highest filter ends, in Hz."""
        return self.sample_rate / 2 if self.high_hz is None else self.high_hz

    @property
    def hop_seconds(self) -> float:
        """Seconds between the starts of two frames."""
        return self.hop / self.sample_rate


def hz_to_mel(hz: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Convert frequency to the HTK mel scale, m = 2595 log10(1 + f / 700).

    Example:
        >>> round(float(hz_to_mel(np.array(1000.0))), 2)
        999.99
    """
    return 2595.0 * np.log10(1.0 + np.asarray(hz, np.float64) / 700.0)


def mel_to_hz(mel: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Convert the HTK mel scale to frequency, f = 700 (10^(m / 2595) - 1).

    Example:
        >>> round(float(mel_to_hz(hz_to_mel(np.array(440.0)))), 6)
        440.0
    """
    return 700.0 * (10.0 ** (np.asarray(mel, np.float64) / 2595.0) - 1.0)


@lru_cache(maxsize=16)
def mel_filters(config: LogMel) -> Float[np.ndarray, "K F"]:
    """Triangular filters with edges equally spaced in mel, each of peak height 1.

    With edges e_0 < ... < e_{F+1} in Hz, filter i at frequency f is
    max(0, min((f - e_i) / (e_{i+1} - e_i), (e_{i+2} - f) / (e_{i+2} - e_{i+1}))). This equals
    `librosa.filters.mel(htk=True, norm=None)` transposed.

    Args:
        config: the settings.

    Returns:
        Weights, float64, shape (n_fft // 2 + 1, n_mels).

    Example:
        >>> mel_filters(LogMel()).shape
        (129, 40)
    """
    frequencies = np.linspace(0.0, config.sample_rate / 2, config.n_fft // 2 + 1)[:, None]
    low, high = hz_to_mel(np.array([config.low_hz, config.top_hz]))
    edges = mel_to_hz(np.linspace(low, high, config.n_mels + 2))[None, :]
    rising = (frequencies - edges[:, :-2]) / (edges[:, 1:-1] - edges[:, :-2])
    falling = (edges[:, 2:] - frequencies) / (edges[:, 2:] - edges[:, 1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    filters.flags.writeable = False  # the cache hands out this very array
    return filters


def log_mel(
    waveforms: Float[Array | np.ndarray, "B S"],
    lengths: Int[Array | np.ndarray, " B"],
    config: LogMel = LogMel(),
) -> tuple[Float[Array, "B T F"], Int[Array, " B"]]:
    """Compute natural-log mel power features.

    Frame t holds samples t·hop to t·hop + window - 1 (no centring, no padding), weighted by a
    periodic Hann window w; with its Fourier transform X and the filters M of `mel_filters`:

        features[t, i] = log(sum_k M[k, i] |X[t, k]|² + floor)

    A frame counts as valid when all of its samples are, so padding never leaks into one.

    Args:
        waveforms: samples, float (B, S), S >= window.
        lengths: valid samples of each waveform, (B,).
        config: the settings.

    Returns:
        Features, float32 (B, T, F) with T = 1 + (S - window) // hop, zero in padded frames; and
        the number of valid frames of each, int32 (B,), which is 0 below one window of samples.

    Raises:
        DataError: the waveforms are not (B, S) or shorter than one window.

    Example:
        >>> features, frames = log_mel(jnp.ones((1, 8000)), jnp.array([4000]))
        >>> features.shape, frames.tolist()
        ((1, 98, 40), [48])
    """
    if waveforms.ndim != 2 or waveforms.shape[1] < config.window:
        raise DataError(
            f"waveforms must be (batch, samples) with at least {config.window} samples (one "
            f"window), but got shape {waveforms.shape}; pad them"
        )
    return _log_mel(waveforms, lengths, config)


@partial(jax.jit, static_argnames="config")
def _log_mel(waveforms: Array, lengths: Array, config: LogMel) -> tuple[Array, Array]:
    frames = 1 + (waveforms.shape[1] - config.window) // config.hop
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(config.window) / config.window)
    framed_BTW = _frame(waveforms.astype(jnp.float32), frames, config)
    weighted_BTW = framed_BTW * jnp.asarray(window, jnp.float32)[None, None, :]
    spectrum_BTK = jnp.fft.rfft(weighted_BTW, n=config.n_fft)
    power_BTK = spectrum_BTK.real**2 + spectrum_BTK.imag**2
    filters_KF = jnp.asarray(mel_filters(config), jnp.float32)
    mel_BTF = jnp.einsum("btk,kf->btf", power_BTK, filters_KF, precision="highest")
    valid = jnp.maximum(0, 1 + (lengths.astype(jnp.int32) - config.window) // config.hop)
    valid = jnp.minimum(valid, frames)
    return _masked(jnp.log(mel_BTF + config.floor), valid), valid


def _frame(waveforms: Array, frames: int, config: LogMel) -> Array:
    """Overlapping frames from shifted blocks of `hop` samples: slices, where a gather is slow."""
    batch, samples = waveforms.shape
    shifts = -(-config.window // config.hop)
    needed = (frames - 1 + shifts) * config.hop
    waveforms = jnp.pad(waveforms, ((0, 0), (0, max(0, needed - samples))))[:, :needed]
    blocks = waveforms.reshape(batch, frames - 1 + shifts, config.hop)
    framed = jnp.concatenate([blocks[:, i : i + frames] for i in range(shifts)], axis=-1)
    return framed[..., : config.window]


def _masked(features: Array, lengths: Array) -> Array:
    frames = jnp.arange(features.shape[1])
    return jnp.where((frames[None, :] < lengths[:, None])[..., None], features, 0.0)


@jax.jit
def _normalise(features: Array, lengths: Array) -> Array:
    count = jnp.maximum(lengths, 1).astype(features.dtype)[:, None, None]
    mean = _masked(features, lengths).sum(axis=1, keepdims=True) / count
    centred = _masked(features - mean, lengths)
    variance = (centred**2).sum(axis=1, keepdims=True) / count
    return centred * jax.lax.rsqrt(variance + _VARIANCE_FLOOR)


def normalise_features(
    features: Float[Array, "B T F"], lengths: Int[Array, " B"]
) -> Float[Array, "B T F"]:
    """Give each utterance zero mean and unit deviation per bin, over its valid frames.

    (x - mean) / sqrt(variance + 1e-5), the variance over all valid frames (not T - 1).

    Args:
        features: (B, T, F).
        lengths: valid frames, (B,).

    Returns:
        Features of the same shape, zero in padded frames.

    Example:
        >>> x = jnp.array([[[1.0], [3.0], [9.0]]])
        >>> normalise_features(x, jnp.array([2])).round(3).ravel().tolist()
        [-1.0, 1.0, 0.0]
    """
    return _normalise(features, lengths)


def stack_frames(
    features: Float[Array, "B T F"], lengths: Int[Array, " B"], n: int
) -> tuple[Float[Array, "B T_stacked F_stacked"], Int[Array, " B"]]:
    """Join every n neighbouring frames into one, n times fewer and n times wider.

    Args:
        features: (B, T, F), zero in padded frames.
        lengths: valid frames, (B,).
        n: how many frames become one, >= 1.

    Returns:
        Features (B, ceil(T / n), n·F), the last one filled up with zeros; and the number of
        stacked frames that hold a valid frame, ceil(lengths / n).

    Raises:
        ConfigError: n < 1.

    Example:
        >>> stacked, lengths = stack_frames(jnp.ones((2, 5, 3)), jnp.array([5, 4]), 4)
        >>> stacked.shape, lengths.tolist()
        ((2, 2, 12), [2, 1])
    """
    if n < 1:
        raise ConfigError(f"frames are stacked by n >= 1, but got {n}")
    batch, frames, bins = features.shape
    padded = jnp.pad(features, ((0, 0), (0, -frames % n), (0, 0)))
    return padded.reshape(batch, -(-frames // n), n * bins), -(-lengths // n)
