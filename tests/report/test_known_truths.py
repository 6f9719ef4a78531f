"""Statements that are looked for in rows whose truth is known."""

from pathlib import Path

import numpy as np
import pytest

from research.report.optimizers.cells import read_cells
from research.report.optimizers.design import read_design
from research.report.optimizers.known_truths import (
    TRUTHS,
    everywhere,
    finals,
    is_ordered,
    look_up,
    momentum_is_faster,
)
from research.report.optimizers.studies import read_studies
from research.runlog import Records

STEPS = [10, 20, 30, 40]


def row(workload, optimizer, seed, scores, *, status="finished", schedule="cosine", **settings):
    return {
        "key": "0123456789abcdef",
        "status": status,
        "settings": {
            "workload": workload,
            "optimizer": optimizer,
            "schedule": schedule,
            "phase": "final",
            "study": 0,
            "steps": STEPS[-1],
            "seed": seed,
            "trial": 0,
            "hyperparameters": {},
            **settings,
        },
        "result": {"steps": STEPS, "validation_score": scores, "validation_loss": scores},
    }


def runs(workload, optimizer, last, **settings):
    """One row a seed, falling to these last scores."""
    return [
        row(workload, optimizer, seed, [1.0, 0.9, 0.8, score], **settings)
        for seed, score in enumerate(last)
    ]


def searched(workload, optimizer, study, *, status):
    """The one trial of a search."""
    scores = [None] * len(STEPS) if status == "diverged" else [1.0] * len(STEPS)
    return row(workload, optimizer, 99, scores, status=status, study=study, phase="search")


def studied(workload, optimizer, last):
    """Studies of two seeds each, on this mean; None for one whose search diverged."""
    rows = []
    for study, score in enumerate(last):
        status = "diverged" if score is None else "finished"
        rows.append(searched(workload, optimizer, study, status=status))
        if score is None:
            continue
        for seed in (study, study + len(last)):
            end = score - 0.01 if seed < len(last) else score + 0.01
            rows.append(row(workload, optimizer, seed, [1.0, 0.9, 0.8, end], study=study))
    return rows


def gather(rows, target=0.5, studies=1):
    """What a report makes of the rows."""
    workloads = {r["settings"]["workload"] for r in rows}
    config = {"targets": dict.fromkeys(workloads, target), "schedule": "cosine", "trials": 1,
              "studies": studies}  # fmt: skip
    if studies > 1:
        config["seeds"] = list(range(2 * studies))
    records = Records(Path("run"), "compare_optimizers", "quick", config, {}, {}, [], [], [], rows)
    design = read_design(records)
    return finals(design, read_studies(design, read_cells(records, design)))


def look(statement, rows, target=0.5, studies=1):
    return statement(gather(rows, target, studies))


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
    noise = runs("w", "b", [0.0, 0.0], study=1)  # the reference's further one
    noise += runs("w", "b", [0.0, 0.0], phase="search")
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
    found = look_up(gather(rows))
    assert len(found) == len(TRUTHS)
    assert {finding.outcome for _, finding in found} == {"not run"}


FAR = [0.10, 0.40, 0.20, 0.30, 0.25]  # studies of one optimizer


def test_with_several_studies_order_is_decided_by_their_means():
    statement = is_ordered("w", ("a", "b"))
    near, behind = studied("w", "a", FAR), studied("w", "b", [score + 1 for score in FAR])
    assert look(statement, near + behind, studies=5).outcome == "holds"
    # Constant differences: paired by number they would be certain.
    shifted = studied("w", "b", [score + 0.01 for score in FAR])
    assert look(statement, near + shifted, studies=5).outcome == "undecided"
    assert look(is_ordered("w", ("b", "a")), near + behind, studies=5).outcome == "does not hold"


def test_searches_that_diverged_count_as_the_worst_studies():
    lost = [None] * 4 + [0.1]
    rows = studied("w", "a", FAR) + studied("w", "b", lost)
    finding = look(is_ordered("w", ("a", "b")), rows, studies=5)
    assert finding.outcome == "undecided"  # one study of b is ahead of nearly all of a
    assert "0 and 4 failed" in finding.evidence
    rows = studied("w", "a", FAR) + studied("w", "b", [None] * 5)
    assert look(is_ordered("w", ("a", "b")), rows, studies=5).outcome == "holds"
    assert look(is_ordered("w", ("b", "a")), rows, studies=5).outcome == "does not hold"


def test_with_several_studies_the_interval_of_the_ratio_decides_what_is_faster():
    def of(optimizer, curves):
        rows = []
        for study, curve in enumerate(curves):
            rows.append(searched("q", optimizer, study, status="finished"))
            rows += [row("q", optimizer, seed, curve, study=study) for seed in (study, study + 3)]
        return rows

    first, second, last = [0.4, 0.3, 0.2, 0.1], [0.9, 0.4, 0.3, 0.2], [0.9, 0.8, 0.7, 0.4]
    never = [0.9] * 4
    slow = of("sgd", [last] * 3)
    finding = look(momentum_is_faster("q", 3.9), slow + of("momentum", [first] * 3), studies=3)
    assert finding.outcome == "holds"
    assert finding.evidence.startswith("4.0 times as fast [4, 4]")
    mixed = of("momentum", [first, second, last])
    assert look(momentum_is_faster("q", 2.0), slow + mixed, studies=3).outcome == "undecided"
    assert look(momentum_is_faster("q", 99.0), slow + mixed, studies=3).outcome == "does not hold"
    late = of("sgd", [never] * 3)
    assert look(momentum_is_faster("q", 99.0), late + mixed, studies=3).outcome == "undecided"
    lost = of("momentum", [never] * 3)
    assert look(momentum_is_faster("q", 2.0), slow + lost, studies=3).outcome == "does not hold"
