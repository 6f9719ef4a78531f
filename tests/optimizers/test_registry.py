"""The registry: complete and as documented, formulas by hand, clear errors."""

import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research import optimizers
from research.errors import ConfigError
from research.optimizers import LATEST, NAMES, find
from research.optimizers.registry import LEFT_OUT, VERSIONS

LOW, HIGH = 0.0, 1.0
CLASSICS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
OPTIMIZERS = VERSIONS[1]  # hyperparameters as the papers have them
README = Path(optimizers.__file__).with_name("README.md")


@pytest.mark.parametrize("name", CLASSICS)
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


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_every_entry_is_complete(name, version):
    entry = find(name, version)
    assert any(char.isdigit() for char in entry.paper)  # a year
    for bounds in entry.space.values():
        assert 0 <= bounds.at(LOW) < bounds.at(0.5) < bounds.at(HIGH)
    parameters = inspect.signature(entry.build).parameters
    assert set(entry.space) <= set(parameters)
    needed = {k for k, p in parameters.items() if p.default is inspect.Parameter.empty}
    assert needed <= {"learning_rate"}  # the others have the papers' usual values


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(6, 4), (3, 5)])
def test_the_state_is_as_large_as_stated(name, shape):
    for version in VERSIONS:
        entry = find(name, version)
        point = {key: bounds.at(0.5) for key, bounds in entry.space.items()}
        state = jax.eval_shape(entry.build(**point).init, jnp.zeros(shape))
        kept = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.size > 1)
        assert kept == entry.state.of(*shape)


def test_what_optax_has_is_in_the_registry_or_left_out_for_a_reason():
    modules = (optax, optax.contrib)
    found = {
        name
        for module in modules
        for name in dir(module)
        if not name.startswith(("_", "scale_by_")) and is_optimizer(getattr(module, name))
    }
    assert {"adam", "lbfgs", "prodigy"} <= found
    ours = set(OPTIMIZERS) | set(LEFT_OUT)
    assert found - ours == set()
    assert set(LEFT_OUT) & set(OPTIMIZERS) == set()


def is_optimizer(thing):
    """Whether it is a function whose first argument is a learning rate."""
    if not inspect.isfunction(thing):
        return False
    return next(iter(inspect.signature(thing).parameters), None) == "learning_rate"


def test_the_readme_lists_every_entry():
    text = README.read_text()
    lines = [
        f"| `{name}` | {entry.paper} | {entry.state.per_parameter()} | {', '.join(entry.space)} |"
        for name, entry in VERSIONS[LATEST].items()
    ]
    assert [line for line in lines if line not in text] == []  # to paste
    assert len(re.findall(r"^\| `\w+` \|", text, re.MULTILINE)) == len(lines) + len(LEFT_OUT)
    assert [n for n, reason in LEFT_OUT.items() if f"| `{n}` | {reason} |" not in text] == []


def test_the_readme_says_what_version_one_has_otherwise():
    """Beside the table, which has the newest."""
    text = README.read_text()
    for name, first in OPTIMIZERS.items():
        newest = find(name)
        columns = (first.state.per_parameter(), ", ".join(first.space))
        if columns != (newest.state.per_parameter(), ", ".join(newest.space)):
            assert f"| `{name}`, version 1 | {columns[0]} | {columns[1]} |" in text


def test_the_learning_rate_of_momentum_is_that_of_a_steady_gradient():
    """As the README says: 0.1 with momentum 0.9 is what the papers call 0.01."""
    x, g = jnp.array([2.0, -1.0]), jnp.array([0.5, -4.0])
    for name in ("momentum", "nesterov"):
        newest, papers = find(name).build(0.1, momentum=0.9), OPTIMIZERS[name].build(0.01, 0.9)
        np.testing.assert_allclose(one_step(newest, g, x), one_step(papers, g, x), rtol=1e-6)


def test_the_newest_adamw_decays_nothing_unless_it_is_told_to():
    x, g = jnp.array([2.0, -1.0]), jnp.zeros(2)
    for name in ("adamw", "nadamw"):
        assert jnp.array_equal(one_step(find(name).build(0.1), g, x), x)
        assert not jnp.array_equal(one_step(find(name, version=1).build(0.1), g, x), x)


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ConfigError, match=r"received 'adm'\. Did you mean 'adam'"):
        find("adm")


def test_what_is_found_by_default_is_the_newest():
    assert find("adam") is find("adam", LATEST)
    assert find("adam").space != find("adam", 1).space
    assert all(tuple(entries) == NAMES for entries in VERSIONS.values())
