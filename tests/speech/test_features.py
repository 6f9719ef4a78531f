import jax
import jax.numpy as jnp
import numpy as np
import pytest
from log_mel_exact import exact_log_mel

from research.errors import ConfigError, DataError
from research.speech.features import log_mel, normalise_features, stack_frames
from research.speech.log_mel_config import LogMel, mel_filters
from research.speech.mel import hz_to_mel, mel_to_hz

pytestmark = pytest.mark.usefixtures("in_haste")

ODD = LogMel(sample_rate=16_000, n_fft=512, window=333, hop=97, n_mels=23, low_hz=100, high_hz=7000)
CONFIGS = [LogMel(), ODD, LogMel(window=64, hop=64, n_fft=64, n_mels=4), LogMel(window=50, hop=80)]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("samples", [333, 1001])
def test_log_mel_equals_the_formula(config, samples):
    waveforms = noise(2, samples)
    features, lengths = log_mel(jnp.asarray(waveforms), jnp.array([samples, samples]), config)
    for i in range(2):
        expected = exact_log_mel(waveforms[i], config)
        assert features[i].shape == expected.shape
        assert lengths[i] == len(expected)
        np.testing.assert_allclose(features[i], expected, atol=2e-4)


@pytest.mark.parametrize("config", CONFIGS)
def test_padding_changes_no_valid_frame_and_padded_frames_are_zero(config):
    waveforms = noise(6, 1500)
    lengths = np.array([1500, 1499, 777, config.window, config.window - 1, 0])
    alone, _ = log_mel(jnp.asarray(waveforms[2:3, :777]), jnp.array([777]), config)
    for i, length in enumerate(lengths):
        waveforms[i, length:] = np.nan
    features, frames = log_mel(jnp.asarray(waveforms), jnp.asarray(lengths), config)
    features, frames = np.asarray(features), np.asarray(frames)
    for i, length in enumerate(lengths):
        assert frames[i] == max(0, 1 + (length - config.window) // config.hop)
        assert np.isfinite(features[i]).all()
        assert features[i, : frames[i]].all()
        assert not features[i, frames[i] :].any()
    np.testing.assert_allclose(features[2, : frames[2]], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hz", [150.0, 440.0, 1000.0, 1870.0, 3300.0])
def test_a_pure_tone_peaks_in_its_mel_bin(hz):
    config = LogMel()
    waveform = np.sin(2 * np.pi * hz * np.arange(4000) / config.sample_rate)
    features, _ = log_mel(jnp.asarray(waveform)[None], jnp.array([4000]), config)
    low, high = hz_to_mel(np.array([config.low_hz, config.sample_rate / 2]))
    centres = mel_to_hz(np.linspace(low, high, config.n_mels + 2))[1:-1]
    nearest = int(np.abs(centres - hz).argmin())
    assert np.abs(np.argmax(features[0].mean(axis=0)) - nearest) <= 1


def test_gain_adds_its_logarithm_and_a_hop_shifts_a_frame():
    waveforms = jnp.asarray(noise(1, 1200))
    features, lengths = log_mel(waveforms, jnp.array([1200]))
    louder, _ = log_mel(10 * waveforms, jnp.array([1200]))
    np.testing.assert_allclose(louder - features, 2 * np.log(10), atol=1e-2)
    later, later_lengths = log_mel(waveforms[:, LogMel().hop :], jnp.array([1120]))
    assert later_lengths[0] == lengths[0] - 1
    np.testing.assert_allclose(later[0], features[0, 1:], atol=1e-4)


def test_silence_gives_the_floor():
    features, _ = log_mel(jnp.zeros((1, 400)), jnp.array([400]), LogMel(floor=1e-3))
    np.testing.assert_allclose(features, np.log(1e-3), rtol=1e-6)


def test_the_filters_cover_every_frequency_in_between_once():
    config = LogMel(sample_rate=16_000, n_fft=512)
    frequencies = np.linspace(0, 8000, 257)
    low, high = hz_to_mel(np.array([20.0, 8000.0]))
    edges = mel_to_hz(np.linspace(low, high, config.n_mels + 2))
    inside = (frequencies >= edges[1]) & (frequencies <= edges[-2])
    assert mel_filters(config).min() >= 0
    np.testing.assert_allclose(mel_filters(config)[inside].sum(axis=1), 1.0, rtol=1e-12)


def test_log_mel_runs_inside_jit_and_has_a_finite_gradient():
    waveforms = jnp.asarray(noise(2, 900)).at[1].set(0.0)
    lengths = jnp.array([900, 500])
    inside, _ = jax.jit(log_mel, static_argnums=2)(waveforms, lengths, LogMel())
    np.testing.assert_allclose(inside, log_mel(waveforms, lengths)[0], rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda x: log_mel(x, lengths)[0].sum())(waveforms)
    assert np.isfinite(gradient).all()
    # The last frame that is wholly valid starts at sample 240 and ends at 440.
    assert not np.any(gradient[1, 440:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 300}, "window <= n_fft"),
        ({"hop": 0}, "hop"),
        ({"low_hz": 5000.0}, "low_hz < high_hz"),
        ({"high_hz": 4001.0}, "4000"),
        ({"floor": 0.0}, "floor"),
        ({"n_mels": 120}, "cover a frequency bin"),
    ],
)
def test_settings_that_make_no_sense_are_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        LogMel(**settings)


@pytest.mark.parametrize("shape", [(1, 199), (400,), (1, 1, 400)])
def test_waveforms_of_the_wrong_shape_are_errors(shape):
    with pytest.raises(DataError, match="at least 200 samples"):
        log_mel(jnp.zeros(shape), jnp.array([100]))


def test_a_single_waveform_is_told_to_become_a_batch():
    with pytest.raises(DataError, match=r"received shape \(400,\): .* waveform\[None\]"):
        log_mel(jnp.zeros(400), jnp.array([400]))


@pytest.mark.parametrize(
    ("dtype", "mend"),
    [("int16", "divide by 32768"), ("int32", "divide by 2147483648"), ("uint8", "convert them")],
)
def test_samples_in_steps_are_not_taken_for_samples_in_one(dtype, mend):
    samples = np.ones((1, 400), dtype)
    message = rf"samples must be floats in \[-1, 1\]; received {dtype}: {mend}"
    for waveforms in (samples, jnp.asarray(samples)):
        with pytest.raises(DataError, match=message):
            log_mel(waveforms, jnp.array([400]))


@pytest.mark.parametrize("shape", [(1,), (3,), (), (2, 1)])
def test_there_is_a_length_for_each_waveform(shape):
    with pytest.raises(DataError, match="each of 2 waveforms; received shape"):
        log_mel(jnp.zeros((2, 400)), jnp.full(shape, 400))


def test_normalised_features_have_zero_mean_and_unit_deviation_over_valid_frames():
    features = 5.0 + 3.0 * noise(3, 50, 7) / 0.1
    lengths = np.array([50, 20, 1])
    features[1, 20:] = np.nan
    normalised = np.asarray(normalise_features(jnp.asarray(features), jnp.asarray(lengths)))
    for i in (0, 1):
        valid = normalised[i, : lengths[i]]
        np.testing.assert_allclose(valid.mean(axis=0), 0.0, atol=1e-5)
        np.testing.assert_allclose(valid.std(axis=0), 1.0, atol=1e-4)
    assert not normalised[1, 20:].any()
    assert not normalised[2].any()


def test_normalising_ignores_gain_and_offset_and_survives_no_frames():
    features = jnp.asarray(noise(2, 30, 4))
    lengths = jnp.array([30, 17])
    one = normalise_features(features * 50, lengths)
    other = normalise_features(features * 80 - 4, lengths)
    np.testing.assert_allclose(one, other, atol=1e-3)
    assert not np.any(normalise_features(features, jnp.array([0, 0])))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 20])
def test_stacking_keeps_every_frame_in_order(n):
    features = jnp.asarray(noise(2, 17, 3))
    lengths = jnp.array([17, 5])
    stacked, stacked_lengths = stack_frames(features, lengths, n)
    assert stacked.shape == (2, -(-17 // n), 3 * n)
    unstacked = np.asarray(stacked).reshape(2, -1, 3)
    np.testing.assert_array_equal(unstacked[:, :17], features)
    assert not unstacked[:, 17:].any()
    assert stacked_lengths.tolist() == [-(-17 // n), -(-5 // n)]


def test_stacking_by_less_than_one_is_an_error():
    with pytest.raises(ConfigError, match="n >= 1"):
        stack_frames(jnp.zeros((1, 2, 3)), jnp.array([2]), 0)
