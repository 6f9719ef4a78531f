"""The optimizer comparison: values by hand, honest verdicts, what is missing or diverged."""

import math

import pytest

from research.errors import RunError
from research.report import optimizers, render
from research.report.optimizer_table import Cell, cells, edges, verdict
from research.runlog import read_run

pytestmark = pytest.mark.usefixtures("unpainted")


def rows_of(path):
    return {row["optimizer"]: row for row in optimizers.table(read_run(path))}


def test_the_table_is_what_one_computes_by_hand(optimizer_run):
    rows = rows_of(optimizer_run())
    assert list(rows) == ["sgd", "adam"]  # the order of the configuration
    adam = rows["adam"]
    assert adam["best_validation_accuracy"] == 0.96
    assert adam["test_accuracy_mean"] == pytest.approx(0.96)
    assert adam["test_accuracy_deviation"] == pytest.approx(0.01)
    half = 4.302653 * 0.01 / math.sqrt(3)
    assert adam["test_accuracy_low"] == pytest.approx(0.96 - half)
    assert adam["test_accuracy_high"] == pytest.approx(0.96 + half)
    assert (adam["steps_to_target_mean"], adam["target_reached"]) == (125, 2)
    assert (adam["search_trials"], adam["search_diverged"]) == (2, 1)
    assert (adam["final_trials"], adam["final_diverged"], adam["test_accuracy_seeds"]) == (3, 0, 3)
    assert adam["hyperparameters"] == {"learning_rate": 0.001}
    assert (rows["sgd"]["steps_to_target_mean"], rows["sgd"]["target_reached"]) == (None, 0)


def test_timings_do_not_reach_the_table(optimizer_run):
    path = optimizer_run()
    before = optimizers.table(read_run(path))
    (path / "timings.jsonl").unlink()
    assert optimizers.table(read_run(path)) == before


def final_runs(make, tests):
    """A final run per seed, from the test accuracies of each optimizer."""
    return [
        make(name, phase="final", number=seed, test=test, validation=test)
        for name, values in tests.items()
        for seed, test in enumerate(values)
    ]


def test_a_clear_difference_has_a_winner(optimizer_run):
    said = verdict(cells(read_run(optimizer_run())))
    assert "Adam is ahead with a mean test accuracy of 96.0 %" in said
    assert "SGD with 81.0 %" in said


@pytest.mark.parametrize(
    ("tests", "wanted", "unwanted"),
    [
        # Intervals overlap.
        ({"adam": [0.95, 0.97], "sgd": [0.94, 0.95]}, "no clear winner", "ahead"),
        # No spread over seeds, but less than one of 360 test images between the means.
        ({"adam": [0.9520, 0.9520], "sgd": [0.9500, 0.9500]}, "no clear winner", "ahead"),
        ({"adam": [0.9600, 0.9600], "sgd": [0.9500, 0.9500]}, "Adam is ahead", "no clear"),
        # One seed says nothing about the spread.
        ({"adam": [0.99], "sgd": [0.5]}, "no winner can be named", "ahead"),
        ({"adam": [0.9, 0.95]}, "nothing to compare", "ahead"),
        # A third one is out of the race, the first two are not apart.
        (
            {"adam": [0.95, 0.96], "adamw": [0.95, 0.961], "sgd": [0.5, 0.5]},
            "SGD is lower",
            "ahead",
        ),
    ],
)
def test_the_verdict_says_no_more_than_the_numbers(
    optimizer_run, make_optimizer_trial, tests, wanted, unwanted
):
    trials = final_runs(make_optimizer_trial, tests)
    path = optimizer_run(
        trials=trials, config={"workloads": ["mlp"], "optimizers": list(tests)}, metrics=[]
    )
    said = verdict(cells(read_run(path)))
    assert wanted in said
    assert unwanted not in said


def test_a_diverged_final_run_is_counted_and_not_ranked(optimizer_run, make_optimizer_trial):
    trials = final_runs(make_optimizer_trial, {"adam": [0.99, 0.99], "sgd": [0.9, 0.91]})
    trials.append(make_optimizer_trial("adam", phase="final", number=2, diverged=True))
    path = optimizer_run(trials=trials, metrics=[])
    said = verdict(cells(read_run(path)))
    assert "Adam diverged in 1 of 3 final runs and is not ranked" in said
    assert "only SGD has final runs" in said
    adam = rows_of(path)["adam"]
    assert (adam["final_diverged"], adam["test_accuracy_seeds"]) == (1, 2)
    assert "1 final" in render(read_run(path)).body


def test_an_optimizer_of_which_all_diverged_has_a_row(optimizer_run, make_optimizer_trial):
    trials = final_runs(make_optimizer_trial, {"adam": [0.95, 0.96]})
    trials += [make_optimizer_trial("sgd", number=k, diverged=True) for k in range(2)]
    path = optimizer_run(trials=trials, metrics=[])
    sgd = rows_of(path)["sgd"]
    assert (sgd["search_diverged"], sgd["search_trials"]) == (2, 2)
    assert sgd["best_validation_accuracy"] is None
    assert sgd["test_accuracy_mean"] is None
    body = render(read_run(path)).body
    assert "Every search trial of SGD diverged" in body
    assert "2 of 2" in body


def test_a_run_in_progress_says_so(optimizer_run, make_optimizer_trial):
    path = optimizer_run(trials=[make_optimizer_trial("adam")], metrics=[])
    report = render(read_run(path))
    assert "Run in progress: 1 of 10 trials" in report.body
    assert "no final run has finished" in report.body
    assert [row["test_accuracy_mean"] for row in report.rows] == [None, None]


def test_a_run_without_any_trial_has_a_report(optimizer_run):
    report = render(read_run(optimizer_run(trials=[], metrics=[], timings=[])))
    assert "Run in progress: 0 of 10 trials" in report.body
    assert not report.figures


def test_a_complete_run_is_not_in_progress(optimizer_run):
    assert "Run in progress" not in render(read_run(optimizer_run())).body


@pytest.mark.parametrize(
    ("rate", "mark"), [(0.0011, "lowest"), (0.9, "highest"), (0.03, None), (0.002, None)]
)
def test_the_edge_of_a_logarithmic_search_space(optimizer_run, make_optimizer_trial, rate, mark):
    config = {
        "workloads": ["mlp"],
        "optimizers": ["adam"],
        "search_spaces": {
            "adam": {"learning_rate": {"low": 0.001, "high": 1.0, "below_one": False}},
        },
    }
    trials = [make_optimizer_trial("adam", learning_rate=rate)]
    (cell,) = cells(read_run(optimizer_run(trials=trials, config=config, metrics=[])))
    assert edges(cell, config).get("learning_rate") == mark


def test_the_edge_of_a_decay_rate_is_that_of_its_distance_from_one(make_optimizer_trial):
    space = {"beta": {"low": 0.9, "high": 0.999, "below_one": True}}
    config = {"workloads": ["mlp"], "optimizers": ["adam"], "search_spaces": {"adam": space}}
    found = {}
    for beta in (0.901, 0.99, 0.9989):
        trial = make_optimizer_trial("adam")
        trial["settings"]["hyperparameters"] = {"beta": beta}
        found[beta] = edges(Cell("mlp", "adam", [trial], []), config).get("beta")
    assert found == {0.901: "lowest", 0.99: None, 0.9989: "highest"}


def test_of_equal_accuracies_the_lower_loss_is_best(make_optimizer_trial):
    trials = [make_optimizer_trial("adam", number=k, learning_rate=10.0**-k) for k in range(3)]
    for trial, loss in zip(trials, (0.3, 0.1, 0.2), strict=True):
        trial["result"]["validation_loss"] = loss
    assert Cell("mlp", "adam", trials, []).best_search is trials[1]
    # The final runs say which one was chosen, whatever this report would have chosen.
    final = make_optimizer_trial("adam", phase="final", test=0.9, learning_rate=0.01)
    assert Cell("mlp", "adam", trials, [final]).chosen_search is trials[2]


def test_a_hopeless_optimizer_is_not_waited_for(optimizer_run, make_optimizer_trial):
    trials = final_runs(make_optimizer_trial, {"adam": [0.95, 0.96, 0.97]})
    trials += [make_optimizer_trial("adam", number=k) for k in range(2)]
    trials += [make_optimizer_trial("sgd", number=k, diverged=True) for k in range(2)]
    body = render(read_run(optimizer_run(trials=trials, metrics=[]))).body
    assert "Run in progress" not in body


def test_without_a_search_space_the_extremes_tried_are_the_edge(
    optimizer_run, make_optimizer_trial
):
    trials = [
        make_optimizer_trial(
            "adam", number=k, learning_rate=0.001 * (1 + k), validation=0.9 - k / 100
        )
        for k in range(8)
    ]
    path = optimizer_run(trials=trials, metrics=[])
    assert rows_of(path)["adam"]["at_edge"] == {"learning_rate": "lowest"}
    assert "(edge)</span>" in render(read_run(path)).body
    assert edges(Cell("mlp", "adam", trials[:7], []), {}) == {}  # of few, one is soon the lowest


def test_the_figures_are_there(optimizer_run):
    found = {figure.name for figure in render(read_run(optimizer_run())).figures}
    assert found == {"test_accuracy", "learning_curves", "learning_rate_mlp", "confusion"}


@pytest.mark.parametrize(
    "damage",
    [
        {"result": {}},
        {"result": {"validation_accuracy": 1.5}},
        {"result": {"validation_accuracy": float("nan")}},
        {"result": {"validation_accuracy": True}},
        {"settings": {"workload": "mlp"}},
        {"status": "running"},
        {"settings": None},
    ],
)
def test_a_damaged_trial_is_named(optimizer_run, make_optimizer_trial, damage):
    trial = make_optimizer_trial("adam") | damage
    with pytest.raises(RunError, match="mlp/adam/search-00"):
        render(read_run(optimizer_run(trials=[trial], metrics=[])))


def test_a_damaged_confusion_matrix_is_an_error(optimizer_run, make_optimizer_trial):
    trial = make_optimizer_trial("adam", phase="final", test=0.9)
    trial["result"]["confusion"] = [[1, 2], [3]]
    with pytest.raises(RunError, match="table of counts"):
        render(read_run(optimizer_run(trials=[trial], metrics=[])))
