"""The best of k against every draw, against closed forms, and the coverage of its interval."""

from itertools import combinations

import numpy as np
import pytest

from research import stats

SCORES = [0.3, 2.0, 0.7, 5.0, 0.3, 1.1, 9.0]


@pytest.mark.parametrize("k", range(1, 8))
def test_it_is_the_mean_over_every_draw(k):
    draws = [min(draw) for draw in combinations(SCORES, k)]
    assert stats.expected_best(SCORES, k) == pytest.approx(np.mean(draws), rel=1e-12)


def test_of_the_numbers_one_to_n_it_is_n_plus_one_over_k_plus_one():
    for n, k in [(64, 16), (1000, 250), (5000, 1250)]:
        found = stats.expected_best(np.arange(1, n + 1), k)
        assert found == pytest.approx((n + 1) / (k + 1), rel=1e-9)


def test_the_curve_ends_at_a_quarter_and_falls():
    curve = stats.best_of(np.random.default_rng(0).normal(size=64))
    assert curve.trials.tolist() == list(range(1, 17))
    assert (np.diff(curve.expected) < 0).all()
    assert (curve.low <= curve.expected).all()
    assert (curve.expected <= curve.high).all()


def test_three_trials_have_no_curve():
    assert stats.best_of([1.0, 2.0, 3.0]).trials.size == 0


def test_the_interval_covers_about_what_it_says_at_small_k():
    generator = np.random.default_rng(1)
    truth = 1 / 6  # expected minimum of five uniform numbers
    covered = 0
    for trial in range(100):
        curve = stats.best_of(generator.uniform(size=64), seed=trial)
        covered += curve.low[4] <= truth <= curve.high[4]
    assert 0.85 <= covered / 100 <= 0.99


@pytest.mark.parametrize("k", [0, 8])
def test_k_out_of_range_is_an_error(k):
    with pytest.raises(ValueError, match=f"number of scores, 7; received {k}"):
        stats.expected_best(SCORES, k)
