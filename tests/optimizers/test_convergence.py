"""Every optimizer of the registry, built inside jit from traced numbers, brings a loss down."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kernel_matrix import compiled_in_haste

from research.optimizers import NAMES, build_scheduled, find
from research.optimizers.registry import VERSIONS

STEPS = 30
TRIALS = (0.45, 0.5)  # fractions of each range
# What finds its learning rate starts from one of about 1e-6.
SLOW_STARTERS = {"prodigy", "dadapt_adamw", "dog"}


# SGD's and Adam's families, and one of each kind written here; the rest compiles for half a minute.
QUICK = {
    *("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"),
    *("rprop", "cautious_adamw", "muon", "soap", "one_sided_shampoo", "dowg"),
}


def versions():
    """Each entry, and each later version that changes it."""
    for name in NAMES:
        marks = () if name in QUICK else pytest.mark.slow
        for version in VERSIONS:
            entry = find(name, version)
            if entry.version == version:
                yield pytest.param(entry, name, marks=marks, id=f"{name}-{version}")


def problem():
    """Linear least squares: inputs (N, 6), targets (N, 4), and a start at small weights."""
    rng = np.random.default_rng(0)
    inputs, truth = rng.normal(size=(32, 6)), rng.normal(size=(6, 4))
    targets = inputs @ truth + 0.5
    params = {"weights": 0.1 * rng.normal(size=(6, 4)), "bias": 0.1 * np.ones(4), "scale": 1.0}
    inputs, targets, params = jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), (inputs, targets, params)
    )

    def loss(params):
        outputs = params["scale"] * (inputs @ params["weights"]) + params["bias"][None, :]
        return jnp.mean((outputs - targets) ** 2)

    return loss, params


def train(entry, schedule="constant"):
    """The loss before each step and after the last, of trials vectorised in one program."""
    loss, params = problem()

    def losses(hyperparameters):
        optimizer = build_scheduled(entry, hyperparameters, schedule, STEPS)

        def step(carry, _):
            params, state = carry
            value, gradients = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), value

        (last, state), values = jax.lax.scan(step, (params, optimizer.init(params)), length=STEPS)
        return jnp.append(values, loss(entry.evaluated(state, last)))

    points = {
        name: jnp.asarray([bounds.at(fraction) for fraction in TRIALS], jnp.float32)
        for name, bounds in entry.space.items()
    }
    with compiled_in_haste():
        return np.asarray(jax.jit(jax.vmap(losses))(points))


@pytest.mark.parametrize(("entry", "name"), list(versions()))
def test_the_middle_of_the_space_brings_the_loss_down(entry, name):
    losses = train(entry)
    assert np.isfinite(losses).all()
    part = 1 - 1e-6 if name in SLOW_STARTERS else 0.999
    assert (losses[:, -1] < part * losses[:, 0]).all()


def scheduled_inside():
    for name, entry in VERSIONS[1].items():
        if entry.schedule_inside:
            yield pytest.param(name, marks=() if name == "prodigy" else pytest.mark.slow)


@pytest.mark.parametrize("name", list(scheduled_inside()))
def test_schedules_inside_may_start_from_zero(name):
    """Prodigy would divide by a sum of learning rates."""
    losses = train(find(name, version=1), "warmup_cosine")
    assert np.isfinite(losses).all()
    assert (losses[:, -1] < losses[:, 0]).all()
