"""Vocal tract length perturbation: every utterance as another speaker might have said it.

Axis suffixes: B batch, S samples, T frames, K frequency bins, F mel bins.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from research.errors import ConfigError
from research.speech.features import log_mel
from research.speech.log_mel_config import LogMel
from research.speech.mel import mel_edges, mel_to_hz

BOUNDARY = 0.6
"""Of half the sample rate, up to where all frequencies are scaled: the paper's 4.8 kHz of 8."""

_DEFAULT = LogMel()


def vtlp(
    key: Array,
    waveforms: Float[Array | np.ndarray, "B S"],
    lengths: Int[Array | np.ndarray, " B"],
    config: LogMel = _DEFAULT,
    *,
    factors: tuple[float, float] = (0.9, 1.1),
    boundary: float = BOUNDARY,
) -> tuple[Float[Array, "B T F"], Int[Array, " B"]]:
    """Log-mel features with frequencies warped by a factor that is drawn for each utterance.

    Args:
        key: random key.
        waveforms: samples, float (B, S).
        lengths: valid samples of each waveform, (B,).
        config: the front end.
        factors: least and largest factor, drawn uniformly between. Above 1 the formants rise, as
            in a shorter vocal tract.
        boundary: see `warp_frequencies`.

    Returns:
        As `log_mel`.

    Raises:
        ConfigError: the factors are no range above 0, or the boundary is not between 0 and 1.
        DataError: as `log_mel`.

    Source: Jaitly, Hinton, "Vocal Tract Length Perturbation (VTLP) improves speech recognition",
    ICML workshop on deep learning for audio, speech and language processing, 2013.

    Example:
        >>> features, frames = vtlp(jax.random.key(0), jnp.ones((2, 8000)), jnp.array([8000, 400]))
        >>> features.shape, frames.tolist()
        ((2, 98, 40), [98, 3])
    """
    low, high = factors
    if not 0 < low <= high:
        raise ConfigError(f"factors must be a range (low, high) above 0, but got {factors}")
    drawn = jax.random.uniform(key, lengths.shape, jnp.float32, minval=low, maxval=high)
    return log_mel(waveforms, lengths, config, filters=warped_filters(drawn, config, boundary))


def warp_frequencies(
    hz: Float[Array, " K"],
    factors: Float[Array, " B"],
    half_rate: float,
    boundary: float = BOUNDARY,
) -> Float[Array, "B K"]:
    """Where each frequency is heard: straight to a boundary, and straight from there to the top.

    With b = boundary half_rate: G(f) = a f up to f = b min(a, 1) / a, and from there on linear to
    G(half_rate) = half_rate.

    Args:
        hz: frequencies from 0 to half_rate.
        factors: a of each utterance, above 0.
        half_rate: half the sample rate, Hz.
        boundary: in (0, 1).

    Returns:
        Hz, (B, K).

    Raises:
        ConfigError: the boundary is not between 0 and 1.

    Example:
        >>> hz = jnp.array([0.0, 1000.0, 8000.0])
        >>> warp_frequencies(hz, jnp.array([1.0, 1.1]), 8000.0).round(1).tolist()
        [[0.0, 1000.0, 8000.0], [0.0, 1100.0, 8000.0]]
    """
    if not 0 < boundary < 1:
        raise ConfigError(f"boundary must be between 0 and 1 of half the rate, but got {boundary}")
    factors, hz = factors[:, None], hz[None, :]
    heard = boundary * half_rate * jnp.minimum(factors, 1.0)
    bend = heard / factors
    above = half_rate - (half_rate - heard) / (half_rate - bend) * (half_rate - hz)
    return jnp.where(hz <= bend, factors * hz, above)


@partial(jax.jit, static_argnames=("config", "boundary"))
def warped_filters(
    factors: Float[Array, " B"], config: LogMel = _DEFAULT, boundary: float = BOUNDARY
) -> Float[Array, "B K F"]:
    """The mel filters at warped frequencies: what filter i has at G(f) it now has at f.

    Args:
        factors: of each utterance, above 0; 1 gives `mel_filters`.
        config: the front end.
        boundary: see `warp_frequencies`.

    Returns:
        Weights, float32 (B, K, F), for ``log_mel(..., filters=)``.

    Raises:
        ConfigError: the boundary is not between 0 and 1.

    Example:
        >>> warped_filters(jnp.array([0.9, 1.1])).shape
        (2, 129, 40)
    """
    hz = jnp.linspace(0.0, config.sample_rate / 2, config.n_fft // 2 + 1, dtype=jnp.float32)
    at = warp_frequencies(hz, factors, config.sample_rate / 2, boundary)[:, :, None]
    edges_mel = mel_edges(config.n_mels, config.low_hz, config.top_hz, config.mel_scale)
    edges_hz = mel_to_hz(edges_mel, config.mel_scale)
    edges = edges_mel if config.mel_scale == "kaldi" else edges_hz
    if config.mel_scale == "kaldi":  # whose triangles are straight in mel
        at = 2595.0 / math.log(10.0) * jnp.log1p(at / 700.0)
    lower, centre, upper = (
        jnp.asarray(edge, jnp.float32)[None, None, :]
        for edge in (edges[:-2], edges[1:-1], edges[2:])
    )
    rising, falling = (at - lower) / (centre - lower), (upper - at) / (upper - centre)
    filters = jnp.maximum(0.0, jnp.minimum(rising, falling))
    if config.mel_norm == "slaney":
        heights = jnp.asarray(2.0 / (edges_hz[2:] - edges_hz[:-2]), jnp.float32)
        filters *= heights[None, None, :]
    return filters
