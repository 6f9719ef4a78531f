"""Statements that are looked for in rows whose truth is known."""

import numpy as np
import pytest

from research.report.optimizers.known_truths import (
    TRUTHS,
    everywhere,
    finals,
    is_ordered,
    look_up,
    momentum_is_faster,
)

STEPS = [10, 20, 30, 40]


def row(workload, optimizer, seed, scores, *, status="finished", schedule="cosine", **settings):
    return {
        "status": status,
        "settings": {
            "workload": workload,
            "optimizer": optimizer,
            "schedule": schedule,
            "phase": "final",
            "study": 0,
            "steps": STEPS[-1],
            "seed": seed,
            **settings,
        },
        "result": {"steps": STEPS, "validation_score": scores},
    }


def runs(workload, optimizer, last, **settings):
    """One row a seed, falling to these last scores."""
    return [
        row(workload, optimizer, seed, [1.0, 0.9, 0.8, score], **settings)
        for seed, score in enumerate(last)
    ]


def look(statement, rows, target=0.5):
    workloads = {r["settings"]["workload"] for r in rows}
    return statement(finals(rows, dict.fromkeys(workloads, target)))


def test_order_is_decided_by_paired_differences():
    base = np.array([0.1, 0.3, 0.5, 0.7])  # seeds differ more than the optimizers do
    better, worse = runs("w", "a", base), runs("w", "b", base + np.array([0.02, 0.03, 0.02, 0.03]))
    statement = is_ordered("w", ("a", "b"))
    assert look(statement, better + worse).outcome == "holds"
    assert look(is_ordered("w", ("b", "a")), better + worse).outcome == "does not hold"
    unclear = runs("w", "b", base + np.array([0.02, -0.02, 0.03, -0.03]))
    assert look(statement, better + unclear).outcome == "undecided"
    assert look(statement, better).outcome == "not run"
    chain = is_ordered("w", ("a", "b", "c"))
    assert look(chain, better + worse + runs("w", "c", base - 0.5)).outcome == "does not hold"


def test_a_margin_allows_to_be_worse_by_so_much():
    base = np.array([0.1, 0.3, 0.5])
    rows = runs("w", "a", base + np.array([0.010, 0.011, 0.012])) + runs("w", "b", base)
    assert look(is_ordered("w", ("a", "b"), margin=0.02), rows).outcome == "holds"
    assert look(is_ordered("w", ("a", "b"), margin=0.001), rows).outcome == "does not hold"


def test_a_diverged_run_is_worse_than_any_that_finished():
    rows = runs("w", "a", [0.1, 0.2, 0.3])
    rows += runs("w", "b", [0.1, 0.2])
    rows.append(row("w", "b", 2, [1.0, None, None, None], status="diverged"))
    assert look(is_ordered("w", ("a", "b")), rows).outcome == "holds"
    assert look(is_ordered("w", ("b", "a")), rows).outcome == "does not hold"


def test_only_final_runs_of_the_compared_study_at_the_greatest_length_count():
    rows = runs("w", "a", [0.1, 0.2]) + runs("w", "b", [0.30, 0.41])
    noise = runs("w", "b", [0.0, 0.0], study=1) + runs("w", "b", [0.0, 0.0], phase="search")
    noise += runs("w", "b", [0.0, 0.0], steps=20)
    assert look(is_ordered("w", ("a", "b")), noise + rows + noise).outcome == "holds"


def test_momentum_is_as_many_times_as_fast_as_the_steps_say():
    fast = [row("q", "momentum", seed, [0.4, 0.3, 0.2, 0.1]) for seed in range(3)]
    slow = [row("q", "sgd", seed, [0.9, 0.8, 0.7, 0.5]) for seed in range(3)]
    finding = look(momentum_is_faster("q", 3.9), fast + slow)
    assert finding == ("holds", "4.0 times as fast (median of 3 seeds)")
    assert look(momentum_is_faster("q", 4.1), fast + slow).outcome == "does not hold"
    never = [row("q", "sgd", seed, [0.9, 0.9, 0.9, 0.9]) for seed in range(3)]
    assert "at least 4.0" in look(momentum_is_faster("q", 2), fast + never).evidence
    assert look(momentum_is_faster("q", 4.1), fast + never).outcome == "undecided"
    assert look(momentum_is_faster("q", 2), slow).outcome == "not run"
    fast[1]["result"]["validation_score"] = [0.9, 0.9, 0.9, 0.9]
    assert look(momentum_is_faster("q", 2), fast + slow).outcome == "does not hold"


def test_nowhere_behind_fails_on_one_workload_that_is_clear():
    rows = runs("one", "a", [0.1, 0.2, 0.3]) + runs("one", "b", [0.1, 0.2, 0.3])
    assert look(everywhere("a", "b"), rows).outcome == "holds"
    rows += runs("two", "a", [0.5, 0.6, 0.7]) + runs("two", "b", [0.1, 0.2, 0.3])
    assert look(everywhere("a", "b"), rows).outcome == "does not hold"
    assert look(everywhere("a", "c"), rows).outcome == "not run"


@pytest.mark.parametrize("rows", [[], runs("char_lm", "adamw", [1.0, 2.0])])
def test_every_truth_says_where_it_was_not_run(rows):
    found = look_up(finals(rows, {}))
    assert len(found) == len(TRUTHS)
    assert {finding.outcome for _, finding in found} == {"not run"}
