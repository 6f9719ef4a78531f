"""Performance profiles: on what share of problems a method is within a factor of the fastest."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# AlgoPerf integrates to four times the fastest, by the trapezoidal rule over this many points.
LIMIT = 4.0
POINTS = 100


def time_ratios(times: Float[np.ndarray, "S W"]) -> Float[np.ndarray, "S W"]:
    """Times over the shortest on each problem; infinity beyond the limit of four and where never.

    Args:
        times: of S methods on W problems; infinity where the target was not reached, NaN (not run)
            counts as that.

    Returns:
        The ratios; a problem that nobody solved has infinity throughout.

    Example:
        >>> time_ratios(np.array([[10.0, np.inf], [25.0, 3.0], [41.0, 9.0]]))
        array([[1. , inf],
               [2.5, 1. ],
               [inf, 3. ]])
    """
    known = np.where(np.isnan(times), np.inf, times)
    fastest = known.min(axis=0, initial=np.inf)
    solved = np.isfinite(known) & (known <= LIMIT * fastest)
    return np.divide(known, fastest, out=np.full(known.shape, np.inf), where=solved)


def within_reach(
    times: Float[np.ndarray, "S W"],
    variants: Float[np.ndarray, "S V"],
    base_of: Sequence[int],
) -> Float[np.ndarray, "S W"]:
    """Times with AlgoPerf's rule for held-out variants: who fails the variant fails its base.

    A variant's time counts only where the base was reached. A method that does not reach a variant,
    or takes more than four times as long as the fastest on it, loses the base problem too.

    Args:
        times: of S methods on W base problems, infinity where the target was not reached.
        variants: on V held-out variants.
        base_of: the base problem of each variant, by its column.

    Returns:
        (S, W) times, more of them infinite.

    Example:
        >>> within_reach(np.array([[10.0], [20.0]]), np.array([[np.inf], [5.0]]), [0])
        array([[inf],
               [20.]])
    """
    bases = list(base_of)
    reached = np.where(np.isfinite(times[:, bases]), variants, np.inf)
    solved = np.isfinite(time_ratios(reached))
    kept = np.where(np.isfinite(time_ratios(times)), times, np.inf)
    for column, base in enumerate(bases):
        kept[~solved[:, column], base] = np.inf
    return kept


def performance_profile(
    ratios: Float[np.ndarray, "S W"], factors: Float[np.ndarray, "T"]
) -> Float[np.ndarray, "S T"]:
    """Share of problems solved within each factor of the fastest method.

    rho(s, tau) = #{w: ratio(s, w) ≤ tau} / W

    Args:
        ratios: of S methods on W problems, as `time_ratios` gives them.
        factors: tau, from 1.

    Example:
        >>> performance_profile(np.array([[1.0, 3.0], [2.0, np.inf]]), np.array([1.0, 2.0, 3.0]))
        array([[0.5, 0.5, 1. ],
               [0. , 0.5, 0.5]])

    Source: Dolan and Moré, "Benchmarking optimization software with performance profiles",
    Mathematical Programming 91 (2002).
    """
    within = np.asarray(ratios)[:, :, None] <= np.asarray(factors)[None, None, :]
    return within.mean(axis=1)


def profile_scores(ratios: Float[np.ndarray, "S W"]) -> Float[np.ndarray, "S"]:
    """AlgoPerf's benchmark score: the mean height of the profile for factors from 1 to 4.

    By the trapezoidal rule over 100 points, as AlgoPerf does it; the exact integral differs by up
    to 0.002. A score depends on who takes part: the fastest of them sets the unit.

    Example:
        >>> profile_scores(np.array([[1.0, 1.0], [np.inf, np.inf]])).tolist()
        [1.0, 0.0]

    Source: Dahl et al., "Benchmarking neural network training algorithms" (2023),
    https://arxiv.org/abs/2306.07179.
    """
    factors = np.linspace(1.0, LIMIT, POINTS)
    return np.trapezoid(performance_profile(ratios, factors), factors, axis=1) / (LIMIT - 1)
