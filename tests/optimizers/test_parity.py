"""The same gradients in, the same parameters out: the registry against optimizers of others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kernel_matrix import compiled_in_haste

from research.optimizers import OPTIMIZERS

STEPS = 40
TOLERANCE = 1e-6  # of the distance that an array has moved
SHAPES = {"matrix": (4, 3), "vector": (5,), "scalar": ()}

# Compared with nothing, and why. test_matrices.py and test_elementwise.py have oracles for them.
ALONE = {
    "amsgrad": "optax takes the maximum of the debiased mean squares, torch of the plain ones",
    "acprop": "no peer has it",
    "simplified_ademamix": "the peer divides by the bias correction that it should multiply by",
    "one_sided_shampoo": "peers take a root on both sides",
    "dog": "no peer has it",
    "dowg": "no peer has it",
}


@pytest.fixture(scope="module")
def peers():
    """Imported here, because torch takes seconds, and is not everywhere."""
    reason = "needs what tests/optimizers/peers.txt names, which make test-all installs"
    return pytest.importorskip("optimizer_peers", reason=reason, exc_type=ImportError)


def start_and_gradients():
    """Gradients of noise and a mean: who looks for a learning rate finds one."""
    rng = np.random.default_rng(0)
    start = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    gradients = {
        name: rng.normal(size=shape) + rng.normal(size=(STEPS, *shape))
        for name, shape in SHAPES.items()
    }
    return start, gradients


def ours(name, peer, start, gradients):
    optimizer = OPTIMIZERS[name].build(**peer.hyperparameters)

    @jax.jit
    def step(params, state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = {name: jnp.asarray(start[name]) for name in peer.parameters}
    state = optimizer.init(params)
    steps = []
    for index in range(STEPS):
        gradient = {name: gradients[name][index] for name in peer.parameters}
        params, state = step(params, state, gradient)
        steps.append(jax.tree.map(np.asarray, params))
    return jax.tree.map(lambda *values: np.stack(values), *steps)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ALONE])
def test_parameters_are_those_of_the_peer(name, peers):
    peer = peers.PEERS[name]
    start, gradients = start_and_gradients()
    with jax.enable_x64(True), compiled_in_haste():
        found = ours(name, peer, start, gradients)
        expected = peers.trajectory(peer, start, gradients)
    for key in peer.parameters:
        moved = np.abs(expected[key] - start[key]).max()
        assert moved > 1e-3
        assert np.abs(found[key] - expected[key]).max() <= TOLERANCE * moved, key


def test_every_optimizer_has_a_peer_or_a_reason(peers):
    assert set(peers.PEERS) | set(ALONE) == set(OPTIMIZERS)
    assert not set(peers.PEERS) & set(ALONE)


def test_most_optimizers_are_compared():
    assert set(ALONE) < set(OPTIMIZERS)
    assert len(OPTIMIZERS) - len(ALONE) >= 30
