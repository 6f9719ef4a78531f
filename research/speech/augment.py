"""Augmentation of speech: masks on features, gain and noise on waveforms. Pure and jittable.

Axis suffixes: B batch, S samples, T frames, F mel bins, M masks.
"""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.errors import ConfigError


def spec_augment(
    key: Array,
    features: Float[Array, "B T F"],
    lengths: Int[Array, " B"],
    *,
    frequency_masks: int = 2,
    max_frequency_width: int = 7,
    time_masks: int = 1,
    max_time_width: int = 12,
    max_time_fraction: float = 1.0,
    fill: Literal["zero", "mean"] = "zero",
) -> Float[Array, "B T F"]:
    """Mask random bands of bins and stretches of frames, other ones in each example.

    A frequency mask covers bins [f0, f0 + f): f is uniform in 0..max_frequency_width and f0 in
    0..F - f. A time mask covers frames [t0, t0 + t) in the same way, with t no more than
    max_time_fraction of the valid frames and the mask within them. Masks may overlap. The paper's
    time warping is left out: it contributes least there and costs most.

    Args:
        key: random key.
        features: (B, T, F); zero in padded frames.
        lengths: valid frames, (B,).
        frequency_masks: masks over bins.
        max_frequency_width: widest of them, in bins.
        time_masks: masks over frames.
        max_time_width: widest of them, in frames.
        max_time_fraction: widest of them, as a part of the valid frames (p in the paper).
        fill: what masked entries become: 0, which is the mean of normalised features, or the
            example's own mean over its valid frames and all bins.

    Returns:
        Features of the same shape; padded frames as they were.

    Raises:
        ConfigError: a negative number or width, a fraction outside 0..1, an unknown fill.

    Source: Park et al. 2019, "SpecAugment: A Simple Data Augmentation Method for Automatic Speech
    Recognition", arXiv:1904.08779.

    Example:
        >>> x = jnp.ones((1, 20, 8))
        >>> masked = spec_augment(jax.random.key(0), x, jnp.array([15]), time_masks=0)
        >>> bool(jnp.all(masked[0, 15:] == 1)), set(masked.ravel().tolist()) <= {0.0, 1.0}
        (True, True)
    """
    numbers = (frequency_masks, max_frequency_width, time_masks, max_time_width)
    if min(numbers) < 0 or not 0.0 <= max_time_fraction <= 1.0 or fill not in ("zero", "mean"):
        raise ConfigError(
            "masks need numbers and widths >= 0, a time fraction in 0..1 and a fill of 'zero' or "
            f"'mean', but got {numbers}, {max_time_fraction} and {fill!r}"
        )
    return _spec_augment(
        key,
        features,
        lengths,
        frequency_masks=frequency_masks,
        max_frequency_width=max_frequency_width,
        time_masks=time_masks,
        max_time_width=max_time_width,
        max_time_fraction=max_time_fraction,
        fill=fill,
    )


@partial(jax.jit, static_argnames=("frequency_masks", "time_masks", "fill"))
def _spec_augment(
    key: Array,
    features: Array,
    lengths: Array,
    *,
    frequency_masks: int,
    max_frequency_width: Array | int,
    time_masks: int,
    max_time_width: Array | int,
    max_time_fraction: Array | float,
    fill: str,
) -> Array:
    batch, frames, bins = features.shape
    frequency_key, time_key = jax.random.split(key)
    lengths = lengths.astype(jnp.int32)
    widest = jnp.full((batch,), jnp.minimum(max_frequency_width, bins), jnp.int32)
    sizes = jnp.full((batch,), bins, jnp.int32)
    masked_BF = _stretches(frequency_key, frequency_masks, widest, sizes, bins)
    allowed = jnp.floor(max_time_fraction * lengths).astype(jnp.int32)
    widest = jnp.minimum(max_time_width, allowed)
    masked_BT = _stretches(time_key, time_masks, widest, lengths, frames)
    valid_BT = jnp.arange(frames)[None, :] < lengths[:, None]
    masked = (masked_BF[:, None, :] | masked_BT[:, :, None]) & valid_BT[:, :, None]
    if fill == "zero":
        return jnp.where(masked, 0.0, features).astype(features.dtype)
    total = jnp.where(valid_BT[:, :, None], features, 0.0).sum(axis=(1, 2))
    mean = total / jnp.maximum(lengths * bins, 1)
    return jnp.where(masked, mean[:, None, None], features).astype(features.dtype)


def _stretches(
    key: Array, masks: int, widest: Array, sizes: Array, positions: int
) -> Bool[Array, "B N"]:
    """Whether each of N positions lies in one of the masks within the first `sizes`."""
    batch = sizes.shape[0]
    width_key, start_key = jax.random.split(key)
    widths = jax.random.randint(width_key, (batch, masks), 0, widest[:, None] + 1)
    starts = jax.random.randint(start_key, (batch, masks), 0, sizes[:, None] - widths + 1)
    at = jnp.arange(positions)[None, None, :]
    inside_BMN = (starts[..., None] <= at) & (at < (starts + widths)[..., None])
    return inside_BMN.any(axis=1)


def random_gain(
    key: Array, waveforms: Float[Array, "B S"], decibels: tuple[float, float]
) -> Float[Array, "B S"]:
    """Multiply each waveform by 10^(g / 20), g uniform in the range.

    Args:
        key: random key.
        waveforms: (B, S).
        decibels: lowest and highest gain.

    Returns:
        Waveforms of the same shape.

    Raises:
        ConfigError: the range is empty.

    Example:
        >>> random_gain(jax.random.key(0), jnp.ones((1, 2)), (20.0, 20.0)).tolist()
        [[10.0, 10.0]]
    """
    low, high = _range(decibels)
    gains = jax.random.uniform(key, waveforms.shape[:1], minval=low, maxval=high)
    return waveforms * (10.0 ** (gains / 20.0)).astype(waveforms.dtype)[:, None]


def add_noise(
    key: Array,
    waveforms: Float[Array, "B S"],
    lengths: Int[Array, " B"],
    snr_decibels: tuple[float, float],
) -> Float[Array, "B S"]:
    """Add white gaussian noise, its ratio to the signal uniform in the range for each waveform.

    The power of the signal is its mean square over the valid samples; the noise is scaled to
    that power times 10^(-snr / 10). A silent waveform stays silent.

    Args:
        key: random key.
        waveforms: (B, S).
        lengths: valid samples, (B,); what lies beyond stays as it is.
        snr_decibels: lowest and highest ratio of signal to noise power.

    Returns:
        Waveforms of the same shape.

    Raises:
        ConfigError: the range is empty.

    Example:
        >>> x = jnp.ones((1, 4000))
        >>> noise = add_noise(jax.random.key(0), x, jnp.array([4000]), (20.0, 20.0)) - x
        >>> round(float(noise.std()), 2)
        0.1
    """
    low, high = _range(snr_decibels)
    snr_key, noise_key = jax.random.split(key)
    batch, samples = waveforms.shape
    snr = jax.random.uniform(snr_key, (batch,), minval=low, maxval=high)
    valid = jnp.arange(samples)[None, :] < lengths[:, None]
    energy = jnp.where(valid, waveforms, 0.0) ** 2
    power = energy.sum(axis=1) / jnp.maximum(lengths, 1)
    noise = jax.random.normal(noise_key, waveforms.shape, waveforms.dtype)
    scale = jnp.sqrt(power * 10.0 ** (-snr / 10.0)).astype(waveforms.dtype)
    return waveforms + jnp.where(valid, scale[:, None] * noise, 0.0)


def _range(decibels: tuple[float, float]) -> tuple[float, float]:
    low, high = decibels
    if not low <= high:
        raise ConfigError(f"a range must be (low, high), but got ({low}, {high})")
    return low, high
