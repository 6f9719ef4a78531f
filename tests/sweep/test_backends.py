"""Workers killed, interrupted, failing, on three backends: the same rows, bit for bit."""

import dataclasses
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_workload
from rich.console import Console
from tiny_workload import LOADER, task, trainings

from research.errors import ConfigError, RunError
from research.progress import Progress
from research.runlog import write_json
from research.sweep import Cell, engine, open_backend, run_cells, store_of
from research.sweep.backends import ChunkFailed
from research.sweep.chunks import Chunk, Plan
from research.sweep.local_workers import LocalWorkers
from research.sweep.run import plan_id
from research.sweep.training import training_of

LONG = task(optimizer="adamw", steps=6000, evaluate_every=500)  # about a second each
SHORT = task(optimizer="sgd")
PLANNED = {"seconds_per_trial_step": 1e-4, "compile_seconds": 1.0, "why": []}


def best_of(rows):
    finished = [row for row in rows if row["status"] == "finished"]
    return min(finished, key=lambda row: row["result"]["validation_loss"][-1])


def finals(rows):
    """The best of a search, with two other seeds."""
    training = training_of(best_of(rows)["settings"])
    return [Cell(tuple(dataclasses.replace(training, phase="final", seed=s) for s in (1, 2)))]


def cells():
    """Some scanned, some as rows of one call, of which one diverges; a search and its finals."""
    rows = [
        dataclasses.replace(training, hyperparameters={"learning_rate": rate})
        for training, rate in zip(trainings(SHORT, 3), (0.01, 1e4, 0.1), strict=True)
    ]
    return [Cell(tuple(trainings(LONG, 3))), Cell(tuple(rows), finals)]


def planned(path):
    """Plans as an earlier session left them."""
    plans = {plan_id(LONG): Plan("scan"), plan_id(SHORT): Plan("vmap", 2, 2)}
    write_json(
        path / "plan.json", {name: {**plan._asdict(), **PLANNED} for name, plan in plans.items()}
    )
    return path


def run(path, backend, some=None):
    said = io.StringIO()
    progress = Progress(Console(file=said), None, "toys", 1)
    try:
        return run_cells(path, some or cells(), backend, progress, loader=LOADER), said
    finally:
        backend.close()


def files(path):
    return {file.name: file.read_bytes() for file in (path / "rows").glob("*.json")}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A run that nothing disturbed."""
    path = planned(tmp_path_factory.mktemp("reference"))
    rows, _ = run(path, LocalWorkers(path, None, 1))
    return path, rows


def wait_for(condition, seconds=100.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "what the test waits for did not happen"
        time.sleep(0.02)
    return found


def loaded_by(folder):
    return [int(path.stem) for path in Path(folder).glob("*.pid")]


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]


def test_a_run_gives_the_rows_of_its_cells_and_of_what_follows(reference):
    path, rows = reference
    searched = [*trainings(LONG, 3), *cells()[1].trainings]
    assert [row["key"] for row in rows[:6]] == [training.key() for training in searched]
    assert [row["status"] for row in rows].count("diverged") == 1
    assert rows[4]["result"]["diverged_at"] == 6
    best = best_of(rows[3:6])
    assert [row["settings"]["seed"] for row in rows[6:]] == [1, 2]
    for row in rows[6:]:
        assert row["settings"]["hyperparameters"] == best["settings"]["hyperparameters"]
        assert row["result"]["test_score"] is not None
    assert store_of(path).keys() == {row["key"] for row in rows}


def test_what_is_finished_is_not_run_again(reference):
    path, rows = reference

    class NoWorkers:
        slots, chunk_seconds = 2, 60.0

        def submit(self, chunk):
            raise AssertionError(f"{chunk} was given out")

        def close(self):
            pass

    assert run(path, NoWorkers())[0] == rows


def test_the_trainings_of_a_killed_worker_are_taken_over(reference, tmp_path):
    path = planned(tmp_path / "run")
    backend = LocalWorkers(path, str(tmp_path), 1)
    first = {}

    def kill_after_the_first_row(chunk):
        future = submit(chunk)
        if not first:
            (row,) = wait_for(lambda: list((path / "rows").glob("*.json")))
            first[row] = row.stat().st_mtime_ns
            os.kill(loaded_by(tmp_path)[0], signal.SIGKILL)
        return future

    submit, backend.submit = backend.submit, kill_after_the_first_row
    _, said = run(path, backend)
    assert len(loaded_by(tmp_path)) == 2
    assert "tried again: the worker process" in said.getvalue()
    assert "signal 9" in said.getvalue()
    assert all(row.stat().st_mtime_ns == written for row, written in first.items())
    assert files(path) == files(reference[0])


PROGRAM = """
import sys
from pathlib import Path
from test_backends import LocalWorkers, run
path = Path(sys.argv[1])
run(path, LocalWorkers(path, str(path.parent), 2))
"""


def test_after_ctrl_c_no_worker_is_left_and_nothing_is_lost(reference, tmp_path):
    path = planned(tmp_path / "run")
    paths = [*sys.path, str(Path(__file__).parent)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: files(path) and len(loaded_by(tmp_path)) == 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    wait_for(lambda: not any(alive(pid) for pid in loaded_by(tmp_path)), 10)
    before = files(path)
    assert 0 < len(before) < 8
    run(path, LocalWorkers(path, None, 1))
    assert files(path) == files(reference[0])
    assert before.items() <= files(path).items()


def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    path = planned(tmp_path / "run")
    paths = [*sys.path, str(Path(__file__).parent)]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", PROGRAM, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    wait_for(lambda: len(loaded_by(tmp_path)) == 2)
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(pid) for pid in loaded_by(tmp_path)), 10)


def test_a_chunk_that_fails_twice_is_reported_and_the_others_are_run(tmp_path):
    broken = Cell(tuple(trainings(task("broken", optimizer="sgd"), 2)), finals)
    good = Cell(tuple(trainings(SHORT, 2)))
    with pytest.raises(RunError, match=r"(?s)1 chunk\(s\).*broken/sgd/cosine.*be read") as error:
        run(planned(tmp_path), LocalWorkers(tmp_path, None, 1), [broken, good])
    (report,) = (tmp_path / "failures").iterdir()
    assert str(report) in str(error.value)
    assert "tiny_workload.py" in report.read_text()
    assert "ValueError: the data of 'broken' cannot be read" in report.read_text()
    assert store_of(tmp_path).keys() == {training.key() for training in good.trainings}


def test_other_data_than_the_run_was_begun_with_are_refused(tmp_path):
    of = task(optimizer="sgd")._replace(sha256="11" * 32)
    chunk = Chunk(of, Plan("scan"), tuple(trainings(of, 1)), loader=LOADER)
    with pytest.raises(ValueError, match="must have the sha256 1111"):
        engine.execute(chunk.to_json(), tmp_path, None)


def test_workers_compute_in_one_thread(reference):
    lines = (reference[0] / "timings.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        assert line["cpu_seconds"] <= 1.1 * line["seconds"] + 0.1
        assert set(line["plan"]) == {"mode", "chunk", "group"}
        assert line["parameters"] == 48


def test_jobs_of_submitit_give_the_same_rows(reference, tmp_path):
    pytest.importorskip("submitit")
    from research.sweep.slurm_jobs import SlurmJobs

    path = planned(tmp_path / "run")
    backend = SlurmJobs(path, str(tmp_path), 1, cluster="local", seconds_between_looks=0.1)
    killed = []

    def kill_the_first(chunk):
        future = submit(chunk)
        if not killed:
            killed.append(wait_for(lambda: loaded_by(tmp_path))[0])
            os.kill(killed[0], signal.SIGKILL)
        return future

    submit, backend.submit = backend.submit, kill_the_first
    _, said = run(path, backend)
    assert "tried again" in said.getvalue()
    assert files(path) == files(reference[0])


def test_a_refusing_sbatch_is_a_failure_and_the_next_chunk_is_submitted(tmp_path):
    pytest.importorskip("submitit")
    from research.sweep.slurm_jobs import SlurmJobs

    class Job:
        job_id = "7"

        def __init__(self, done=lambda: True, result=lambda: {"result": {"steps": 1}}):
            self.done, self.result = done, result

        def cancel(self, check):
            pass

    def no(*_):
        raise OSError("sbatch: error: invalid account")

    given = [no, Job(done=no), Job(result=no), Job(result=lambda: "nonsense"), Job()]

    def submit(*_):
        job = given.pop(0)
        return job() if job is no else job

    backend = SlurmJobs(tmp_path, None, 1, cluster="local", seconds_between_looks=0.01)
    backend._executor.submit = submit
    chunk = Chunk(SHORT, Plan("scan"), tuple(trainings(SHORT, 1)), loader=LOADER)
    try:
        for says in (
            "sbatch refused the job: OSError: sbatch: error: invalid account",
            "the state of job 7 cannot be known: OSError",
            "job 7 ended without a result: OSError",
            "must answer with a result or an error; received 'nonsense'",
        ):
            with pytest.raises(ChunkFailed, match=says):
                backend.submit(chunk).result(timeout=20)
        assert backend.submit(chunk).result(timeout=20) == {"steps": 1}
    finally:
        backend.close()


def test_a_worker_that_cannot_be_started_is_a_failure_told_in_the_end(tmp_path):
    path = planned(tmp_path / "run")
    (path / "logs" / "worker-0.log").mkdir(parents=True)
    backend = LocalWorkers(path, None, 1)
    chunk = Chunk(SHORT, Plan("scan"), tuple(trainings(SHORT, 1)), loader=LOADER)
    with pytest.raises(ChunkFailed, match="worker 0 cannot be used: IsADirectoryError"):
        backend.submit(chunk).result(timeout=20)
    with pytest.raises(RunError, match=r"(?s)1 chunk\(s\).*IsADirectoryError"):
        run(path, backend, [Cell(chunk.trainings)])


def test_a_garbled_answer_is_a_failure_and_its_worker_is_replaced(tmp_path, monkeypatch):
    says = "print(input() and 'garbled', flush=True); input()"

    def garbling(environment, log):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", says], **pipes))
        return started[-1]

    started = []
    monkeypatch.setattr("research.sweep.local_workers.start_worker", garbling)
    backend = LocalWorkers(tmp_path, None, 1)
    chunk = Chunk(SHORT, Plan("scan"), tuple(trainings(SHORT, 1)), loader=LOADER)
    try:
        for _ in range(2):
            with pytest.raises(ChunkFailed, match=r"with a line of JSON; received 'garbled\\n'"):
                backend.submit(chunk).result(timeout=20)
    finally:
        backend.close()
    assert len(started) == 2


def test_slurm_is_refused_where_there_is_none(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="sbatch"):
        open_backend("slurm", tmp_path, None)


@pytest.mark.parametrize(
    ("name", "workers", "says"),
    [
        ("locl", None, "must be local, slurm or ray"),
        ("local", 0, "must be at least 1"),
        ("ray", 2, r"must not be given with the backend ray.* received 2\. Leave out --workers"),
    ],
)
def test_a_wrong_backend_is_refused(tmp_path, name, workers, says):
    with pytest.raises(ConfigError, match=says):
        open_backend(name, tmp_path, None, workers)


@pytest.mark.slow
def test_two_nodes_of_ray_give_the_same_rows(reference, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    cluster = pytest.importorskip("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1}
    )
    try:
        cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        path = planned(tmp_path / "run")
        backend = open_backend("ray", path, tmp_path)
        assert backend.slots == 2
        killed = []

        def kill_one(chunk):
            future = submit(chunk)
            if not killed:
                killed.append(wait_for(lambda: loaded_by(tmp_path))[0])
                os.kill(killed[0], signal.SIGKILL)
            return future

        submit, backend.submit = backend.submit, kill_one
        _, said = run(path, backend)
    finally:
        cluster.shutdown()
    assert "tried again" in said.getvalue()
    assert files(path) == files(reference[0])


def test_the_loader_of_the_tests_is_what_workers_import():
    module, _, function = LOADER.partition(":")
    assert getattr(sys.modules[module], function) is tiny_workload.load
