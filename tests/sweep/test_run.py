"""Cells from start to end, with workers that only pretend: plans, what follows, failures."""

import dataclasses
import io
import json
import re
from concurrent.futures import Future

import pytest
from rich.console import Console
from tiny_workload import task, trainings

from research.errors import ConfigError, RunError
from research.progress import Progress
from research.sweep import Cell, run_cells, store_of
from research.sweep.backends import ChunkFailed
from research.sweep.chunks import Plan
from research.sweep.run import describe_plan

PLAN = {**Plan("scan")._asdict(), "seconds_per_trial_step": 1.0, "compile_seconds": 10.0, "why": []}
OF = task(steps=10)


def row_of(training):
    result = {"validation_score": [training.trial]}
    settings = training.settings()
    return {"key": training.key(), "status": "finished", "settings": settings, "result": result}


class Pretended:
    """Commits a row for each training at once; ``fail(chunk)`` may raise, or commit some first."""

    slots, chunk_seconds = 2, 60.0

    def __init__(self, path, fail=lambda chunk: None):
        self.path, self.fail = path, fail
        self.chunks = []

    def submit(self, chunk):
        self.chunks.append(chunk)
        future = Future()
        try:
            self.fail(chunk)
        except ChunkFailed as failure:
            future.set_exception(failure)
            return future
        if chunk.plan is None:
            future.set_result({"plan": {**PLAN, "trial_steps": chunk.trial_steps}})
            return future
        assert (self.path / "plan.json").is_file(), "a training began before its plan was kept"
        for training in chunk.trainings:
            store_of(self.path).commit(row_of(training))
        future.set_result({})
        return future

    def close(self):
        pass


def run(path, cells, backend=None, **settings):
    said = io.StringIO()
    progress = Progress(Console(file=said), None, "toys", 1)
    backend = backend or Pretended(path)
    rows = run_cells(path, cells, backend, progress, **settings)
    return [row["key"] for row in rows], backend, said.getvalue()


def finals(rows):
    (best,) = [t for t in trainings(OF, 4) if t.trial == rows[0]["result"]["validation_score"][0]]
    return [Cell(tuple(dataclasses.replace(best, phase="final", seed=seed) for seed in (1, 2)))]


def test_plans_are_kept_before_the_first_training_and_used_again(tmp_path):
    other = task(optimizer="sgd", steps=10)
    cells = [Cell(tuple(trainings(OF, 4)), finals), Cell(tuple(trainings(other, 2)))]
    keys, backend, said = run(tmp_path, cells, expected_steps=160)
    searched = [training.key() for training in cells[0].trainings]
    assert keys[:4] == searched
    (last,) = finals([row_of(t) for t in trainings(OF, 4)])
    assert keys[4:6] == [training.key() for training in last.trainings]
    assert keys[6:] == [training.key() for training in cells[1].trainings]
    planned = [chunk for chunk in backend.chunks if chunk.plan is None]
    # 60 steps are known of, 160 are expected: the plan is for all of them.
    assert [(c.task.optimizer, c.trial_steps) for c in planned] == [("adamw", 107), ("sgd", 53)]
    assert set(json.loads((tmp_path / "plan.json").read_text())) == {
        "tiny/adamw/cosine",
        "tiny/sgd/cosine",
    }
    assert "tiny/adamw/cosine: chose scan (1e+06 µs a step of one training)\n" in said
    assert run(tmp_path, cells)[0] == keys
    assert run(tmp_path, cells)[1].chunks == []
    # One row lost: the same plan, that training alone.
    (tmp_path / "rows" / f"{searched[1]}.json").unlink()
    again, backend, _ = run(tmp_path, cells)
    assert again == keys
    assert [[t.key() for t in c.trainings] for c in backend.chunks] == [[searched[1]]]
    # A longer training of the same kind has no plan of its own.
    longer = Cell(tuple(trainings(task(steps=20), 2)))
    assert all(chunk.plan for chunk in run(tmp_path, [longer])[1].chunks)


def test_what_follows_a_search_may_be_of_several_tasks(tmp_path):
    following = [Cell(tuple(trainings(task(optimizer=name), 2))) for name in ("sgd", "adam")]

    def of_two_tasks(rows):
        assert [row["settings"]["trial"] for row in rows] == [0, 1, 2, 3]
        return following

    keys, backend, _ = run(tmp_path, [Cell(tuple(trainings(OF, 4)), of_two_tasks)])
    followed = [training.key() for cell in following for training in cell.trainings]
    assert keys[:4] == [training.key() for training in trainings(OF, 4)]
    assert keys[4:] == followed
    planned = [chunk.task.optimizer for chunk in backend.chunks if chunk.plan is None]
    assert planned == ["adamw", "sgd", "adam"]  # each is planned when it comes up
    again, backend, _ = run(tmp_path, [Cell(tuple(trainings(OF, 4)), of_two_tasks)])
    assert (again, backend.chunks) == (keys, [])


def test_with_a_plan_none_is_measured_and_each_call_is_a_chunk(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    keys, backend, _ = run(tmp_path, [Cell(tuple(trainings(OF, 5)), plan=Plan("vmap", 2, 2))])
    assert keys == [training.key() for training in trainings(OF, 5)]
    assert [len(chunk.trainings) for chunk in backend.chunks] == [2, 2, 1]
    assert {chunk.plan for chunk in backend.chunks} == {Plan("vmap", 2, 2)}


def test_a_cell_is_cut_where_that_is_worth_a_compilation(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"tiny/adamw/cosine": PLAN}))
    for number, chunks in ((1, 1), (2, 2), (12, 4), (60, 10)):
        path = tmp_path / str(number)
        path.mkdir()
        (path / "plan.json").write_text((tmp_path / "plan.json").read_text())
        # A training takes 10 s, as does compiling; a chunk should take 60 s.
        _, backend, _ = run(path, [Cell(tuple(trainings(OF, number)))])
        assert len(backend.chunks) == chunks


@pytest.mark.parametrize("what", ["plan", "trainings"])
def test_what_fails_twice_is_reported_and_the_rest_is_run(tmp_path, what):
    other = task(optimizer="sgd", steps=10)

    def fail(chunk):
        if chunk.task == OF and (chunk.plan is None) == (what == "plan"):
            raise ChunkFailed("ValueError: no", "Traceback: no")

    backend = Pretended(tmp_path, fail)
    cells = [Cell(tuple(trainings(OF, 1)), finals), Cell(tuple(trainings(other, 2)))]
    with pytest.raises(RunError, match=r"(?s)1 chunk\(s\).*tiny/adamw.*ValueError: no") as error:
        run(tmp_path, cells, backend)
    (path,) = re.findall(r"\S+\.txt", str(error.value))
    with open(path) as report:
        assert "Traceback: no" in report.read()
    of_task = [chunk for chunk in backend.chunks if chunk.task == OF]
    assert len(of_task) == (2 if what == "plan" else 3)
    assert store_of(tmp_path).keys() == {training.key() for training in cells[1].trainings}
    assert len(run(tmp_path, cells)[0]) == 5


def test_attempts_that_get_on_do_not_count(tmp_path):
    def commit_one_and_fail(chunk):
        left = store_of(tmp_path).missing(training.key() for training in chunk.trainings)
        if chunk.plan is not None and left:
            (first,) = [training for training in chunk.trainings if training.key() == left[0]]
            store_of(tmp_path).commit(row_of(first))
            raise ChunkFailed("the worker was killed")

    keys, _, said = run(
        tmp_path, [Cell(tuple(trainings(OF, 5)))], Pretended(tmp_path, commit_one_and_fail)
    )
    assert len(keys) == 5
    assert said.count("tried again: the worker was killed") == 5


def test_damage_is_said_before_anything_is_run(tmp_path):
    cells = [Cell(tuple(trainings(OF, 2)))]
    run(tmp_path, cells)
    row = tmp_path / "rows" / f"{cells[0].trainings[1].key()}.json"
    row.write_text("{")
    backend = Pretended(tmp_path)
    with pytest.raises(RunError, match=rf"{row.name} must be a readable row.*Delete it"):
        run(tmp_path, cells, backend)
    row.unlink()
    (tmp_path / "plan.json").write_text('{"tiny/adamw/cosine": {"mode": "scan"}}')
    with pytest.raises(RunError, match=r"plan\.json must hold a plan"):
        run(tmp_path, cells, backend)
    assert backend.chunks == []


def test_a_cell_has_one_task_and_each_training_once(tmp_path):
    twice = trainings(OF, 1) * 2
    mixed = [*trainings(OF, 1), *trainings(task(optimizer="sgd"), 1)]
    for which in (twice, mixed):
        with pytest.raises(ConfigError, match="a cell must hold trainings of one task"):
            run(tmp_path, [Cell(tuple(which))])


def test_a_plan_is_told_as_what_was_chosen_what_else_was_measured_and_what_was_not_tried():
    ways = [
        {**Plan("scan")._asdict(), "seconds_per_trial_step": 44.9e-6},
        {**Plan("vmap", 8, 8)._asdict(), "seconds_per_trial_step": 20e-6},
        {**Plan("chunked", 8, 4)._asdict(), "not_tried": "too slow"},
    ]
    assert describe_plan({**ways[1], "why": ways}) == (
        "chose vmap 8 (20 µs a step of one training; scan 44.9 µs); did not try: chunked 8 by 4"
    )


def test_no_cells_no_work(tmp_path):
    assert run(tmp_path, [])[0] == []
    assert run(tmp_path, [Cell(())])[0] == []
