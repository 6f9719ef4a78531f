from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from research.errors import ConfigError
from research.speech.augment import (
    add_noise,
    change_speed,
    mix_noise,
    random_gain,
    reverberate,
    room_responses,
    speed_perturb,
)


def test_gain_is_one_factor_an_example_within_the_range():
    waveforms = jnp.asarray(np.random.default_rng(0).normal(size=(200, 5)))
    factors = np.asarray(random_gain(jax.random.key(0), waveforms, (-6.0, 6.0)) / waveforms)
    np.testing.assert_allclose(factors, np.broadcast_to(factors[:, :1], (200, 5)), rtol=1e-5)
    decibels = 20 * np.log10(factors[:, 0])
    assert -6.001 < decibels.min() < -5
    assert 5 < decibels.max() < 6.001


@pytest.mark.parametrize("snr", [-10.0, 0.0, 25.0])
def test_noise_has_the_asked_power_and_spares_the_padding(snr):
    rng = np.random.default_rng(0)
    waveforms = rng.normal(size=(3, 8000)).astype(np.float32) * np.array([[1.0], [0.01], [0.0]])
    lengths = np.array([8000, 4000, 8000])
    waveforms[1, 4000:] = 7.0
    noisy = add_noise(jax.random.key(0), jnp.asarray(waveforms), jnp.asarray(lengths), (snr, snr))
    noise = np.asarray(noisy) - waveforms
    assert not noise[1, 4000:].any()
    assert not noise[2].any()
    for i in (0, 1):
        valid = slice(0, lengths[i])
        power = (waveforms[i, valid] ** 2).mean() / (noise[i, valid] ** 2).mean()
        assert abs(10 * np.log10(power) - snr) < 0.4


def test_an_empty_range_is_an_error():
    with pytest.raises(ConfigError, match="low, high"):
        random_gain(jax.random.key(0), jnp.ones((1, 2)), (3.0, -3.0))
    with pytest.raises(ConfigError, match="low, high"):
        add_noise(jax.random.key(0), jnp.ones((1, 2)), jnp.array([2]), (3.0, -3.0))


def band(samples: int, seed: int = 0, top: float = 0.8) -> np.ndarray:
    """Noise below `top` of half the rate."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).normal(size=samples))
    spectrum[int(top * len(spectrum)) :] = 0
    return np.fft.irfft(spectrum, samples).astype(np.float32)


@pytest.mark.parametrize("speed", [Fraction(9, 10), Fraction(11, 10), Fraction(1, 2), Fraction(3)])
def test_a_waveform_is_sampled_where_the_speed_says(speed):
    """A sum of tones is known at every time; both rates can carry these."""

    def tones(time):
        return np.mean([np.sin(w * time + i) for i, w in enumerate((0.05, 0.31, 0.8))], axis=0)

    waveform = jnp.asarray(tones(np.arange(3000)), jnp.float32)[None]
    played, lengths = change_speed(waveform, jnp.array([3000]), speed)
    assert lengths[0] == played.shape[1] == -(-3000 * speed.denominator // speed.numerator)
    inner = slice(200, played.shape[1] - 200)
    expected = tones(np.arange(played.shape[1]) * float(speed))
    np.testing.assert_allclose(played[0, inner], expected[inner], atol=2e-3)


def test_what_the_slower_rate_cannot_carry_is_removed():
    tone = jnp.sin(2.8 * jnp.arange(4000.0))[None]  # above half of 1 / 1.25 of the rate
    played, _ = change_speed(tone, jnp.array([4000]), Fraction(5, 4))
    assert np.abs(played[0, 100:-100]).max() < 0.02


def test_each_speed_is_drawn_and_padding_is_not_heard():
    waveforms = np.tile(band(500), (60, 1))
    waveforms[:, 450:] = np.nan
    played, lengths = speed_perturb(jax.random.key(0), jnp.asarray(waveforms), jnp.full(60, 450))
    assert played.shape == (60, 556)
    counts = {n: (np.asarray(lengths) == n).sum() for n in (500, 450, 410)}
    assert sum(counts.values()) == 60
    assert min(counts.values()) > 8
    for row, length in zip(np.asarray(played), np.asarray(lengths), strict=True):
        assert np.isfinite(row).all()
        assert not row[length:].any()
        if length == 450:
            np.testing.assert_array_equal(row[:450], waveforms[0, :450])
    alone, _ = change_speed(jnp.asarray(waveforms[:1, :450]), jnp.array([450]), Fraction(9, 10))
    slow = int(np.flatnonzero(np.asarray(lengths) == 500)[0])
    np.testing.assert_allclose(played[slow, :500], alone[0], atol=1e-6)


def test_speeds_out_of_range_are_errors():
    for speeds in ((), (0.0,), (1.0, 20.0)):
        with pytest.raises(ConfigError, match=r"0\.1\.\.10"):
            speed_perturb(jax.random.key(0), jnp.ones((1, 9)), jnp.array([9]), speeds)


@pytest.mark.parametrize("snr", [-5.0, 15.0])
def test_recorded_noise_has_the_asked_power_where_the_waveform_is(snr):
    waveforms = np.stack([band(3000), 0.01 * band(3000, 1), np.zeros(3000, np.float32)])
    lengths = np.array([3000, 1000, 3000])
    noises = np.stack([band(700, 2), np.sin(np.arange(700))]).astype(np.float32)
    noisy = mix_noise(
        jax.random.key(0),
        jnp.asarray(waveforms),
        jnp.asarray(lengths),
        jnp.asarray(noises),
        (snr, snr),
    )
    added = np.asarray(noisy) - waveforms
    assert not added[1, 1000:].any()
    assert not added[2].any()
    for i in (0, 1):
        valid = slice(0, lengths[i])
        power = (waveforms[i, valid] ** 2).mean() / (added[i, valid] ** 2).mean()
        assert abs(10 * np.log10(power) - snr) < 0.05
    # It is a stretch of one of the recordings, which goes round after 700 samples.
    np.testing.assert_allclose(added[0, 700:1400], added[0, :700], atol=1e-5)


def test_silent_noise_adds_nothing():
    x = jnp.ones((2, 50))
    same = mix_noise(jax.random.key(0), x, jnp.array([50, 20]), jnp.zeros((1, 7)), (0.0, 0.0))
    np.testing.assert_array_equal(same, x)


def test_a_room_falls_by_sixty_decibels_in_its_time():
    responses = np.asarray(
        room_responses(
            jax.random.key(0), 200, 8000, seconds=(0.5, 0.5), direct_decibels=(3.0, 3.0)
        ),
        np.float64,
    )
    np.testing.assert_array_equal(responses[:, 0], 1.0)
    ratio = 1.0 / (responses[:, 1:] ** 2).sum(axis=1)
    np.testing.assert_allclose(10 * np.log10(ratio), 3.0, atol=1e-3)
    decay = 10 * np.log10((responses[:, 1:] ** 2).mean(axis=0))
    slope, _ = np.polyfit(np.arange(1, responses.shape[1]) / 8000, decay, 1)
    np.testing.assert_allclose(slope, -60 / 0.5, rtol=0.02)


def test_a_room_is_a_convolution_of_the_same_power_without_delay():
    waveforms = np.stack([band(600), band(600, 1)])
    waveforms[1, 400:] = np.nan
    response = np.zeros(50, np.float32)
    response[7:] = np.asarray(room_responses(jax.random.key(1), 1, 1000, seconds=(0.01, 0.043)))[0]
    wet = np.asarray(
        reverberate(
            jax.random.key(0),
            jnp.asarray(waveforms),
            jnp.array([600, 400]),
            jnp.asarray(response[None]),
        )
    )
    for row, dry, length in zip(wet, waveforms, (600, 400), strict=True):
        expected = scipy.signal.convolve(dry[:length], response)[7 : 7 + length]
        expected *= np.sqrt((dry[:length] ** 2).mean() / (expected**2).mean())
        np.testing.assert_allclose(row[:length], expected, atol=1e-4)
    assert np.isnan(wet[1, 400:]).all()


def test_rooms_that_make_no_sense_are_errors():
    with pytest.raises(ConfigError, match="some time"):
        room_responses(jax.random.key(0), 1, 8000, seconds=(0.0, 0.5))
    with pytest.raises(ConfigError, match="low, high"):
        room_responses(jax.random.key(0), 1, 8000, direct_decibels=(3.0, 0.0))


def test_waveform_augmentation_runs_under_jit_and_has_gradients():
    lengths = jnp.array([300, 200])
    rooms = room_responses(jax.random.key(9), 2, 1000, seconds=(0.02, 0.05))

    def loss(x):
        x = reverberate(jax.random.key(0), x, lengths, rooms)
        x = mix_noise(jax.random.key(1), x, lengths, rooms, (5.0, 10.0))
        x, _ = speed_perturb(jax.random.key(2), x, lengths)
        return (x**2).sum()

    waveforms = jnp.asarray(np.stack([band(300), np.zeros(300, np.float32)]))
    gradient = jax.jit(jax.grad(loss))(waveforms)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0]).max() > 0
    assert not np.any(gradient[1, 200:])
