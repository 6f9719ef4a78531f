"""What every convolution must bear: nothing at all, maps of second derivatives, odd lengths."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste

import kernels

CALLS = {  # operation and shapes of its arrays: inputs first, then filters
    "depthwise_conv1d": (kernels.depthwise_conv1d, ((2, 9, 4), (3, 4))),
    "conformer_convolution": (kernels.conformer_convolution, ((2, 9, 8), (3, 4), (4,), (4,))),
    "depthwise_conv2d": (kernels.depthwise_conv2d, ((2, 5, 4, 3), (3, 2, 3))),
    "conv2d": (kernels.conv2d, ((2, 5, 4, 1), (3, 2, 1, 5))),
    "conv2d, 1x1": (kernels.conv2d, ((2, 5, 4, 3), (1, 1, 3, 5))),
    "conv2d, wide": (kernels.conv2d, ((2, 5, 4, 17), (2, 2, 17, 3))),
}


def arrays_of(name):
    operation, shapes = CALLS[name]
    generator = np.random.default_rng(0)
    return operation, [jnp.asarray(generator.normal(size=s), jnp.float32) for s in shapes]


@pytest.fixture(params=CALLS)
def call(request):
    return arrays_of(request.param)


def squares(operation):
    return lambda *arrays: jnp.sum(operation(*arrays) ** 2)


def test_no_rows_have_gradients_of_zero(call):
    operation, (inputs, *others) = call
    with compiled_in_haste():
        slopes = jax.grad(squares(operation), (0, 1))(inputs[:0], *others)
    assert slopes[0].shape == (0, *inputs.shape[1:])
    assert not slopes[1].any()


def test_maps_of_second_derivatives(call):
    operation, (inputs, *others) = call

    def along(inputs):
        return jax.jvp(jax.grad(lambda x: squares(operation)(x, *others)), (inputs,), (inputs,))[1]

    with compiled_in_haste():
        mapped = jax.vmap(along)(jnp.stack([inputs, 2 * inputs]))
        one_by_one = [along(inputs), along(2 * inputs)]
    np.testing.assert_allclose(mapped, jnp.stack(one_by_one), rtol=1e-4, atol=1e-4)


def test_maps_over_nothing(call):
    operation, (inputs, *others) = call
    inputs = jnp.stack([inputs, 2 * inputs], 1)

    def slopes(inputs, *others):
        return jax.grad(squares(operation), (0, 1))(inputs, *others)

    def tangents(*arrays):
        return jax.jvp(operation, arrays, arrays)[1]

    for function in (operation, slopes, tangents):
        mapped = jax.vmap(function, (1, *[None] * len(others)))
        nested = jax.vmap(mapped, (0, *[None] * len(others)))
        found, two = mapped(inputs[:, :0], *others), jax.eval_shape(mapped, inputs, *others)
        none = nested(jnp.zeros((0, *inputs.shape)), *others)
        each = nested(jnp.zeros((3, *inputs[:, :0].shape)), *others)
        for a, b, c, d in zip(*map(jax.tree.leaves, (found, none, each, two)), strict=True):
            assert (a.shape, a.dtype) == ((0, *d.shape[1:]), d.dtype)
            assert (b.shape, c.shape) == ((0, *d.shape), (3, *a.shape))


@pytest.mark.parametrize("wanted", [(2,), (3,), (2, 3)])
def test_gradients_of_the_norm_alone(wanted):
    operation, arrays = arrays_of("conformer_convolution")
    every = jax.grad(squares(operation), (0, 1, 2, 3))(*arrays)
    for place, slope in zip(wanted, jax.grad(squares(operation), wanted)(*arrays), strict=True):
        np.testing.assert_allclose(slope, every[place], rtol=1e-5)


@pytest.mark.parametrize("name", ["depthwise_conv1d", "conformer_convolution"])
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.uint32])
def test_lengths_are_at_most_the_frames_and_at_least_none(name, dtype):
    operation, arrays = arrays_of(name)
    limits = jnp.iinfo(dtype)

    def padded(lengths):
        return operation(*arrays, bias=jnp.ones(4), padding=(5, 5), lengths=lengths)

    found = padded(jnp.array([limits.max, max(limits.min, -5)], dtype))
    np.testing.assert_array_equal(found, padded(jnp.array([9, 0], jnp.int32)))
    for wide in (np.array([2**32 - 1, -(2**32) + 5]), [2**32 - 1, -1]):
        np.testing.assert_array_equal(padded(wide), found)


def test_names_and_numbers_are_checked_as_what_they_are():
    x, f = jnp.ones((1, 5, 2)), jnp.ones((3, 2))
    loose: dict[str, Any] = {"padding": [1, 1], "dilation": np.int64(1)}
    assert kernels.depthwise_conv1d(x, f, **loose).shape == x.shape
    cases: list[tuple[dict[str, Any], str]] = [
        ({"activation": ["relu"]}, "activation must be one of"),
        ({"padding": "SAMEE"}, "padding must be one of"),
        ({"dilation": 1.5}, "dilation must be an integer"),
    ]
    for wrong, named in cases:
        with pytest.raises(ValueError, match=named):
            kernels.depthwise_conv1d(x, f, **wrong)


def as_lists(arrays):
    return [array.tolist() for array in arrays]


def test_lists_are_arrays(call):
    operation, arrays = call
    np.testing.assert_array_equal(operation(*as_lists(arrays)), operation(*arrays))


@pytest.mark.parametrize("name", ["depthwise_conv1d", "conformer_convolution"])
def test_lists_as_options(name):
    operation, arrays = arrays_of(name)
    options = {
        "bias": jnp.arange(4.0),
        "lengths": jnp.array([9, 5]),
        "initial_state": arrays[0][:, :2],
    }
    causal = {"padding": "CAUSAL", "return_state": True}
    found = operation(*arrays, **{name: a.tolist() for name, a in options.items()}, **causal)
    for one, other in zip(found, operation(*arrays, **options, **causal), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["depthwise_conv1d", "conformer_convolution"])
def test_states_are_asked_for_by_truth_values(name):
    operation, arrays = arrays_of(name)
    with pytest.raises(ValueError, match=r"a state needs padding='CAUSAL'.*received array"):
        operation(*arrays, padding=np.array([2, 0]), return_state=True)
    with pytest.raises(ValueError, match=r"return_state must be True or False, known while"):
        jax.jit(lambda wanted: operation(*arrays, padding="CAUSAL", return_state=wanted))(True)


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2])
def test_dtypes_without_an_implementation_are_refused(call, dtype):
    operation, arrays = call
    for place in (0, 1):
        narrow = [a.astype(dtype) if i == place else a for i, a in enumerate(arrays)]
        with pytest.raises(ValueError, match=r"must be floating, one of .*received.*float8"):
            operation(*narrow)


def test_numbers_of_any_kind_that_are_known():
    operation, arrays = arrays_of("conformer_convolution")
    expected = operation(*arrays, epsilon=1e-5)
    for epsilon in (np.float32(1e-5), jnp.float32(1e-5)):
        np.testing.assert_allclose(operation(*arrays, epsilon=epsilon), expected, rtol=1e-6)
    for epsilon in (0, -1.0, float("nan"), "1"):
        with pytest.raises(ValueError, match="epsilon must be a"):
            operation(*arrays, epsilon=epsilon)
    with pytest.raises(ValueError, match="epsilon must be a finite number that is known while"):
        jax.jit(lambda epsilon: operation(*arrays, epsilon=epsilon))(1e-5)
    x, f = jnp.ones((1, 5, 4, 2)), jnp.ones((2, 2, 1, 2))
    one: Any = jnp.int32(1)
    assert kernels.conv2d(x, f, groups=2 * one).shape == x.shape
    with pytest.raises(ValueError, match=r"groups must be an integer from 1 on, known while"):
        jax.jit(lambda groups: kernels.conv2d(x, f, groups=groups))(2)
    assert kernels.depthwise_conv1d(x[0], f[0, :, 0], dilation=one).shape == x.shape[1:]
    with pytest.raises(ValueError, match=r"dilation must be an integer from 1 on that is known"):
        jax.jit(lambda d: kernels.depthwise_conv1d(x[0], f[0, :, 0], dilation=d))(1)
