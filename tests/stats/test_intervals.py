"""Statistics against textbook values, a naive bootstrap and the cases without an answer."""

import math
from typing import Any

import numpy as np
import pytest

from research import stats
from research.stats.intervals import rounded


def test_mean_and_deviation_are_those_of_the_sample():
    mean, deviation = stats.mean_and_deviation([0.95, 0.96, 0.97])
    assert mean == pytest.approx(0.96)
    assert deviation == pytest.approx(0.01)


def test_nothing_has_no_mean():
    assert all(math.isnan(value) for value in stats.mean_and_deviation([]))


def test_mean_interval_is_students():
    low, high = stats.mean_interval([0.95, 0.96, 0.97])
    half = 4.302653 * 0.01 / math.sqrt(3)  # t of two degrees of freedom, from a table
    assert (low, high) == pytest.approx((0.96 - half, 0.96 + half), rel=1e-6)


@pytest.mark.parametrize("interval", [stats.mean_interval, stats.bootstrap_interval])
def test_one_value_gives_no_interval_and_equal_values_a_point(interval):
    assert all(math.isnan(end) for end in interval([0.3]))
    assert interval([0.3, 0.3, 0.3]) == pytest.approx((0.3, 0.3))


def test_an_unknown_interval_overlaps_with_all():
    assert stats.UNKNOWN.overlaps(stats.Interval(0.0, 0.1))
    assert stats.Interval(0.0, 0.1).overlaps(stats.UNKNOWN)


def test_bootstrap_depends_on_the_seed_alone():
    values = np.random.default_rng(0).exponential(size=40)
    first = stats.bootstrap_interval(values, seed=1)
    assert first == stats.bootstrap_interval(values, seed=1)
    assert first != stats.bootstrap_interval(values, seed=2)
    assert first.low < values.mean() < first.high


def test_bootstrap_takes_any_statistic():
    values = [1.0, 2.0, 3.0, 4.0, 100.0]
    low, high = stats.bootstrap_interval(values, np.median)
    assert 1.0 <= low <= 3.0 <= high <= 100.0


def test_ratio_interval_agrees_with_a_naive_bootstrap():
    generator = np.random.default_rng(0)
    totals = generator.integers(1, 8, 200)
    errors = generator.binomial(totals, 0.1)
    rates = []
    for _ in range(4000):
        chosen = generator.integers(0, 200, 200)
        rates.append(errors[chosen].sum() / totals[chosen].sum())
    low, high = stats.ratio_interval(errors, totals)
    assert (low, high) == pytest.approx(np.percentile(rates, [2.5, 97.5]), abs=0.008)


def test_an_utterance_keeps_its_own_total():
    totals = np.arange(1, 101)
    errors = totals // 2  # nearly the same rate everywhere, very different numbers
    low, high = stats.ratio_interval(errors, totals)
    assert 0.48 < low < high < 0.5


def test_no_error_leaves_room_for_some():
    low, high = stats.ratio_interval([0, 0, 0], [10, 20, 30])
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 60))


def test_equal_rates_give_a_point():
    assert stats.ratio_interval([1, 2], [10, 20]) == pytest.approx((0.1, 0.1))


@pytest.mark.parametrize(("errors", "totals"), [([1], [4]), ([0, 0], [0, 0]), ([], [])])
def test_too_little_for_an_error_rate_interval(errors, totals):
    assert all(math.isnan(end) for end in stats.ratio_interval(errors, totals))


def test_every_group_weighs_the_same():
    large = stats.utterance_errors([100], [1000])
    small = stats.utterance_errors([3], [10])
    assert stats.error_rate([large, small]) == pytest.approx(0.2)


def test_groups_are_resampled_within():
    # Each group has one rate, far from the other's: other strings by these speakers change nothing.
    calm = stats.utterance_errors([1, 2, 1], [10, 20, 10])
    wild = stats.utterance_errors([9, 18, 9], [10, 20, 10])
    assert stats.error_rate_interval([calm, wild]) == pytest.approx((0.5, 0.5))
    loose = stats.utterance_errors([9, 10, 9], [10, 20, 10])
    low, high = stats.error_rate_interval([calm, loose])
    assert 0.3 - 1e-9 <= low < high <= 0.5 + 1e-9


def test_a_paired_difference_sees_what_two_intervals_cannot():
    generator = np.random.default_rng(0)
    totals = np.full(100, 10)
    first = generator.binomial(totals, 0.3)
    second = np.maximum(first - generator.integers(0, 2, 100), 0)
    a, b = stats.utterance_errors(first, totals), stats.utterance_errors(second, totals)
    assert stats.error_rate_interval([a]).overlaps(stats.error_rate_interval([b]))
    low, high = stats.difference_interval([a], [b])
    assert 0 < low < high
    assert stats.difference_interval([a], [a]) == (0, 0)


def test_a_paired_difference_needs_the_same_utterances():
    a = stats.utterance_errors([1, 0], [4, 4])
    b = stats.utterance_errors([1, 0], [4, 5])
    with pytest.raises(ValueError, match="same utterances"):
        stats.difference_interval([a], [b])


def test_a_group_is_not_taken_for_a_list_of_groups():
    group: Any = stats.utterance_errors([1, 0], [4, 4])
    for measure in (stats.error_rate, stats.error_rate_interval):
        with pytest.raises(TypeError, match=r"received UtteranceErrors of ndarray.*into a list"):
            measure(group)
    pairs: Any = ((group, [group]), ([group], group), (group, group), ([[1, 0]], [group]))
    for pair in pairs:
        with pytest.raises(TypeError, match="must be a list of UtteranceErrors"):
            stats.difference_interval(*pair)


@pytest.mark.parametrize(
    ("errors", "totals", "message"),
    [
        ([1, 2], [3], "one entry per utterance"),
        ([-1], [3], "negative"),
        ([math.nan], [3], "finite"),
        ([[1]], [[3]], "vector"),
    ],
)
def test_counts_are_checked(errors, totals, message):
    with pytest.raises(ValueError, match=message):
        stats.utterance_errors(errors, totals)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_level_is_a_fraction(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.mean_interval([1.0, 2.0], level=level)


def test_a_proportion_has_the_exact_interval():
    # Solutions of the binomial tail at 2.5 %: 1 - 0.025^(1/n) for none, and a table for 3 of 10.
    assert stats.proportion_interval(0, 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert stats.proportion_interval(3, 10) == pytest.approx((0.0667, 0.6525), abs=1e-4)
    assert all(math.isnan(end) for end in stats.proportion_interval(0, 0))
    with pytest.raises(ValueError, match="successes"):
        stats.proportion_interval(3, 2)


@pytest.mark.parametrize(
    "values", [[0.0, 0.0], [5e-324, 0.0], [2.0**996, -(2.0**996)], [math.inf, 1.5]]
)
def test_rounding_leaves_short_numbers_of_any_size_as_they_are(values):
    np.testing.assert_array_equal(rounded(np.array(values)), values)
