"""Results that are computed once: what asks for their maximum finds it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import AS_USERS_DO

import kernels
from kernels.apart import apart

CASES = {  # operation and shapes of inputs, filters and bias; the images' were wrong once
    "conv2d": (kernels.conv2d, ((1, 7, 21, 1), (2, 2, 1, 6), (6,))),
    "depthwise_conv2d": (kernels.depthwise_conv2d, ((3, 14, 9, 1), (4, 4, 1), (1,))),
    "depthwise_conv1d": (kernels.depthwise_conv1d, ((2, 21, 16), (7, 16), (16,))),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_gradient_of_a_maximum_is_that_of_the_largest_element(case):
    """XLA may compute a sum of products twice and round it otherwise; then no element is it."""
    operation, shapes = case

    def loss(*arrays):
        y = operation(*arrays)
        return jnp.sum(jnp.sin(jnp.max(y, tuple(range(1, y.ndim - 1)))))

    gradients = jax.jit(jax.grad(loss, (0, 1, 2)), compiler_options=AS_USERS_DO)
    generator = np.random.default_rng(0)
    for _ in range(12):
        arrays = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
        found = gradients(*arrays)
        with jax.enable_x64(True):
            expected = gradients(*(array.astype(np.float64) for array in arrays))
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_it_is_a_call_that_stays():
    def twice(x):
        (y,) = apart(lambda x: (x * 2 + 1,), x)
        return jnp.sum(y), jnp.max(y)

    compiled = (
        jax.jit(twice, compiler_options=AS_USERS_DO).lower(jnp.arange(9.0)).compile().as_text()
    )
    assert compiled is not None
    assert compiled.count(" call(") == 1


def test_derivatives_pass_through():
    def function(x):
        return jnp.sum(jnp.sin(apart(lambda x: x * x, x)))

    def plain(x):
        return jnp.sum(jnp.sin(x * x))

    x = jnp.arange(1.0, 4.0)
    for transform in (jax.grad, jax.hessian):
        np.testing.assert_allclose(transform(function)(x), transform(plain)(x), rtol=1e-5)
