"""Log-mel features by their definition: one frame, one bin, one sample at a time, in float64.

Shares nothing with `research.speech`: window, mel scale and edges are written down again.
"""

from collections.abc import Callable

import numpy as np


def sample_at(signal: np.ndarray, position: int, edges: str) -> float:
    """What an utterance has at any position, also outside of it."""
    last = len(signal) - 1
    while not 0 <= position <= last:
        if edges not in ("reflect", "mirror"):
            return 0.0
        doubled = edges == "mirror"
        position = -position - doubled if position < 0 else 2 * last - position + doubled
        if last == 0:
            position = 0
    return signal[position]


def frame_starts(samples: int, config) -> list[int]:
    """Where each frame begins, by asking of one frame after another whether there is such a one."""
    starts = []
    for t in range(samples // config.hop + 2):
        inside = {
            "snip": t * config.hop + config.window <= samples,
            "extend": t * config.hop < samples,
            "zero": t * config.hop <= samples,
            "reflect": t * config.hop <= samples,
            # The middle of the hop must come before the middle of what is left over.
            "mirror": 2 * samples >= (2 * t + 1) * config.hop,
        }[config.edges]
        if not inside:
            break
        # The window lies in the middle of n_fft samples, of which those to its left are fewer.
        centred = t * config.hop - config.n_fft // 2 + (config.n_fft - config.window) // 2
        middle = t * config.hop + config.hop // 2 - config.window // 2
        starts.append(
            {"zero": centred, "reflect": centred, "mirror": middle}.get(
                config.edges, t * config.hop
            )
        )
    return starts[:-1] if config.drop_last else starts


def window_at(i: int, config) -> float:
    n = config.window
    cosine = {
        "hann_periodic": np.cos(2 * np.pi * i / n),
        "hamming_periodic": np.cos(2 * np.pi * i / n),
    }.get(config.window_kind, np.cos(2 * np.pi * i / (n - 1)))
    if config.window_kind.startswith("hamming"):
        return 0.54 - 0.46 * cosine
    hann = max(0.0, 0.5 - 0.5 * cosine)
    return hann**0.85 if config.window_kind == "povey" else hann


def to_mel(hz: float, scale: str) -> float:
    if scale != "slaney":
        return 1127.0 * np.log(1 + hz / 700)
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)


def to_hz(mel: float, scale: str) -> float:
    if scale != "slaney":
        return 700 * (np.exp(mel / 1127.0) - 1)
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def filter_weights(config, warp: Callable[[float], float] = float) -> np.ndarray:
    """(F, K) by interpolation between the corners of each triangle, at warped frequencies."""
    top = config.sample_rate / 2 if config.high_hz is None else config.high_hz
    low, high = to_mel(config.low_hz, config.mel_scale), to_mel(top, config.mel_scale)
    mels = [low + (high - low) * i / (config.n_mels + 1) for i in range(config.n_mels + 2)]
    corners = [to_hz(mel, config.mel_scale) for mel in mels]
    bins = [warp(k * config.sample_rate / config.n_fft) for k in range(config.n_fft // 2 + 1)]
    rows = []
    for i in range(config.n_mels):
        if config.mel_scale == "kaldi":
            at = [to_mel(hz, config.mel_scale) for hz in bins]
            row = np.interp(at, mels[i : i + 3], [0, 1, 0])
        else:
            row = np.interp(bins, corners[i : i + 3], [0, 1, 0])
        height = 2 / (corners[i + 2] - corners[i]) if config.mel_norm == "slaney" else 1.0
        rows.append(height * row)
    return np.array(rows)


def exact_log_mel(
    waveform: np.ndarray, config, warp: Callable[[float], float] = float
) -> np.ndarray:
    """(T, F) of one utterance without padding."""
    signal = waveform.astype(np.float64) * config.scale
    if config.pre_emphasis_on == "signal":
        signal = np.array(
            [x - config.pre_emphasis * signal[i - 1] if i else x for i, x in enumerate(signal)]
        )
    weights = np.array([window_at(i, config) for i in range(config.window)])
    filters = filter_weights(config, warp)
    rows = []
    for start in frame_starts(len(signal), config):
        frame = np.array([sample_at(signal, start + i, config.edges) for i in range(config.window)])
        if config.remove_dc:
            frame = frame - frame.mean()
        if config.pre_emphasis_on == "frame":
            frame = frame - config.pre_emphasis * np.concatenate([frame[:1], frame[:-1]])
        spectrum = np.abs(np.fft.fft(frame * weights, config.n_fft)[: config.n_fft // 2 + 1])
        rows.append(filters @ spectrum**config.power)
    mel = np.array(rows)
    mel = np.maximum(mel, config.floor) if config.floor_kind == "clamp" else mel + config.floor
    logs = {"natural": np.log, "log10": np.log10, "decibel": lambda x: 10 * np.log10(x)}
    features = logs[config.log](mel)
    if config.dynamic_range is not None:
        features = np.maximum(features, features.max() - config.dynamic_range)
    return normed(features, config.norm)


def normed(features: np.ndarray, norm) -> np.ndarray:
    if norm is None:
        return features
    if hasattr(norm, "mean"):
        return (features - np.array(norm.mean)) / np.array(norm.scale)
    variance = features.var(axis=0, ddof=min(norm.ddof, len(features) - 1))
    if norm.epsilon_on == "variance":
        return (features - features.mean(axis=0)) / np.sqrt(variance + norm.epsilon)
    return (features - features.mean(axis=0)) / (np.sqrt(variance) + norm.epsilon)
