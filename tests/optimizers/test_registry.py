"""The registry: formulas by hand, search spaces that contain what they should, clear errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import optimizers
from research.errors import ConfigError
from research.optimizers import OPTIMIZERS, SCHEDULES, Range

LOW, HIGH = 0.0, 1.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trains_a_quadratic_from_its_own_space(name):
    """Some point of a small draw must bring an ill-conditioned quadratic down tenfold."""
    curvature = jnp.array([1.0, 20.0])

    def loss(x):
        return 0.5 * jnp.sum(curvature * x**2)

    def final(hyperparameters):
        optimizer = OPTIMIZERS[name].build(**hyperparameters)

        def step(carry, _):
            x, state = carry
            updates, state = optimizer.update(jax.grad(loss)(x), state, x)
            return (optax.apply_updates(x, updates), state), None

        start = jnp.array([1.0, 1.0])
        (x, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), length=200)
        return loss(x)

    points = optimizers.draw_trials(OPTIMIZERS[name].space, 8, seed=0)
    stacked = {key: jnp.array([point[key] for point in points]) for key in points[0]}
    finals = jax.vmap(final)(stacked)  # hyperparameters are traced: one program serves all trials
    assert jnp.nanmin(finals) < 0.1 * loss(jnp.array([1.0, 1.0]))


def one_step(optimizer, gradient, params):
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    return jnp.asarray(optax.apply_updates(params, updates))


def test_first_steps_are_the_published_formulas():
    x, g = jnp.array([2.0, -1.0]), jnp.array([0.5, -4.0])
    lr = 0.1
    build = {name: entry.build for name, entry in OPTIMIZERS.items()}
    expected = {
        "sgd": x - lr * g,
        "momentum": x - lr * g,
        "nesterov": x - lr * (g + 0.9 * g),
        "adam": x - lr * g / (jnp.abs(g) + 1e-8),
        "adamw": x - lr * (g / (jnp.abs(g) + 1e-8) + 0.5 * x),
        "rmsprop": x - lr * g / jnp.sqrt(0.1 * g**2 + 1e-8),
    }
    actual = {
        "sgd": one_step(build["sgd"](lr), g, x),
        "momentum": one_step(build["momentum"](lr, 0.9), g, x),
        "nesterov": one_step(build["nesterov"](lr, 0.9), g, x),
        "adam": one_step(build["adam"](lr, b1=0.8, b2=0.9, eps=1e-8), g, x),
        "adamw": one_step(build["adamw"](lr, b1=0.8, b2=0.9, weight_decay=0.5), g, x),
        "rmsprop": one_step(build["rmsprop"](lr, decay=0.9, eps=1e-8), g, x),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, err_msg=name)


def test_momentum_accumulates():
    optimizer = OPTIMIZERS["momentum"].build(0.1, momentum=0.9)
    params = jnp.zeros(())
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(jnp.ones(()), state, params)
        params = optax.apply_updates(params, updates)
    assert float(jnp.asarray(params)) == pytest.approx(-0.1 * (1 + 1.9 + 2.71))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_entry_is_complete(name):
    entry = OPTIMIZERS[name]
    assert "learning_rate" in entry.space
    assert any(char.isdigit() for char in entry.paper)  # a year
    for bounds in entry.space.values():
        assert 0 < bounds.at(LOW) < bounds.at(0.5) < bounds.at(HIGH)


def test_decay_rates_are_spread_towards_one():
    bounds = Range(0.9, 0.999, below_one=True)
    assert bounds.at(LOW) == pytest.approx(0.9)
    assert bounds.at(0.5) == pytest.approx(0.99)
    assert bounds.at(HIGH) == pytest.approx(0.999)


def test_trials_are_equal_in_number_reproducible_and_spread():
    space = {"learning_rate": Range(1e-4, 1.0), "momentum": Range(0.8, 0.99, below_one=True)}
    points = optimizers.draw_trials(space, 16, seed=3)
    assert points == optimizers.draw_trials(space, 16, seed=3)
    assert points != optimizers.draw_trials(space, 16, seed=4)
    fractions = np.array([np.log10(point["learning_rate"]) / 4 + 1 for point in points])
    assert ((fractions >= 0) & (fractions <= 1)).all()
    # a van der Corput sequence in base 2 puts one of 16 points into each sixteenth
    assert sorted((fractions * 16).astype(int).tolist()) == list(range(16))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_scale_from_at_most_one_to_their_end(name):
    values = np.array([float(jnp.asarray(SCHEDULES[name](100)(step))) for step in range(101)])
    assert values.max() == pytest.approx(1.0, abs=1e-6)
    assert values[-1] == pytest.approx(1.0 if name == "constant" else 0.0, abs=1e-6)
    if name == "warmup_cosine":
        assert values[0] == 0.0
        assert values.argmax() == 10


def test_the_schedule_scales_weight_decay_too():
    optimizer = optimizers.with_schedule(
        OPTIMIZERS["adamw"].build(1.0, weight_decay=0.5), "warmup_cosine", 100
    )
    params = jnp.ones(())
    updates, _ = optimizer.update(jnp.zeros(()), optimizer.init(params), params)
    assert jnp.asarray(updates) == 0.0


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ConfigError, match=r"received 'adma'\. Did you mean 'adam'"):
        optimizers.find("adma")
    with pytest.raises(ConfigError, match="schedule must be one of constant, cosine"):
        optimizers.with_schedule(optax.sgd(1.0), "zzz", 3)
