"""What convolutions say of mistakes that are easy to make: the message has the way out."""

import functools
import re

import jax
import jax.numpy as jnp
import pytest

import kernels

FRAMES, IMAGES = jnp.ones((2, 9, 4)), jnp.ones((2, 6, 7, 4))
TAPS, TAPS_2D, DENSE = jnp.ones((3, 4)), jnp.ones((3, 2, 4)), jnp.ones((3, 2, 4, 5))
GATED, OF_CHANNEL = jnp.ones((2, 9, 8)), jnp.ones(4)


def message(operation, *arrays, **options):
    with pytest.raises(ValueError, match=r"(?s)must|takes.*received") as caught:
        operation(*arrays, **options)
    return str(caught.value)


def conformer(inputs, filters, **options):
    return kernels.conformer_convolution(inputs, filters, OF_CHANNEL, OF_CHANNEL, **options)


ALONG_TIME = [(kernels.depthwise_conv1d, FRAMES), (conformer, GATED)]


def advised(said, right):
    """The expression that a message says to pass, computed for what was given."""
    (found,) = re.findall(r"Pass ((?:inputs|filters|jnp).+)\.$", said)
    return eval(found, {"jnp": jnp, **right})


@pytest.mark.parametrize(("operation", "inputs"), ALONG_TIME)
@pytest.mark.parametrize("shape", [(4, 3), (3, 1, 4), (4, 1, 3)])
def test_filters_along_time_in_another_layout(operation, inputs, shape):
    filters = jnp.arange(12.0).reshape(shape)
    right = advised(message(operation, inputs, filters), {"filters": filters})
    assert right.shape == TAPS.shape
    assert sorted(right[:, 1].tolist()) == sorted(
        (filters[1] if shape[0] == 4 else filters[..., 1]).ravel().tolist()
    )
    operation(inputs, right)


@pytest.mark.parametrize("shape", [(4, 3, 2), (3, 2, 1, 4), (4, 1, 3, 2)])
def test_filters_of_images_in_another_layout(shape):
    filters = jnp.arange(24.0).reshape(shape)
    right = advised(message(kernels.depthwise_conv2d, IMAGES, filters), {"filters": filters})
    expected = filters[1] if shape[0] == 4 else filters[..., 1]
    assert jnp.array_equal(right[..., 1], expected.reshape(3, 2))


@pytest.mark.parametrize("channels", [1, 4])
def test_filters_and_inputs_that_lack_an_axis(channels):
    inputs, filters = FRAMES[..., :channels], jnp.arange(3.0)
    right = advised(message(kernels.depthwise_conv1d, inputs, filters), {"filters": filters})
    assert right.shape == (3, channels)
    assert jnp.array_equal(right[:, -1], filters)
    for operation, one, taps in (
        (kernels.depthwise_conv1d, FRAMES[0], TAPS),
        (conformer, GATED[0], TAPS),
        (kernels.depthwise_conv2d, IMAGES[0], TAPS_2D),
        (kernels.conv2d, IMAGES[0], DENSE),
    ):
        assert (
            operation(advised(message(operation, one, taps), {"inputs": one}), taps).shape[0] == 1
        )


def test_dense_filters_of_torch():
    filters = jnp.arange(120.0).reshape(5, 4, 3, 2)
    right = advised(message(kernels.conv2d, IMAGES, filters), {"filters": filters})
    assert jnp.array_equal(right[:, :, 1, 2], filters[2, 1])


@pytest.mark.parametrize(
    ("operation", "inputs", "filters"),
    [
        (kernels.depthwise_conv1d, FRAMES, TAPS),
        (conformer, GATED, TAPS),
        (kernels.depthwise_conv2d, IMAGES, TAPS_2D),
        (kernels.conv2d, IMAGES, DENSE),
    ],
)
def test_inputs_with_channels_first(operation, inputs, filters):
    swapped = jnp.moveaxis(inputs, -1, 1)
    right = advised(message(operation, swapped, filters), {"inputs": swapped})
    assert right.shape == inputs.shape


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"bias": jnp.ones(3)}, "Give bias the shape (4,)."),
        ({"lengths": jnp.ones(3, jnp.int32)}, "Give lengths the shape (2,)."),
    ],
)
@pytest.mark.parametrize(("operation", "inputs"), ALONG_TIME)
def test_the_shape_that_an_array_must_have(operation, inputs, options, advice):
    assert message(operation, inputs, TAPS, **options).endswith(advice)


def test_filters_of_other_channels_are_told_what_they_need():
    said = message(kernels.depthwise_conv1d, FRAMES, jnp.ones((3, 7)))
    assert said.endswith("Give filters the shape (3, 4).")
    said = message(kernels.depthwise_conv2d, IMAGES, jnp.ones((3, 2, 7)))
    assert said.endswith("Give filters the shape (3, 2, 4).")
    said = message(kernels.depthwise_conv2d, IMAGES, TAPS_2D, jnp.ones(7))
    assert said.endswith("Give bias the shape (4,).")


@pytest.mark.parametrize(("operation", "inputs"), ALONG_TIME)
@pytest.mark.parametrize(
    ("padding", "advice"),
    [
        ("causal", "Did you mean 'CAUSAL'?"),
        ("SAMEE", "Did you mean 'SAME'?"),
        (2, "Pass (2, 2) for as many on each side."),
        ((1, -1), "Pass (left, right), or a name."),
    ],
)
def test_padding_along_time(operation, inputs, padding, advice):
    assert message(operation, inputs, TAPS, padding=padding).endswith(advice)


@pytest.mark.parametrize(
    ("padding", "advice"),
    [
        ("same_lower", "Did you mean 'SAME_LOWER'?"),
        ("CAUSAL", "Pass pixels on each side, or a name."),
        (1, "Pass ((1, 1), (1, 1)) for as many on each side."),
        ((1, 2), "Pass ((1, 1), (2, 2)) for as many on each side."),
        ((1, 2, 3), "Pass pixels on each side, or a name."),
    ],
)
@pytest.mark.parametrize(
    ("operation", "filters"), [(kernels.depthwise_conv2d, TAPS_2D), (kernels.conv2d, DENSE)]
)
def test_padding_of_images(operation, filters, padding, advice):
    assert message(operation, IMAGES, filters, padding=padding).endswith(advice)


@pytest.mark.parametrize("name", ["strides", "dilation"])
def test_one_number_for_both_axes_of_an_image(name):
    said = message(kernels.depthwise_conv2d, IMAGES, TAPS_2D, **{name: 2})
    assert said.endswith("Pass (2, 2).")
    said = message(kernels.depthwise_conv2d, IMAGES, TAPS_2D, **{name: (1, 0)})
    assert said.endswith("Pass one for rows and one for columns.")


@pytest.mark.parametrize(
    ("activation", "advice"),
    [
        (jax.nn.silu, "Pass its name, 'silu'."),
        (jax.nn.gelu, "Pass its name, 'gelu'."),
        (jax.nn.relu, "Pass its name, 'relu'."),
        (functools.partial(jax.nn.gelu), "Pass None, and apply it to the result."),
        (["relu"], "Pass None, and apply it to the result."),
        (jax.nn.swish, "Pass its name, 'silu'."),
        ("SiLU", "Did you mean 'silu'?"),
        ("swish", "Did you mean 'silu'?"),
        (jnp.tanh, "Pass None, and apply it to the result."),
        ("tanh", "Pass None, and apply it to the result."),
    ],
)
def test_activations(activation, advice):
    said = message(kernels.depthwise_conv1d, FRAMES, TAPS, activation=activation)
    assert said.endswith(advice)


def test_other_names_and_numbers():
    said = message(kernels.depthwise_conv1d, FRAMES, TAPS, implementation="Triton")
    assert said.endswith("Did you mean 'triton'? None picks one that can.")
    said = message(kernels.depthwise_conv1d, FRAMES, TAPS, implementation="cuda")
    assert said.endswith("received 'cuda'. None picks one that can.")
    assert message(conformer, GATED, TAPS, norm="Layer").endswith("Did you mean 'layer'?")
    assert message(conformer, GATED, TAPS, epsilon=0.0).endswith("1e-5 is usual.")
    said = message(kernels.depthwise_conv1d, FRAMES, TAPS, dilation=(2,))
    assert said.endswith("Pass a Python integer.")
    said = message(kernels.conv2d, IMAGES, DENSE, groups=2)
    assert said.endswith("Pass 1, or another divisor of 5.")
    said = message(conformer, GATED, TAPS, return_state=1, padding="CAUSAL")
    assert said.endswith("Pass True or False themselves; under jit, name it in static_argnames.")
