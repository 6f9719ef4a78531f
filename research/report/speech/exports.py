"""The CSV files of a study: systems, trainings, searches, costs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.report.rows import clean, final_score, quotient
from research.report.speech.costs import Cost
from research.report.speech.design import Design, System
from research.report.speech.details import (
    DECODERS,
    DIAGNOSTICS,
    KINDS,
    counts_of,
    decoders_of,
    diagnostic_of,
    errors_of,
)
from research.report.speech.outcomes import Outcome
from research.report.speech.trained import Search
from research.stats import UNKNOWN, error_rate


def results(design: Design, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row per system; empty where it was not run or has no value."""
    words = any(decoders_of(r, words=True) for o in outcomes for r in o.trained.finished.values())
    return [clean(_result(design, outcome, words)) for outcome in outcomes]


def trainings(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row per final training."""
    return [
        clean(_training(outcome.system, pair, row))
        for outcome in outcomes
        for pair, row in outcome.trained.finals.items()
    ]


def searches(design: Design, found: Mapping[tuple[System, str], Search]) -> list[dict[str, Any]]:
    """A row per search trial."""
    rows = []
    for search in found.values():
        best = search.winner
        for row in search.trials:
            rows.append(
                clean(
                    {
                        **search.system._asdict(),
                        "fold": search.fold,
                        "validator": search.validator,
                        "trial": row["settings"]["trial"],
                        "status": row["status"],
                        "diverged_at": row["result"].get("diverged_at"),
                        "validation_score": final_score(row, "validation"),
                        "chosen": row is best,
                        "at_edge": search.edges(design) if row is best else {},
                        "hyperparameters": row["settings"]["hyperparameters"],
                        "key": row["key"],
                    }
                )
            )
    return rows


def costs(design: Design, found: Mapping[System, Cost]) -> list[dict[str, Any]]:
    """A row per system that was timed: all that depends on the machine's speed."""
    rows = []
    for system, cost in found.items():
        baseline = design.baseline(system)
        other = found.get(baseline) if baseline else None
        unit = other.seconds_per_step if other else math.nan
        steps = design.steps_of.get(system.objective)
        rows.append(
            clean(
                {
                    **system._asdict(),
                    "seconds_per_step": cost.seconds_per_step,
                    "relative_to_reference": quotient(cost.seconds_per_step, unit),
                    "seconds_per_training": cost.seconds_per_step * (steps or math.nan),
                    "timed_steps": cost.steps,
                    "recognition_seconds_per_hour_of_audio": cost.hour,
                    "recognitions": cost.recognitions,
                }
            )
        )
    return rows


def _result(design: Design, outcome: Outcome, words: bool) -> dict[str, Any]:
    item, rate, difference = outcome.trained, outcome.rate, outcome.difference
    strings, over, seeds = (
        (rate.strings, rate.trainings, rate.seeds) if rate else (UNKNOWN, UNKNOWN, UNKNOWN)
    )
    finished = item.finished.values()
    sizes = {result["details"]["parameters"] for result in finished}
    totals = np.zeros(4, np.int64)
    for result in finished:
        totals += counts_of(result).sum(axis=0)
    steps, views = (of.get(outcome.system.objective) for of in (design.steps_of, design.views))
    row: dict[str, Any] = {
        **outcome.system._asdict(),
        "state": item.state,
        "speakers": len({fold for fold, _ in item.finished}),
        "trainings": len(item.finals),
        "planned": item.planned or None,
        "diverged": item.diverged,
        "error_rate": rate.value if rate else None,
        "strings_low": strings.low, "strings_high": strings.high,
        "trainings_low": over.low, "trainings_high": over.high,
        "seeds_low": seeds.low, "seeds_high": seeds.high,
        **{f"{kind}_rate": share for kind, share in outcome.shares.items()},
        **{
            kind: int(totals[position]) if len(item.finished) else None
            for position, kind in enumerate((*KINDS, "labels"))
        },
        "validation_error": item.average(
            {p: final_score(row, "validation") for p, row in item.finals.items()}
        ),
        "difference": difference.value if difference else None,
        "difference_low": difference.interval.low if difference else None,
        "difference_high": difference.interval.high if difference else None,
        "difference_strings_low": difference.strings.low if difference else None,
        "difference_strings_high": difference.strings.high if difference else None,
        "difference_t_low": difference.comparison.interval.low if difference else None,
        "difference_t_high": difference.comparison.interval.high if difference else None,
        "pairs": difference.pairs if difference else None,
        "wins": difference.comparison.wins if difference else None,
        "p_value": difference.p_value if difference else None,
        "p_t_test": difference.comparison.t_test if difference else None,
        "p_holm": difference.adjusted if difference else None,
    }  # fmt: skip
    row |= {f"{decoder}_error_rate": outcome.decoded(decoder) for decoder in DECODERS}
    if words:
        row |= {
            f"{decoder}_word_error_rate": outcome.decoded(decoder, True) for decoder in DECODERS
        }
    for key in DIAGNOSTICS:
        row[key] = diagnostic_mean(outcome, key)
    return row | {
        "steps": steps,
        "views": views,
        "encoder_passes": steps * views if steps and views else None,
        "parameters": sizes.pop() if len(sizes) == 1 else None,
    }


def diagnostic_mean(outcome: Outcome, key: str) -> float:
    """Mean of a diagnostic over speakers; NaN unless every finished training has it."""
    values = {p: diagnostic_of(r, key) for p, r in outcome.trained.finished.items()}
    return outcome.trained.average(values)


def _training(system: System, pair: tuple[str, int], row: Mapping[str, Any]) -> dict[str, Any]:
    fold, seed = pair
    made: dict[str, Any] = {
        **system._asdict(), "fold": fold, "seed": seed, "status": row["status"],
        "diverged_at": row["result"].get("diverged_at"),
        "validation_score": final_score(row, "validation"),
    }  # fmt: skip
    result = row["result"] if row["status"] == "finished" else None
    counts = counts_of(result).sum(axis=0) if result else None
    for position, kind in enumerate((*KINDS, "labels")):
        made[kind] = int(counts[position]) if counts is not None else None
    made["strings"] = len(counts_of(result)) if result else None
    for decoder in DECODERS:
        made[f"{decoder}_error_rate"] = (
            error_rate([errors_of(result, decoder)])
            if result and decoder in decoders_of(result)
            else None
        )
    for key in DIAGNOSTICS:
        made[key] = diagnostic_of(result, key) if result else None
    return made | {"hyperparameters": row["settings"]["hyperparameters"], "key": row["key"]}
