"""Single steps by hand, for what has no peer or where a peer would not show the point."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kernel_matrix import compiled_in_haste

from research.optimizers.cautious import cautious
from research.optimizers.registry import VERSIONS

OPTIMIZERS = VERSIONS[1]  # hyperparameters as the papers have them


def updates(optimizer, gradients, params=1.0):
    params = jnp.asarray(params)
    state, found = optimizer.init(params), []
    for gradient in gradients:
        update, state = optimizer.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, update)
        found.append(float(update))
    return found


def test_amsgrad_keeps_the_largest_debiased_square():
    found = updates(OPTIMIZERS["amsgrad"].build(0.1, b1=0.5, b2=0.5, eps=0.0), [4.0, 1.0])
    # squares 16, then (0.5 * 8 + 0.5) / 0.75 = 6; means 4, then (0.5 * 2 + 0.5) / 0.75 = 2
    assert found == pytest.approx([-0.1, -0.1 * 2 / 4])


def test_acprop_divides_by_the_deviation_of_the_step_before():
    found = updates(OPTIMIZERS["acprop"].build(0.1, b1=0.5, b2=0.5, eps=0.0), [4.0, 1.0, 1.0])
    # from the means before, 0 and 2: squares 16, then (0.5 * 8 + 0.5) / 0.75 = 6
    assert found[1:] == pytest.approx([-0.1 / 4, -0.1 / np.sqrt(6)])


def test_simplified_ademamix_adds_the_gradient_to_its_sum():
    build = OPTIMIZERS["simplified_ademamix"].build
    found = updates(build(0.1, b1=0.5, b2=0.5, alpha=3.0, eps=0.0), [4.0, 2.0])
    # sums 4 and 4; squares 16 and (0.5 * 8 + 2) / 0.75 = 8
    assert found == pytest.approx([-0.1 * 16 / 4, -0.1 * (4 + 6) / np.sqrt(8)])


def test_dog_moves_by_distance_over_gradients():
    found = updates(OPTIMIZERS["dog"].build(1.0), [3.0, 3.0, 4.0], params=0.0)
    distance = max(abs(found[0]), abs(found[0] + found[1]))
    assert found[2] == pytest.approx(-distance * 4 / np.sqrt(9 + 9 + 16), rel=1e-3)


def test_dowg_moves_by_distance_over_weighted_gradients():
    found = updates(OPTIMIZERS["dowg"].build(1.0), [3.0, 3.0], params=0.0)
    square = 1e-4  # of the distance at first
    assert found[0] == pytest.approx(-square * 3 / np.sqrt(square * 9), rel=0.05)
    farther = max(square, found[0] ** 2)
    assert found[1] == pytest.approx(-farther * 3 / np.sqrt(square * 9 + farther * 9), rel=0.05)


def test_schedule_free_is_evaluated_at_the_mean():
    """Of the points 0.1, 0.2 and 0.3 below zero that plain gradient descent has been at."""
    entry = OPTIMIZERS["schedule_free_sgd"]
    optimizer = entry.build(0.1, b1=0.9)
    params = jnp.zeros(())
    state = optimizer.init(params)
    for _ in range(3):
        update, state = optimizer.update(jnp.ones(()), state, params)
        params = jnp.asarray(optax.apply_updates(params, update))
    assert float(entry.evaluated(state, params)) == pytest.approx(-0.2)
    assert float(params) == pytest.approx(-0.9 * 0.2 - 0.1 * 0.3)


@pytest.mark.parametrize("name", ["cautious_adamw", "cautious_lion"])
def test_cautious_steps_never_climb(name):
    gradients = jnp.asarray(np.random.default_rng(0).normal(size=(3, 50)), jnp.float32)
    optimizer = OPTIMIZERS[name].build(0.1, weight_decay=0.0)

    def step(state, gradient):
        update, state = optimizer.update(gradient, state, gradient)
        return state, update

    with compiled_in_haste():
        found = jax.jit(lambda g: jax.lax.scan(step, optimizer.init(g[0]), g)[1])(gradients)
    assert float(jnp.max(found * gradients)) <= 0.0
    assert 0 < np.count_nonzero(found[-1]) < 50


def test_cautious_keeps_the_inner_state():
    adam = optax.scale_by_adam()
    state, plain = cautious(adam).init(jnp.zeros(2)), adam.init(jnp.zeros(2))
    _, state = cautious(adam).update(jnp.ones(2), state)
    _, plain = adam.update(jnp.ones(2), plain)
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_cautious_counts_beyond_sixteen_bits():
    gradient = jnp.ones((300, 300), jnp.float16)
    optimizer = cautious(optax.identity())
    found, _ = optimizer.update(gradient, optimizer.init(gradient))
    update = jnp.asarray(found)
    assert update.dtype == jnp.float16
    np.testing.assert_allclose(update, 1.0, atol=1e-3)
