"""Objectives against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from research.objectives.classification import cross_entropy
from research.objectives.ctc import ctc

pytestmark = pytest.mark.usefixtures("in_haste")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_its_formula(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(6, 4)), rng.integers(0, 4, size=6)
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    targets = (1 - smoothing) * np.eye(4)[labels] + smoothing / 4
    expected = -(targets * log_probs).sum(axis=1).mean()
    actual = cross_entropy(jnp.asarray(logits), jnp.asarray(labels), label_smoothing=smoothing)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_ctc_averages_per_label_and_ignores_padded_frames():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(2, 6, 4)), jnp.float32)
    lengths = jnp.array([6, 4])
    labels, label_paddings = jnp.array([[1, 2, 3], [2, 0, 0]]), jnp.array([[0.0, 0, 0], [0, 1, 1]])
    paddings = jnp.array([[0.0] * 6, [0, 0, 0, 0, 1, 1]])
    losses = kernels.ctc_loss(logits, paddings, labels, label_paddings)
    expected = (losses[0] / 3 + losses[1] / 1) / 2
    value, gradient = jax.value_and_grad(ctc)(logits, lengths, labels, label_paddings)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert (gradient[1, 4:] == 0).all()


def test_ctc_of_a_string_that_cannot_fit_is_zero_without_gradient():
    logits = jnp.zeros((1, 2, 4))
    args = jnp.array([2]), jnp.array([[1, 1]]), jnp.zeros((1, 2))
    value, gradient = jax.value_and_grad(ctc)(logits, *args)
    assert value == 0
    assert (gradient == 0).all()
