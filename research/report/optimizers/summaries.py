"""What all workloads together say: performance profiles, ranks, how well they agree."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from research import stats
from research.report.common import count, name
from research.report.optimizers.design import Design
from research.report.optimizers.outcomes import Outcome

Outcomes = Mapping[tuple[str, str, int], Outcome]


class Block(NamedTuple):
    """Workloads and entrants without a blank between them, each workload at one horizon."""

    workloads: list[str]
    entrants: list[str]
    outcomes: list[list[Outcome]]  # by workload, then entrant


class Profile(NamedTuple):
    """Steps to the target of entrants without a blank, as AlgoPerf scores them."""

    workloads: list[str]
    variants: list[str]  # held out: who fails one loses the workload that it varies
    entrants: list[str]
    ratios: Float[np.ndarray, "E W"]
    scores: Float[np.ndarray, "E"]


class Agreement(NamedTuple):
    """Kendall's tau between the rankings of the same entrants in two places."""

    kind: str  # "studies", "workloads", "horizons" or "held out"
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
    """Performance profile of median steps to the target; None without a workload with a target.

    A held-out variant beside the workload that it varies is no problem of its own: as in AlgoPerf,
    who does not reach its target, or takes over four times the fastest, loses that workload.
    """
    found = block(design, outcomes, [w for w in workloads if w in design.targets])
    if not found.workloads:
        return None
    times = np.array([[median_steps(outcome) for outcome in row] for row in found.outcomes]).T
    varied = {w: design.held_out[w] for w in found.workloads if w in design.held_out}
    variants = [w for w, of in varied.items() if of in found.workloads and of not in varied]
    bases = [w for w in found.workloads if w not in variants]
    column = {w: times[:, i] for i, w in enumerate(found.workloads)}
    kept = np.stack([column[w] for w in bases], axis=1)
    if variants:
        held_out = np.stack([column[w] for w in variants], axis=1)
        kept = stats.within_reach(kept, held_out, [bases.index(varied[w]) for w in variants])
    ratios = stats.time_ratios(kept)
    return Profile(bases, variants, found.entrants, ratios, stats.profile_scores(ratios))


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
    """Kendall's tau between studies, workloads, horizons of one, and with held-out workloads."""
    made = _between_studies(design, outcomes)
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


def _between_studies(design: Design, outcomes: Outcomes) -> list[Agreement]:
    """How far a search of one study says what that of another does: the mean over all pairs."""
    made = []
    for workload in design.workloads if design.studies > 1 else []:
        found = block(design, outcomes, [workload])
        if not found.workloads:
            continue
        ranked = np.array([list(o.studies.values(o.which).values()) for o in found.outcomes[0]])
        taus = [stats.agreement(*pair) for pair in itertools.combinations(ranked.T, 2)]
        tau = float(np.mean(taus))
        names = name(workload), f"mean of {count(len(taus), 'pair')}"
        made.append(Agreement("studies", names, len(found.entrants), tau))
    return made


def _tau(first: Sequence[float], second: Sequence[float]) -> float:
    # A cell that failed altogether is as bad as one whose final runs diverged.
    return stats.agreement(np.nan_to_num(first, nan=np.inf), np.nan_to_num(second, nan=np.inf))


def _means(found: Block) -> list[list[float]]:
    return [[outcome.mean for outcome in row] for row in found.outcomes]


def _places(means: Sequence[float]) -> np.ndarray:
    known = np.nan_to_num(np.asarray(means, dtype=float), nan=np.inf)
    return rankdata(known)


def _scores(found: Block) -> Float[np.ndarray, "W E R"] | None:
    """Values by the seeds or studies that all have; infinity for those that failed."""
    if len(found.entrants) < 2:
        return None
    values = [[row.studies.values(row.which) for row in rows] for rows in found.outcomes]
    every = [set(each) for rows in values for each in rows if each]
    keys = sorted(set.intersection(*every)) if every else []
    if not keys:
        return None
    return np.array([[[e.get(k, math.inf) for k in keys] for e in rows] for rows in values])
