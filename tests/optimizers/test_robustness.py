"""What every optimizer must stand: arrays of any rank and size, 16 bits, gradients of zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kernel_matrix import compiled_in_haste

from research.optimizers import NAMES, build_scheduled, find
from research.optimizers.registry import VERSIONS

SHAPES = {"scalar": (), "empty": (0,), "none": (0, 3), "one": (1,), "vector": (4,)}
SHAPES |= {"matrix": (3, 2), "filters": (2, 1, 2, 3)}
STEPS = 3

# Who divides by what gradients add up to, and one of each other kind; the rest takes a minute.
QUICK = {"sgd", "adam", "rprop", "lamb", "lars", "sm3", "soap", "kron", "dog", "prodigy"}
QUICK |= {"dadapt_adamw", "schedule_free_sgd"}


def versions(quick):
    """Each entry, and each later version that changes it."""
    for name in NAMES:
        for version in VERSIONS:
            if find(name, version).version == version:
                marks = () if name in quick else pytest.mark.slow
                yield pytest.param(find(name, version), marks=marks, id=f"{name}-{version}")


def middle(entry):
    return {name: jnp.float32(bounds.at(0.5)) for name, bounds in entry.space.items()}


def arrays(dtype, *leading):
    rng = np.random.default_rng(0)
    return {name: jnp.asarray(rng.normal(size=(*leading, *s)), dtype) for name, s in SHAPES.items()}


def train(entry, hyperparameters, params, gradients):
    """Parameters, parameters to evaluate and state after a scan over gradients."""
    optimizer = build_scheduled(entry, hyperparameters, "constant", STEPS)

    def step(carry, gradient):
        params, state = carry
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), updates

    state = optimizer.init(params)
    (params, state), updates = jax.lax.scan(step, (params, state), gradients)
    return params, updates, entry.evaluated(state, params), state


def kinds(tree):
    return jax.tree.map(lambda array: (array.shape, array.dtype), tree)


@pytest.mark.parametrize("entry", list(versions(quick=NAMES)))
def test_sixteen_bits_stay_what_they_are_in_a_scan(entry):
    """Tracing is enough: a scan refuses a state that changes its dtype or shape."""
    params, gradients = arrays(jnp.bfloat16), arrays(jnp.bfloat16, STEPS)
    hyperparameters = middle(entry)  # traced float32

    def traced(hyperparameters):
        return train(entry, hyperparameters, params, gradients)

    after, updates, evaluated, state = jax.eval_shape(traced, hyperparameters)
    assert kinds(after) == kinds(evaluated) == kinds(params)
    assert kinds(updates) == kinds(gradients)
    assert not [leaf for leaf in jax.tree.leaves(state) if leaf.dtype == jnp.bfloat16]


@pytest.mark.parametrize("entry", list(versions(QUICK)))
def test_a_first_gradient_of_zero_spoils_nothing(entry):
    params, gradients = arrays(jnp.bfloat16), arrays(jnp.bfloat16, STEPS)
    gradients = jax.tree.map(lambda array: array.at[0].set(0), gradients)
    with compiled_in_haste():
        found = jax.jit(lambda point: train(entry, point, params, gradients))(middle(entry))
    for leaf in jax.tree.leaves(found):
        assert jnp.isfinite(leaf).all()


@pytest.mark.parametrize("name", ["prodigy", "dadapt_adamw"])
def test_who_finds_a_rate_waits_for_a_gradient(name):
    """As if the zeros had never been."""
    gradients = np.random.default_rng(0).normal(size=(6, 3)) + 2.0

    def last(gradients):
        optimizer = find(name).build(1.0, weight_decay=0.1)
        params = jnp.ones(3)

        def step(carry, gradient):
            params, state = carry
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)[0]

    late = np.concatenate([np.zeros((4, 3)), gradients])
    with compiled_in_haste():
        ours, theirs = (jax.jit(last)(jnp.asarray(g, jnp.float32)) for g in (late, gradients))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert float(jnp.abs(ours[0] - 1.0).max()) > 1e-7
