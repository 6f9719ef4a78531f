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


@pytest.mark.parametrize("wanted", [(2,), (3,), (2, 3)])
def test_gradients_of_the_norm_alone(wanted):
    operation, arrays = arrays_of("conformer_convolution")
    every = jax.grad(squares(operation), (0, 1, 2, 3))(*arrays)
    for place, slope in zip(wanted, jax.grad(squares(operation), wanted)(*arrays), strict=True):
        np.testing.assert_allclose(slope, every[place], rtol=1e-5)


@pytest.mark.parametrize("name", ["depthwise_conv1d", "conformer_convolution"])
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8])
def test_lengths_are_at_most_the_frames_and_at_least_none(name, dtype):
    operation, arrays = arrays_of(name)
    limits = jnp.iinfo(dtype)

    def padded(lengths):
        return operation(*arrays, bias=jnp.ones(4), padding=(5, 5), lengths=lengths)

    found = padded(jnp.array([limits.max, max(limits.min, -5)], dtype))
    np.testing.assert_array_equal(found, padded(jnp.array([9, 0], jnp.int32)))


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
