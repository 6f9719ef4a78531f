import itertools

import numpy as np
import pytest

from research.data.buckets import bucketed_batch, make_buckets
from research.errors import ConfigError


def lengths(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(1.0, 0.8, count)


def test_buckets_hold_every_utterance_once_in_the_order_of_length():
    seconds = lengths(101)
    buckets = make_buckets(seconds, buckets=7, batch_seconds=30.0)
    order = np.concatenate(buckets.members)
    assert (np.diff(seconds[order]) >= 0).all()
    assert sorted(order.tolist()) == list(range(101))
    assert len(buckets.members) == 7
    for members, size, longest in zip(
        buckets.members, buckets.batch_sizes, buckets.longest, strict=True
    ):
        assert seconds[members].max() == longest
        assert size * longest <= 30 or size == 1


def test_no_other_cut_pads_less():
    seconds = lengths(14, 3)
    ordered = np.sort(seconds)

    def padded(cuts):
        return sum(len(group) * group[-1] for group in np.split(ordered, cuts))

    buckets = make_buckets(seconds, buckets=4, batch_seconds=10.0)
    ours = sum(len(m) * top for m, top in zip(buckets.members, buckets.longest, strict=True))
    best = min(padded(list(cuts)) for cuts in itertools.combinations(range(1, 14), 3))
    np.testing.assert_allclose(ours, best)


@pytest.mark.parametrize("count", [1, 5, 40, 333])
def test_every_utterance_comes_once_before_any_comes_again(count):
    buckets = make_buckets(lengths(count), buckets=4, batch_seconds=20.0)
    seen = np.zeros(count, int)
    for step in range(buckets.steps_before(5)):
        bucket, indices = bucketed_batch(buckets, seed=3, step=step)
        assert len(indices) == buckets.batch_sizes[bucket]
        np.add.at(seen, indices, 1)
        assert np.isin(indices, buckets.members[bucket]).all()
        members = seen[buckets.members[bucket]]
        assert members.max() - members.min() <= 1 + len(indices) // len(members)
    for members, size in zip(buckets.members, buckets.batch_sizes, strict=True):
        assert abs(seen[members].sum() - 5 * len(members)) < size


def test_a_batch_depends_on_seed_and_step_alone():
    buckets = make_buckets(lengths(60), buckets=3, batch_seconds=15.0)
    later = bucketed_batch(buckets, seed=1, step=500)
    bucketed_batch(buckets, seed=1, step=3)
    again = bucketed_batch(buckets, seed=1, step=500)
    assert later.bucket == again.bucket
    np.testing.assert_array_equal(later.indices, again.indices)


def test_seeds_and_epochs_differ_and_buckets_are_mixed():
    buckets = make_buckets(lengths(60), buckets=3, batch_seconds=15.0)
    steps = buckets.steps_before(1)

    def order(seed, epoch):
        first = buckets.steps_before(epoch)
        return [
            (batch.bucket, *batch.indices.tolist())
            for batch in (bucketed_batch(buckets, seed=seed, step=first + i) for i in range(steps))
        ]

    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)
    kinds = [batch[0] for batch in order(0, 0)]
    assert kinds != sorted(kinds)


def test_the_same_number_of_utterances_in_two_buckets_is_not_the_same_order():
    buckets = make_buckets(np.r_[np.full(30, 1.0), np.full(30, 5.0)], buckets=2, batch_seconds=5.0)
    firsts: dict[int, list[int]] = {0: [], 1: []}
    for step in range(buckets.steps_before(1)):
        bucket, indices = bucketed_batch(buckets, seed=0, step=step)
        firsts[bucket] += (indices - 30 * bucket).tolist()
    assert firsts[0] != firsts[1]


@pytest.mark.parametrize(
    ("seconds", "settings"),
    [([], (1, 1.0)), ([1.0], (0, 1.0)), ([1.0], (1, 0.0))],
)
def test_buckets_of_nothing_are_errors(seconds, settings):
    count, batch_seconds = settings
    with pytest.raises(ConfigError, match="buckets need"):
        make_buckets(np.array(seconds), buckets=count, batch_seconds=batch_seconds)


@pytest.mark.parametrize(("seed", "step"), [(-1, 0), (2**32, 0), (0, -1)])
def test_arguments_out_of_range(seed, step):
    buckets = make_buckets(np.array([1.0]), buckets=1, batch_seconds=1.0)
    with pytest.raises(ConfigError, match="a batch needs a seed"):
        bucketed_batch(buckets, seed=seed, step=step)


def test_batches_of_a_multiple_can_be_divided_among_devices():
    seconds = np.array([1.0, 2.0, 3.0, 4.0, 30.0])
    for multiple in (1, 2, 4):
        buckets = make_buckets(seconds, buckets=3, batch_seconds=12.0, multiple=multiple)
        assert all(size % multiple == 0 and size > 0 for size in buckets.batch_sizes)
        assert buckets.batch_sizes[-1] == multiple  # longer than a batch, and still as many
        for step in range(20):
            bucket, indices = bucketed_batch(buckets, seed=0, step=step)
            assert len(indices) == buckets.batch_sizes[bucket]
    with pytest.raises(ConfigError, match="a multiple of at least 1"):
        make_buckets(seconds, buckets=3, batch_seconds=12.0, multiple=0)
