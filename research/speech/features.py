"""Log-mel features in JAX.

Axis suffixes: B batch, S samples, T frames, F mel bins, W samples of a frame, K frequency bins.

`LogMel` holds the settings, `research.speech.presets` those of well-known toolkits.
"""

import math
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from research.errors import ConfigError, DataError
from research.speech.log_mel_config import (
    FixedNorm,
    LogMel,
    UtteranceNorm,
    mel_filters,
    window_weights,
)

_DEFAULT = LogMel()


def log_mel(
    waveforms: Float[Array | np.ndarray, "B S"],
    lengths: Int[Array | np.ndarray, " B"],
    config: LogMel = _DEFAULT,
    *,
    filters: Float[Array, "B K F"] | None = None,
) -> tuple[Float[Array, "B T F"], Int[Array, " B"]]:
    """Compute log-mel features.

    With frame t of the waveform (see `LogMel.edges`) weighted by the window, its Fourier transform
    X and the filters M of `mel_filters`, before `dynamic_range` and `norm`:

        features[t, i] = log(sum_k M[k, i] |X[t, k]|^power + floor)

    Each utterance is treated as if it were alone: what lies beyond its length is never read, and
    its edges are where its own samples end. `LogMel.frames` says how many frames are valid.

    Args:
        waveforms: samples, float (B, S), in [-1, 1] where the settings are those of a preset.
        lengths: valid samples of each waveform, (B,).
        config: the settings.
        filters: M of each utterance, such as `vtlp.warped_filters`; those of the config if not
            given.

    Returns:
        Features, float32 (B, T, F) with T = config.frames(S), zero in padded frames; and the
        number of valid frames of each, int32 (B,).

    Raises:
        DataError: the waveforms are not (B, S), not floats or too short for one frame, or the
            lengths are not one for each.

    Example:
        >>> features, frames = log_mel(jnp.ones((1, 8000)), jnp.array([4000]))
        >>> features.shape, frames.tolist()
        ((1, 98, 40), [48])
    """
    if waveforms.ndim != 2 or config.frames(waveforms.shape[1]) < 1:
        needed = next(n for n in range(1, config.window + config.hop + 1) if config.frames(n))
        mend = "for a single one give waveform[None]" if waveforms.ndim == 1 else "pad them"
        raise DataError(
            f"waveforms must be (batch, samples) with at least {needed} samples (one frame); "
            f"received shape {waveforms.shape}: {mend}"
        )
    if not jnp.issubdtype(waveforms.dtype, jnp.floating):
        signed = jnp.issubdtype(waveforms.dtype, jnp.signedinteger)
        mend = f"divide by {-jnp.iinfo(waveforms.dtype).min}" if signed else "convert them"
        raise DataError(f"samples must be floats in [-1, 1]; received {waveforms.dtype}: {mend}")
    if lengths.shape != waveforms.shape[:1]:
        raise DataError(
            f"lengths must be (batch,), the valid samples of each of {len(waveforms)} waveforms; "
            f"received shape {lengths.shape}: give one for each"
        )
    return _log_mel(waveforms, lengths, config, filters)


@partial(jax.jit, static_argnames="config")
def _log_mel(
    waveforms: Array, lengths: Array, config: LogMel, filters: Array | None
) -> tuple[Array, Array]:
    samples = waveforms.shape[1]
    lengths = jnp.minimum(lengths.astype(jnp.int32), samples)
    valid = config.frames(lengths)
    signal_BS = _masked(waveforms.astype(jnp.float32) * config.scale, lengths)
    if config.pre_emphasis and config.pre_emphasis_on == "signal":
        before = jnp.pad(signal_BS[:, :-1], ((0, 0), (1, 0)))
        signal_BS = _masked(signal_BS - config.pre_emphasis * before, lengths)
    framed_BTW = _frame(_with_edges(signal_BS, lengths, config), config.frames(samples), config)
    if config.remove_dc:
        framed_BTW = framed_BTW - framed_BTW.mean(axis=-1, keepdims=True)
    if config.pre_emphasis and config.pre_emphasis_on == "frame":
        before = jnp.concatenate([framed_BTW[..., :1], framed_BTW[..., :-1]], axis=-1)
        framed_BTW = framed_BTW - config.pre_emphasis * before
    weighted_BTW = framed_BTW * jnp.asarray(window_weights(config), jnp.float32)[None, None, :]
    spectrum_BTK = jnp.fft.rfft(weighted_BTW, n=config.n_fft)
    power_BTK = spectrum_BTK.real**2 + spectrum_BTK.imag**2
    if config.power == 1:
        # The square root has no finite slope at zero.
        some = power_BTK > 0
        power_BTK = jnp.where(some, jnp.sqrt(jnp.where(some, power_BTK, 1.0)), 0.0)
    if filters is None:
        filters_KF = jnp.asarray(mel_filters(config), jnp.float32)
        mel_BTF = jnp.einsum("btk,kf->btf", power_BTK, filters_KF, precision="highest")
    else:
        mel_BTF = jnp.einsum("btk,bkf->btf", power_BTK, filters, precision="highest")
    return _normed(_log(mel_BTF, valid, config), valid, config), valid


def _with_edges(signal: Array, lengths: Array, config: LogMel) -> Array:
    """What frames reach before and after each utterance, around and into the padded signals."""
    batch = signal.shape[0]
    lead, trail = config.lead, config.window - config.lead
    if config.edges in ("snip", "extend", "zero"):
        return jnp.pad(signal, ((0, 0), (max(lead, 0), trail)))[:, max(-lead, 0) :]
    outside_before = jnp.broadcast_to(jnp.arange(-max(lead, 0), 0), (batch, max(lead, 0)))
    outside_after = lengths[:, None] + jnp.arange(trail)[None, :]
    before = jnp.take_along_axis(signal, _mirrored(outside_before, lengths, config), axis=1)
    after = jnp.take_along_axis(signal, _mirrored(outside_after, lengths, config), axis=1)
    extended = jnp.concatenate([before, signal, jnp.zeros((batch, trail), signal.dtype)], axis=1)
    extended = jax.vmap(lambda row, end, values: jax.lax.dynamic_update_slice(row, values, (end,)))(
        extended, lengths + max(lead, 0), after
    )
    return extended[:, max(-lead, 0) :]


def _mirrored(positions: Array, lengths: Array, config: LogMel) -> Array:
    """The sample that is seen at a position outside, in two mirrors that face each other."""
    lengths = jnp.maximum(lengths, 1)[:, None]
    doubled = 1 if config.edges == "mirror" else 0  # whether the last sample is its own neighbour
    period = jnp.maximum(2 * lengths - 2 + 2 * doubled, 1)
    phase = positions % period
    return jnp.where(phase < lengths, phase, period - doubled - phase)


def _frame(signal: Array, frames: int, config: LogMel) -> Array:
    """Overlapping frames from shifted blocks of `hop` samples: slices, where a gather is slow."""
    batch, samples = signal.shape
    shifts = -(-config.window // config.hop)
    needed = (frames - 1 + shifts) * config.hop
    signal = jnp.pad(signal, ((0, 0), (0, max(0, needed - samples))))[:, :needed]
    blocks = signal.reshape(batch, frames - 1 + shifts, config.hop)
    framed = jnp.concatenate([blocks[:, i : i + frames] for i in range(shifts)], axis=-1)
    return framed[..., : config.window]


def _log(mel: Array, valid: Array, config: LogMel) -> Array:
    """Logarithm, and its lower limit relative to the utterance."""
    mel = mel + config.floor if config.floor_kind == "add" else jnp.maximum(mel, config.floor)
    per_unit = {"natural": 1.0, "log10": 1 / math.log(10), "decibel": 10 / math.log(10)}
    logs = jnp.log(mel) * per_unit[config.log]
    if config.dynamic_range is not None:
        inside = _frame_mask(logs, valid)
        loudest = jnp.max(jnp.where(inside, logs, -jnp.inf), axis=(1, 2), keepdims=True)
        logs = jnp.maximum(logs, loudest - config.dynamic_range)
    return logs


def _normed(logs: Array, valid: Array, config: LogMel) -> Array:
    norm = config.norm
    if isinstance(norm, UtteranceNorm):
        return normalise_features(
            logs, valid, ddof=norm.ddof, epsilon=norm.epsilon, epsilon_on=norm.epsilon_on
        )
    if isinstance(norm, FixedNorm):
        mean, scale = (jnp.array(x, jnp.float32)[None, None, :] for x in (norm.mean, norm.scale))
        logs = (logs - mean) / scale
    return jnp.where(_frame_mask(logs, valid), logs, 0.0)


def _masked(signal: Array, lengths: Array) -> Array:
    return jnp.where(jnp.arange(signal.shape[1])[None, :] < lengths[:, None], signal, 0.0)


def _frame_mask(features: Array, lengths: Array) -> Array:
    return (jnp.arange(features.shape[1])[None, :] < lengths[:, None])[..., None]


def normalise_features(
    features: Float[Array, "B T F"],
    lengths: Int[Array, " B"],
    *,
    ddof: int = 0,
    epsilon: float = 1e-5,
    epsilon_on: Literal["variance", "deviation"] = "variance",
) -> Float[Array, "B T F"]:
    """Give each utterance zero mean and unit deviation per bin, over its valid frames.

    (x - mean) / sqrt(variance + epsilon), or (x - mean) / (sqrt(variance) + epsilon).

    Args:
        features: (B, T, F).
        lengths: valid frames, (B,).
        ddof: the variance is the sum of squares over T - ddof, at least 1.
        epsilon: keeps a constant bin finite.
        epsilon_on: what it is added to.

    Returns:
        Features of the same shape and dtype, zero in padded frames. Sums are in float32 at least.

    Example:
        >>> x = jnp.array([[[1.0], [3.0], [9.0]]])
        >>> normalise_features(x, jnp.array([2])).round(3).ravel().tolist()
        [-1.0, 1.0, 0.0]
    """
    return _normalise(features, lengths, ddof, epsilon, epsilon_on)


@partial(jax.jit, static_argnums=(2, 4))
def _normalise(
    features: Array, lengths: Array, ddof: int, epsilon: float, epsilon_on: str
) -> Array:
    inside = _frame_mask(features, lengths)
    lengths = lengths[:, None, None]
    given = features.dtype
    centred = features.astype(jnp.promote_types(given, jnp.float32))
    count = jnp.maximum(lengths, 1).astype(centred.dtype)
    freedom = jnp.maximum(lengths - ddof, 1).astype(centred.dtype)
    for _ in range(2):  # the second round takes away what the first sum lost over many frames
        mean = jnp.where(inside, centred, 0.0).sum(axis=1, keepdims=True) / count
        centred = jnp.where(inside, centred - mean, 0.0)
    variance = (centred**2).sum(axis=1, keepdims=True) / freedom
    if epsilon_on == "variance":
        return (centred * jax.lax.rsqrt(variance + epsilon)).astype(given)
    some = variance > 0  # the square root has no finite slope at zero
    deviation = jnp.where(some, jnp.sqrt(jnp.where(some, variance, 1.0)), 0.0)
    return (centred / (deviation + epsilon)).astype(given)


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
