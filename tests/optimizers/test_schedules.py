"""Schedules: their shapes by their definitions, and the ways in which they reach an update."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.errors import ConfigError
from research.optimizers import SCHEDULES, build_scheduled, find, find_schedule

# Of 100 steps: the factor at some of them, by hand.
POINTS = {
    "constant": {0: 1.0, 50: 1.0, 100: 1.0},
    "linear": {0: 1.0, 25: 0.75, 100: 0.0},
    "cosine": {0: 1.0, 50: 0.5, 100: 0.0},
    "step": {0: 1.0, 49: 1.0, 50: 0.1, 74: 0.1, 75: 0.01, 100: 0.01},
    "warmup": {0: 0.0, 5: 0.5, 10: 1.0, 100: 1.0},
    "warmup_linear": {0: 0.0, 5: 0.5, 10: 1.0, 55: 0.5, 100: 0.0},
    "warmup_cosine": {0: 0.0, 5: 0.5, 10: 1.0, 55: 0.5, 100: 0.0},
    "inverse_sqrt": {0: 0.0, 5: 0.5, 10: 1.0, 40: 0.5, 90: 1 / 3},
    "wsd": {0: 0.0, 5: 0.5, 10: 1.0, 80: 1.0, 90: 0.5, 100: 0.0},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_their_definitions(name):
    schedule = SCHEDULES[name](100)
    for step, factor in POINTS[name].items():
        assert float(jnp.asarray(schedule(step))) == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_of_any_length_stay_between_zero_and_one(name):
    for steps in range(1, 13):
        schedule = SCHEDULES[name](steps)
        assert jnp.shape(schedule(jnp.asarray(0))) == ()
        values = np.array([float(jnp.asarray(schedule(step))) for step in range(steps + 2)])
        assert ((values >= 0) & (values <= 1)).all()  # which NaN is not
        if steps > 1:  # a training of one step may be all warm-up
            assert values[:steps].max() == 1.0


@pytest.mark.parametrize(("steps", "factors"), [(1, [1]), (2, [1, 0.1]), (3, [1, 1, 0.1])])
def test_few_steps_fall_at_a_half_and_at_three_quarters(steps, factors):
    schedule = SCHEDULES["step"](steps)
    assert [float(jnp.asarray(schedule(step))) for step in range(steps)] == pytest.approx(factors)


def first_update(optimizer, gradient):
    params = jnp.ones(())
    return float(jnp.asarray(optimizer.update(gradient, optimizer.init(params), params)[0]))


def test_the_schedule_scales_weight_decay_too():
    hyperparameters = {"learning_rate": 1.0, "weight_decay": 0.5}
    optimizer = build_scheduled(find("adamw"), hyperparameters, "warmup_cosine", 100)
    assert first_update(optimizer, jnp.zeros(())) == 0.0


@pytest.mark.parametrize("name", ["adamw", "schedule_free_sgd"])
def test_both_ways_of_scheduling_start_as_the_schedule_does(name):
    def update(schedule):
        optimizer = build_scheduled(find(name), {"learning_rate": 0.1}, schedule, 100)
        return first_update(optimizer, jnp.ones(()))

    assert update("cosine") == pytest.approx(update("constant"))
    assert abs(update("warmup")) < 0.2 * abs(update("constant"))


def test_a_schedule_inside_is_the_learning_rate():
    """MADGRAD's dual average weights each gradient by the learning rate of its step."""
    scheduled = build_scheduled(find("madgrad"), {"learning_rate": 0.1}, "linear", 4)
    by_hand = optax.contrib.madgrad(lambda step: 0.1 * jnp.maximum(1 - step / 4, 1e-6))
    params = jnp.ones(())
    states = [optimizer.init(params) for optimizer in (scheduled, by_hand)]
    for gradient in (1.0, -2.0, 3.0):
        first, states[0] = scheduled.update(jnp.asarray(gradient), states[0], params)
        second, states[1] = by_hand.update(jnp.asarray(gradient), states[1], params)
        np.testing.assert_allclose(jnp.asarray(first), jnp.asarray(second), rtol=1e-5)


def test_unknown_schedules_are_refused():
    with pytest.raises(ConfigError, match="schedule must be one of constant, cosine"):
        build_scheduled(find("sgd"), {"learning_rate": 1.0}, "zzz", 3)
    with pytest.raises(ConfigError, match=r"received 'wsdd'\. Did you mean 'wsd'"):
        find_schedule("wsdd")


@pytest.mark.parametrize(
    ("given", "steps", "said"),
    [
        ({}, 10, "received none"),
        ({"learning_rate": 0.1, "lr": 1.0}, 10, "received learning_rate, lr"),
        ({"learning_rate": 0.1}, 0, "at least one step"),
    ],
)
@pytest.mark.parametrize("name", ["adam", "madgrad"])
def test_hyperparameters_and_steps_that_cannot_be_are_named(name, given, steps, said):
    with pytest.raises(ConfigError, match=said):
        build_scheduled(find(name), given, "linear", steps)
