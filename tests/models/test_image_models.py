"""MLP and LeNet: shapes, sizes that can be counted by hand, and convolution against XLA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from research.models.lenet import Conv, LeNet, max_pool
from research.models.mlp import MLP

pytestmark = pytest.mark.usefixtures("in_haste")


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_mlp_has_the_parameters_its_widths_say():
    params = MLP(classes=10, widths=(32, 16)).init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    assert count(params) == (64 * 32 + 32) + (32 * 16 + 16) + (16 * 10 + 10)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3), (13, 2)])
def test_lenet_has_the_layers_of_the_paper(size, channels):
    shape = (1, size, size, channels)
    model = LeNet(classes=10)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape))["params"]
    flat = (size // 2 // 2) ** 2 * 16
    assert count(params) == (
        (25 * channels * 6 + 6)
        + (25 * 6 * 16 + 16)
        + (flat * 120 + 120)
        + (120 * 84 + 84)
        + (84 * 10 + 10)
    )


def test_lenet_refuses_images_it_would_pool_away():
    with pytest.raises(ValueError, match="at least 4x4 pixels; received"):
        jax.eval_shape(LeNet(classes=10).init, jax.random.key(0), jnp.zeros((1, 3, 8, 1)))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_convolution_is_that_of_lax(size):
    rng = np.random.default_rng(size)
    x = jnp.asarray(rng.normal(size=(2, 7, 6, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, 3, 4)), jnp.float32)
    bias = jnp.asarray(rng.normal(size=4), jnp.float32)
    actual = jnp.asarray(Conv(4, size).apply({"params": {"kernel": kernel, "bias": bias}}, x))
    expected = lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(actual, expected + bias[None, None, None, :], atol=1e-4)


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (2, 2)])
def test_pooling_is_that_of_lax(shape):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *shape, 3)), jnp.float32)
    window = (1, 2, 2, 1)
    expected = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    np.testing.assert_array_equal(max_pool(x), expected)
