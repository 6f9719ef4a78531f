"""Intervals over trainings and strings: coverage by simulation, pairing, the cases without one."""

import math

import numpy as np
import pytest
from scipy.stats import t

from research import stats
from research.stats import UtteranceErrors

LABELS = 5


def strings(generator, rates):
    errors = generator.binomial(LABELS, np.clip(rates, 0.001, 0.999)).astype(float)
    return UtteranceErrors(errors, np.full(errors.shape, float(LABELS)))


def speakers(generator, deviation, *, units=5, count=40):
    """A training for each speaker, about 10 % errors, on strings of its own."""
    return [
        [strings(generator, np.full(count, 0.1 + deviation * generator.normal()))]
        for _ in range(units)
    ]


def seeds(generator, deviation, *, units=5, count=40):
    """A training for each seed, about 10 % errors, all on the same strings, hard and easy ones."""
    hard = generator.beta(1, 9, count)
    return [[strings(generator, hard + deviation * generator.normal())] for _ in range(units)]


def share(hits):
    return np.mean([bool(hit) for hit in hits])


@pytest.mark.parametrize("deviation", [0.0, 0.03])
@pytest.mark.parametrize(("make", "shared"), [(speakers, False), (seeds, True)])
def test_intervals_cover_what_they_say(make, shared, deviation):
    generator = np.random.default_rng(7)

    def covers():
        units = make(generator, deviation)
        low, high = stats.trainings_interval(units, shared=shared, resamples=300)
        return low <= 0.1 <= high

    assert 0.92 <= share(covers() for _ in range(200)) <= 0.995


def test_strings_alone_would_not_cover_other_trainings():
    generator = np.random.default_rng(7)

    def covers():
        groups = [unit[0] for unit in speakers(generator, 0.03)]
        rate, labels = stats.error_rate(groups), 200 * LABELS
        half = 1.96 * math.sqrt(rate * (1 - rate) / labels)
        return abs(rate - 0.1) <= half

    assert share(covers() for _ in range(200)) < 0.75


@pytest.mark.parametrize(("make", "shared"), [(speakers, False), (seeds, True)])
def test_two_equal_systems_rarely_differ(make, shared):
    generator = np.random.default_rng(3)

    def rejects():
        first, second = make(generator, 0.0), make(generator, 0.0)
        found = stats.trainings_difference(first, second, shared=shared, resamples=300)
        assert (found.p_value <= 0.05) == (found.interval.low >= 0 or found.interval.high <= 0)
        return found.p_value <= 0.05

    assert share(rejects() for _ in range(200)) <= 0.08


def test_what_both_systems_share_cancels():
    generator = np.random.default_rng(0)
    first, second = [], []
    for offset in (0.02, 0.1, 0.2, 0.3, 0.4):  # speakers far apart
        own = strings(generator, np.full(60, offset))
        fewer = np.maximum(own.errors - (generator.random(60) < 0.3), 0)
        first.append([own])
        second.append([UtteranceErrors(fewer, own.totals)])
    apart = [stats.trainings_interval(units) for units in (first, second)]
    assert apart[0].overlaps(apart[1])
    found = stats.trainings_difference(first, second)
    assert found.interval.low > 0
    assert found.p_value < 0.05
    assert found.units == 5
    assert stats.trainings_difference(second, first).value == pytest.approx(-found.value)


def test_the_interval_is_students_where_strings_add_nothing():
    # All strings of a unit have the unit's rate, so only the units differ.
    units = [[stats.utterance_errors([e] * 20, [10] * 20)] for e in (1, 2, 3, 2)]
    assert stats.trainings_interval(units) == pytest.approx(
        stats.mean_interval([0.1, 0.2, 0.3, 0.2]), rel=1e-6
    )


def test_the_interval_is_that_of_strings_where_units_are_alike():
    unit = [stats.utterance_errors([0, 1, 2, 1] * 25, [10] * 100)]
    low, high = stats.trainings_interval([unit] * 4)
    error = float(np.std([0.0, 0.1, 0.2, 0.1])) / math.sqrt(400)
    assert (low, high) == pytest.approx((0.1 - 1.96 * error, 0.1 + 1.96 * error), abs=0.06 * error)
    # The same strings four times are no more strings.
    shared = stats.trainings_interval([unit] * 4, shared=True)
    assert shared == pytest.approx((0.1 - 3.92 * error, 0.1 + 3.92 * error), abs=0.12 * error)


def test_what_strings_do_to_all_units_alike_adds_to_their_spread():
    strings_alike, offsets = np.array([0, 4, 8, 4] * 10), np.array([-0.8, 0.0, 0.8, 0.0])
    units = [[stats.utterance_errors(strings_alike + 1 + c, [20] * 40)] for c in offsets]
    between = np.var(offsets / 20, ddof=1) / 4
    by_strings = np.var(strings_alike / 20) / 40
    error = math.sqrt(between + by_strings)
    freedom = 3 * (error**2 / between) ** 2
    low, high = stats.trainings_interval(units, shared=True)
    expected = 2 * float(t.ppf(0.975, freedom)) * error
    assert high - low == pytest.approx(expected, rel=0.03)
    assert expected > 1.2 * 2 * 1.96 * math.sqrt(by_strings)


def test_seeds_on_the_strings_of_one_speaker_are_no_more_strings():
    one = [stats.utterance_errors([0, 1, 2, 1], [10] * 4)]
    other = [stats.utterance_errors([1, 1, 2, 1], [10] * 4)]
    twice = stats.trainings_interval([one * 2, other * 2])
    assert twice == pytest.approx(stats.trainings_interval([one, other]))


def test_no_error_leaves_room_for_some():
    clean = [stats.utterance_errors([0, 0, 0], [10, 20, 30])]
    low, high = stats.trainings_interval([clean, clean])
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 120))


def test_too_little_gives_no_interval():
    unit = [stats.utterance_errors([0, 1], [10, 20])]
    short = [stats.utterance_errors([1], [10])]
    for units in ([], [unit], [unit, short]):
        assert all(math.isnan(end) for end in stats.trainings_interval(units))
    found = stats.trainings_difference([unit], [unit])
    assert (found.value, found.units) == (0, 1)
    assert math.isnan(found.p_value)


def test_equal_systems_have_no_difference_and_equal_differences_no_test():
    unit = [stats.utterance_errors([1, 2], [10, 20])]
    more = [stats.utterance_errors([2, 4], [10, 20])]
    assert stats.trainings_difference([unit] * 3, [unit] * 3).p_value == 1
    found = stats.trainings_difference([more] * 3, [unit] * 3)
    assert found.interval == pytest.approx((0.1, 0.1))
    assert math.isnan(found.p_value)


def test_pairs_need_the_same_utterances():
    one, other = ([stats.utterance_errors([1, 0], [4, n])] for n in (4, 5))
    with pytest.raises(ValueError, match="same utterances"):
        stats.trainings_difference([one], [other])
    with pytest.raises(ValueError, match="same utterances"):
        stats.trainings_difference([one, one], [one])
    with pytest.raises(ValueError, match="same utterances"):
        stats.trainings_interval([one, other], shared=True)
