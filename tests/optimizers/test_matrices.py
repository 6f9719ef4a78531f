"""Optimizers for matrices against what defines them, and what they do with other arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_matrix import compiled_in_haste

from research.optimizers.muon import orthogonalised, scale_by_normuon
from research.optimizers.psgd import scale_by_kron
from research.optimizers.registry import VERSIONS
from research.optimizers.shampoo import scale_by_one_sided_shampoo
from research.optimizers.soap import scale_by_soap

OPTIMIZERS = VERSIONS[1]
FOR_MATRICES = ("muon", "normuon", "soap", "one_sided_shampoo", "kron")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def run(optimizer, gradients, params=None):
    """The last update, jitted: the optimizers have decompositions inside."""
    first = jax.tree.map(lambda array: array[0], gradients)
    params = first if params is None else params

    def step(state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return state, updates

    def all_steps(gradients):
        updates = jax.lax.scan(step, optimizer.init(params), gradients)[1]
        return jax.tree.map(lambda array: array[-1], updates)

    with compiled_in_haste():
        return jax.jit(all_steps)(gradients)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_one_sided_shampoo_is_its_formula(shape, rng):
    gradients = rng.normal(size=(6, *shape))
    b1, b2, eps = 0.9, 0.8, 1e-3
    mean, moment = np.zeros(shape), np.zeros((3, 3))
    for gradient in gradients:
        wide = gradient if shape[0] == 3 else gradient.T
        mean = b1 * mean + (1 - b1) * gradient
        moment = b2 * moment + (1 - b2) * wide @ wide.T
    values, vectors = np.linalg.eigh(moment / (1 - b2**6) / 5)
    root = vectors @ np.diag(1 / (np.sqrt(values) + eps)) @ vectors.T
    mean = mean / (1 - b1**6)
    expected = root @ mean if shape[0] == 3 else mean @ root
    with jax.enable_x64(True):
        found = run(scale_by_one_sided_shampoo(b1, b2, eps), jnp.asarray(gradients))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_one_sided_shampoo_does_not_blow_up_rounding(rng):
    """Of two rows that are equal there is one direction without gradients, but for rounding."""
    gradients = 1e3 * jnp.asarray(rng.normal(size=(6, 3, 5)), jnp.float32)
    gradients = gradients.at[:, 1].set(gradients[:, 0] * 0.7)
    found = np.asarray(run(scale_by_one_sided_shampoo(), gradients))
    np.testing.assert_allclose(found[1], 0.7 * found[0], atol=0.01)
    assert 0.1 < np.abs(found[0]).max() < 10


def test_kron_whitens_what_is_correlated(rng):
    """Gradients L W R of white W: the learnt preconditioner takes L and R out."""
    left = np.array([[3.0, 0.0, 0.0], [2.0, 0.5, 0.0], [0.0, 0.1, 0.1]])
    right = np.array([[1.0, 0.7], [0.0, 0.2]])
    gradients = left @ rng.normal(size=(1000, 3, 2)) @ right
    kron = scale_by_kron(b1=0.0, preconditioner_rate=0.1)

    def step(state, gradient):
        updates, state = kron.update(gradient, state)
        return state, updates

    start = kron.init(jnp.zeros((3, 2)))
    with compiled_in_haste():
        whitened = jax.jit(lambda g: jax.lax.scan(step, start, g)[1])(jnp.asarray(gradients))

    def condition(samples):
        return np.linalg.cond(np.cov(np.asarray(samples)[-500:].reshape(500, 6).T))

    assert condition(gradients) > 1e4
    assert condition(whitened) < 30


def test_soap_turns_with_its_gradients(rng):
    """In rotated coordinates the update is the rotated update, which is not so for Adam."""
    gradients = rng.normal(size=(15, 4, 3))
    rows, columns = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (4, 3))
    with jax.enable_x64(True):
        soap = scale_by_soap(eps=1e-12)
        turned = rows @ gradients @ columns
        found = run(soap, {"turned": jnp.asarray(turned), "plain": jnp.asarray(gradients)})
    plain, found = np.asarray(found["plain"]), np.asarray(found["turned"])
    np.testing.assert_allclose(found, rows @ plain @ columns, rtol=1e-6, atol=1e-8)


def test_soap_rests_at_its_first_update(rng):
    """Nothing moves, nothing decays, and Adam's moments of vectors start with the second."""
    params = {"matrix": jnp.ones((3, 2)), "bias": jnp.full(3, 2.0)}
    gradients = {"matrix": rng.normal(size=(2, 3, 2)), "bias": rng.normal(size=(2, 3))}
    optimizer = OPTIMIZERS["soap"].build(0.1, weight_decay=0.5)
    first = jax.tree.map(lambda g: jnp.asarray(g[:1], jnp.float32), gradients)
    both = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradients)
    for update in jax.tree.leaves(run(optimizer, first, params)):
        np.testing.assert_array_equal(update, 0.0)
    found = run(optimizer, both, params)["bias"]
    expected = 0.95 * (2.0 - 0.1 * np.sign(gradients["bias"][1])) - 2.0
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_lamb_is_its_formula(rng):
    b1, b2, eps, rate, decay = 0.8, 0.9, 1e-3, 0.1, 0.3
    params = {"matrix": rng.normal(size=(3, 2)), "zeros": np.zeros(3)}
    gradients = {name: rng.normal(size=(5, *x.shape)) for name, x in params.items()}
    with jax.enable_x64(True):
        lamb = OPTIMIZERS["lamb"].build(rate, b1, b2, eps, decay)
        found = run(lamb, jax.tree.map(jnp.asarray, gradients), params)
    for name, x in params.items():
        mean = sum((1 - b1) * b1 ** (4 - t) * g for t, g in enumerate(gradients[name]))
        square = sum((1 - b2) * b2 ** (4 - t) * g**2 for t, g in enumerate(gradients[name]))
        step = mean / (1 - b1**5) / (np.sqrt(square / (1 - b2**5)) + eps) + decay * x
        share = np.linalg.norm(x) / np.linalg.norm(step) if name == "matrix" else 1.0
        np.testing.assert_allclose(found[name], -rate * share * step, rtol=1e-9, err_msg=name)


def test_lars_moves_by_a_share_of_the_array():
    params = {"matrix": jnp.asarray([[3.0, 4.0]]), "zeros": jnp.zeros(2)}
    gradient = jnp.asarray([6.0, 8.0])
    optimizer = OPTIMIZERS["lars"].build(10.0, momentum=0.9, weight_decay=2.0)
    gradients = {"matrix": gradient[None, None], "zeros": gradient[None]}
    found = run(optimizer, gradients, params)
    # 0.001 * 5 / (10 + 2 * 5) of g + 2 x = (12, 16)
    np.testing.assert_allclose(found["matrix"], [[-0.03, -0.04]], rtol=1e-6)
    np.testing.assert_allclose(found["zeros"], [-0.06, -0.08], rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 7), (7, 4)])
def test_orthogonalised_keeps_directions_and_levels_sizes(shape, rng):
    matrix = rng.normal(size=shape)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    found = left.T @ np.asarray(orthogonalised(jnp.asarray(matrix, jnp.float32))) @ right.T
    sizes = np.diag(found)
    assert ((sizes > 0.6) & (sizes < 1.3)).all()
    np.testing.assert_allclose(found, np.diag(sizes), atol=1e-5)


def test_normuon_evens_out_outputs(rng):
    """Columns are outputs: each gets an update of about the same size."""
    gradients = jnp.asarray(rng.normal(size=(60, 6, 6)) * 10.0 ** np.arange(6), jnp.float32)
    update = np.asarray(run(scale_by_normuon(b2=0.9), gradients))
    sizes = np.sqrt(np.mean(update**2, axis=0))
    assert sizes.max() < 2 * sizes.min()


@pytest.mark.parametrize("name", FOR_MATRICES)
def test_filters_are_a_matrix_and_vectors_go_to_adam(name, rng):
    entry = OPTIMIZERS[name]
    optimizer = entry.build(learning_rate=0.1, **({"b2": 0.99} if "b2" in entry.space else {}))
    filters = jnp.asarray(rng.normal(size=(3, 2, 1, 2, 4)), jnp.float32)
    bias = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    gradients = {
        "filters": filters,
        "matrix": filters.reshape(3, 4, 4),
        "bias": bias,
        "scale": bias[:, 0],
    }
    updates = run(optimizer, gradients)
    np.testing.assert_array_equal(updates["filters"].reshape(4, 4), updates["matrix"])
    np.testing.assert_allclose(updates["scale"], updates["bias"][0], rtol=1e-6)
    b1 = 0.95 if name == "soap" else 0.9
    b2 = 0.99 if name in ("soap", "one_sided_shampoo") else 0.999
    seen = bias[1:] if name == "soap" else bias  # the first is for its bases only
    mean, square = np.zeros(4), np.zeros(4)
    for gradient in np.asarray(seen):
        mean = b1 * mean + (1 - b1) * gradient
        square = b2 * square + (1 - b2) * gradient**2
    mean, square = mean / (1 - b1 ** len(seen)), square / (1 - b2 ** len(seen))
    np.testing.assert_allclose(updates["bias"], -0.1 * mean / np.sqrt(square), rtol=1e-4)


def test_weight_decay_reaches_matrices_and_vectors():
    params = {"matrix": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    optimizer = OPTIMIZERS["muon"].build(learning_rate=0.1, weight_decay=0.5)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    for update in jax.tree.leaves(updates):
        np.testing.assert_allclose(update, -0.05, rtol=1e-6)


@pytest.mark.parametrize("name", FOR_MATRICES)
def test_sixteen_bits_and_empty_arrays(name):
    """What is kept is in float32, the update in the dtype of the gradient."""
    entry = OPTIMIZERS[name]
    params = {"matrix": jnp.ones((4, 3), jnp.bfloat16), "empty": jnp.zeros((0, 3), jnp.bfloat16)}
    with compiled_in_haste():
        optimizer = entry.build(learning_rate=0.1)
        step = jax.jit(lambda state: optimizer.update(params, state, params))
        _, state = step(optimizer.init(params))
        updates, again = step(state)
    assert jax.tree.map(lambda u: (u.shape, u.dtype), updates) == jax.tree.map(
        lambda p: (p.shape, p.dtype), params
    )
    assert jax.tree.map(jnp.shape, again) == jax.tree.map(jnp.shape, state)
    assert jnp.isfinite(updates["matrix"].astype(jnp.float32)).all()


def test_kron_learns_nothing_from_zeros(rng):
    kron = scale_by_kron()
    zero = jnp.zeros((8, 8))

    @jax.jit
    def rest(state):
        return jax.lax.fori_loop(0, 600, lambda _, state: kron.update(zero, state)[1], state)

    state = rest(kron.init(zero))
    found, state = kron.update(jnp.asarray(rng.normal(size=(8, 8)), jnp.float32), state)
    update = jnp.asarray(found)
    assert jnp.isfinite(update).all()
    assert 0 < jnp.abs(update).max() < 10
