"""Runs of one configuration on several machines become one run."""

import json

import numpy as np
import pytest
from comparison_rows import Comparison, rows_of, write_comparison

from research.errors import RunError
from research.runlog import open_run, read_run
from research.sweep.merge import main, merge_run

COMPARED = Comparison(workloads=("gru",), horizons=(50,), trials=2, seeds=(1,), aa_studies=0)


def written(path, rows, **changes):
    return write_comparison(path, COMPARED, rows=rows, timings=[], **changes)


def test_a_run_takes_over_what_it_lacks_and_keeps_what_it_has(tmp_path, capsys):
    rows = rows_of(COMPARED)
    mine, theirs = written(tmp_path / "a", rows[:5]), written(tmp_path / "b", rows[3:])
    assert main([str(mine), str(theirs)]) == 0
    assert f"{len(rows) - 5} new trainings from {theirs}" in capsys.readouterr().out
    assert read_run(mine).rows == rows
    assert read_run(theirs).rows == rows[3:]
    assert merge_run(mine, theirs) == 0


def test_runs_that_do_not_belong_together_are_refused(tmp_path, capsys):
    rows = rows_of(COMPARED)
    mine = written(tmp_path / "a", rows[:1])
    other = written(tmp_path / "b", rows[1:], config=COMPARED.config() | {"trials": 9})
    assert main([str(mine), str(other)]) == 2
    assert "have trials 2 and 9. Start both with the same command" in capsys.readouterr().err
    assert len(read_run(mine).rows) == 1
    with pytest.raises(RunError, match="two different run directories"):
        merge_run(mine, tmp_path / "b" / ".." / "a")
    with pytest.raises(RunError, match="must be a run directory"):
        merge_run(mine, tmp_path)
    head = json.loads((other / "config.json").read_text())
    for change, says in (
        ({"experiment": "compare_ctc"}, "'compare_optimizers' and 'compare_ctc'"),
        ({"config": COMPARED.config(), "data": {"sha256": "cd"}}, "have data .*'cd'"),
    ):
        (other / "config.json").write_text(json.dumps(head | change))
        with pytest.raises(RunError, match=says):
            merge_run(mine, other)


def test_rows_come_with_their_arrays(tmp_path):
    rows = rows_of(COMPARED)
    mine, theirs = written(tmp_path / "a", rows[:1]), written(tmp_path / "b", rows[1:])
    (theirs / "examples").mkdir()
    np.savez(theirs / "examples" / f"{rows[2]['key']}.npz", x=np.arange(3))
    merge_run(mine, theirs)
    np.testing.assert_array_equal(read_run(mine).examples(rows[2]["key"])["x"], np.arange(3))
    assert [file.name for file in (mine / "examples").iterdir()] == [f"{rows[2]['key']}.npz"]


def test_a_row_is_not_there_before_its_arrays(tmp_path, monkeypatch):
    rows = rows_of(COMPARED)
    mine, theirs = written(tmp_path / "a", rows[:1]), written(tmp_path / "b", rows[1:2])
    (theirs / "examples").mkdir()
    np.savez(theirs / "examples" / f"{rows[1]['key']}.npz", x=np.arange(3))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("research.sweep.store.shutil.copyfile", full)
    with pytest.raises(RunError, match="No space left on device"):
        merge_run(mine, theirs)
    assert read_run(mine).rows == rows[:1]
    assert list((mine / "examples").iterdir()) == []


def test_runs_of_two_versions_are_refused(tmp_path):
    rows = rows_of(COMPARED)
    mine, theirs = written(tmp_path / "a", rows[:1]), written(tmp_path / "b", rows[1:])
    head = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps(head | {"trellis": "0.0.9"}))
    with pytest.raises(RunError, match=r"have Trellis 0\.1\.0 and 0\.0\.9.*by the same version"):
        merge_run(mine, theirs)
    assert read_run(mine).rows == rows[:1]


def test_a_run_that_cannot_be_written_is_a_message(tmp_path, capsys):
    mine, theirs = written(tmp_path / "a", []), written(tmp_path / "b", rows_of(COMPARED)[:1])
    (mine / "rows").rmdir()
    (mine / "rows").write_text("a file in the way")
    assert main([str(mine), str(theirs)]) == 2
    assert f"error: the run directory {mine} must be writable" in capsys.readouterr().err


def test_runs_without_rows_are_not_merged_in_silence(tmp_path, capsys):
    made = []
    for name in "ab":
        arguments = {"recipe": "quick", "config": {}, "data": {}, "seeds": [1]}
        with open_run(tmp_path / name, experiment="train_ctc", **arguments) as run:
            run.finish("model", settings={}, status="finished", result={})
            made.append(str(run.path))
    assert main(made) == 2
    printed = capsys.readouterr()
    assert "new trainings" not in printed.out
    assert "must have rows to merge, as those of a sweep do" in printed.err
