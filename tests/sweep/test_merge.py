"""Runs of one configuration on several machines become one run."""

import json

import pytest
from comparison_rows import Comparison, rows_of, write_comparison

from research.errors import RunError
from research.runlog import read_run
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
