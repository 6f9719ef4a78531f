import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.speech.augment import add_noise, random_gain, spec_augment

BATCH, FRAMES, BINS = 64, 40, 12
LENGTHS = np.array([FRAMES, 25, 3, 1] * (BATCH // 4))


def ones() -> jax.Array:
    return jnp.ones((BATCH, FRAMES, BINS))


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.astype(int), 0]))
    return (edges[1::2] - edges[::2]).tolist()


def test_time_masks_are_stretches_of_whole_frames_within_the_valid_ones():
    masked = np.asarray(
        spec_augment(
            jax.random.key(0),
            ones(),
            jnp.asarray(LENGTHS),
            frequency_masks=0,
            time_masks=1,
            max_time_width=5,
        )
    )
    widths = set()
    for i, length in enumerate(LENGTHS):
        assert (masked[i, length:] == 1).all()
        frame = masked[i, :, 0] == 0
        assert (masked[i] == masked[i, :, :1]).all()
        stretches = runs(frame)
        assert len(stretches) <= 1
        widths |= set(stretches)
    assert widths == {1, 2, 3, 4, 5}


def test_frequency_masks_are_bands_over_all_valid_frames():
    masked = np.asarray(
        spec_augment(
            jax.random.key(1),
            ones(),
            jnp.asarray(LENGTHS),
            frequency_masks=1,
            max_frequency_width=4,
            time_masks=0,
        )
    )
    widths, first_bins = set(), set()
    for i, length in enumerate(LENGTHS):
        assert (masked[i, length:] == 1).all()
        assert (masked[i, :length] == masked[i, :1]).all()
        stretches = runs(masked[i, 0] == 0)
        assert len(stretches) <= 1
        widths |= set(stretches)
        first_bins |= {int(np.argmin(masked[i, 0]))} if stretches else set()
    assert widths == {1, 2, 3, 4}
    assert len(first_bins) > 5


@pytest.mark.parametrize("masks", [2, 3])
def test_several_masks_cover_no_more_than_their_widths_together(masks):
    masked = spec_augment(
        jax.random.key(2),
        ones(),
        jnp.full(BATCH, FRAMES),
        frequency_masks=masks,
        max_frequency_width=2,
        time_masks=masks,
        max_time_width=4,
    )
    frames = np.asarray((masked == 0).all(axis=2).sum(axis=1))
    bins = np.asarray((masked == 0).all(axis=1).sum(axis=1))
    assert frames.max() <= 4 * masks
    assert bins.max() <= 2 * masks
    assert len({np.asarray(x).tobytes() for x in masked}) > BATCH // 2


def test_a_time_mask_takes_no_more_than_its_fraction():
    masked = spec_augment(
        jax.random.key(3),
        ones(),
        jnp.asarray(LENGTHS),
        frequency_masks=0,
        time_masks=1,
        max_time_width=100,
        max_time_fraction=0.2,
    )
    covered = np.asarray((masked[:, :, 0] == 0).sum(axis=1))
    assert (covered <= 0.2 * LENGTHS).all()
    assert covered.max() > 3


def test_mean_fill_uses_the_valid_entries_of_the_example():
    features = jnp.asarray(np.random.default_rng(0).normal(3.0, 1.0, (BATCH, FRAMES, BINS)))
    masked = spec_augment(
        jax.random.key(4), features, jnp.asarray(LENGTHS), time_masks=2, fill="mean"
    )
    changed = np.asarray(masked != features)
    assert changed.any()
    for i, length in enumerate(LENGTHS):
        mean = np.asarray(features[i, :length]).mean()
        np.testing.assert_allclose(np.asarray(masked[i])[changed[i]], mean, rtol=1e-5)


def test_no_masks_or_no_frames_leave_the_features_alone():
    features = ones() * 3
    lengths = jnp.asarray(LENGTHS)
    same = spec_augment(jax.random.key(5), features, lengths, frequency_masks=0, time_masks=0)
    np.testing.assert_array_equal(same, features)
    same = spec_augment(jax.random.key(5), features, jnp.zeros_like(lengths), fill="mean")
    np.testing.assert_array_equal(same, features)


def test_the_key_decides():
    arguments = (ones(), jnp.asarray(LENGTHS))
    one = spec_augment(jax.random.key(6), *arguments)
    np.testing.assert_array_equal(one, spec_augment(jax.random.key(6), *arguments))
    assert (np.asarray(one) != np.asarray(spec_augment(jax.random.key(7), *arguments))).any()


@pytest.mark.parametrize(
    "settings",
    [{"time_masks": -1}, {"max_frequency_width": -1}, {"max_time_fraction": 1.5}, {"fill": "max"}],
)
def test_masks_that_make_no_sense_are_errors(settings):
    with pytest.raises(ConfigError, match="masks need"):
        spec_augment(jax.random.key(0), ones(), jnp.asarray(LENGTHS), **settings)


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
