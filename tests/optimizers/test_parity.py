"""The same gradients in, the same parameters out: the registry against optimizers of others."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kernel_matrix import compiled_in_haste
from optimizer_peers import PEERS, trajectory

from research.optimizers import NAMES, find

STEPS = 40
TOLERANCE = 1e-6  # of the distance that an array has moved
SHAPES = {"matrix": (4, 3), "vector": (5,), "scalar": ()}

# Compared with nothing, and why. test_matrices.py and test_elementwise.py have oracles for them,
# and for what comes after.
ALONE = {
    "amsgrad": "optax takes the maximum of the debiased mean squares, torch of the plain ones",
    "acprop": "no peer has it",
    "simplified_ademamix": "the peer divides by the bias correction that it should multiply by",
    "one_sided_shampoo": "peers take a root on both sides",
    "dog": "no peer has it",
    "dowg": "no peer has it",
}

# Compared without weight decay, and why.
WITHOUT_DECAY = {"lamb": "the peer adds it to moments that still have their bias"}


@pytest.fixture(scope="module")
def with_peers():
    """Imported here, because torch takes seconds, and is not everywhere."""
    reason = "needs what tests/optimizers/peers.txt names, which make test-all installs"
    for module in ("torch", "pytorch_optimizer", "schedulefree", "prodigyopt"):
        pytest.importorskip(module, reason=reason, exc_type=ImportError)


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
    optimizer = find(name, version=1).build(**peer.hyperparameters)

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


@pytest.mark.usefixtures("with_peers")
@pytest.mark.parametrize("name", PEERS)
def test_parameters_are_those_of_the_peer(name):
    peer = PEERS[name]
    start, gradients = start_and_gradients()
    with jax.enable_x64(True), compiled_in_haste():
        found = ours(name, peer, start, gradients)
        expected = trajectory(peer, start, gradients)
    for key in peer.parameters:
        moved = np.abs(expected[key] - start[key]).max()
        assert moved > 1e-3
        assert np.abs(found[key] - expected[key]).max() <= TOLERANCE * moved, key


def test_every_optimizer_has_a_peer_or_a_reason():
    assert set(PEERS) | set(ALONE) == set(NAMES)
    assert not set(PEERS) & set(ALONE)
    assert len(PEERS) >= 30


def test_weight_decay_is_compared_where_there_is_one():
    without = {
        name
        for name, peer in PEERS.items()
        if "weight_decay" in find(name).space and not peer.hyperparameters["weight_decay"]
    }
    assert without == set(WITHOUT_DECAY)
