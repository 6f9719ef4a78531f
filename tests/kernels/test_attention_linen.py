"""``attention_fn`` inside Flax Linen's modules, against Linen's own attention."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 12)), jnp.float32)


@pytest.fixture(autouse=True)
def standard_dtypes():
    """Linen breaks under strict promotion, which conftest sets for kernels."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def outputs(attention_fn, x=X, mask=None, **options):
    module = nn.MultiHeadDotProductAttention(num_heads=3, attention_fn=attention_fn, **options)
    variables = module.init(jax.random.key(0), x, mask=mask, deterministic=True)

    def total(variables, x):
        out = jnp.asarray(module.apply(variables, x, mask=mask, deterministic=True))
        return jnp.sum(jnp.sin(out)), out

    return jax.jit(jax.value_and_grad(total, has_aux=True))(variables, x)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_the_module_gives_the_same_and_the_same_gradients(batch):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(*batch, 7, 12)), jnp.float32)
    mask = nn.make_causal_mask(x[..., 0])
    found, expected = (
        outputs(function, x, mask) for function in (kernels.attention_fn, nn.dot_product_attention)
    )
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_padded_queries_give_zeros_where_linen_gives_the_mean():
    valid = jnp.array([[True] * 4 + [False] * 3] * 2)
    mask = nn.make_attention_mask(valid, valid)
    found = kernels.attention_fn(X[:, :, None], X[:, :, None], X[:, :, None], mask=mask)
    theirs = nn.dot_product_attention(X[:, :, None], X[:, :, None], X[:, :, None], mask=mask)
    assert not found[:, 4:].any()
    mean = jnp.broadcast_to(X.mean(1, keepdims=True), (2, 3, 12))
    np.testing.assert_allclose(theirs[:, 4:, 0], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[:, :4], theirs[:, :4], rtol=1e-5, atol=1e-6)
    assert "gives the mean of all values" in " ".join(str(kernels.attention_fn.__doc__).split())


def test_low_precision_modules():
    found, expected = (
        outputs(function, dtype=jnp.bfloat16)
        for function in (kernels.attention_fn, nn.dot_product_attention)
    )
    assert found[0][1].dtype == jnp.bfloat16
    np.testing.assert_allclose(
        found[0][1].astype(jnp.float32), expected[0][1].astype(jnp.float32), atol=0.03
    )


def test_options_of_attention_are_bound_by_partial():
    causal = functools.partial(kernels.attention_fn, is_causal=True, implementation="xla")
    found = outputs(causal)[0][1]
    expected = outputs(nn.dot_product_attention, mask=nn.make_causal_mask(X[..., 0]))[0][1]
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_bias_and_masks_of_several_batch_axes():
    generator = np.random.default_rng(2)
    q = jnp.asarray(generator.normal(size=(2, 3, 5, 4, 8)), jnp.float32)
    for shape in ((5, 5), (4, 1, 5), (1, 4, 5, 5), (3, 1, 5, 5), (2, 1, 4, 5, 5), (2, 3, 1, 1, 5)):
        bias = jnp.asarray(generator.normal(size=shape), jnp.float32)
        mask = bias > -1
        found = kernels.attention_fn(q, q, q, bias, mask)
        bias, mask = (jnp.broadcast_to(a, (2, 3, 4, 5, 5)) for a in (bias, mask))
        expected = nn.dot_product_attention(q, q, q, bias, mask)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_dropout_is_drawn_from_linens_key_and_only_in_training():
    module = nn.MultiHeadDotProductAttention(
        num_heads=3, attention_fn=kernels.attention_fn, dropout_rate=0.5
    )
    variables = module.init(jax.random.key(0), X, deterministic=True)

    def out(seed, deterministic):
        keys = {"dropout": jax.random.key(seed)}
        return np.asarray(module.apply(variables, X, deterministic=deterministic, rngs=keys))

    np.testing.assert_array_equal(out(0, True), out(1, True))
    np.testing.assert_array_equal(out(0, False), out(0, False))
    assert (out(0, False) != out(1, False)).any()


def test_weights_cannot_be_sown():
    module = nn.MultiHeadDotProductAttention(num_heads=3, attention_fn=kernels.attention_fn)
    with pytest.raises(ValueError, match=r"module must be None; received.*sow_weights=False"):
        module.init(jax.random.key(0), X, deterministic=True, sow_weights=True)


def test_no_frames_and_no_rows():
    for shape in ((2, 3, 0, 4, 8), (0, 5, 4, 8), (2, 0, 5, 4, 8)):
        x, frames = jnp.ones(shape), shape[-3]
        mask = jnp.ones((*shape[:-3], 1, frames, frames))
        assert kernels.attention_fn(x, x, x, mask=mask).shape == shape


def several_axes():
    generator = np.random.default_rng(3)
    return [jnp.asarray(generator.normal(size=(2, 3, 5, 4, 8)), jnp.float32) for _ in range(3)]


def test_the_residual_has_all_batch_axes():
    q, k, v = several_axes()
    out, residual = kernels.attention_fn(q, k, v, return_residual=True)
    np.testing.assert_array_equal(out, kernels.attention_fn(q, k, v))
    scores = jnp.einsum("abtnh,absnh->abtns", q, k) / np.sqrt(8)
    np.testing.assert_allclose(residual, jax.nn.logsumexp(scores, -1), rtol=1e-5)


@pytest.mark.parametrize(
    ("key", "value"), [((3, 2), (3, 2)), ((2, 3), (3, 2)), ((6,), (6,)), ((), ())]
)
def test_batch_axes_that_differ_are_refused(key, value):
    q, k, v = several_axes()
    k, v = (jnp.resize(a, (*axes, 5, 4, 8)) for a, axes in ((k, key), (v, value)))
    with pytest.raises(ValueError, match=r"same batch axes; received query \(2, 3, 5, 4, 8\)"):
        kernels.attention_fn(q, k, v)


def test_biases_of_other_batch_axes_are_refused():
    q, k, v = several_axes()
    for shape in ((3, 2, 4, 5, 5), (2, 1, 3, 4, 5, 5), (2, 4, 5, 5)):
        with pytest.raises(ValueError, match=r"bias must be broadcastable.*\(2, 3\) of query"):
            kernels.attention_fn(q, k, v, jnp.ones(shape))


def test_options_of_each_row_have_the_batch_axes():
    q, k, v = several_axes()
    lengths, ids = np.arange(6).reshape(2, 3), np.arange(30).reshape(2, 3, 5) // 3
    options = {
        "query_seq_lengths": lengths[::-1],
        "key_value_seq_lengths": jnp.asarray(lengths),
        "query_segment_ids": ids,
        "key_value_segment_ids": jnp.asarray(ids),
    }
    found = kernels.attention_fn(q, k, v, **options)
    for i, j in np.ndindex(2, 3):
        one: dict[str, Any] = {name: jnp.asarray(array[i, j]) for name, array in options.items()}
        expected = kernels.attention(q[i, j], k[i, j], v[i, j], **one)
        np.testing.assert_allclose(found[i, j], expected, rtol=1e-5, atol=1e-6)
    flat = {name: array.reshape(6, *array.shape[2:]) for name, array in options.items()}
    np.testing.assert_array_equal(kernels.attention_fn(q, k, v, **flat), found)
    with pytest.raises(ValueError, match="key_value_seq_lengths does not"):
        kernels.attention_fn(q, k, v, key_value_seq_lengths=lengths.T)
