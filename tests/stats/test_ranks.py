"""Ranks that are certain, ranks that are chance, and agreement between them."""

import math

import numpy as np
import pytest

from research import stats

INF = float("inf")


def test_methods_far_apart_keep_their_ranks():
    noise = np.random.default_rng(0).normal(0, 0.01, (3, 4, 10))
    found = stats.rank_stability(noise + np.array([3.0, 1.0, 4.0, 2.0])[None, :, None])
    assert found.mean.tolist() == found.low.tolist() == found.high.tolist() == [3, 1, 4, 2]
    assert found.first.tolist() == [0, 1, 0, 0]
    assert found.per_problem.shape == (3, 4)


def test_equal_methods_share_the_first_place():
    scores = np.random.default_rng(1).normal(size=(30, 3, 10))
    found = stats.rank_stability(scores)
    assert found.first.sum() == pytest.approx(1.0)
    assert (found.low < 2).all()
    assert (found.high > 2).all()


def test_problems_that_disagree_widen_the_ranks():
    scores = np.array([[[1.0], [2.0]], [[2.0], [1.0]]])
    fixed = stats.rank_stability(scores, resample_problems=False)
    assert fixed.low.tolist() == fixed.high.tolist() == [1.5, 1.5]
    free = stats.rank_stability(scores)
    assert free.low.tolist() == [1.0, 1.0]
    assert free.high.tolist() == [2.0, 2.0]
    assert free.first == pytest.approx([0.5, 0.5], abs=0.05)


def test_a_failure_ranks_last():
    scores = np.array([[[1.0, INF, 1.0], [5.0, 5.0, 5.0], [6.0, 6.0, 6.0]]])
    assert stats.rank_stability(scores).per_problem.tolist() == [[3.0, 1.0, 2.0]]
    more = np.array([[[1.0, INF, 1.0], [0.0, INF, INF], [INF, INF, INF], [9.0, 9.0, 9.0]]])
    assert stats.rank_stability(more).per_problem.tolist() == [[2.0, 3.0, 4.0, 1.0]]


@pytest.mark.parametrize(
    "scores", [np.zeros((0, 2, 3)), np.zeros((2, 3)), np.full((1, 2, 3), np.nan)]
)
def test_scores_without_a_rank_are_an_error(scores):
    with pytest.raises(ValueError, match="problems, methods, seeds"):
        stats.rank_stability(scores)


def test_kendalls_tau_by_counting_pairs():
    # Of the six pairs five agree.
    assert stats.agreement([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(4 / 6)
    assert stats.agreement([1, 2, INF, INF], [1, 2, 3, 3]) == pytest.approx(1.0)
    assert math.isnan(stats.agreement([1.0], [2.0]))
    assert math.isnan(stats.agreement([1.0, 1.0], [1.0, 2.0]))


def test_independent_studies_are_resampled_for_each_method_by_itself():
    # Two methods that differ by the same in every run: certain on shared seeds, not otherwise.
    runs = np.random.default_rng(5).normal(size=10)
    scores = np.stack([runs, runs + 0.1])[None]
    assert stats.rank_stability(scores).first.tolist() == [1.0, 0.0]
    apart = stats.rank_stability(scores, paired=False)
    assert 0.4 < apart.first[0] < 0.8
    assert apart.per_problem.tolist() == [[1.0, 2.0]]


def test_equal_means_tie_though_they_were_added_in_another_order():
    scores = np.array([[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]]])
    assert len(set(scores.mean(axis=-1).ravel())) == 2
    assert stats.rank_stability(scores).per_problem.tolist() == [[1.5, 1.5]]
