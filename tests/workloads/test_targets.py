"""Targets: which record counts for which data, and what the pool makes of its trainings."""

import json
import math
import statistics

import pytest
from in_process import InThisProcess

from research.errors import DataError
from research.runlog import read_run
from research.workloads import NAMES, POOL_SEED, build, pool, targets


@pytest.fixture
def workload():
    return build("quadratic_1e2")


def record(workload, **changes):
    return {
        "workload": workload.name,
        "target": -3.0,
        "data": targets.data_name(workload),
        "source": workload.source,
        "sha256": workload.sha256,
    } | changes


def test_the_record_on_the_same_data_counts(workload, caplog):
    others = [record(build("quadratic_1e4")), record(workload, sha256="0")]
    assert targets.find_target(workload, [*others, record(workload, target=-5.0)]) == -5.0
    assert not caplog.records


def test_data_of_the_same_kind_get_the_target_and_a_warning(workload, caplog):
    assert targets.find_target(workload, [record(workload, sha256="0", source="before")]) == -3.0
    (warning,) = caplog.messages
    assert "was set on before; the data here differ" in warning
    assert "python -m research.workloads.pool quadratic_1e2" in warning


def test_data_of_another_kind_have_no_target(workload):
    other = record(workload, sha256="0", data="spoken", source="spoken: 3 recordings")
    message = (
        r"for workload 'quadratic_1e2' \(data: computed.*\); .* on: spoken: 3 recordings\. Set"
    )
    with pytest.raises(DataError, match=message):
        targets.find_target(workload, [other])
    with pytest.raises(DataError, match=r"on: none\. Set one: python -m .*\.pool quadratic_1e2"):
        targets.find_target(workload, [])


def training_row(name, seed, trial, score):
    """Of a pool; a score that is None is of a training that diverged."""
    status = "finished" if score is not None else "diverged"
    hyperparameters = {"learning_rate": 0.1 * (1 + trial)}
    return {
        "status": status,
        "settings": {"workload": "quadratic_1e2", "optimizer": name, "seed": seed, "trial": trial}
        | {"hyperparameters": hyperparameters},
        "result": {"validation_score": [9.0, score], "validation_loss": [9.0, score]},
    }


def rows_of(name, searched, again):
    """The rows of an optimizer; the second half of the search comes last, as rows may."""
    best = min((s, trial) for trial, s in enumerate(searched) if s is not None)[1]
    rows = [training_row(name, POOL_SEED, trial, score) for trial, score in enumerate(searched)]
    rows += [training_row(name, POOL_SEED + 1 + k, best, score) for k, score in enumerate(again)]
    return rows[2:] + rows[:2]


def test_the_target_is_the_lower_median_of_what_tuned_optimizers_reach(workload):
    rows = [
        *rows_of("sgd", [2.0, 2.5, None], [2.1, 2.2, 2.3]),
        *rows_of("momentum", [2.0, 1.0, None], [1.30001, 1.10001, 1.20001]),
        *rows_of("adam", [0.3, 0.2, 0.1], [0.1, 0.2, None]),
        *rows_of("nesterov", [4.0, 4.0, 4.0], [5.0, None, None]),
    ]
    timings = [
        {"task": {"workload": "quadratic_1e2"}, "steps": 400}
        | {"cpu_seconds": 5.0, "compile_seconds": 2.0},
        {"task": {"workload": "quadratic_1e2"}, "steps": 800}
        | {"cpu_seconds": 3.0, "compile_seconds": 0.0},
        {"task": {"workload": "gru"}, "steps": 1, "cpu_seconds": 9.0, "compile_seconds": 0.0},
    ]
    found = pool.record_of(workload, rows, timings)
    assert found["target"] == 1.2001  # momentum's median, rounded up: adam's is lower
    assert found["parameters"] == 32
    assert found["cpu_seconds"] == pytest.approx(200 * 6 / 1200)
    assert found["pool"]["trials"] == 3
    assert found["pool"]["rerun_seeds"] == [POOL_SEED + 1, POOL_SEED + 2, POOL_SEED + 3]
    of = found["pool"]["optimizers"]
    assert of["adam"] == {
        "score": 0.2,
        "scores": [0.1, 0.2, None],
        "searched": 0.1,
        "hyperparameters": {"learning_rate": 0.3},
        "diverged": 0,
    }
    assert of["momentum"]["hyperparameters"] == {"learning_rate": 0.2}
    assert of["momentum"]["diverged"] == 1
    assert of["nesterov"]["score"] is None
    assert of["nesterov"]["hyperparameters"] == {"learning_rate": 0.1}  # the first of equals


def test_a_search_that_diverges_as_a_whole_has_no_score(workload):
    cell = pool.cell_of(workload, "sgd", trials=2, reruns=1)
    rows = [training_row("sgd", POOL_SEED, trial, None) for trial in range(2)]
    assert cell.then(rows) == []
    found = pool.outcome(rows)
    assert (found["score"], found["searched"], found["diverged"]) == (math.inf, math.inf, 2)


def asked_for(out, **changes):
    settings = {"trials": 3, "reruns": 2, "out": out} | changes
    return pool.set_targets({"quadratic_1e2": build("quadratic_1e2")}, ["sgd", "adam"], **settings)


def test_a_pool_trains_from_its_own_seeds_and_is_not_run_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "open_backend", InThisProcess)
    (found,) = asked_for(tmp_path)
    of = found["pool"]["optimizers"]
    assert found["target"] == pytest.approx(min(each["score"] for each in of.values()), abs=1e-3)
    assert found["target"] < -0.3  # two orders of ten below the start in the best, half in any
    for each in of.values():
        # Other seeds, other scores: the searched one is not taken for the optimizer's.
        assert len({each["searched"], *each["scores"]}) == 3
    rows = read_run(next((tmp_path / "targets").iterdir())).rows
    assert {row["settings"]["phase"] for row in rows} == {"search"}  # never on the test set
    assert {row["settings"]["seed"] for row in rows} == {POOL_SEED + k for k in range(3)}
    assert len(rows) == 2 * (3 + 2)
    monkeypatch.setattr(InThisProcess, "asked", [])
    assert asked_for(tmp_path) == [found]
    assert InThisProcess.asked == []


def test_half_a_pool_that_diverges_sets_no_target(tmp_path, monkeypatch, capsys):
    def diverged(workload, *_):
        return record(workload, target=math.inf, pool={"optimizers": {}})

    monkeypatch.setattr(pool, "open_backend", InThisProcess)
    monkeypatch.setattr(pool, "record_of", diverged)
    monkeypatch.setattr(pool, "keep", lambda _: pytest.fail("it was kept"))
    few = ["--trials", "1", "--reruns", "1", "--optimizers", "sgd", "--out", str(tmp_path)]
    with pytest.raises(SystemExit, match="1"):
        pool.main(["quadratic_1e2", *few])
    assert "there is no target: quadratic_1e2" in capsys.readouterr().err


def test_records_are_kept_one_for_each_workload_and_data(workload, monkeypatch, tmp_path):
    for module in (pool, targets):
        monkeypatch.setattr(module, "PATH", tmp_path / "targets.json")
    pool.keep(record(build("quadratic_1e4")))
    pool.keep(record(workload, target=-1.0))
    pool.keep(record(workload, target=-2.0))
    pool.keep(record(workload, data="other"))
    kept = [(each["workload"], each["target"]) for each in targets.read_records()]
    assert kept == [("quadratic_1e2", -2.0), ("quadratic_1e2", -3.0), ("quadratic_1e4", -3.0)]
    assert targets.find_target(workload) == -2.0


def test_every_workload_has_a_target_and_a_row_in_the_readme():
    readme = (targets.PATH.parent / "README.md").read_text()
    records = json.loads(targets.PATH.read_text())["records"]
    assert {each["workload"] for each in records} == {*NAMES}
    for each in records:
        scores = [found["score"] for found in each["pool"]["optimizers"].values()]
        assert 0 <= each["target"] - statistics.median_low(scores) < 1e-3
    for row in pool.table():
        assert row in readme
    for name in NAMES:
        assert f"`{name}`" in readme


def test_the_table_can_be_asked_for_and_a_wrong_request_is_refused(capsys):
    pool.main(["--table"])
    assert "`digits_mlp`" in capsys.readouterr().out
    for request, said in {
        ("digits_mlp", "--trials", "0"): "must be at least 1; received 0 and 3",
        ("digits_mpl",): "digits_mlp",
        ("digits_mlp", "--optimizers", "adamm"): "adamw",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            pool.main([*request])
        assert said in capsys.readouterr().err
