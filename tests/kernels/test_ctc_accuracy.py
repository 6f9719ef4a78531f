"""CTC in float32 against float64, at the lengths where others lose digits, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import problems
from kernels.ctc import ctc_loss, ctc_posteriors, reference
from kernels.ctc.tuning import SHAPES, Shape, problem


def relative(found, true):
    return np.linalg.norm(np.asarray(found, np.float64) - true) / np.linalg.norm(true)


def exact_gradient(logits, *rest):
    with jax.enable_x64(True):
        wide = jnp.asarray(np.asarray(logits, np.float64))
        slope = jax.jit(jax.grad(lambda x: jnp.sum(reference.ctc_loss(x, *rest))))
        return np.asarray(slope(wide))


AWKWARD = {
    "one_frame": Shape(2, 1, 3, 1),
    "sixteen": Shape(2, 16, 5, 4, lengths=True),
    "seventeen": Shape(3, 17, 4, 5, lengths=True),
    "more_classes": Shape(3, 33, 70, 6, lengths=True),
    "two_classes": Shape(2, 31, 2, 7),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", AWKWARD)
def test_value_and_gradient_keep_to_the_error_rule(name, dtype):
    given = problem("ctc_loss", name, AWKWARD[name], dtype)
    exact = problems.exact(given)
    direction = problems.cotangent(exact[0].shape, "float32")
    ours = problems.gradients(given.function())(given.arguments, direction)
    plain = problems.gradients(given.plain())(given.arguments, direction)
    for found, naive, true in zip(ours, plain, exact, strict=True):
        assert problems.error(found, true) <= problems.allowed(problems.error(naive, true))
    assert ours[1].dtype == jnp.dtype(dtype)


def long_utterance(shape):
    given = problem("ctc_loss", "long", shape, "float32")
    (logits,) = given.arguments
    rest = [given.operands[k] for k in ("logit_paddings", "labels", "label_paddings")]
    found = jax.grad(lambda x: jnp.sum(ctc_loss(x, *rest)))(logits)
    return relative(found, exact_gradient(logits, *rest))


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
    rest = (jnp.zeros((2, frames)), jnp.asarray(labels), jnp.zeros((2, count)))
    logits = jnp.asarray(logits, jnp.float32)
    assert 0.05 < ctc_loss(logits, *rest).mean() < 1
    found = jax.grad(lambda x: jnp.sum(ctc_loss(x, *rest)))(logits)
    assert relative(found, exact_gradient(logits, *rest)) < 1e-5


@pytest.mark.parametrize("frames", [5, 40])
def test_second_derivatives_are_right_beyond_one_segment(frames):
    with jax.enable_x64(True):
        generator = np.random.default_rng(6)
        logits, direction = jnp.asarray(generator.normal(size=(2, 2, frames, 4)))
        rest = (jnp.zeros((2, frames)), jnp.array([[1, 1], [2, 3]]), jnp.zeros((2, 2)))

        def hvp(function):
            slope = jax.grad(lambda x: jnp.sum(function(x, *rest)))
            return slope, jax.grad(lambda x: jnp.sum(slope(x) * direction))(logits)

        slope, found = hvp(ctc_loss)
        np.testing.assert_allclose(found, hvp(reference.ctc_loss)[1], atol=1e-12)
        forward = jax.jvp(slope, (logits,), (direction,))[1]
        np.testing.assert_allclose(forward, found, atol=1e-12)
        step = 1e-5
        numeric = (slope(logits + step * direction) - slope(logits - step * direction)) / (2 * step)
        np.testing.assert_allclose(found, numeric, atol=1e-8)

        def mean_posterior(x):
            return jnp.sum(ctc_posteriors(x, *rest) * direction)

        slope = jax.jvp(mean_posterior, (logits,), (direction,))[1]
        moved = [mean_posterior(logits + s * direction) for s in (step, -step)]
        np.testing.assert_allclose(slope, (moved[0] - moved[1]) / (2 * step), rtol=1e-6)


def test_transformations_agree_and_repeat_bit_for_bit():
    given = problem("ctc_loss", "mapped", Shape(4, 20, 6, 4, lengths=True), "float32")
    (logits,) = given.arguments
    rest = [given.operands[k] for k in ("logit_paddings", "labels", "label_paddings")]
    slope = jax.jit(jax.grad(lambda x, *r: jnp.sum(ctc_loss(x, *r))))
    expected = slope(logits, *rest)
    np.testing.assert_array_equal(slope(logits, *rest), expected)
    nested = [a.reshape(2, 2, 1, *a.shape[1:]) for a in (logits, *rest)]
    mapped = jax.vmap(jax.vmap(slope))(*nested).reshape(logits.shape)
    np.testing.assert_allclose(mapped, expected, atol=1e-6)
    again = jax.grad(lambda x: jnp.sum(jax.checkpoint(lambda y: ctc_loss(y, *rest))(x)))(logits)
    np.testing.assert_allclose(again, expected, atol=1e-6)
    shared = jax.vmap(lambda x: ctc_loss(x, *(r[:1] for r in rest)))(logits[:, None])[:, 0]
    one = [jnp.broadcast_to(r[:1], r.shape) for r in rest]
    np.testing.assert_allclose(shared, ctc_loss(logits, *one), rtol=1e-6)
