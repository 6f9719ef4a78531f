"""Warped features against the definition in float64, and what a warp does to a tone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from log_mel_exact import exact_log_mel

from research.errors import ConfigError
from research.speech.features import log_mel
from research.speech.log_mel_config import LogMel, mel_filters
from research.speech.presets import preset
from research.speech.vtlp import vtlp, warp_frequencies, warped_filters

pytestmark = pytest.mark.usefixtures("in_haste")

CONFIGS = {"default": LogMel(), "kaldi": preset("kaldi"), "parakeet": preset("parakeet")}


def warp_of(factor, config, boundary=0.6):
    """The map by its three corners: the origin, the bend, and the top, which stays."""
    top = config.sample_rate / 2
    bend = boundary * top * min(factor, 1.0)
    return lambda hz: float(np.interp(hz, [0.0, bend / factor, top], [0.0, bend, top]))


def speech_like(samples):
    rng = np.random.default_rng(0)
    return (0.1 * np.cumsum(rng.normal(size=samples)) / 10 + 0.1 * rng.normal(size=samples)).astype(
        np.float32
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_features_of_each_utterance_are_those_of_its_own_warp(name):
    config = CONFIGS[name]
    factors, lengths = np.array([0.85, 1.0, 1.2]), np.array([3000, 2300, 2600])
    waveforms = np.stack([speech_like(3000)] * 3)
    filters = warped_filters(jnp.asarray(factors), config)
    features, frames = log_mel(waveforms, lengths, config, filters=filters)
    for b, factor in enumerate(factors):
        alone = exact_log_mel(waveforms[b, : lengths[b]], config, warp_of(factor, config))
        found = np.asarray(features[b, : frames[b]])
        np.testing.assert_allclose(found, alone, atol=2e-3)
        assert np.all(features[b, frames[b] :] == 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_factor_of_one_changes_nothing(name):
    (filters,) = np.asarray(warped_filters(jnp.ones(1), CONFIGS[name]))
    expected = mel_filters(CONFIGS[name])
    np.testing.assert_allclose(filters, expected, atol=1e-4 * expected.max())


@pytest.mark.parametrize("factor", [0.8, 0.9, 1.1, 1.25])
def test_a_tone_is_heard_at_the_warped_frequency(factor):
    config, hz = LogMel(), 1200.0
    time = np.arange(4000) / config.sample_rate

    def loudest(frequency, factor):
        tone = jnp.asarray(np.sin(2 * np.pi * frequency * time), jnp.float32)[None]
        filters = warped_filters(jnp.array([factor]), config)
        features, _ = log_mel(tone, jnp.array([4000]), config, filters=filters)
        return int(features[0].mean(axis=0).argmax())

    assert loudest(hz, factor) == loudest(factor * hz, 1.0)
    assert loudest(hz, factor) != loudest(hz, 1.0)


def test_warps_keep_the_order_and_both_ends_of_the_frequencies():
    hz, factors = jnp.linspace(0.0, 4000.0, 129), jnp.array([0.5, 0.9, 1.0, 1.1, 2.0])
    warped = np.asarray(warp_frequencies(hz, factors, 4000.0))
    assert (np.diff(warped, axis=1) > 0).all()
    np.testing.assert_array_equal(warped[:, 0], 0.0)
    np.testing.assert_array_equal(warped[:, -1], 4000.0)
    np.testing.assert_array_equal(warped[2], hz)
    for factor, row in zip(factors, warped, strict=True):
        expected = [warp_of(float(factor), LogMel())(frequency) for frequency in hz.tolist()]
        np.testing.assert_allclose(row, expected, rtol=1e-5)


def test_every_utterance_draws_a_factor_from_the_range():
    waveforms, lengths = jnp.asarray(np.stack([speech_like(1000)] * 6)), jnp.full(6, 1000)
    draw = jax.jit(lambda key: vtlp(key, waveforms, lengths)[0])
    one, again, other = (np.asarray(draw(jax.random.key(seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert len({row.tobytes() for row in one}) == 6
    fixed, _ = vtlp(jax.random.key(0), waveforms, lengths, factors=(1.0, 1.0))
    np.testing.assert_allclose(fixed, log_mel(waveforms, lengths)[0], atol=2e-3)


def test_what_cannot_be():
    arguments = jax.random.key(0), jnp.ones((1, 800)), jnp.array([800])
    with pytest.raises(ConfigError, match=r"range \(low, high\) above 0"):
        vtlp(*arguments, factors=(1.1, 0.9))
    with pytest.raises(ConfigError, match="between 0 and 1"):
        vtlp(*arguments, boundary=1.0)
