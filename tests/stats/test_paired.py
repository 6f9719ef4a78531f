"""Paired comparisons against scipy and tables, Holm by hand, false positives by simulation."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats as reference

from research import stats

INF = float("inf")
# Student (1908): hours of sleep gained with two soporifics, ten patients.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_students_own_example():
    made = stats.compare(FIRST, SECOND)
    assert made.difference == pytest.approx(-1.58)
    assert made.t_test == pytest.approx(0.00283289, abs=1e-8)
    assert made.interval == pytest.approx((-2.4598858, -0.7001142), abs=1e-6)
    assert made.effect == pytest.approx(-4.062128 / math.sqrt(10), abs=1e-6)
    assert (made.wins, made.losses, made.pairs) == (9, 0, 10)
    assert made.p_value == made.t_test


def test_p_values_are_scipys():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 12))
    made = stats.compare(first, second)
    assert made.t_test == pytest.approx(reference.ttest_rel(first, second).pvalue)
    signed_rank: Any = reference.wilcoxon(first, second)
    assert made.rank_test == pytest.approx(signed_rank.pvalue)


def test_a_failure_is_the_worst_that_can_happen_and_never_dropped():
    good, other = np.arange(8.0), np.arange(8.0) + np.linspace(0.5, 1.0, 8)
    whole = stats.compare(good, other)
    broken = stats.compare(np.where(np.arange(8) == 3, INF, good), other)
    assert (whole.wins, broken.wins, broken.losses, broken.failures) == (8, 7, 1, 1)
    assert math.isnan(broken.difference)
    assert math.isnan(broken.t_test)
    assert all(math.isnan(end) for end in broken.interval)
    # Largest rank against the other seven: W = 8 of 36.
    assert broken.rank_test == broken.p_value == pytest.approx(50 / 256)
    assert whole.rank_test == pytest.approx(2 / 256)


def test_swapping_the_two_turns_signs_and_keeps_p_values():
    first, second = [1.0, INF, 3.0, 4.5, 2.0], [2.0, 2.5, INF, 4.0, 3.0]
    one, two = stats.compare(first, second), stats.compare(second, first)
    assert (one.wins, one.losses, one.failures) == (two.losses, two.wins, two.reference_failures)
    assert one.rank_test == two.rank_test


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [([1.0, 2.0], [1.0, 2.0], 1.0), ([INF, INF], [INF, INF], 1.0), ([1.0] * 6, [2.0] * 6, 2 / 64)],
)
def test_no_spread_is_no_crash(first, second, p_value):
    assert stats.compare(first, second).p_value == pytest.approx(p_value)


@pytest.mark.parametrize("scores", [[], [1.0]])
def test_fewer_than_two_pairs_have_no_p_value(scores):
    assert math.isnan(stats.compare(scores, scores).p_value)


@pytest.mark.parametrize(
    ("first", "second"), [([1.0], [1.0, 2.0]), ([math.nan], [1.0]), ([1.0], [-INF])]
)
def test_what_cannot_be_paired_is_an_error(first, second):
    with pytest.raises(ValueError, match=r"seed|scores"):
        stats.compare(first, second)


def test_holm_is_the_table_worked_by_hand():
    # Sorted: .001·5, .010·4, .020·3, max(.060, .030·2), max(.060, .2·1).
    assert stats.holm([0.02, 0.001, 0.2, 0.03, 0.01]) == pytest.approx(
        [0.06, 0.005, 0.2, 0.06, 0.04]
    )
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_holm_does_not_count_tests_that_were_not_made():
    adjusted = stats.holm([0.01, math.nan, 0.04])
    assert adjusted[0] == pytest.approx(0.02)
    assert math.isnan(adjusted[1])
    assert adjusted[2] == pytest.approx(0.04)
    with pytest.raises(ValueError, match="between 0 and 1"):
        stats.holm([1.2])


def test_holm_keeps_the_family_wise_error():
    generator = np.random.default_rng(1)
    families = generator.uniform(size=(4000, 10))
    false = np.mean([min(stats.holm(family)) <= 0.05 for family in families.tolist()])
    unadjusted = (families.min(axis=1) <= 0.05).mean()
    assert 0.04 < false <= 0.06
    assert unadjusted > 0.35


def test_methods_that_are_the_same_differ_in_five_of_a_hundred_tests():
    generator = np.random.default_rng(2)
    pairs = generator.normal(size=(700, 2, 10)) + generator.normal(size=(700, 1, 10))
    p_values = np.array([stats.compare(*pair).t_test for pair in pairs])
    low, high = stats.proportion_interval(int((p_values <= 0.05).sum()), p_values.size)
    assert low < 0.05 < high
    assert reference.kstest(p_values, "uniform").pvalue > 0.01


def test_power_is_what_the_noncentral_t_says():
    generator = np.random.default_rng(3)
    differences = generator.normal(1.0, 1.0, (500, 10))
    found = np.mean([stats.compare(row, np.zeros(10)).t_test <= 0.05 for row in differences])
    critical = reference.t.ppf(0.975, 9)
    expected = reference.nct.sf(critical, 9, math.sqrt(10))
    assert found == pytest.approx(expected, abs=0.06)


def test_differences_that_are_equal_but_for_rounding_are_no_evidence():
    """One example more of 360 on every seed; in binary the differences are not quite equal."""
    counts = np.array([12, 13, 14, 11])
    first, second = counts / 360, (counts - 1) / 360
    assert np.ptp(first - second) > 0
    made = stats.compare(first, second)
    exact = stats.compare(counts, counts - 1)
    assert math.isnan(made.t_test)
    assert math.isnan(made.effect)
    assert made.p_value == exact.p_value == 0.125
    assert made.interval.low == made.interval.high == pytest.approx(1 / 360)
    # Nor is what should be zero a win.
    equal = stats.compare([0.1 + 0.2, 0.5, 1.0], [0.3, 0.5, 1.0])
    assert (equal.wins, equal.losses, equal.p_value) == (0, 0, 1.0)


def test_ties_of_shares_are_ties_in_the_rank_test():
    counts = np.array([[12, 12, 14, 10, 44, 36, 13], [11, 13, 13, 11, 42, 33, 14]])
    made, exact = stats.compare(*counts / 360), stats.compare(*counts)
    assert len(set(np.abs(counts[0] / 360 - counts[1] / 360))) > len({1, 2, 3})
    assert made.rank_test == exact.rank_test
    assert made.t_test == pytest.approx(exact.t_test)
