"""The optimizer comparison, small: equal budgets, honest selection, resumable, loud about NaN."""

import csv
import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import pytest

from experiments import compare_optimizers
from experiments.command_line import Options
from experiments.compare_optimizers import RECIPES, Config
from research import optimizers
from research.errors import ConfigError
from research.optimizers.registry import VERSIONS
from research.runlog import read_run

TINY = Config(
    workloads=("mlp",),
    optimizers=("sgd", "adam"),
    trials=2,
    seeds=(1, 2),
    steps=6,
    evaluate_every=3,
    target_accuracy=0.2,
)


def run(out, config=TINY, **options):
    report = compare_optimizers.run("quick", config, Options(out=out, **options))
    return report.parent


def table(path):
    with (path / "table.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs"))


def test_every_optimizer_gets_the_same_trials_and_seeds(finished):
    records = read_run(finished)
    for optimizer in TINY.optimizers:
        search = records.trials_where(optimizer=optimizer, phase="search")
        final = records.trials_where(optimizer=optimizer, phase="final")
        assert [trial["settings"]["index"] for trial in search] == [0, 1]
        assert [trial["settings"]["seed"] for trial in final] == [1, 2]
        assert {trial["settings"]["seed"] for trial in search} == {TINY.search_seed}
    assert len(table(finished)) == 2


def test_the_best_by_validation_is_run_again_and_only_that_sees_the_test_set(finished):
    records = read_run(finished)
    for optimizer in TINY.optimizers:
        search = records.trials_where(optimizer=optimizer, phase="search")
        best = max(
            search,
            key=lambda t: (t["result"]["validation_accuracy"], -t["result"]["validation_loss"]),
        )
        for trial in records.trials_where(optimizer=optimizer, phase="final"):
            chosen = best["settings"]["hyperparameters"]
            assert trial["settings"]["hyperparameters"] == chosen
            counts = trial["result"]["confusion"]
            right = sum(counts[k][k] for k in range(10))
            total = sum(map(sum, counts))
            assert trial["result"]["test_accuracy"] == pytest.approx(right / total)
            assert total == 359
        assert all("test_accuracy" not in trial["result"] for trial in search)


def test_steps_to_target_is_the_first_evaluation_that_reaches_it(finished):
    records = read_run(finished)
    for trial in records.trials:
        seen = [m for m in records.metrics if m["trial"] == trial["trial"]]
        assert [m["step"] for m in seen] == [3, 6]
        reached = [m["step"] for m in seen if m["validation_accuracy"] >= TINY.target_accuracy]
        assert trial["result"]["steps_to_target"] == (reached[0] if reached else None)


def test_interrupted_and_resumed_it_ends_with_the_same_table(finished, tmp_path, monkeypatch):
    trained = []
    original = compare_optimizers.train_trial

    def interrupted(trial, *rest):
        trained.append(trial.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return original(trial, *rest)

    monkeypatch.setattr(compare_optimizers, "train_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    again = run(tmp_path)
    assert again.name == finished.name
    assert (again / "table.csv").read_bytes() == (finished / "table.csv").read_bytes()
    assert trained.count(trained[2]) == 2  # the one cut short
    assert all(trained.count(name) == 1 for name in trained if name != trained[2])
    run(tmp_path)
    assert len(trained) == len(read_run(again).trials) + 1  # nothing was trained a third time


def test_divergence_is_recorded_and_the_comparison_goes_on(tmp_path, monkeypatch):
    bad = optimizers.find("sgd", version=1)._replace(
        space={"learning_rate": optimizers.Range(1e30, 1e35)}
    )
    monkeypatch.setitem(VERSIONS, 1, {**VERSIONS[1], "sgd": bad})
    path = run(tmp_path)
    records = read_run(path)
    diverged = records.trials_where(optimizer="sgd")
    assert [trial["status"] for trial in diverged] == ["diverged", "diverged"]
    assert all(0 < trial["result"]["diverged_at"] <= TINY.steps for trial in diverged)
    assert len(records.trials_where(optimizer="adam", phase="final")) == 2
    rows = {row["optimizer"]: row for row in table(path)}
    assert rows["sgd"]["search_diverged"] == "2"
    assert rows["adam"]["search_diverged"] == "0"


def test_an_adaptive_optimizer_really_learns_digits(tmp_path):
    config = dataclasses.replace(
        RECIPES["quick"].config, workloads=("mlp",), optimizers=("adam",), trials=4, seeds=(1,)
    )
    records = read_run(run(tmp_path, config))
    (final,) = records.trials_where(phase="final")
    assert final["result"]["test_accuracy"] >= 0.95


def test_what_is_measured_is_what_the_optimizer_says(tmp_path, monkeypatch):
    """An entry that would have zeros evaluated gets the accuracy of zeros: that of one class."""
    entry = optimizers.find("sgd", version=1)
    zeros = entry._replace(evaluated=lambda state, params: jax.tree.map(jnp.zeros_like, params))
    monkeypatch.setitem(VERSIONS, 1, {**VERSIONS[1], "sgd": zeros})
    config = dataclasses.replace(TINY, optimizers=("sgd",), trials=1, seeds=(1,))
    (final,) = read_run(run(tmp_path, config)).trials_where(phase="final")
    assert final["result"]["validation_loss"] == pytest.approx(math.log(10))
    assert final["result"]["test_loss"] == pytest.approx(math.log(10))


@pytest.mark.slow
def test_optimizers_of_every_kind_run(tmp_path):
    chosen = ("soap", "normuon", "kron", "prodigy", "schedule_free_adamw")
    config = dataclasses.replace(TINY, optimizers=chosen, trials=1, seeds=(1,))
    trials = read_run(run(tmp_path, config)).trials
    assert [trial["status"] for trial in trials] == ["finished"] * (2 * len(chosen))


@pytest.mark.parametrize("augment", [("flip", "crop", "rotation")])
def test_augmented_training_runs(tmp_path, augment):
    config = dataclasses.replace(TINY, optimizers=("adam",), trials=1, seeds=(1,), augment=augment)
    assert len(read_run(run(tmp_path, config)).trials) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": 0}, "trials must be at least 1; received 0"),
        ({"optimizers": ("adm",)}, "Did you mean 'adam'"),
        ({"optimizers": ("adam", "adam")}, "none twice"),
        ({"seeds": ()}, "at least one"),
        ({"seeds": (0, 1)}, "seeds must be fresh"),
    ],
)
def test_configurations_that_cannot_run_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **change)


def test_the_run_records_its_search_spaces(finished):
    config = json.loads((finished / "config.json").read_text())["config"]
    assert config["search_spaces"]["adam"]["learning_rate"]["high"] == 0.1
