"""The run directory: found again, locked, never half-written, readable."""

import json
import logging
import multiprocessing
import time

import numpy as np
import pytest

from research.errors import RunError
from research.runlog import FORMAT, open_run, read_run, run_id, write_json

CONFIG = {"steps": 3, "names": ("a", "b")}
DATA = {"name": "toy", "source": "made up", "sha256": "ab" * 32}


def opened(root, *, config=CONFIG, data=DATA, fresh=False):
    return open_run(
        root,
        experiment="compare_toys",
        recipe="quick",
        config=config,
        data=data,
        seeds=[1, 2],
        fresh=fresh,
    )


def test_the_same_configuration_and_data_find_the_same_directory(tmp_path):
    with opened(tmp_path) as first:
        pass
    with opened(tmp_path) as again:
        assert again.path == first.path
    with opened(tmp_path, config=CONFIG | {"steps": 4}) as other:
        assert other.path != first.path
    with opened(tmp_path, data=DATA | {"sha256": "cd" * 32}) as other:
        assert other.path != first.path
    assert first.path.parent == tmp_path / "compare_toys"
    assert first.path.name == f"quick-{run_id({'steps': 3, 'names': ['a', 'b']}, DATA)}"


def test_records_come_back(tmp_path):
    with opened(tmp_path) as run:
        run.log("toy/b", 2, train_loss=0.5)
        run.log("toy/a", 1, train_loss=0.1 + 0.2)
        run.finish("toy/a", settings={"seed": 1}, status="finished", result={"accuracy": 0.9})
        run.finish("toy/b", settings={"seed": 2}, status="diverged", result={"diverged_at": 2})
        run.log_time("toy/a", seconds=1.5, steps=3)
        run.save_examples("toy/a", {"waveform_0": np.arange(3.0)})
    records = read_run(run.path)
    assert (records.experiment, records.recipe, records.data) == ("compare_toys", "quick", DATA)
    assert records.config == {"steps": 3, "names": ["a", "b"]}
    assert records.metrics == [
        {"trial": "toy/a", "step": 1, "train_loss": 0.1 + 0.2},
        {"trial": "toy/b", "step": 2, "train_loss": 0.5},
    ]
    assert [trial["trial"] for trial in records.trials] == ["toy/a", "toy/b"]
    assert records.timings == [{"trial": "toy/a", "seconds": 1.5, "steps": 3}]
    np.testing.assert_array_equal(records.examples("toy/a")["waveform_0"], np.arange(3.0))
    assert records.examples("toy/b") == {}


def test_the_environment_says_what_ran_each_time(tmp_path):
    with opened(tmp_path):
        pass
    with opened(tmp_path) as run:
        pass
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["seeds"] == [1, 2]
    assert len(environment["sessions"]) == 2
    session = environment["sessions"][0]
    assert {"commit", "device", "platform", "python", "started", "versions"} <= set(session)
    assert {"jax", "flax", "optax", "numpy"} <= set(session["versions"])


def test_an_evaluation_made_twice_counts_once_and_a_cut_line_not_at_all(tmp_path):
    with opened(tmp_path) as run:
        run.log("toy/a", 1, train_loss=1.0)
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"trial": "toy/a", "step": 2, "tra')  # killed here
    with opened(tmp_path) as run:
        run.log("toy/a", 1, train_loss=1.0)
        run.log("toy/a", 2, train_loss=0.5)
    assert [(m["step"], m["train_loss"]) for m in read_run(run.path).metrics] == [
        (1, 1.0),
        (2, 0.5),
    ]


def test_a_finished_trial_is_known_again(tmp_path):
    with opened(tmp_path) as run:
        assert run.finished("toy/a") is None
        run.finish("toy/a", settings={}, status="finished", result={"x": 1})
    with opened(tmp_path) as run:
        record = run.finished("toy/a")
        assert record is not None
        assert record["result"] == {"x": 1}


def test_fresh_moves_the_old_run_aside(tmp_path):
    paths = []
    for _ in range(3):
        with opened(tmp_path, fresh=True) as run:
            assert run.finished("toy/a") is None
            run.finish("toy/a", settings={}, status="finished", result={})
            paths.append(run.path)
    path = paths[-1]
    names = sorted(entry.name for entry in path.parent.glob("quick-*"))
    assert names == [path.name, f"{path.name}.old-1", f"{path.name}.old-2"]
    assert (path.parent / names[1] / "trials" / "toy" / "a.json").is_file()


def _hold(root, ready):
    with opened(root):
        ready.send(True)
        time.sleep(120)


def test_a_second_writer_is_kept_out_until_the_first_is_gone(tmp_path):
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    holder = context.Process(target=_hold, args=(tmp_path, sender), daemon=True)
    holder.start()
    try:
        assert receiver.poll(100)
        with pytest.raises(RunError, match=f"process {holder.pid} is doing so"), opened(tmp_path):
            pass
    finally:
        holder.kill()
        holder.join()
    with opened(tmp_path):  # the lock of a killed process is gone with it
        pass


def test_another_format_is_refused_and_kept(tmp_path):
    with opened(tmp_path) as run:
        pass
    head = json.loads((run.path / "config.json").read_text())
    write_json(run.path / "config.json", head | {"format": FORMAT + 1})
    with pytest.raises(RunError, match=r"--fresh, which moves it aside"), opened(tmp_path):
        pass
    with pytest.raises(RunError, match=f"must have record format {FORMAT}; it has {FORMAT + 1}"):
        read_run(run.path)
    assert json.loads((run.path / "config.json").read_text())["format"] == FORMAT + 1


def test_a_run_begun_by_another_version_is_not_resumed_but_can_be_read(tmp_path):
    with opened(tmp_path) as run:
        run.finish("toy/a", settings={}, status="finished", result={})
    head = json.loads((run.path / "config.json").read_text())
    write_json(run.path / "config.json", head | {"trellis": "0.0.9"})
    with pytest.raises(RunError, match=r"it was by 0\.0\.9"), opened(tmp_path):
        pass
    assert len(read_run(run.path).trials) == 1
    with opened(tmp_path, fresh=True) as run:
        assert run.finished("toy/a") is None


def test_going_on_at_another_commit_is_said(tmp_path, caplog):
    with opened(tmp_path) as run:
        pass
    environment = json.loads((run.path / "environment.json").read_text())
    environment["sessions"][0]["commit"] = "0123456789ab"
    write_json(run.path / "environment.json", environment)
    with caplog.at_level(logging.WARNING), opened(tmp_path):
        pass
    assert "was begun at commit 0123456789ab" in caplog.text


def test_errors_of_the_job_itself_are_left_alone(tmp_path):
    with pytest.raises(FileNotFoundError), opened(tmp_path):
        (tmp_path / "absent").read_bytes()


@pytest.mark.parametrize("place", ["", "compare_toys"])
def test_a_place_that_cannot_be_written(tmp_path, place):
    blocked = tmp_path / "runs" / place
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("a file in the way")
    with pytest.raises(RunError, match=r"must be writable.*--out"), opened(tmp_path / "runs"):
        pass
    assert blocked.read_text() == "a file in the way"


def test_what_is_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(RunError, match="must be a run directory"):
        read_run(tmp_path)


def test_damaged_records_are_named(tmp_path):
    with opened(tmp_path) as run:
        run.finish("toy/a", settings={}, status="finished", result={})
        run.save_examples("toy/a", {"x": np.zeros(3)})
    (run.path / "trials" / "toy" / "a.json").write_text("{")
    with pytest.raises(RunError, match=r"a\.json must be a readable JSON file"):
        read_run(run.path)
    run.finish("toy/a", settings={}, status="finished", result={})
    (run.path / "examples" / "toy" / "a.npz").write_bytes(b"PK cut")
    with pytest.raises(RunError, match=r"a.npz must be a readable .npz file") as said:
        read_run(run.path).examples("toy/a")
    # What the message says to delete is what keeps the training from being run again.
    both = [str(run.path / name) for name in ("examples/toy/a.npz", "trials/toy/a.json")]
    assert f"Delete {' and '.join(both)} and start" in str(said.value)


@pytest.mark.parametrize("damage", ["{}", "[]", '{"sessions": 3}', '{"sessions": ["x"]}'])
def test_an_environment_that_is_none_says_what_to_delete(tmp_path, damage):
    with opened(tmp_path) as run:
        pass
    (run.path / "environment.json").write_text(damage)
    with (
        pytest.raises(RunError, match=r"environment\.json must hold .* Delete it"),
        opened(tmp_path),
    ):
        pass
    (run.path / "environment.json").unlink()
    with opened(tmp_path):
        pass
    assert len(json.loads((run.path / "environment.json").read_text())["sessions"]) == 1


def test_a_session_without_a_commit_is_passed_over(tmp_path):
    with opened(tmp_path) as run:
        pass
    write_json(run.path / "environment.json", {"sessions": [{"started": "long ago"}]})
    with opened(tmp_path):
        pass
    assert len(json.loads((run.path / "environment.json").read_text())["sessions"]) == 2


def test_only_files_named_by_a_key_are_rows_and_each_has_its_own(tmp_path):
    with opened(tmp_path) as run:
        pass
    row = {"key": "ab" * 8}
    write_json(run.path / "rows" / f"{row['key']}.json", row)
    (run.path / "rows" / "notes.json").write_text("what I thought of it")
    assert read_run(run.path).rows == [row]
    for name, value in (("cd" * 8, row), ("ef" * 8, {}), ("01" * 8, [])):
        path = run.path / "rows" / f"{name}.json"
        write_json(path, value)
        with pytest.raises(RunError, match=f"{path} must hold the training whose key"):
            read_run(run.path)
        path.unlink()


def test_a_line_of_timings_that_is_no_record_is_passed_over(tmp_path):
    with opened(tmp_path) as run:
        (run.path / "timings.jsonl").write_text("5\n")
        run.log_time("toy/a", seconds=1.5, steps=3)
    assert read_run(run.path).timings == [{"trial": "toy/a", "seconds": 1.5, "steps": 3}]


def test_numbers_that_json_lacks_are_refused_before_anything_is_written(tmp_path):
    write_json(tmp_path / "x.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "x.json").read_text()) == {"loss": 1.0}
