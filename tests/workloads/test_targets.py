"""Targets: which record counts for which data, and what the pool makes of its trainings."""

import json
import math
import statistics

import pytest

from research.errors import DataError
from research.workloads import NAMES, POOL_SEED, build, pool, targets
from research.workloads.pool import Trained


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
    with pytest.raises(DataError, match="there is one on spoken: 3 recordings"):
        targets.find_target(workload, [other])
    with pytest.raises(DataError, match="there is one on no data"):
        targets.find_target(workload, [])


def test_the_pool_takes_the_lower_median_of_what_tuned_optimizers_reach(workload, monkeypatch):
    """Trials score by their learning rate; the best is trained again, from other seeds."""
    asked = []

    def make_training(workload, optimizer):
        offset = {"sgd": 2.0, "momentum": 1.00001, "adam": 0.0, "nesterov": 5.0}[optimizer]

        def training(hyperparameters, seed):
            asked.append((optimizer, hyperparameters["learning_rate"], seed))
            if seed == POOL_SEED:
                diverged = hyperparameters["learning_rate"] > 0.5
                return Trained(math.inf if diverged else -hyperparameters["learning_rate"], 1.0)
            return Trained(offset + (seed - POOL_SEED) / 10, 3.0)

        return training

    monkeypatch.setattr(pool, "make_training", make_training)
    names = ("sgd", "momentum", "adam", "nesterov")
    found = pool.set_target(workload, names, trials=4, reruns=3)
    assert found["target"] == 1.2001  # momentum's median of 1.1, 1.2, 1.3 and a bit, rounded up
    assert found["parameters"] == 32
    for name, each in found["pool"]["optimizers"].items():
        tried = [rate for optimizer, rate, seed in asked if (optimizer, seed) == (name, POOL_SEED)]
        again = [rate for optimizer, rate, seed in asked if optimizer == name and seed != POOL_SEED]
        assert len(tried) == 4
        assert again == [max(rate for rate in tried if rate <= 0.5)] * 3
        assert each["diverged"] == sum(rate > 0.5 for rate in tried)
    seeds = {seed for _, _, seed in asked}
    assert seeds == {POOL_SEED, *found["pool"]["rerun_seeds"]}


def test_a_training_is_a_function_of_point_and_seed_and_may_diverge(workload):
    training = pool.make_training(workload._replace(steps=40), "sgd")
    first = training({"learning_rate": 0.1}, 1)
    assert first.score == training({"learning_rate": 0.1}, 1).score < 0
    assert training({"learning_rate": 0.1}, 2).score != first.score
    assert training({"learning_rate": 1e4}, 1).score == math.inf


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
    with pytest.raises(SystemExit):
        pool.main(["digits_mlp", "--trials", "0"])
