"""What all workloads together say: performance profiles, ranks, how well they agree."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from research import stats
from research.report.common import name
from research.report.optimizers.design import Design
from research.report.optimizers.outcomes import Outcome

Outcomes = Mapping[tuple[str, str, int], Outcome]


class Block(NamedTuple):
    """Workloads and entrants without a blank between them, each workload at one horizon."""

    workloads: list[str]
    entrants: list[str]
    outcomes: list[list[Outcome]]  # by workload, then entrant


class Profile(NamedTuple):
    """Steps to the target of a block, as AlgoPerf scores them."""

    block: Block
    ratios: Float[np.ndarray, "E W"]
    scores: Float[np.ndarray, "E"]


class Agreement(NamedTuple):
    """Kendall's tau between the rankings of the same entrants in two places."""

    kind: str  # "workloads", "horizons" or "held out"
    between: tuple[str, str]
    entrants: int
    tau: float


def block(
    design: Design, outcomes: Outcomes, workloads: Sequence[str],
    horizon: Callable[[str], int] | None = None,
) -> Block:  # fmt: skip
    """The largest comparison without blanks: entrants with an outcome on every workload in it.

    A workload takes part where at least half of the entrants that have any outcome have one there.
    """
    at = horizon or design.longest

    def done(workload: str, entrant: str) -> bool:
        outcome = outcomes.get((workload, entrant, at(workload)))
        return outcome is not None and outcome.studies.state in ("complete", "failed")

    begun = [e for e in design.entrants if any(done(w, e) for w in workloads)]
    chosen = [w for w in workloads if 2 * sum(done(w, e) for e in begun) >= max(1, len(begun))]
    entrants = [e for e in begun if chosen and all(done(w, e) for w in chosen)]
    made = [[outcomes[w, e, at(w)] for e in entrants] for w in chosen]
    return Block(chosen if entrants else [], entrants, made if entrants else [])


def profile(design: Design, outcomes: Outcomes, workloads: Sequence[str]) -> Profile | None:
    """Performance profile of median steps to the target; None without a workload with a target."""
    found = block(design, outcomes, [w for w in workloads if w in design.targets])
    if not found.workloads:
        return None
    times = np.array([[median_steps(outcome) for outcome in row] for row in found.outcomes]).T
    ratios = stats.time_ratios(times)
    return Profile(found, ratios, stats.profile_scores(ratios))


def median_steps(outcome: Outcome) -> float:
    """Median steps to the target, infinity where fewer than half (runs, studies) reach it."""
    return math.inf if outcome.times is None else stats.median_time(outcome.times)


def ranks(found: Block) -> stats.Ranks | None:
    """Ranks by mean final score; None for fewer than two entrants or no shared seed."""
    scores = _scores(found)
    if scores is None:
        return None
    paired = all(row.studies.unit == "seed" for rows in found.outcomes for row in rows)
    return stats.rank_stability(scores, paired=paired)


def agreements(design: Design, outcomes: Outcomes) -> list[Agreement]:
    """Kendall's tau between workloads, between horizons of one, and with held-out workloads."""
    made = []
    for i, one in enumerate(design.workloads):
        for two in design.workloads[i + 1 :]:
            found = block(design, outcomes, [one, two])
            if len(found.workloads) == 2:
                tau = _tau(*_means(found))
                made.append(
                    Agreement("workloads", (name(one), name(two)), len(found.entrants), tau)
                )
    for workload in design.workloads:
        *shorter, longest = design.horizons[workload] or [0]
        for steps in shorter:
            first = block(design, outcomes, [workload], lambda _, steps=steps: steps)
            second = block(design, outcomes, [workload])
            both = [e for e in first.entrants if e in second.entrants]
            if not both:
                continue
            pair = [
                [row.mean for entrant, row in zip(b.entrants, b.outcomes[0], strict=True)
                 if entrant in both]
                for b in (first, second)
            ]  # fmt: skip
            names = (f"{name(workload)}, {steps:,} steps", f"{longest:,} steps")
            made.append(Agreement("horizons", names, len(both), _tau(*pair)))
    base = [w for w in design.workloads if w not in design.held_out]
    known = block(design, outcomes, design.workloads)
    inside = [i for i, w in enumerate(known.workloads) if w in base]
    outside = [i for i, w in enumerate(known.workloads) if w not in base]
    if inside and outside:
        places = np.array([_places(row) for row in _means(known)])
        tau = stats.agreement(places[inside].mean(axis=0), places[outside].mean(axis=0))
        names = "the others", "held-out workloads"
        made.append(Agreement("held out", names, len(known.entrants), tau))
    return [item for item in made if math.isfinite(item.tau)]


def _tau(first: Sequence[float], second: Sequence[float]) -> float:
    # A cell that failed altogether is as bad as one whose final runs diverged.
    return stats.agreement(np.nan_to_num(first, nan=np.inf), np.nan_to_num(second, nan=np.inf))


def _means(found: Block) -> list[list[float]]:
    return [[outcome.mean for outcome in row] for row in found.outcomes]


def _places(means: Sequence[float]) -> np.ndarray:
    known = np.nan_to_num(np.asarray(means, dtype=float), nan=np.inf)
    return rankdata(known)


def _scores(found: Block) -> Float[np.ndarray, "W E R"] | None:
    """Final scores on the seeds that all have; infinity for a cell that failed."""
    if len(found.entrants) < 2:
        return None
    every = [
        row.cell.scores(row.which) for rows in found.outcomes for row in rows if row.cell.finals
    ]
    seeds = sorted(set.intersection(*(set(scores) for scores in every))) if every else []
    if not seeds:
        return None
    return np.array(
        [
            [
                [row.cell.scores(row.which).get(seed, math.inf) for seed in seeds]
                if row.cell.finals
                else [math.inf] * len(seeds)
                for row in rows
            ]
            for rows in found.outcomes
        ]
    )
