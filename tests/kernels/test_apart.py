"""What is computed apart on a CPU is computed once, and differentiates as if it were not."""

import jax
import jax.numpy as jnp
import numpy as np

from kernels.apart import apart

MARK = 'inlineable = "false"'
X = jnp.linspace(-1.0, 2.0, 12).reshape(3, 4)


def centred(x, keep):
    """Of a tangent, which XLA would compute for the sum and again for the difference."""
    (y,) = keep(lambda x: (jnp.tanh(x) * x,), x)
    return y - jnp.sum(y, -1, keepdims=True)


def together(function, *arrays):
    return function(*arrays)


def test_it_is_marked_for_a_cpu_alone_and_stays_a_call():
    traced = jax.jit(lambda x: centred(x, apart)).trace(X)
    assert MARK in traced.lower(lowering_platforms=("cpu",)).as_text()
    assert MARK not in traced.lower(lowering_platforms=("cuda",)).as_text()
    compiled = traced.lower(lowering_platforms=("cpu",)).compile().as_text() or ""
    assert compiled.count(" tanh(") == compiled.count(" call(") == 1


def test_derivatives_go_through():
    found, expected = (
        jax.jit(jax.hessian(lambda x, keep=keep: jnp.sum(jnp.sin(centred(x, keep)))))(X)
        for keep in (apart, together)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
