"""JAX's modes for finding mistakes find none in the kernels, and do not change what they give."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels

FRAMES = jax.random.normal(jax.random.key(0), (2, 9, 8))
QUERY = jax.random.normal(jax.random.key(1), (1, 6, 2, 8))
IMAGE = jax.random.normal(jax.random.key(2), (1, 7, 7, 8))
LABELS = jnp.zeros((2, 9)), jnp.array([[1], [2]]), jnp.zeros((2, 1))

CALLS = {
    "ctc_loss": (lambda x: kernels.ctc_loss(x, *LABELS), FRAMES),
    "ctc_posteriors": (lambda x: kernels.ctc_posteriors(x, *LABELS), FRAMES),
    "attention": (lambda q: kernels.attention(q, q, q, is_causal=True), QUERY),
    "relative_attention": (
        lambda q: kernels.relative_attention(
            q, q, q, jnp.ones((11, 2, 8)), jnp.ones((2, 8)), jnp.ones((2, 8))
        ),
        QUERY,
    ),
    "conv_attention": (lambda q: kernels.conv_attention(q, q, q, jnp.ones((3, 2))), QUERY),
    "depthwise_conv1d": (
        lambda x: kernels.depthwise_conv1d(x, jnp.ones((4, 8)), jnp.ones(8), activation="silu"),
        FRAMES,
    ),
    "conformer_convolution": (
        lambda x: kernels.conformer_convolution(x, jnp.ones((3, 4)), jnp.ones(4), jnp.ones(4)),
        FRAMES,
    ),
    "depthwise_conv2d": (lambda x: kernels.depthwise_conv2d(x, jnp.ones((3, 3, 8))), IMAGE),
    "conv2d": (lambda x: kernels.conv2d(x, jnp.ones((3, 3, 8, 4)), jnp.ones(4)), IMAGE),
}


def value_and_gradient(name):
    call, operand = CALLS[name]
    return jax.value_and_grad(lambda x: jnp.sum(jnp.asarray(call(x)) ** 2))(operand)


@contextlib.contextmanager
def strict():
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.debug_nans(True),
        jax.debug_infs(True),
        jax.debug_key_reuse(True),
        jax.checking_leaks(),
    ):
        yield


@pytest.mark.parametrize("name", CALLS)
def test_the_strict_modes_find_nothing(name):
    with strict():
        found = value_and_gradient(name)
    for one, other in zip(found, value_and_gradient(name), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CALLS)
def test_without_jit_an_operation_is_one_step(name):
    with jax.disable_jit():
        found = value_and_gradient(name)
    for one, other in zip(found, value_and_gradient(name), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
