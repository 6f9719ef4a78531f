"""Censored times against a worked table, closed forms and simulation."""

import math

import numpy as np
import pytest

from research import stats

# Freireich et al. (1963), weeks in remission under 6-MP; the Kaplan-Meier table is in every book.
WEEKS = [6, 6, 6, 7, 10, 13, 16, 22, 23, 6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
ENDED = [True] * 9 + [False] * 12
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]


def test_the_leukaemia_table():
    curve = stats.reached_curve(stats.times(WEEKS, ENDED))
    share = dict(zip(curve.steps.tolist(), curve.share.tolist(), strict=True))
    table = {6: 0.857, 7: 0.807, 10: 0.753, 13: 0.690, 16: 0.627, 22: 0.538, 23: 0.448}
    assert {week: round(1 - share[week], 3) for week in table} == table
    assert stats.median_time(stats.times(WEEKS, ENDED)) == 23
    # Chi-square 16.79 with one degree of freedom.
    p_value = stats.log_rank(stats.times(WEEKS, ENDED), stats.times(PLACEBO, [True] * 21))
    assert p_value == pytest.approx(4.17e-5, rel=0.01)


def test_the_interval_of_the_median_covers_it_and_may_have_no_end():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        steps = generator.exponential(100, 20)
        found = stats.times(np.minimum(steps, 150), steps < 150)
        low, high = stats.median_interval(found)
        covered += low <= 100 * math.log(2) <= high
    assert 180 <= covered <= 199
    rarely = stats.times([10, *[40] * 6], [True, *[False] * 6])
    assert stats.median_interval(rarely).high == math.inf
    assert stats.median_interval(stats.times([10] * 6, [True] * 6)) == (10, 10)
    assert math.isnan(stats.median_interval(stats.times([10], [True])).low)


def test_without_censoring_the_curve_is_the_share_that_has_reached():
    steps = np.array([5.0, 1.0, 4.0, 2.0])
    curve = stats.reached_curve(stats.times(steps, [True] * 4))
    assert curve.share == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert stats.restricted_mean(stats.times(steps, [True] * 4), 100) == pytest.approx(3.0)


def test_the_restricted_mean_is_the_area_above_the_curve():
    steps = np.array([10.0, 20.0, 35.0, 40.0, 40.0])
    found = stats.times(steps, [True, True, True, False, False])
    curve = stats.reached_curve(found)
    edges = np.concatenate([[0.0], curve.steps])
    survival = np.concatenate([[1.0], 1 - curve.share[:-1]])
    assert stats.restricted_mean(found, 40) == pytest.approx((np.diff(edges) * survival).sum())


def test_nobody_and_everybody():
    never = stats.times([40, 40, 40], [False] * 3)
    assert stats.median_time(never) == math.inf
    assert stats.reached_curve(never).share.tolist() == [0.0]
    assert math.isnan(stats.log_rank(never, never))
    assert stats.reached_interval(never).low == 0
    assert stats.reached_interval(never).high == pytest.approx(1 - 0.025 ** (1 / 3))


def test_a_ratio_of_two_is_found_and_its_interval_covers_it():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(40):
        seed_effect = generator.normal(1.0, 0.1, 12)
        slow = stats.times(200 * seed_effect * generator.normal(1, 0.05, 12), [True] * 12)
        fast = stats.times(100 * seed_effect * generator.normal(1, 0.05, 12), [True] * 12)
        ratio, (low, high) = stats.time_ratio(fast, slow, 1000, seed=trial)
        covered += low <= 0.5 <= high
        assert 0.4 < ratio < 0.6
    assert covered >= 32


def test_seeds_are_resampled_in_pairs():
    steps = np.array([40.0, 80.0, 160.0, 320.0, 640.0, 90.0])
    nearly_half = steps * [0.5, 0.52, 0.49, 0.5, 0.51, 0.5]
    found = stats.times(nearly_half, [True] * 6), stats.times(steps, [True] * 6)
    _, (low, high) = stats.time_ratio(*found, 1000)
    assert 0.48 < low < high < 0.53


def test_a_run_that_never_reached_counts_with_the_horizon():
    method = stats.times([100, 400], [True, False])
    reference = stats.times([100, 100], [True, True])
    ratio, _ = stats.time_ratio(method, reference, 400)
    assert ratio == pytest.approx(2.5)


def test_equal_ratios_are_a_point_and_one_seed_has_no_interval():
    one, two = stats.times([10, 20], [True, True]), stats.times([20, 40], [True, True])
    assert stats.time_ratio(one, two, 100) == (0.5, (0.5, 0.5))
    single = stats.times([10], [True])
    ratio, interval = stats.time_ratio(single, single, 100)
    assert ratio == 1
    assert math.isnan(interval.low)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.times([1.0], [True, False]), "every run"),
        (lambda: stats.times([0.0], [True]), "positive"),
        (lambda: stats.times([math.inf], [False]), "positive"),
        (lambda: stats.restricted_mean(stats.times([10], [False]), 20), "given up at 10"),
        (lambda: stats.reached_curve(stats.times([], [])), "at least one run"),
        (
            lambda: stats.time_ratio(stats.times([1], [True]), stats.times([1, 2], [True] * 2), 9),
            "same seeds",
        ),
    ],
)
def test_what_cannot_be_computed_says_why(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_few_runs_have_no_interval_of_the_median():
    """All of five lie on one side of the median once in sixteen times."""
    for count, known in ((2, False), (5, False), (6, True)):
        found = stats.median_interval(stats.times([*range(10, 10 + count)], [True] * count))
        assert math.isfinite(found.low) is math.isfinite(found.high) is known
    assert stats.median_interval(stats.times([10, 20], [True] * 2), level=0.5) == (10, 20)


def test_a_ratio_that_nothing_bounds_is_infinite():
    slow, fast = stats.times([1, 2000], [True] * 2), stats.times([1, 1], [True] * 2)
    ratio, (low, high) = stats.independent_time_ratio(slow, fast, 2000, level=0.999)
    assert (low, high) == (0.0, math.inf)
    assert ratio == pytest.approx(math.sqrt(2000))
