"""Comparisons of independent studies against scipy and counting, their level by simulation."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats as reference

from research import stats

INF = float("inf")


def test_p_value_and_interval_are_welchs():
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.0, 1.0, 5), generator.normal(0.3, 4.0, 7)
    made = stats.compare_independent(first, second)
    expected: Any = reference.ttest_ind(first, second, equal_var=False)
    assert made.t_test == made.p_value == pytest.approx(expected.pvalue)
    assert made.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    low, high = made.interval
    assert made.difference == pytest.approx(first.mean() - second.mean())
    assert low < made.difference < high
    assert made.pairs == 35
    assert made.wins == sum(a < b for a, b in itertools.product(first, second))


def test_a_failed_study_is_the_worst_and_never_dropped():
    whole = stats.compare_independent([1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0])
    made = stats.compare_independent([1.0, 2.0, 3.0, 4.0, INF], [6.0, 7.0, 8.0, 9.0, 10.0])
    assert (made.wins, made.losses, made.failures) == (20, 5, 1)
    assert math.isnan(made.difference)
    assert math.isnan(made.t_test)
    # 252 ways to part ten studies: one as far apart as the whole ones, to either side.
    assert whole.rank_test == pytest.approx(2 / 252)
    assert whole.t_test < made.rank_test == made.p_value < 1


def test_failures_are_ties_with_each_other_and_counted_exactly():
    first, second = [1.0, 2.0, INF, INF], [3.0, INF, INF, INF]
    ranks = reference.rankdata([*first, *second])
    sums = [sum(chosen) for chosen in itertools.combinations(ranks, 4)]
    far = abs(sum(ranks[:4]) - np.mean(sums))
    exact = np.mean([abs(found - np.mean(sums)) >= far - 1e-9 for found in sums])
    assert stats.compare_independent(first, second).rank_test == pytest.approx(exact)
    assert stats.compare_independent([INF] * 3, [INF] * 3).p_value == 1


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [([1.0, 1.0], [1.0, 1.0], 1.0), ([1.0] * 5, [2.0] * 5, 2 / 252)],
)
def test_no_spread_is_no_crash(first, second, p_value):
    made = stats.compare_independent(first, second)
    assert made.p_value == pytest.approx(p_value)
    assert made.interval == (made.difference, made.difference)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [])])
def test_fewer_than_two_studies_have_no_p_value(first, second):
    assert math.isnan(stats.compare_independent(first, second).p_value)


@pytest.mark.parametrize(("first", "second"), [([math.nan], [1.0]), ([1.0], [[1.0]]), ([-INF], [])])
def test_what_is_no_value_of_a_study_is_an_error(first, second):
    with pytest.raises(ValueError, match=r"values of studies|values must be"):
        stats.compare_independent(first, second)


def drawn(comparisons, *, studies, seeds, gain=0.0, search=1.0, seed=0.2, random=0):
    """Scores of two entrants: luck of the search, of seeds that both share, of seeds alone."""
    generator = np.random.default_rng(random)
    luck = generator.normal(0, search, (comparisons, 2, studies, 1))
    common = generator.normal(0, seed, (comparisons, 1, studies, seeds))
    own = generator.normal(0, seed, (comparisons, 2, studies, seeds))
    scores = luck + common + own
    scores[:, 0] -= gain
    return scores


def rejected(scores):
    """Share of comparisons that Welch's test of the studies' means rejects at 5 %."""
    made = [stats.compare_independent(*pair) for pair in scores.mean(axis=-1)]
    return np.mean([each.p_value <= 0.05 for each in made])


def test_studies_hold_the_level_that_paired_seeds_do_not():
    # What is compared has no difference at all: only searches that came out otherwise.
    assert 0.02 < rejected(drawn(800, studies=5, seeds=2)) < 0.07
    plateau = drawn(800, studies=5, seeds=2, search=0.1)
    plateau += 3.0 * (np.random.default_rng(1).random((800, 2, 5, 1)) < 0.3)  # searches that failed
    assert rejected(plateau) < 0.07
    one = drawn(300, studies=1, seeds=10)[:, :, 0]
    by_seed = np.mean([stats.compare(*pair).p_value <= 0.05 for pair in one])
    assert by_seed > 0.7


def test_seeds_that_studies_share_make_the_test_reject_less_not_more():
    scores = drawn(800, studies=5, seeds=2, search=0.1, seed=1.0)
    assert rejected(scores) <= 0.05


def test_a_difference_beyond_the_luck_of_searches_is_found():
    found = rejected(drawn(400, studies=5, seeds=2, gain=3.0))
    # Power of the t test of two times five values, deviation of a study's mean around 1.04.
    freedom, lead = 8, 3.0 / (math.sqrt(1 + 2 * 0.2**2 / 2) * math.sqrt(2 / 5))
    critical = reference.t.ppf(0.975, freedom)
    assert found == pytest.approx(reference.nct.sf(critical, freedom, lead), abs=0.06)
    assert found > 0.9


def test_the_ratio_of_times_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(4)
    logs = generator.normal(5, 0.4, (500, 2, 5))
    logs[:, 0] -= math.log(2)
    covered = 0
    for first, second in np.exp(logs):
        one, other = (stats.times(steps, [True] * 5) for steps in (first, second))
        _, (low, high) = stats.independent_time_ratio(one, other, 1e6)
        covered += low <= 0.5 <= high
    assert 0.92 < covered / 500 < 0.98


def test_a_time_beyond_the_horizon_counts_with_it():
    late = stats.times([100, 100], [False, False])
    fast = stats.times([25, 25], [True, True])
    ratio, interval = stats.independent_time_ratio(fast, late, 100)
    assert (ratio, *interval) == pytest.approx((0.25, 0.25, 0.25))
    with pytest.raises(ValueError, match="waited for"):
        stats.independent_time_ratio(fast, late, 200)


def test_values_that_are_equal_but_for_rounding_have_no_spread():
    first = np.array([0.3 - 0.2, 0.4 - 0.3, 0.1])
    assert np.ptp(first) > 0
    p_value, interval = stats.welch(first, np.array([0.2, 0.2]))
    assert math.isnan(p_value)
    assert interval.low == interval.high == pytest.approx(-0.1)
    made = stats.compare_independent(first, [0.1, 0.1, 0.1])
    assert (made.wins, made.losses, made.p_value) == (0, 0, 1.0)
