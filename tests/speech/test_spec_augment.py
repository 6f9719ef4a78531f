import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.speech.spec_augment import POLICIES, SpecAugment, spec_augment, time_warp

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
            SpecAugment(frequency_masks=0, time_masks=1, max_time_width=5),
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
            SpecAugment(frequency_masks=1, max_frequency_width=4, time_masks=0),
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
        SpecAugment(
            frequency_masks=masks, max_frequency_width=2, time_masks=masks, max_time_width=4
        ),
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
        SpecAugment(frequency_masks=0, time_masks=1, max_time_width=100, max_time_fraction=0.2),
    )
    covered = np.asarray((masked[:, :, 0] == 0).sum(axis=1))
    assert (covered <= 0.2 * LENGTHS).all()
    assert covered.max() > 3


def test_mean_fill_uses_the_valid_entries_of_the_example():
    features = jnp.asarray(np.random.default_rng(0).normal(3.0, 1.0, (BATCH, FRAMES, BINS)))
    masked = spec_augment(
        jax.random.key(4), features, jnp.asarray(LENGTHS), SpecAugment(time_masks=2, fill="mean")
    )
    changed = np.asarray(masked != features)
    assert changed.any()
    for i, length in enumerate(LENGTHS):
        mean = np.asarray(features[i, :length]).mean()
        np.testing.assert_allclose(np.asarray(masked[i])[changed[i]], mean, rtol=1e-5)


def test_no_masks_or_no_frames_leave_the_features_alone():
    features = ones() * 3
    lengths = jnp.asarray(LENGTHS)
    same = spec_augment(
        jax.random.key(5), features, lengths, SpecAugment(frequency_masks=0, time_masks=0)
    )
    np.testing.assert_array_equal(same, features)
    same = spec_augment(
        jax.random.key(5), features, jnp.zeros_like(lengths), SpecAugment(fill="mean")
    )
    np.testing.assert_array_equal(same, features)


def test_the_key_decides():
    arguments = (ones(), jnp.asarray(LENGTHS))
    one = spec_augment(jax.random.key(6), *arguments)
    np.testing.assert_array_equal(one, spec_augment(jax.random.key(6), *arguments))
    assert (np.asarray(one) != np.asarray(spec_augment(jax.random.key(7), *arguments))).any()


@pytest.mark.parametrize(
    "settings",
    [
        {"time_masks": -1},
        {"time_warp": -1},
        {"max_frequency_width": -1},
        {"max_time_fraction": 1.5},
        {"fill": "max"},
    ],
)
def test_masks_that_make_no_sense_are_errors(settings):
    with pytest.raises(ConfigError, match="masks need"):
        SpecAugment(**settings)


def test_the_published_policies_are_those_of_the_paper():
    """Park et al. 2019, table 1: W, F, m_F, T, p, m_T."""
    table = {
        "LB": (80, 27, 1, 100, 1.0, 1),
        "LD": (80, 27, 2, 100, 1.0, 2),
        "SM": (40, 15, 2, 70, 0.2, 2),
        "SS": (40, 27, 2, 70, 0.2, 2),
    }
    for name, expected in table.items():
        x = POLICIES[name]
        found = (x.time_warp, x.max_frequency_width, x.frequency_masks)
        found += (x.max_time_width, x.max_time_fraction, x.time_masks)
        assert found == expected


def positions(lengths: np.ndarray, frames: int) -> jax.Array:
    """Features that say where each frame was."""
    return jnp.broadcast_to(jnp.arange(float(frames))[None, :, None], (len(lengths), frames, 2))


def test_a_warp_moves_one_frame_up_to_its_limit_and_keeps_order_ends_and_padding():
    lengths = np.array([60] * 200 + [31, 20, 0])
    x = positions(lengths, 60)
    warped = np.asarray(time_warp(jax.random.key(0), x, jnp.asarray(lengths), 10))[:, :, 0]
    np.testing.assert_allclose(warped[:200, 0], 0)
    np.testing.assert_allclose(warped[:200, -1], 59, rtol=1e-6)
    assert (np.diff(warped[:200]) > 0).all()
    moved = warped[:200] - np.arange(60)
    farthest = np.abs(moved).max(axis=1)
    assert farthest.max() <= 10
    assert farthest.max() > 9
    assert moved.min() < -9
    assert moved.max() > 9
    # One corner: the second difference is zero but around it.
    bends = (np.abs(np.diff(warped[:200], n=2)) > 1e-3).sum(axis=1)
    assert bends.max() <= 2
    np.testing.assert_allclose(warped[200, 30:], np.arange(30, 60))
    np.testing.assert_array_equal(warped[201:], np.asarray(x)[201:, :, 0])


@pytest.mark.parametrize("name", ["SS", "AlgoPerf"])
def test_a_policy_masks_what_it_says_and_no_more(name):
    policy = POLICIES[name]
    lengths = np.array([400, 300] * 16)
    x = jnp.ones((32, 400, 80))
    masked = np.asarray(spec_augment(jax.random.key(1), x, jnp.asarray(lengths), policy))
    for row, length in zip(masked, lengths, strict=True):
        np.testing.assert_array_equal(row[length:], 1)
        valid = row[:length]
        frames, bins = (valid == 0).all(axis=1), (valid == 0).all(axis=0)
        widest = min(policy.max_time_width, int(policy.max_time_fraction * length))
        assert frames.sum() <= policy.time_masks * widest
        assert bins.sum() <= policy.frequency_masks * policy.max_frequency_width
        blocked = frames[:, None] | bins[None, :]
        np.testing.assert_allclose(valid[~blocked], 1, rtol=1e-6)


@pytest.mark.parametrize("axis", ["time", "frequency"])
def test_widths_and_starts_of_a_mask_are_uniform(axis):
    """Of 12 places a mask of 0..12 covers 6 on average; one that reached over the end would not."""
    x = jnp.ones((4000, 12, 12))
    policy = SpecAugment(
        frequency_masks=int(axis == "frequency"),
        time_masks=int(axis == "time"),
        max_frequency_width=12,
        max_time_width=12,
    )
    masked = np.asarray(spec_augment(jax.random.key(2), x, jnp.full(4000, 12), policy)) == 0
    covered = masked[:, :, 0] if axis == "time" else masked[:, 0]
    counts = np.bincount(covered.sum(axis=1), minlength=13)
    assert counts.min() > 230  # expected 308, standard deviation 17
    assert counts.max() < 390
    np.testing.assert_allclose(covered[:, :6].mean(), covered[:, 6:].mean(), atol=0.02)


def test_what_lies_in_the_padding_reaches_no_valid_frame():
    features = np.random.default_rng(0).normal(size=(8, 60, BINS))
    lengths = jnp.array([30, 31, 32, 33, 34, 35, 59, 60])
    valid = np.arange(60)[None, :] < np.asarray(lengths)[:, None]
    junk = np.where(valid[..., None], features, np.nan)
    for seed in range(10):
        key = jax.random.key(seed)
        clean, dirty = (
            np.asarray(spec_augment(key, jnp.asarray(x), lengths, SpecAugment(time_warp=5)))
            for x in (np.where(valid[..., None], features, 0.0), junk)
        )
        np.testing.assert_array_equal(clean[valid], dirty[valid])
