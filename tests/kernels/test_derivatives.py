"""Derivatives of an operation that saves something for its gradient, and of any order."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.dispatch import Implementation, Operation

pytestmark = pytest.mark.usefixtures("in_haste")

TRACED: list[str] = []


def _forward(x, scale):
    TRACED.append("forward")
    return (jnp.sum(jnp.sin(x) * scale, 1),)


def _saving(x, scale):
    """Gives what its gradient needs by a way that JAX could not differentiate rightly."""
    TRACED.append("saving")
    slope = jax.lax.bitcast_convert_type(jnp.cos(x), jnp.int32)
    return _forward(x, scale), (slope,)


def _gradient(operands, saved, cotangents, wanted):
    TRACED.append("gradient")
    x, scale = operands
    slope = jax.lax.bitcast_convert_type(saved[0], jnp.float32)
    gradients = (slope * scale, jnp.sin(x))
    return tuple(
        g * cotangents[0][:, None] for g, want in zip(gradients, wanted, strict=True) if want
    )


@pytest.fixture
def operation(monkeypatch):
    fast, plain = types.ModuleType("toy_fast"), types.ModuleType("toy_plain")
    vars(fast)["toy"] = Implementation(_forward, _gradient, saving=_saving)
    vars(plain)["toy"] = Implementation(lambda x, scale: (jnp.sum(jnp.sin(x) * scale, 1),))
    monkeypatch.setitem(sys.modules, "toy_fast", fast)
    monkeypatch.setitem(sys.modules, "toy_plain", plain)
    TRACED.clear()
    found = Operation("toy", {"xla": "toy_fast"}, derivatives="toy_plain", saves=True)
    return lambda x, scale: found(x, scale)[0]


X = jnp.linspace(-1.0, 2.0, 6).reshape(2, 3)
SCALE = jnp.linspace(0.5, 1.5, 6).reshape(2, 3)


def plain(x, scale):
    return jnp.sum(jnp.sin(x) * scale, 1)


def test_nothing_is_saved_unless_a_gradient_follows(operation):
    jax.jit(operation)(X, SCALE)
    assert "saving" not in TRACED
    jax.jit(jax.grad(lambda x: operation(x, SCALE).sum()))(X)
    assert "saving" in TRACED
    assert "gradient" in TRACED


TRANSFORMS = {
    "gradient": lambda f: jax.grad(lambda x, s: f(x, s).sum(), (0, 1)),
    "one gradient": lambda f: jax.grad(lambda x, s: f(x, s).sum(), 1),
    "hessian": lambda f: jax.hessian(lambda x, s: jnp.sin(f(x, s)).sum()),
    "reverse over reverse": lambda f: jax.jacrev(jax.grad(lambda x, s: jnp.sin(f(x, s)).sum())),
    "forward": lambda f: lambda x, s: jax.jvp(f, (x, s), (s, x)),
    "third": lambda f: jax.jacfwd(jax.hessian(lambda x, s: jnp.sin(f(x, s)).sum())),
    "rematerialised": lambda f: jax.grad(lambda x, s: jax.checkpoint(f)(x, s).sum(), (0, 1)),
    "mapped": lambda f: jax.vmap(jax.grad(lambda x, s: f(x, s).sum()), (0, None)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_derivative_is_that_of_the_definition(operation, name):
    x = jnp.stack([X, 2 * X]) if name == "mapped" else X
    found = jax.jit(TRANSFORMS[name](operation))(x, SCALE)
    expected = jax.jit(TRANSFORMS[name](plain))(x, SCALE)
    for ours, true in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, true, rtol=1e-5, atol=1e-6)
