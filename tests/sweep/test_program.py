"""One program for all trainings of a task: the same rows in every mode, and as a plain loop's."""

import dataclasses
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_workload
from tiny_workload import task, trainings

from research.data.sampler import batch_indices
from research.errors import ConfigError
from research.optimizers import build_scheduled, find
from research.sweep.chunks import Plan, cut, groups_of
from research.sweep.curve import Curve
from research.sweep.meter import metered
from research.sweep.program import make_program, prepare, sizes, train
from research.train import Diverged, evaluate, fit, init_state, make_train_step, padded_batches
from research.workloads.workload import Examination

PLANS = [
    Plan("scan"),
    Plan("step"),
    Plan("map", 2, 1),
    Plan("vmap", 4, 4),
    Plan("chunked", 4, 2),
]


@pytest.fixture(scope="module")
def prepared():
    return prepare(tiny_workload.load("tiny"))


SLOW = 0.003  # a rate at which nothing diverges
PROGRAMS = {}


def program_of(prepared, plan, of):
    """Compiled once for all tests."""
    if (plan, of) not in PROGRAMS:
        PROGRAMS[plan, of] = make_program(prepared.workload, of, plan)
    return PROGRAMS[plan, of]


def run(prepared, plan, which):
    program = program_of(prepared, plan, which[0].task)
    rows = []
    for group in groups_of(plan, which):
        rows += [ended.row for ended in train(program, prepared, plan, group)[0]]
    return rows


def plain_loop(workload, training):
    """The same training with the loop of ``research.train``: the specification."""
    of, entry = training.task, find(training.task.optimizer, training.task.space_version)
    optimizer = build_scheduled(entry, training.hyperparameters, of.schedule, of.steps)
    init_key, key = jax.random.split(jax.random.key(training.seed))
    size = len(workload.train["y"])
    curve = {"train_loss": [], "validation_loss": [], "validation_score": []}

    def batches(step):
        index = batch_indices(training.seed, step, size, workload.batch_size)
        return {name: array[index] for name, array in workload.train.items()}

    def measure(state, split):
        params = entry.evaluated(state.opt_state, state.params)
        return evaluate(workload.measure, params, padded_batches(split, 64))

    def on_evaluate(state, loss):
        values = measure(state, workload.validation)
        curve["train_loss"].append(loss)
        curve["validation_loss"].append(values["loss"])
        curve["validation_score"].append(values["score"])

    step = jax.jit(make_train_step(workload.loss, lambda loss, batch: loss, optimizer))
    start = init_state(workload.init(init_key), optimizer)
    settings = {"steps": of.steps, "evaluate_every": of.evaluate_every}
    try:
        state = fit(step, start, batches, key=key, on_evaluate=on_evaluate, **settings)
    except Diverged as divergence:
        return curve, divergence.step, None
    return curve, None, measure(state, workload.test)


def assert_follows(result, curve):
    for name, values in curve.items():
        assert None not in result[name][: len(values)]
        np.testing.assert_allclose(result[name][: len(values)], values, rtol=1e-4)
        assert set(result[name][len(values) :]) <= {None}


# Trains others than it evaluates; its schedule lies inside.
OPTIMIZER = "schedule_free_adamw"


def with_rate(training, rate):
    changed = {**training.hyperparameters, "learning_rate": rate}
    return dataclasses.replace(training, hyperparameters=changed)


def calm(number, **kwargs):
    """Trainings that do not amplify the last bits."""
    drawn = trainings(task(optimizer=OPTIMIZER), number, **kwargs)
    return [with_rate(training, SLOW * (1 + i)) for i, training in enumerate(drawn)]


def test_every_mode_gives_the_rows_of_a_plain_loop(prepared):
    which = calm(3, phase="final")
    expected = [plain_loop(prepared.workload, training) for training in which]
    for plan in PLANS:
        rows = run(prepared, plan, which)
        for training, row, (curve, _, tested) in zip(which, rows, expected, strict=True):
            assert (row["key"], row["settings"]) == (training.key(), training.settings())
            result = row["result"]
            assert (row["status"], result["diverged_at"]) == ("finished", None)
            assert result["steps"] == [10, 20, 30, 40]
            assert_follows(result, curve)
            assert len(curve["train_loss"]) == 4
            assert tested is not None
            assert math.isclose(result["test_loss"], tested["loss"], rel_tol=1e-4)
            assert math.isclose(result["test_score"], tested["score"], rel_tol=1e-4)


def test_a_training_that_diverges_is_the_same_row_in_every_mode(prepared):
    """By chance, since what a rate makes diverge amplifies the last bits by orders of magnitude."""

    def loss(params, batch, key):
        overflows = jax.random.uniform(jax.random.fold_in(key, 0)) < 0.02
        return prepared.workload.loss(params, batch, key) * jnp.where(overflows, jnp.inf, 1.0)

    at_times = prepared._replace(workload=prepared.workload._replace(loss=loss))
    which = calm(4, phase="final")
    which[3] = with_rate(which[3], 1e30)
    expected = [plain_loop(at_times.workload, training) for training in which]
    assert [step for _, step, _ in expected] == [None, 5, 20, 2]
    for plan in PLANS:
        program = make_program(at_times.workload, which[0].task, plan)
        groups = [train(program, at_times, plan, group)[0] for group in groups_of(plan, which)]
        rows = [ended.row for group in groups for ended in group]
        for row, (curve, step, _) in zip(rows, expected, strict=True):
            assert row["status"] == ("finished" if step is None else "diverged")
            assert row["result"]["diverged_at"] == step
            assert_follows(row["result"], curve)
            assert (row["result"]["test_loss"] is None) == (step is not None)


def test_a_scan_stops_where_all_of_it_has_diverged(prepared):
    (training,) = trainings(task(optimizer="sgd"), 1)
    training = dataclasses.replace(training, hyperparameters={"learning_rate": 1e4})
    program = program_of(prepared, Plan("scan"), training.task)
    assert train(program, prepared, Plan("scan"), [training])[1] == 10


def test_no_training_after_the_first_compiles_anything(prepared):
    first, *others = calm(4)
    for plan in (Plan("scan"), Plan("vmap", 2, 2)):
        program = make_program(prepared.workload, first.task, plan)
        with metered() as spent:
            train(program, prepared, plan, [first])
        assert spent.compilations > 0
        with metered() as spent:
            for training in others:
                train(program, prepared, plan, [training])
        assert spent.compilations == 0
        assert spent.compile_seconds == 0


def test_the_cost_of_steps_has_no_compilation_and_no_test_in_it(prepared):
    nap = 0.2

    def examine(params):
        del params
        time.sleep(nap)
        return Examination({}, {}, {})

    examined = prepared._replace(workload=prepared.workload._replace(examine=examine))
    of = task(steps=20)
    (first,) = trainings(of, 1, phase="final")
    first = with_rate(first, SLOW)
    program = make_program(examined.workload, of, Plan("scan"))
    with metered() as whole:
        (ended,), steps, spent = train(program, examined, Plan("scan"), [first])
    assert ended.examination is not None
    assert steps == 20
    assert spent.compile_seconds > 0
    assert 0 < spent.running < spent.seconds < whole.seconds - nap


@pytest.mark.parametrize("plan", PLANS)
def test_who_else_is_in_the_call_changes_no_bit(prepared, plan):
    which = calm(4)
    whole = run(prepared, plan, which)
    assert run(prepared, plan, which) == whole
    changed = [*which[:1], *calm(4, study=7)[1:]]  # in the same places
    assert changed[1] != which[1]
    assert run(prepared, plan, changed)[0] == whole[0]


@pytest.mark.parametrize("plan", [Plan("scan"), Plan("vmap", 2, 2)])
def test_final_trainings_are_examined_with_the_parameters_that_were_tested(prepared, plan):
    workload, seen = prepared.workload, []

    def examine(params):
        seen.append(params)
        losses = workload.measure(params, workload.test)["loss"]
        return Examination({"loss": float(np.mean(losses))}, {}, {})

    examined = prepared._replace(workload=workload._replace(examine=examine))
    # Its parameters to evaluate are not those that it trains.
    of = task(optimizer="schedule_free_adamw", steps=20)
    program = make_program(examined.workload, of, plan)
    for phase in ("search", "final"):
        which = [with_rate(training, SLOW) for training in trainings(of, 2, phase=phase)]
        for group in groups_of(plan, which):
            for ended in train(program, examined, plan, group)[0]:
                if phase == "search":
                    assert ended.examination is None
                    assert "details" not in ended.row["result"]
                else:
                    found = ended.row["result"]["details"]["loss"]
                    assert found == pytest.approx(ended.row["result"]["test_loss"], rel=1e-5)
    assert len(seen) == 2


def test_only_final_trainings_are_tested(prepared):
    (row,) = run(prepared, Plan("scan"), calm(1))
    assert row["status"] == "finished"
    assert row["result"]["test_loss"] is None


def test_state_and_parameters_are_counted(prepared):
    of = task(optimizer="adam")
    (training,) = trainings(of, 1)
    program = make_program(prepared.workload, of, Plan("vmap", 4, 4))
    found = sizes(program, prepared, training)
    assert found["parameters"] == 5 * 8 + 8
    assert 2 * 4 * 48 <= found["state_bytes"] <= 2 * 4 * 48 + 16  # two moments and counts


@pytest.mark.parametrize(
    ("losses", "score", "diverged_at"),
    [([1, np.inf, 1], 0.5, 5), ([1, 1, np.nan], 0.5, 6), ([1, 1, 1], np.nan, None)],
)
def test_a_curve_ends_where_it_is_not_finite_whatever_follows(losses, score, diverged_at):
    curve = Curve(9, 3)
    curve.add(np.array([4.0, 2.0, 3.0]), 2.0, 0.9)
    curve.add(np.array(losses), 1.0, score)
    assert curve.ended
    curve.add(np.full(3, np.nan), 1.0, 0.1)
    row = curve.row(trainings(task(), 1)[0], {"loss": 1.0, "score": 1.0})
    result = row["result"]
    assert row["status"] == "diverged"
    assert result["diverged_at"] == diverged_at
    assert result["steps"] == [3, 6, 9]
    assert result["train_loss"] == [3.0, 1.0 if diverged_at is None else None, None]
    assert result["validation_score"] == [0.9, None, None]
    assert result["test_score"] is None


def test_windows_must_fill_the_steps(prepared):
    with pytest.raises(ConfigError, match="steps=40, evaluate_every=7"):
        make_program(prepared.workload, task(evaluate_every=7), Plan("scan"))


@pytest.mark.parametrize("plan", [Plan("scan", 2), Plan("vmap", 4, 2), Plan("chunked", 4, 3)])
def test_a_plan_that_is_none_is_refused(plan):
    with pytest.raises(ValueError, match="a plan must be"):
        plan.checked()


def test_chunks_keep_groups_whole_wherever_they_are_cut():
    plan, which = Plan("vmap", 3, 3), trainings(task(), 11)
    groups = groups_of(plan, which)
    keys = [training.key() for training in which]
    for parts in (1, 2, 3, 9):
        chunks = cut(plan, which, keys[:4], parts=parts)
        assert len(chunks) == min(parts, 3)
        # The first group is done; the second only in part, so it is run whole.
        assert [g for chunk in chunks for g in groups_of(plan, chunk.trainings)] == groups[1:]
    assert cut(plan, which, keys, parts=2) == []
