"""Ranks of methods over problems, and how far other seeds or problems would change them."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from research.stats.intervals import check_level, rounded

_RESAMPLES = 2000


class Ranks(NamedTuple):
    """Mean rank of each of E methods over the problems (1 is best), and its bootstrap."""

    per_problem: Float[np.ndarray, "W E"]
    mean: Float[np.ndarray, "E"]
    low: Float[np.ndarray, "E"]
    high: Float[np.ndarray, "E"]
    first: Float[np.ndarray, "E"]  # share of resamplings in which the method has the best mean rank


def rank_stability(
    scores: Float[np.ndarray, "W E R"],
    *,
    paired: bool = True,
    resample_problems: bool = True,
    level: float = 0.95,
    seed: int = 0,
) -> Ranks:
    """Rank the methods by mean score on each problem; bootstrap over runs and problems.

    Runs are resampled within each problem. Those on seeds that all methods share are resampled the
    same for all; independent studies for each method by itself.

    Args:
        scores: R runs of E methods on W problems, lower is better, infinity where a run failed; a
            method ranks behind all with fewer failures, whatever its other scores.
        paired: whether run r of one method has to do with run r of another.
        resample_problems: whether other problems could have been chosen; with one problem only the
            runs are resampled.
        level: coverage, between 0 and 1.
        seed: of the resampling.

    Returns:
        Ranks, with percentile intervals. A tie for the best mean rank is shared.

    Raises:
        ValueError: scores that are NaN, or an empty axis.

    Example:
        >>> scores = np.array([[[1.0, 1.1, 0.9], [2.0, 2.1, 1.9]]])
        >>> found = rank_stability(scores)
        >>> found.mean.tolist(), found.first.tolist()
        ([1.0, 2.0], [1.0, 0.0])
    """
    check_level(level)
    if scores.ndim != 3 or not scores.size or np.isnan(scores).any():
        raise ValueError(
            f"scores must be (problems, methods, seeds) without NaN, got shape {scores.shape} with "
            f"{int(np.isnan(scores).sum())} NaN"
        )
    problems, methods, runs = scores.shape
    rows = np.arange(methods)[:, None]
    scores = np.stack([_with_failures_last(problem) for problem in scores])
    ranked = lambda means: stats.rankdata(rounded(means), axis=1)  # noqa: E731 (equal means tie)
    generator = np.random.default_rng(seed)
    ranks = np.empty((problems, _RESAMPLES, methods))
    for problem in range(problems):
        drawn = generator.integers(0, runs, (_RESAMPLES, 1 if paired else methods, runs))
        ranks[problem] = ranked(scores[problem][rows, drawn].mean(axis=-1))
    chosen = np.tile(np.arange(problems), (_RESAMPLES, 1))
    if resample_problems:
        chosen = generator.integers(0, problems, chosen.shape)
    mean = ranks[chosen, np.arange(_RESAMPLES)[:, None]].mean(axis=1)
    best = np.isclose(mean, mean.min(axis=1, keepdims=True))
    tail = (1 - level) / 2
    low, high = np.quantile(mean, [tail, 1 - tail], axis=0)
    per_problem = ranked(scores.mean(axis=-1))
    first = (best / best.sum(axis=1, keepdims=True)).mean(axis=0)
    return Ranks(per_problem, per_problem.mean(axis=0), low, high, first)


def _with_failures_last(scores: Float[np.ndarray, "E R"]) -> Float[np.ndarray, "E R"]:
    """Failures as a score so high that one more of them in a mean outweighs all the rest."""
    known = scores[np.isfinite(scores)]
    spread = float(np.ptp(known)) if known.size else 0.0
    worst = float(known.max(initial=0.0)) + 2 * scores.shape[1] * (spread + 1)
    return np.where(np.isinf(scores), worst, scores)


def agreement(first: ArrayLike, second: ArrayLike) -> float:
    """Kendall's tau-b between two rankings or scorings; NaN for fewer than two or all equal.

    Infinite scores are ties with each other, behind all finite ones.

    Example:
        >>> agreement([1, 2, 3], [1, 2, 3]), agreement([1, 2, 3], [3, 2, 1])
        (1.0, -1.0)

    Source: Kendall, "A new measure of rank correlation", Biometrika 30 (1938).
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if one.size < 2 or (one == one[0]).all() or (two == two[0]).all():
        return math.nan
    found: Any = stats.kendalltau(stats.rankdata(one), stats.rankdata(two))
    return float(found.statistic)
