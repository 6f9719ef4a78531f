"""The presets against their definition written down in float64, and what holds for any setting."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from log_mel_exact import exact_log_mel

from research.errors import ConfigError, DataError
from research.speech.features import log_mel, normalise_features
from research.speech.librispeech_statistics import DEVIATIONS, MEANS
from research.speech.log_mel_config import (
    Edges,
    FixedNorm,
    LogMel,
    UtteranceNorm,
    WindowKind,
    mel_filters,
)
from research.speech.mel import hz_to_mel, mel_to_hz
from research.speech.presets import ALGOPERF, KALDI, PARAKEET, PRESETS, preset

NAMES = sorted(PRESETS)
# What no preset has: every edge with a window of odd length, magnitudes, other windows.
EDGES: list[tuple[Edges, WindowKind]] = [
    ("snip", "hamming_periodic"),
    ("extend", "hamming_symmetric"),
    ("zero", "hann_symmetric"),
    ("reflect", "povey"),
    ("mirror", "hann_periodic"),
]
ODD = {
    f"odd {edges}": LogMel(
        sample_rate=16_000,
        n_fft=512,
        window=333,
        hop=97,
        n_mels=23,
        low_hz=100.0,
        high_hz=7000.0,
        edges=edges,
        window_kind=window_kind,
        power=1,
        floor=1e-4,
    )
    for edges, window_kind in EDGES
}
CONFIGS = {**PRESETS, **ODD, "long hop": replace(ODD["odd mirror"], hop=500)}
SAMPLES = (3001, 1500, 700, 401, 0)
BATCH = 3200


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=samples)).astype(np.float32)


def utterance_norm(config: LogMel) -> UtteranceNorm:
    return config.norm if isinstance(config.norm, UtteranceNorm) else UtteranceNorm(ddof=1)


def padded(utterances: list[np.ndarray], samples: int = BATCH, value: float = np.nan):
    """A batch with something in its padding that would show."""
    batch = np.full((len(utterances), samples), value, np.float32)
    for row, utterance in zip(batch, utterances, strict=True):
        row[: len(utterance)] = utterance
    return jnp.asarray(batch), jnp.array([len(utterance) for utterance in utterances])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_padded_batch_has_the_features_of_each_utterance_by_their_definition(name):
    config = CONFIGS[name]
    utterances = [noise(n, seed) for seed, n in enumerate(SAMPLES)]
    features, frames = (np.asarray(x) for x in log_mel(*padded(utterances), config))
    assert features.dtype == np.float32
    assert features.shape == (len(SAMPLES), config.frames(BATCH), config.n_mels)
    for row, count, utterance in zip(features, frames, utterances, strict=True):
        if count == 0:
            assert not config.frames(len(utterance))
            assert not row.any()
            continue
        expected = exact_log_mel(utterance, config)
        assert count == len(expected) == config.frames(len(utterance))
        np.testing.assert_allclose(row[:count], expected, atol=1e-3, rtol=0)
        assert not row[count:].any()


@pytest.mark.parametrize("name", NAMES)
def test_an_utterance_has_the_same_features_alone_as_in_any_batch(name):
    config = CONFIGS[name]
    utterance = noise(2600)
    alone, frames = log_mel(jnp.asarray(utterance)[None], jnp.array([2600]), config)
    together, counts = log_mel(
        *padded([noise(3000, 1), utterance, noise(90, 2), noise(0), noise(5)]), config
    )
    assert frames[0] == counts[1] == alone.shape[1]
    np.testing.assert_allclose(together[1, : counts[1]], alone[0], atol=2e-4)
    assert np.isfinite(np.asarray(together)).all()


def test_algoperf_as_its_workload_computes_it():
    """By its published constants: frames of 401 samples, whose last one pre-emphasis uses up."""
    waveform = noise(6000) * np.linspace(0, 1, 6000, dtype=np.float32)
    starts = range(0, 6000 - 401, 160)
    frames = np.stack([waveform[start : start + 401] for start in starts]).astype(np.float64)
    emphasised = np.concatenate(
        [frames[:, :1] * (1 - 0.97), frames[:, 1:-1] - 0.97 * frames[:, :-2]], axis=1
    )
    power = np.abs(np.fft.rfft(emphasised * np.hanning(401)[:-1], 512)) ** 2

    def mel(hz):
        return 1127 * np.log(1 + hz / 700)

    edges = np.linspace(mel(125.0), mel(7600.0), 82)
    at = mel(np.linspace(0, 8000, 257))[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    bins = power @ np.maximum(0, np.minimum(rising, falling))
    expected = (np.log(np.maximum(bins, 1e-5)) - np.array(MEANS)) / np.array(DEVIATIONS)
    features, frames = log_mel(waveform[None], jnp.array([6000]), ALGOPERF)
    assert int(frames[0]) == 38
    np.testing.assert_allclose(features[0, : len(expected)], expected, atol=1e-3)
    assert (len(MEANS), MEANS[0], MEANS[-1]) == (80, -7.6047816, -6.9418654)
    assert (DEVIATIONS[0], DEVIATIONS[-1]) == (3.4353282, 3.429917)


@pytest.mark.parametrize("edges", ["reflect", "mirror"])
@pytest.mark.parametrize("samples", [1, 2, 3, 14])
def test_an_utterance_shorter_than_a_window_is_mirrored_again_and_again(edges, samples):
    config = replace(ODD[f"odd {edges}"], n_fft=64, window=33, hop=2, n_mels=4, floor=1e-2)
    utterance = noise(samples)
    features, frames = log_mel(*padded([utterance], 20), config)
    expected = exact_log_mel(utterance, config)
    assert int(frames[0]) == len(expected)
    np.testing.assert_allclose(features[0, : len(expected)], expected, atol=1e-3)


@pytest.mark.parametrize("name", ["kaldi", "parakeet", "whisper"])
def test_presets_run_under_jit_and_vmap_and_silence_has_a_finite_gradient(name):
    config = PRESETS[name]
    waveforms, lengths = padded([noise(2100), np.zeros(2500, np.float32)], 2600, value=0.0)
    expected, frames = log_mel(waveforms, lengths, config)

    def one(waveform, length):
        features, count = log_mel(waveform[None], length[None], config)
        return features[0], count[0]

    mapped, counts = jax.jit(jax.vmap(one))(waveforms, lengths)
    np.testing.assert_array_equal(counts, frames)
    np.testing.assert_allclose(mapped, expected, atol=1e-4)
    gradient = jax.grad(lambda x: (log_mel(x, lengths, config)[0] ** 2).sum())(waveforms)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0, :2100]).max() > 0
    assert not np.any(gradient[0, 2100:])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("position", [0.2, 0.5, 0.8])
def test_a_tone_is_loudest_in_the_bin_around_it(name, position):
    config = replace(PRESETS[name], norm=None, dynamic_range=None)
    low, high = hz_to_mel(np.array([config.low_hz, config.top_hz]), config.mel_scale)
    hz = mel_to_hz(low + position * (high - low), config.mel_scale)
    waveform = 0.5 * np.sin(2 * np.pi * hz * np.arange(6000) / config.sample_rate)
    features, _ = log_mel(jnp.asarray(waveform)[None], jnp.array([6000]), config)
    loudest = int(np.argmax(features[0, 5]))
    assert abs(loudest + 1 - position * (config.n_mels + 1)) <= 1


def test_the_power_of_a_frame_is_kept_by_the_transform():
    """Parseval: with filters that add up to one, the mel bins hold the energy of the frame."""
    config = LogMel(low_hz=0.0, n_mels=4, n_fft=512, window=200, floor=1e-20, mel_scale="kaldi")
    # Edges of the outer triangles are lost: look at noise between the first and the last centre.
    spectrum = np.fft.rfft(noise(200).astype(np.float64))
    centres = mel_to_hz(np.linspace(0, hz_to_mel(np.array(4000.0)), 6))
    bins = np.fft.rfftfreq(200, 1 / 8000)
    spectrum[(bins < centres[1] + 300) | (bins > centres[-2] - 300)] = 0
    frame = np.fft.irfft(spectrum)
    features, _ = log_mel(jnp.asarray(np.tile(frame, 8))[None], jnp.array([1600]), config)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200)
    energy = 512 / 2 * ((frame * window) ** 2).sum()
    np.testing.assert_allclose(np.exp(np.asarray(features[0, 0])).sum(), energy, rtol=1e-3)


def test_pre_emphasis_is_a_known_gain():
    """Of a tone at a quarter of the rate |1 - a exp(-i pi/2)|² = 1 + a²."""
    tone = np.sin(np.pi / 2 * np.arange(4000) + 0.3)[None]
    lengths = jnp.array([4000])
    for on in ("signal", "frame"):
        flat, _ = log_mel(tone, lengths, LogMel())
        steep, _ = log_mel(tone, lengths, LogMel(pre_emphasis=0.9, pre_emphasis_on=on))
        loudest = int(np.argmax(flat[0, 9]))
        gain = (steep - flat)[0, 9, loudest]
        np.testing.assert_allclose(gain, np.log(1 + 0.9**2), atol=2e-3)


def test_removing_the_mean_makes_features_blind_to_an_offset():
    config = replace(KALDI, norm=None)
    waveform = noise(3000)[None]
    plain, _ = log_mel(waveform, jnp.array([3000]), config)
    shifted, _ = log_mel(waveform + 0.25, jnp.array([3000]), config)
    np.testing.assert_allclose(plain, shifted, atol=2e-3)


def test_equal_areas_flatten_the_response_to_white_noise():
    equal = replace(PARAKEET, norm=None, pre_emphasis=0.0)
    features, _ = log_mel(noise(160_000)[None], jnp.array([160_000]), equal)
    mean = np.log(np.exp(np.asarray(features[0])).mean(axis=0))
    assert np.ptp(mean) < 0.5
    tall, _ = log_mel(noise(160_000)[None], jnp.array([160_000]), replace(equal, mel_norm="none"))
    assert np.ptp(np.log(np.exp(np.asarray(tall[0])).mean(axis=0))) > 1.5


@pytest.mark.parametrize("name", ["kaldi", "seamless", "parakeet"])
def test_the_last_of_many_frames_is_as_exact_as_the_first(name):
    """Five minutes whose level drifts: the mean over 30,000 frames must not lose digits."""
    config = replace(PRESETS[name], n_mels=20)
    rng = np.random.default_rng(0)
    logs = rng.normal(size=(30_000, 20)) + np.linspace(-12, 4, 30_000)[:, None]
    norm = utterance_norm(config)
    got = normalise_features(
        jnp.asarray(logs[None]),
        jnp.array([30_000]),
        ddof=norm.ddof,
        epsilon=norm.epsilon,
        epsilon_on=norm.epsilon_on,
    )
    expected = (logs - logs.mean(axis=0)) / logs.std(axis=0, ddof=norm.ddof)
    np.testing.assert_allclose(got[0], expected, atol=2e-5)
    wave = np.tile(noise(16_000), 60)
    features, _ = log_mel(wave[None], jnp.array([wave.size]), replace(config, norm=None))
    # The waveform repeats every 100 frames.
    np.testing.assert_allclose(features[0, 5800:5900], features[0, 100:200], atol=1e-3)


def test_the_filters_of_a_scale_have_peaks_at_its_centres():
    for scale in ("htk", "slaney", "kaldi"):
        config = LogMel(sample_rate=16_000, n_fft=4096, n_mels=20, mel_scale=scale)
        low, high = hz_to_mel(np.array([20.0, 8000.0]), scale)
        centres = mel_to_hz(np.linspace(low, high, 22), scale)[1:-1]
        peaks = mel_filters(config).argmax(axis=0) * 16_000 / 4096
        np.testing.assert_allclose(peaks, centres, atol=16_000 / 4096)


def test_mel_scales_are_inverted_and_meet_at_a_kilohertz():
    hz = np.linspace(0, 11_025, 200)
    for scale in ("htk", "slaney", "kaldi"):
        np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz, scale), scale), hz, atol=1e-9)
        assert (np.diff(hz_to_mel(hz, scale)) > 0).all()
    np.testing.assert_allclose(hz_to_mel(np.array([1000.0, 6400.0]), "slaney"), [15.0, 42.0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"edges": "wrap"}, "edges to be one of snip, extend"),
        ({"power": 3}, "power to be one of 1, 2"),
        ({"drop_last": True}, "drops a last frame"),
        ({"pre_emphasis": 1.0}, "pre_emphasis < 1"),
        ({"scale": 0.0}, "scale > 0"),
        ({"dynamic_range": 0.0}, "dynamic_range"),
        ({"norm": FixedNorm((0.0, 1.0), (1.0, 1.0))}, "one for each of 40"),
    ],
)
def test_settings_that_contradict_each_other_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        LogMel(**settings)


def test_norms_that_would_divide_by_nothing_are_errors():
    with pytest.raises(ConfigError, match="epsilon > 0"):
        UtteranceNorm(epsilon=0.0)
    with pytest.raises(ConfigError, match="scales > 0"):
        FixedNorm((0.0,), (0.0,))


def test_an_unknown_preset_is_an_error_that_names_the_known_ones():
    known = "librosa, kaldi, parakeet, whisper, seamless, algoperf"
    with pytest.raises(ConfigError, match=f"one of {known}; received 'wisper'.* mean 'whisper'"):
        preset("wisper")


def test_too_few_samples_for_a_frame_say_how_many_there_must_be():
    with pytest.raises(DataError, match="at least 160 samples"):
        log_mel(jnp.zeros((1, 159)), jnp.array([159]), PARAKEET)
