"""The planner: counts all the work, measures little, and takes the best of what it saw."""

import itertools
import json
import math
from typing import cast

import pytest
import tiny_workload
from tiny_workload import LOADER, task, trainings

from research.sweep import engine, planner
from research.sweep.chunks import Chunk, Plan, chunk_of
from research.sweep.planner import Timing, candidates, choose, rows_for
from research.sweep.program import Prepared

SECONDS = {
    Plan("scan"): 1.0,
    Plan("vmap", 8, 8): 0.4,
    Plan("step"): 3.0,
    Plan("chunked", 8, 4): 0.3,
    Plan("chunked", 8, 2): 0.5,
    Plan("map", 8, 1): 0.9,
}


class Anything:
    """Stands for a workload: nothing of it is read where nothing is run."""


def choose_among(monkeypatch, trial_steps, *, compile_seconds=100.0, seconds=SECONDS, number=8):
    """What is chosen where modes take those seconds a step; and what was measured, in order."""
    measured, clock = [], itertools.accumulate(itertools.repeat(150.0))

    def measure(prepared, of, plan, which):
        measured.append(plan)
        return Timing(plan, seconds[plan], compile_seconds), plan

    monkeypatch.setattr(planner, "measure", measure)
    monkeypatch.setattr(planner, "_now", lambda: next(clock))  # 150 s each
    which = trainings(task(evaluate_every=1), number)
    return choose(cast(Prepared, Anything()), which[0].task, which, trial_steps), measured


def test_the_fastest_for_all_the_work_is_chosen(monkeypatch):
    choice, measured = choose_among(monkeypatch, 1_000_000)
    assert measured == candidates(8)
    assert choice.plan == choice.program == Plan("chunked", 8, 4)
    record = choice.record(1_000_000, 8)
    assert (record["mode"], record["chunk"], record["group"]) == ("chunked", 8, 4)
    assert record["seconds_per_trial_step"] == 0.3
    totals = {(e["mode"], e["group"]): e["total_seconds"] for e in record["why"]}
    assert totals["scan", 1] == 1_000_100
    assert min(totals, key=lambda name: totals[name]) == ("chunked", 4)
    assert json.loads(json.dumps(record)) == record


def test_measuring_takes_a_fifth_of_the_work_at_most(monkeypatch):
    choice, measured = choose_among(monkeypatch, 2000)  # 2100 s: 420 to spend, 150 for each
    assert measured == candidates(8)[:4]
    assert choice.plan == Plan("chunked", 8, 4)
    untried = [plan for plan, reason in choice.untried if "of 120.0 s" in reason or "of" in reason]
    assert untried == candidates(8)[4:]
    choice, measured = choose_among(monkeypatch, 300)
    assert measured == [Plan("scan")]
    assert choice.plan == Plan("scan")
    assert [e["mode"] for e in choice.record(300, 8)["why"] if "not_tried" in e] == [
        plan.mode for plan in candidates(8)[1:]
    ]


def test_compilation_and_rows_that_fill_up_count(monkeypatch):
    slow_start = {**SECONDS, Plan("step"): 0.9}
    choice, _ = choose_among(monkeypatch, 10**6, seconds=slow_start)
    assert choice.plan.mode == "chunked"
    assert Timing(Plan("vmap", 8, 8), 0.4, 5.0).total(900, trainings=9) == 5 + 0.4 * 1600
    # Ten of eleven in one call, one in another: as slow as a scan.
    assert math.isclose(Timing(Plan("vmap", 10, 10), 0.55, 0.0).total(110, trainings=11), 110.0)


def test_few_trainings_fill_their_calls():
    for number in range(1, 70):
        rows = rows_for(number)
        assert rows <= 10
        assert math.ceil(number / rows) * rows <= 1.2 * number
        for plan in candidates(number):
            assert plan.checked() == plan
            assert plan.chunk <= number


def test_a_worker_measures_for_a_chunk_without_a_plan(tmp_path):
    of = task(optimizer="sgd")
    chunk = Chunk(of, None, tuple(trainings(of, 3)), 10_000_000, LOADER)
    record = engine.execute(chunk.to_json(), tmp_path, None)["plan"]
    tried = [entry for entry in record["why"] if "not_tried" not in entry]
    assert [entry["mode"] for entry in tried] == ["scan", "vmap", "step", "map"]
    best = min(tried, key=lambda entry: entry["total_seconds"])
    assert (record["mode"], record["chunk"]) == (best["mode"], best["chunk"])
    assert all(0 < entry["seconds_per_trial_step"] < 0.1 for entry in tried)
    assert not (tmp_path / "rows").exists()
    # The same process trains with the program that was measured.
    plan = Plan(record["mode"], record["chunk"], record["group"])
    timings = engine.execute(chunk_of({**chunk.to_json(), "plan": plan._asdict()}), tmp_path, None)
    assert timings["compile_seconds"] < tried[0]["compile_seconds"]
    assert len(timings["rows"]) == 3
    assert timings["steps"] <= 3 * 40
    assert 0 < timings["step_seconds"] <= timings["seconds"] - timings["compile_seconds"]


@pytest.fixture(autouse=True, scope="module")
def _the_loader_is_importable():
    assert tiny_workload.load.__module__ == LOADER.partition(":")[0]
