"""Search spaces: recorded ones stay as they are, and those of version 2 contain the poorer's."""

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_matrix import compiled_in_haste

from research import optimizers
from research.errors import ConfigError
from research.optimizers import LATEST, NAMES, Range, find
from research.optimizers.nested import TYPICAL_GRADIENT

RESULTS = Path(__file__).resolve().parents[2] / "experiments" / "results" / "optimizers"


RECORDED = sorted(path.parent.name for path in RESULTS.glob("*/config.json"))


@pytest.mark.parametrize("recipe", RECORDED)
def test_committed_results_were_drawn_from_the_version_they_name(recipe):
    recorded = json.loads((RESULTS / recipe / "config.json").read_text())["config"]
    assert recorded["search_spaces"]
    for name, space in recorded["search_spaces"].items():
        now = find(name, version=recorded["space_version"]).space
        assert {key: Range(**bounds) for key, bounds in space.items()} == now
        assert list(space) == list(now)  # the order decides which trial gets which number


def digest(version):
    spaces = {
        name: [(key, *bounds) for key, bounds in find(name, version).space.items()]
        for name in NAMES
    }
    return hashlib.sha256(json.dumps(spaces).encode()).hexdigest()[:16]


def test_no_space_changes_without_a_new_version():
    """After adding an optimizer, put what the failure shows here; never after changing one."""
    assert [digest(version) for version in range(1, LATEST + 1)] == [
        "11f6877c47b938c9",
        "b6efc6adba1d1fbd",
    ]


@pytest.mark.parametrize("version", [0, LATEST + 1, "2", None])
def test_other_versions_are_refused(version):
    with pytest.raises(ConfigError, match=f"an integer from 1 to 2; received {version!r}"):
        find("adam", version)


def test_a_version_leaves_what_it_does_not_change():
    assert find("sgd", 2) is find("sgd", 1)
    assert find("adam", 2).version == 2
    assert "momentum" in find("rmsprop", 2).space


# ---------------------------------------------------------------------- Inclusion


def adam_from_momentum(point):
    """Epsilon at its end, so that the root is nothing beside it."""
    return {
        "learning_rate": TYPICAL_GRADIENT * point["learning_rate"],
        "b1": point["momentum"],
        "b2": 0.99,
        "eps": 100.0,
    }


def rmsprop_from_momentum(point):
    adam = adam_from_momentum(point)
    return {
        "learning_rate": adam["learning_rate"],
        "decay": 0.99,
        "eps": adam["eps"],
        "momentum": adam["b1"],
    }


INCLUSIONS = {
    ("sgd", "momentum"): lambda point: point | {"momentum": 0.0},
    ("sgd", "nesterov"): lambda point: point | {"momentum": 0.0},
    ("momentum", "rmsprop"): rmsprop_from_momentum,
    ("momentum", "adam"): adam_from_momentum,
    ("nesterov", "nadam"): adam_from_momentum,
    ("adam", "adamw"): lambda point: point | {"weight_decay": 1e-6},
    ("nadam", "nadamw"): lambda point: point | {"weight_decay": 1e-6},
}


def contains(bounds, value):
    return bounds.low * (1 - 1e-9) <= value <= bounds.high * (1 + 1e-9)


@pytest.mark.parametrize(("poorer", "richer"), INCLUSIONS)
def test_the_richer_space_holds_every_corner_of_the_poorer(poorer, richer):
    express, space = INCLUSIONS[poorer, richer], find(richer, 2).space
    small = find(poorer, 2).space
    for fractions in itertools.product((0.0, 0.5, 1.0), repeat=len(small)):
        point = {
            name: bounds.at(fraction)
            for (name, bounds), fraction in zip(small.items(), fractions, strict=True)
        }
        expressed = express(point)
        assert set(expressed) == set(space)
        assert all(contains(space[name], value) for name, value in expressed.items())


@pytest.mark.parametrize(("poorer", "richer"), INCLUSIONS)
def test_what_the_richer_expresses_moves_as_the_poorer(poorer, richer):
    """The update after 200 gradients of size one, when bias corrections have faded."""
    point = {
        name: 0.8 if name == "momentum" else bounds.at(0.6)
        for name, bounds in find(poorer, 2).space.items()
    }
    rng = np.random.default_rng(0)
    gradients = jnp.asarray(rng.normal(size=(200, 6)))

    def last_update(name, hyperparameters):
        optimizer = find(name, 2).build(**hyperparameters)
        params = jnp.ones(6)

        def step(state, gradient):
            updates, state = optimizer.update(gradient, state, params)
            return state, updates

        updates: Any = jax.lax.scan(step, optimizer.init(params), gradients)[1]
        return updates[-1]

    with compiled_in_haste():
        poor = jax.jit(last_update, static_argnums=0)(poorer, point)
        rich = jax.jit(last_update, static_argnums=0)(richer, INCLUSIONS[poorer, richer](point))
    assert np.abs(rich - poor).max() <= 0.02 * np.abs(poor).max()


def test_the_learning_rate_is_the_step_at_the_typical_gradient():
    for eps in (1e-8, 1e-3, 1e2):
        adam = find("adam", 2).build(learning_rate=0.1, b1=0.9, b2=0.99, eps=eps)
        gradient = jnp.full(2, TYPICAL_GRADIENT)
        update, _ = adam.update(gradient, adam.init(gradient), gradient)
        np.testing.assert_allclose(np.asarray(update), -0.1, rtol=1e-3)


# ---------------------------------------------------------------------- Drawing


def test_decay_rates_are_spread_towards_one():
    bounds = Range(0.9, 0.999, below_one=True)
    assert bounds.at(0.0) == pytest.approx(0.9)
    assert bounds.at(0.5) == pytest.approx(0.99)
    assert bounds.at(1.0) == pytest.approx(0.999)


def test_trials_are_equal_in_number_reproducible_and_spread():
    space = {"learning_rate": Range(1e-4, 1.0), "momentum": Range(0.8, 0.99, below_one=True)}
    points = optimizers.draw_trials(space, 16, seed=3)
    assert points == optimizers.draw_trials(space, 16, seed=3)
    assert points != optimizers.draw_trials(space, 16, seed=4)
    fractions = np.array([np.log10(point["learning_rate"]) / 4 + 1 for point in points])
    assert ((fractions >= 0) & (fractions <= 1)).all()
    # a van der Corput sequence in base 2 puts one of 16 points into each sixteenth
    assert sorted((fractions * 16).astype(int).tolist()) == list(range(16))
