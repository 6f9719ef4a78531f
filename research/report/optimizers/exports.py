"""The CSV files of a comparison: cells, trainings, tests and costs."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research import stats
from research.report.optimizers.cells import Cell, Key, edges
from research.report.optimizers.costs import Cost
from research.report.optimizers.design import Design
from research.report.optimizers.outcomes import Outcome, SelfComparison
from research.report.optimizers.studies import as_times
from research.report.optimizers.summaries import Outcomes, median_steps
from research.report.rows import clean, final_score, quotient


def results(design: Design, outcomes: Outcomes) -> list[dict[str, Any]]:
    """A row per cell; empty where it was not run or has no value."""
    return [clean(_result(design, outcome)) for outcome in outcomes.values()]


def studies(design: Design, cells: Mapping[Key, Cell]) -> list[dict[str, Any]]:
    """A row per study that was begun: what its search found, and what became of it."""
    rows = []
    for cell in cells.values():
        if cell.state == "not run":
            continue
        winner = cell.winner
        row = {
            "workload": cell.workload,
            "entrant": cell.entrant,
            "horizon": cell.horizon,
            "study": cell.study,
            "set": cell.study // design.studies,
            "state": cell.state,
            "search_trials": len(cell.searches),
            "search_diverged": cell.search_diverged,
            "search_best": final_score(winner, "validation") if winner else None,
            "final_runs": len(cell.finals),
            "final_diverged": cell.final_diverged,
        }
        for which in ("validation", "test"):
            scores = list(cell.scores(which).values())
            row[f"{which}_mean"] = float(np.mean(scores)) if scores else None
        row |= {
            "target_reached": sum(
                there for _, there in cell.times(design.targets.get(cell.workload)).values()
            ),
            "hyperparameters": cell.hyperparameters,
            "at_edge": edges(cell, design),
        }
        rows.append(clean(row))
    return rows


def trials(cells: Mapping[Key, Cell]) -> list[dict[str, Any]]:
    """A row per training, search and final."""
    return [
        clean(
            {
                "workload": cell.workload,
                "entrant": cell.entrant,
                "horizon": cell.horizon,
                "study": cell.study,
                "phase": row["settings"]["phase"],
                "trial": row["settings"]["trial"],
                "seed": row["settings"]["seed"],
                "status": row["status"],
                "diverged_at": row["result"].get("diverged_at"),
                "validation_score": final_score(row, "validation"),
                "test_score": final_score(row, "test"),
                "hyperparameters": row["settings"]["hyperparameters"],
                "key": row["key"],
            }
        )
        for cell in cells.values()
        for row in (*cell.searches, *cell.finals)
    ]


def tests(
    design: Design, outcomes: Outcomes, same: Sequence[SelfComparison]
) -> list[dict[str, Any]]:
    """A row per comparison: entrants with the reference, then the reference with itself."""
    rows = [
        {"kind": "reference", "workload": o.studies.workload, "horizon": o.studies.horizon,
         "first": o.entrant, "second": design.reference, "score": o.which,
         **_comparison(o.comparison), "p_holm": o.adjusted}
        for o in outcomes.values() if o.comparison
    ]  # fmt: skip
    noun = "study" if design.studies == 1 else "set"
    rows += [
        {"kind": "a/a", "workload": item.workload, "horizon": item.horizon,
         "first": f"{design.reference}, {noun} {item.sets[1]}",
         "second": f"{design.reference}, {noun} {item.sets[0]}", "score": item.which,
         **_comparison(item.comparison), "p_holm": None}
        for item in same
    ]  # fmt: skip
    return [clean(row) for row in rows]


def costs(
    design: Design, outcomes: Outcomes, found: Mapping[tuple[str, str], Cost]
) -> list[dict[str, Any]]:
    """A row per workload and entrant that was timed: all that depends on the machine's speed."""
    rows = []
    for (workload, entrant), cost in sorted(found.items(), key=lambda item: _place(design, item)):
        reference = found.get((workload, design.reference or ""))
        unit = reference.seconds_per_step if reference else math.nan
        relative = quotient(cost.seconds_per_step, unit)
        outcome = outcomes.get((workload, entrant, design.longest(workload)))
        rows.append(
            clean(
                {
                    "workload": workload,
                    "entrant": entrant,
                    "seconds_per_step": cost.seconds_per_step,
                    "relative_to_reference": relative,
                    "state_bytes_per_parameter": cost.bytes_per_parameter,
                    "modes": " ".join(cost.modes),
                    "timed_steps": cost.steps,
                    "seconds_to_target_median": cost.seconds_per_step * median_steps(outcome)
                    if outcome
                    else None,
                    "seconds_ratio": outcome.ratio * relative if outcome else None,
                }
            )
        )
    return rows


def _place(design: Design, item: tuple[tuple[str, str], Cost]) -> tuple:
    (workload, entrant), _ = item
    return (
        design.workloads.index(workload) if workload in design.workloads else math.inf,
        design.entrants.index(entrant) if entrant in design.entrants else math.inf,
        workload,
        entrant,
    )


def _result(design: Design, outcome: Outcome) -> dict[str, Any]:
    cell, made = outcome.studies, outcome.comparison
    diverged = stats.proportion_interval(cell.search_diverged, len(cell.searches))
    best = [final_score(each.winner, "validation") for each in cell.cells if each.winner]
    row: dict[str, Any] = {
        "workload": cell.workload,
        "entrant": cell.entrant,
        "horizon": cell.horizon,
        "held_out": cell.workload in design.held_out,
        "state": cell.state,
        "unit": cell.unit,
        "units": outcome.scores.size,
        "units_failed": int(np.isinf(outcome.scores).sum()),
        "search_trials": len(cell.searches),
        "search_diverged": cell.search_diverged,
        "search_diverged_low": diverged.low,
        "search_diverged_high": diverged.high,
        "final_runs": len(cell.finals),
        "final_diverged": cell.final_diverged,
        "search_best": min(best, default=None),
    }
    for which in ("validation", "test"):
        scores = list(cell.values(which).values())
        usable = bool(scores) and all(map(math.isfinite, scores))
        mean, deviation = stats.mean_and_deviation(scores if usable else [])
        low, high = stats.mean_interval(scores if usable else [])
        row |= {f"{which}_mean": mean, f"{which}_deviation": deviation}
        row |= {f"{which}_low": low, f"{which}_high": high}
        row[f"{which}_seed_deviation"] = cell.seed_deviation(which)
    row |= {
        "compared_score": outcome.which if made else None,
        "difference": made.difference if made else None,
        "difference_low": made.interval.low if made else None,
        "difference_high": made.interval.high if made else None,
        "wins": made.wins if made else None,
        "pairs": made.pairs if made else None,
        "p_value": made.p_value if made else None,
        "p_holm": outcome.adjusted,
    }
    times = outcome.times
    evaluations = outcome.evaluations
    found = cell.times(design.targets.get(cell.workload))
    reached = stats.reached_interval(times) if times else stats.UNKNOWN
    median = stats.median_interval(times) if times else stats.UNKNOWN
    row |= {
        "target": design.targets.get(cell.workload),
        "target_reached": cell.runs_reached(design.targets.get(cell.workload)) if times else None,
        "target_reached_units": int(times.reached.sum()) if times else None,
        "target_reached_low": reached.low,
        "target_reached_high": reached.high,
        "steps_to_target_median": median_steps(outcome),
        "steps_to_target_median_low": median.low,
        "steps_to_target_median_high": median.high,
        "steps_to_target_restricted_mean": stats.restricted_mean(
            as_times(found, sorted(found)), cell.horizon
        )
        if found
        else None,
        "gradient_evaluations_per_step": cell.gradient_evaluations if cell.searches else None,
        "steps_ratio": outcome.ratio,
        "steps_ratio_low": outcome.ratio_interval.low,
        "steps_ratio_high": outcome.ratio_interval.high,
        "steps_ratio_bound": outcome.bound or None,
        "gradient_evaluations_ratio": outcome.ratio * evaluations,
        "log_rank_p": outcome.log_rank,
        "at_edge": _edges(design, cell.cells),
    }
    return row


def _edges(design: Design, cells: Sequence[Cell]) -> dict[str, str]:
    """Hyperparameters at an end of what was searched: which, and in how many studies if several."""
    marks = [mark for cell in cells for mark in edges(cell, design).items()]
    if len(cells) == 1:
        return dict(marks)
    told: dict[str, list[str]] = {}
    for (key, end), times in Counter(marks).items():
        told.setdefault(key, []).append(f"{end} in {times} of {len(cells)}")
    return {key: ", ".join(ends) for key, ends in told.items()}


def _comparison(made: stats.Comparison | None) -> dict[str, Any]:
    assert made is not None
    return {
        "pairs": made.pairs, "wins": made.wins, "losses": made.losses,
        "diverged": made.failures, "diverged_second": made.reference_failures,
        "difference": made.difference, "difference_low": made.interval.low,
        "difference_high": made.interval.high, "effect_size": made.effect,
        "p_t_test": made.t_test, "p_rank_test": made.rank_test, "p_value": made.p_value,
    }  # fmt: skip
