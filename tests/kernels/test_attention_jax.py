"""Beside ``jax.nn.dot_product_attention``: the same calls give the same, in its tolerances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste

import kernels

B, T, S, N, H = 2, 16, 24, 4, 8


@pytest.fixture(autouse=True)
def as_jax_runs_its_own():
    """jax.nn promotes inside."""
    with jax.numpy_dtype_promotion("standard"), compiled_in_haste():
        yield


def normal(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


CASES = {
    "plain": {},
    "scale": {"scale": 0.3},
    "causal": {"is_causal": True},
    "window": {"local_window_size": 3},
    "window pair, causal": {"local_window_size": (3, 2), "is_causal": True},
    # Every query sees a key: of those that do not, jax.nn gives the mean.
    "mask": {"mask": np.random.default_rng(0).random((1, 1, T, S)) < np.eye(T, S) + 0.6},
    "mask per row": {
        "mask": np.arange(S)[None, None, None] < np.array([5, S])[:, None, None, None]
    },
    "bias": {"bias": "normal"},
    "bias, causal": {"bias": "normal", "is_causal": True},
    "lengths": {
        "query_seq_lengths": np.array([T // 2, T], np.int32),
        "key_value_seq_lengths": np.array([S, S // 4], np.int32),
    },
    "key lengths, causal": {
        "key_value_seq_lengths": np.array([S // 4, S // 2], np.int32),
        "is_causal": True,
    },
}


@pytest.mark.parametrize(("key_heads", "dtype"), [(N, "float32"), (2, "bfloat16")])
@pytest.mark.parametrize("name", CASES)
def test_values_residuals_and_gradients(name, key_heads, dtype):
    # Not float16: jax.nn cannot be compiled with it for a CPU.
    options = {k: v if isinstance(v, (bool, int, float, tuple, str)) else jnp.asarray(v)
               for k, v in CASES[name].items()}  # fmt: skip
    q = normal(1, B, T, N, H, dtype=dtype)
    k, v = (normal(seed, B, S, key_heads, H, dtype=dtype) for seed in (2, 3))
    bias = normal(4, 1, N, T, S, dtype=dtype) if options.pop("bias", None) else None
    # float32 differs by rounding; bfloat16 as JAX's own tests allow.
    value, slope = (2e-6, 1e-5) if dtype == "float32" else (0.01, 0.02)

    def results(function):
        def both(q, k, v, bias):
            out, pull = jax.vjp(lambda *a: function(*a, **options), q, k, v, bias)
            residual = function(q, k, v, bias, **options, return_residual=True)[1]
            return out, residual, pull(jnp.cos(q))

        return jax.jit(both)(q, k, v, bias)

    ours, theirs = results(kernels.attention), results(jax.nn.dot_product_attention)
    valid = np.isfinite(np.asarray(ours[1], np.float64))  # the residual of a padded query is -inf
    for i, tolerance in ((0, value), (1, value), (2, slope)):
        for found, expected in zip(
            jax.tree.leaves(ours[i]), jax.tree.leaves(theirs[i]), strict=True
        ):
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
            found, expected = (np.asarray(a, np.float64) for a in (found, expected))
            if i == 1:
                found, expected = found[valid], expected[valid]
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mapped", [(0, 0, 0, None), (0, None, None, 0), (None, 0, 0, 0)])
def test_maps(mapped):
    """vmap over calls without a batch axis, as JAX users write it."""
    shapes = ((T, N, H), (S, N, H), (S, N, H), (N, T, S))
    arrays = [
        normal(i, *((3, *shape) if axis == 0 else shape))
        for i, (shape, axis) in enumerate(zip(shapes, mapped, strict=True))
    ]
    found = jax.vmap(kernels.attention, mapped)(*arrays)
    expected = jax.vmap(jax.nn.dot_product_attention, mapped)(*arrays)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def test_what_differs_from_jax_by_design():
    q, k, v = (normal(i, 1, 3, 1, H) for i in range(3))
    mask = jnp.array([[True, False, False], [False, False, False], [True, True, True]])
    ours, theirs = (
        f(q, k, v, mask=mask) for f in (kernels.attention, jax.nn.dot_product_attention)
    )
    assert not np.asarray(ours[0, 1]).any()
    np.testing.assert_allclose(theirs[0, 1], v[0].mean(0), rtol=1e-5)

    def residual(function):
        return jax.grad(lambda q: jnp.sum(function(q, k, v, return_residual=True)[1]))(q)

    assert np.asarray(residual(kernels.attention)).all()
    assert not np.asarray(residual(jax.nn.dot_product_attention)).any()


def test_hidden_scores_are_no_infinities_to_the_debugger():
    """jax-ml/jax#37422: a mask in float64 under jax_debug_infs."""
    with jax.enable_x64(True), jax.debug_infs(True):
        zero = [jnp.zeros((5 if i == 0 else 7, 6 if i == 0 else 3, 11)) for i in range(3)]
        out = kernels.attention(*zero, mask=jnp.arange(7) <= 3)
        assert jnp.asarray(out).block_until_ready().dtype == jnp.float64
