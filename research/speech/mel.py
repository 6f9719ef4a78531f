"""Mel scales and triangular filters, in float64 NumPy: they are constants of a compiled front end.

Axis suffixes: F mel bins, K frequency bins.
"""

from typing import Literal

import numpy as np
from jaxtyping import Float

MelScale = Literal["htk", "slaney", "kaldi"]
"""`kaldi` is HTK's with triangles that are straight in mel; those of the others are in Hz."""

_SLANEY_HZ_PER_MEL = 200.0 / 3.0
_SLANEY_BREAK_HZ = 1000.0
_SLANEY_BREAK_MEL = _SLANEY_BREAK_HZ / _SLANEY_HZ_PER_MEL
_SLANEY_LOG_STEP = np.log(6.4) / 27.0


def hz_to_mel(hz: Float[np.ndarray, "..."], scale: MelScale = "htk") -> Float[np.ndarray, "..."]:
    """Convert frequency to mel.

    HTK and Kaldi: m = 2595 log10(1 + f / 700). Slaney (his Auditory Toolbox, librosa): m = 3f / 200
    below 1 kHz, 15 + 27 ln(f / 1000) / ln 6.4 above.

    Example:
        >>> [round(float(hz_to_mel(np.array(1000.0), scale)), 2) for scale in ("htk", "slaney")]
        [999.99, 15.0]
    """
    hz = np.asarray(hz, np.float64)
    if scale != "slaney":
        return 2595.0 * np.log10(1.0 + hz / 700.0)
    above = _SLANEY_BREAK_MEL + np.log(np.maximum(hz, 1.0) / _SLANEY_BREAK_HZ) / _SLANEY_LOG_STEP
    return np.where(hz < _SLANEY_BREAK_HZ, hz / _SLANEY_HZ_PER_MEL, above)


def mel_to_hz(mel: Float[np.ndarray, "..."], scale: MelScale = "htk") -> Float[np.ndarray, "..."]:
    """Convert mel to frequency, the inverse of `hz_to_mel`.

    Example:
        >>> float(mel_to_hz(hz_to_mel(np.array(2440.0), "slaney"), "slaney").round(6))
        2440.0
    """
    mel = np.asarray(mel, np.float64)
    if scale != "slaney":
        return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)
    above = _SLANEY_BREAK_HZ * np.exp(_SLANEY_LOG_STEP * (mel - _SLANEY_BREAK_MEL))
    return np.where(mel < _SLANEY_BREAK_MEL, mel * _SLANEY_HZ_PER_MEL, above)


def mel_edges(
    n_mels: int, low_hz: float, high_hz: float, scale: MelScale = "htk"
) -> Float[np.ndarray, " F+2"]:
    """Where triangles begin, peak and end, e_0 < ... < e_{F+1}, equally spaced in mel.

    Example:
        >>> mel_edges(2, 0.0, 200.0, "slaney").tolist()
        [0.0, 1.0, 2.0, 3.0]
    """
    low, high = hz_to_mel(np.array([low_hz, high_hz]), scale)
    return np.linspace(low, high, n_mels + 2)


def triangular_filters(
    sample_rate: int,
    n_fft: int,
    n_mels: int,
    low_hz: float,
    high_hz: float,
    scale: MelScale = "htk",
    norm: Literal["none", "slaney"] = "none",
) -> Float[np.ndarray, "K F"]:
    """Triangles with edges equally spaced in mel.

    With edges e_0 < ... < e_{F+1}, filter i at frequency f is
    max(0, min((f - e_i) / (e_{i+1} - e_i), (e_{i+2} - f) / (e_{i+2} - e_{i+1}))), with f and e in
    Hz or, for `kaldi`, in mel. `slaney` divides it by half its width in Hz, so that all filters
    have the same area.

    Args:
        sample_rate: samples per second.
        n_fft: length of the Fourier transform; K = n_fft // 2 + 1.
        n_mels: filters F.
        low_hz: lower edge of the lowest filter.
        high_hz: upper edge of the highest filter.
        scale: the mel scale.
        norm: "none" for peaks of 1, "slaney" for equal areas.

    Returns:
        Weights, float64 (K, F).

    Example:
        >>> triangular_filters(8000, 256, 40, 20.0, 4000.0).shape
        (129, 40)
    """
    frequencies = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)[:, None]
    edges_mel = mel_edges(n_mels, low_hz, high_hz, scale)[None, :]
    edges_hz = mel_to_hz(edges_mel, scale)
    if scale == "kaldi":
        at, edges = hz_to_mel(frequencies, scale), edges_mel
    else:
        at, edges = frequencies, edges_hz
    rising = (at - edges[:, :-2]) / (edges[:, 1:-1] - edges[:, :-2])
    falling = (edges[:, 2:] - at) / (edges[:, 2:] - edges[:, 1:-1])
    filters = np.maximum(0.0, np.minimum(rising, falling))
    if norm == "slaney":
        filters *= 2.0 / (edges_hz[:, 2:] - edges_hz[:, :-2])
    return filters
