"""The training loop: equal to the formulas, equal after a break, loud when it diverges."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.train import Diverged, evaluate, fit, init_state, make_train_step, padded_batches


def noisy_linear(params, batch, key):
    """A prediction that depends on the key, as with dropout."""
    return batch["x"] * params["w"] + 0.1 * jax.random.normal(key, batch["x"].shape)


def squared_error(outputs, batch):
    return jnp.mean((outputs - batch["y"]) ** 2)


def make_batch(step):
    rng = np.random.default_rng(step)
    x = rng.normal(size=8).astype(np.float32)
    return {"x": x, "y": 3 * x}


OPTIMIZER = optax.adam(0.1)
START = {"w": jnp.zeros(())}


def train(state, steps, *, every=5, seen=None, key=0):
    step = jax.jit(make_train_step(noisy_linear, squared_error, OPTIMIZER))
    seen = [] if seen is None else seen
    return fit(
        step,
        state,
        make_batch,
        key=jax.random.key(key),
        steps=steps,
        evaluate_every=every,
        on_evaluate=lambda state, loss: seen.append((int(state.step), loss)),
    )


def test_step_is_gradient_descent():
    batch = {"x": jnp.array([1.0, 2.0]), "y": jnp.array([1.0, 1.0])}
    step = make_train_step(
        lambda params, batch, key: params["w"] * batch["x"], squared_error, optax.sgd(0.5)
    )
    state, metrics = step(init_state(START, optax.sgd(0.5)), batch, jax.random.key(0))
    # d/dw mean((w x - y)^2) at w = 0 is -2 mean(x y) = -3
    assert float(state.params["w"]) == pytest.approx(1.5)
    assert float(metrics["gradient_norm"]) == pytest.approx(3.0)


def test_stopping_and_going_on_changes_no_bit():
    whole, halves = [], []
    state = train(init_state(START, OPTIMIZER), 20, seen=whole)
    half = train(init_state(START, OPTIMIZER), 10, seen=halves)
    rest = train(half, 20, seen=halves)
    assert state.params["w"] == rest.params["w"]
    assert whole == halves
    assert [step for step, _ in whole] == [5, 10, 15, 20]


def test_it_learns_and_the_key_matters():
    first = train(init_state(START, OPTIMIZER), 150)
    other = train(init_state(START, OPTIMIZER), 150, key=1)
    assert float(first.params["w"]) == pytest.approx(3.0, abs=0.2)
    assert first.params["w"] != other.params["w"]


def test_the_last_step_is_evaluated_once():
    seen = []
    train(init_state(START, OPTIMIZER), 7, every=5, seen=seen)
    assert [step for step, _ in seen] == [5, 7]


def test_divergence_names_the_step():
    def batches(step):
        return make_batch(step) | ({"y": np.full(8, np.inf, np.float32)} if step == 6 else {})

    step = jax.jit(make_train_step(noisy_linear, squared_error, OPTIMIZER))
    with pytest.raises(Diverged) as caught:
        fit(
            step,
            init_state(START, OPTIMIZER),
            batches,
            key=jax.random.key(0),
            steps=20,
            evaluate_every=5,
            on_evaluate=lambda state, loss: None,
        )
    assert caught.value.step == 7  # the batch of index 6


def test_compiles_once_per_shape():
    traces = []

    def counted(params, batch, key):
        traces.append(batch["x"].shape)
        return noisy_linear(params, batch, key)

    step = jax.jit(make_train_step(counted, squared_error, OPTIMIZER))
    fit(
        step,
        init_state(START, OPTIMIZER),
        make_batch,
        key=jax.random.key(0),
        steps=6,
        evaluate_every=2,
        on_evaluate=lambda state, loss: None,
    )
    assert traces == [(8,)]


@pytest.mark.parametrize("batch_size", [1, 2, 5, 7])
def test_evaluation_covers_the_whole_set_once(batch_size):
    x = np.arange(5, dtype=np.float32)
    batches = list(padded_batches({"x": x}, batch_size))
    seen = np.concatenate([batch["x"][valid] for batch, valid in batches])
    np.testing.assert_array_equal(seen, x)
    assert {len(batch["x"]) for batch, _ in batches} == {batch_size}
    values = evaluate(lambda params, batch: {"x": batch["x"]}, None, batches)
    assert values == {"x": 2.0}


def test_padding_never_counts_even_when_it_is_nan():
    batches = [({"x": np.array([1.0, np.nan])}, np.array([True, False]))]
    assert evaluate(lambda params, batch: batch, None, batches) == {"x": 1.0}


def test_empty_sets_and_intervals_are_refused():
    with pytest.raises(ValueError, match="at least one example"):
        evaluate(lambda params, batch: batch, None, [])
    with pytest.raises(ValueError, match="evaluate_every must be at least 1; received 0"):
        train(init_state(START, OPTIMIZER), 3, every=0)


@pytest.mark.parametrize(
    ("arrays", "batch_size"),
    [
        ({"x": np.zeros(3)}, 0),
        ({"x": np.zeros(3)}, -1),
        ({}, 2),
        ({"x": np.zeros(3), "y": np.zeros(4)}, 2),
    ],
)
def test_batches_that_cannot_be_made_are_refused(arrays, batch_size):
    with pytest.raises(ValueError, match="must have one leading size"):
        list(padded_batches(arrays, batch_size))
