"""The protocol of a comparison: equal searches of one's own, one winner, seeds that all share."""

import dataclasses

import pytest

from research import comparison, optimizers
from research.comparison import FIRST_SEARCH_SEED, Study
from research.errors import ConfigError
from research.sweep import Task

TASK = Task("digits_mlp", "ab", "adam", 2, "cosine", 100, 10)


def row(training, score, loss=0.0, status="finished"):
    result = {"validation_score": [1.0, score], "validation_loss": [1.0, loss]}
    return {"status": status, "settings": training.settings(), "result": result}


def searched(number=0, trials=4, task=TASK, seed=0):
    return comparison.search(Study(task, number), trials=trials, seed=seed)


def test_a_search_draws_points_of_its_optimizers_space_and_repeats_exactly():
    space = optimizers.find("adam", 2).space
    search = searched(trials=8)
    assert search == searched(trials=8)
    for training in search:
        assert training.hyperparameters.keys() == space.keys()
        for name, value in training.hyperparameters.items():
            assert space[name].low <= value <= space[name].high
    assert len({training.key() for training in search}) == 8


@pytest.mark.parametrize(
    "change",
    [{"workload": "gru"}, {"schedule": "linear"}, {"steps": 200}, {"space_version": 1}],
)
def test_every_study_has_points_of_its_own_and_the_seed_of_all(change):
    first, other = searched(), searched(task=TASK._replace(**change))
    assert {training.seed for training in first} == {training.seed for training in other}
    assert all(
        one.hyperparameters["learning_rate"] != two.hyperparameters["learning_rate"]
        for one, two in zip(first, other, strict=True)
    )


def test_further_studies_of_one_task_share_neither_points_nor_seeds_with_the_first():
    first, further, reseeded = searched(), searched(number=1), searched(seed=1)
    points = {training.hyperparameters["learning_rate"] for training in first}
    for other in (further, reseeded):
        assert points.isdisjoint(t.hyperparameters["learning_rate"] for t in other)
        assert {t.seed for t in first}.isdisjoint(t.seed for t in other)


def test_the_winner_is_the_finished_trial_with_the_lowest_score():
    a, b, c, d = searched()
    rows = [row(a, 0.3), row(b, 0.0, status="diverged"), row(c, 0.2, 5.0), row(d, 0.2, 4.0)]
    best = comparison.winner(rows)
    assert best is not None
    assert best["settings"]["trial"] == d.trial  # of equal scores, the lower loss
    assert comparison.winner([row(a, 0.0, status="diverged")]) is None


def test_final_runs_repeat_the_winner_with_seeds_that_no_search_used():
    search = searched()
    rows = [row(training, training.trial) for training in search]
    finals = comparison.final(Study(TASK), rows, (1, 2, 3))
    assert [training.seed for training in finals] == [1, 2, 3]
    assert {training.phase for training in finals} == {"final"}
    assert all(t.hyperparameters == search[0].hyperparameters for t in finals)
    assert all(t.seed >= FIRST_SEARCH_SEED for n in range(50) for t in searched(number=n, trials=1))
    with pytest.raises(ValueError, match="must lie in 0 to"):
        comparison.final(Study(TASK), rows, (FIRST_SEARCH_SEED,))


def test_a_search_that_diverged_throughout_has_no_final_runs():
    rows = [row(training, None, status="diverged") for training in searched()]
    assert comparison.final(Study(TASK), rows, (1, 2)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adm", "Did you mean 'adam'"),
        ("adam@cosin", "Did you mean 'cosine'"),
        ("adam@", "a schedule must follow the @"),
        ("", "optimizer must be one of"),
    ],
)
def test_entrants_that_do_not_exist_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        comparison.entrant(text, "cosine")


def test_trainings_that_differ_in_anything_are_kept_under_different_keys():
    (one, *_) = searched()
    changes = [{"seed": 5}, {"phase": "final"}, {"study": 1}, {"trial": 9}, {"hyperparameters": {}}]
    keys = {dataclasses.replace(one, **change).key() for change in changes} | {one.key()}
    assert len(keys) == len(changes) + 1
