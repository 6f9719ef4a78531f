"""CTC in float32 against float64, at the lengths where others lose digits, and its derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste
from ctc_exact import row_exactly

from kernels.ctc import ctc_loss, ctc_posteriors
from kernels.ctc.tuning import SHAPES, Shape, problem


@jax.jit
@functools.partial(jax.grad, has_aux=True)
def gradient(logits, paddings, labels, label_paddings):
    losses = ctc_loss(logits, paddings, labels, label_paddings)
    return jnp.sum(losses), losses


def error_of_gradient(logits, paddings, labels, label_paddings):
    """Relative to float64."""
    found, _ = gradient(logits, paddings, labels, label_paddings)
    rows = zip(*(np.asarray(a) for a in (logits, 1 - paddings, labels)), strict=True)
    exact = np.stack([row_exactly(*row, blank_id=0)[2] for row in rows])
    return np.linalg.norm(np.asarray(found, np.float64) - exact) / np.linalg.norm(exact)


def long_utterance(shape):
    given = problem("ctc_loss", "long", shape, "float32")
    return error_of_gradient(*given.operands.values())


def test_gradient_of_2000_frames_is_exact():
    assert long_utterance(Shape(1, 2000, 100, 60)) < 2e-6


@pytest.mark.slow
def test_gradient_of_8000_frames_is_exact():
    assert long_utterance(SHAPES["long_8000"]) < 1e-5


@pytest.mark.parametrize("classes", [16, 200])
def test_gradient_near_convergence_is_exact(classes):
    generator = np.random.default_rng(5)
    frames, count = 200, 30
    labels = generator.integers(1, classes, (2, count))
    path = np.zeros((2, frames), int)
    path[:, 3 : 3 + 6 * count : 6] = labels
    logits = generator.normal(size=(2, frames, classes)) * 0.5
    logits[np.arange(2)[:, None], np.arange(frames)[None], path] += 9.5 if classes < 100 else 12
    rest = (np.zeros((2, frames)), labels, np.zeros((2, count)))
    logits = np.asarray(logits, np.float32)
    assert 0.05 < np.mean(gradient(logits, *rest)[1]) < 1
    assert error_of_gradient(logits, *rest) < 1e-5


@pytest.mark.parametrize("classes", [3, 40])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("odds", [1, 2])
def test_gradient_where_a_class_dominates_its_frame_but_for_rounding(classes, dtype, odds):
    """One with half of its probability or two thirds, a little more or less in each frame."""
    frames, labels = 64, np.array([[1, 2, 1, 2], [2, 1, 2, 1]])
    with jax.enable_x64(dtype == "float64"):
        steps = (np.arange(frames) - frames / 2) * np.finfo(dtype).eps / 8
        logits = np.full((2, frames, classes), -40.0)
        logits[:, :, 1], logits[:, :, 2] = 0.0, np.log(odds) + steps
        logits[:, ::3, 0], logits[:, ::3, 1] = np.log(odds) + steps[::3], -40.0
        rest = (np.zeros((2, frames)), labels, np.zeros(labels.shape))
        assert error_of_gradient(np.asarray(logits, dtype), *rest) < 20 * np.finfo(dtype).eps


def capped(x):
    return 30 * jnp.tanh((3 * x + 0.1) / 30)


def less_priors(x):
    priors = jnp.linspace(-4, -1, x.shape[2])
    return jax.nn.log_softmax(3 * x) - 0.3 * priors[None, None, :]


@pytest.mark.parametrize(
    ("logits_of", "classes"),
    [
        (capped, 6),
        pytest.param(capped, 50, marks=pytest.mark.slow),
        pytest.param(less_priors, 6, marks=pytest.mark.slow),
        (less_priors, 50),
    ],
)
def test_logits_may_be_computed_in_the_same_program(logits_of, classes):
    """XLA may round them differently where it takes maxima, sums, emissions and the gradient."""
    generator = np.random.default_rng(8)
    rows, frames, count = 3, 70, 12
    labels = generator.integers(1, classes, (rows, count))
    path = np.zeros((rows, frames), int)
    path[:, 2 : 2 + 5 * count : 5] = labels
    rest = (jnp.zeros((rows, frames)), jnp.asarray(labels), jnp.zeros((rows, count)))

    def loss(logits):
        return jnp.sum(ctc_loss(logits, *rest))

    apart = jax.jit(jax.value_and_grad(loss))
    within = [lambda x: loss(logits_of(x)), jax.checkpoint(lambda x: loss(logits_of(x)))]
    within = [jax.jit(jax.value_and_grad(function)) for function in within]
    for spread, on_path in ((5.0, 0.0), (0.5, 3.5)):  # at random, and near convergence
        x = generator.normal(size=(rows, frames, classes)) * spread
        x = jnp.asarray(x + on_path * np.eye(classes)[path], jnp.float32)
        logits, of_logits = jax.vjp(jax.jit(logits_of), x)
        value, slope = apart(logits)
        (slope,) = of_logits(slope)
        for function in within:
            found, moved = function(x)
            np.testing.assert_allclose(found, value, rtol=2e-5, atol=1e-5)
            assert np.linalg.norm(moved - slope) < 2e-5 * np.linalg.norm(slope)


def test_second_derivatives_are_right_beyond_one_segment():
    """Of 40 frames and of 5, by both modes; the frames beyond are padding."""
    with jax.enable_x64(True), compiled_in_haste():
        generator = np.random.default_rng(6)
        logits, direction = jnp.asarray(generator.normal(size=(2, 2, 40, 4)))
        paddings = jnp.asarray(np.arange(40)[None, :] >= np.array([[40], [5]]))
        rest = (paddings, jnp.array([[1, 1], [2, 3]]), jnp.zeros((2, 2)))
        slope = jax.grad(lambda x: jnp.sum(ctc_loss(x, *rest)))

        def mean_posterior(x):
            return jnp.sum(ctc_posteriors(x, *rest) * direction)

        @jax.jit
        def derivatives(x):
            reverse = jax.grad(lambda y: jnp.sum(slope(y) * direction))(x)
            forward = jax.jvp(slope, (x,), (direction,))[1]
            return slope(x), reverse, forward, jax.jvp(mean_posterior, (x,), (direction,))

        _, found, forward, (_, of_posteriors) = derivatives(logits)
        np.testing.assert_allclose(forward, found, atol=1e-12)
        step = 1e-5
        above, below = (derivatives(logits + s * direction) for s in (step, -step))
        np.testing.assert_allclose(found, (above[0] - below[0]) / (2 * step), atol=1e-8)
        assert not found[1, 5:].any()
        numeric = (above[3][0] - below[3][0]) / (2 * step)
        np.testing.assert_allclose(of_posteriors, numeric, rtol=1e-6)
