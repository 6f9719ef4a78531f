"""One body for every implementation: values and derivatives against the definition in float64."""

import importlib.util
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels.convolution import reference
from kernels.convolution.tuning import SHAPES, Shape

without_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux only"
)
IMPLEMENTATIONS = ["xla", pytest.param("triton", marks=without_triton)]
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]
ACTIVATIONS = [None, "relu", "silu", "gelu"]

# Interpreted kernels take their time: the shapes that are measured, cut, and awkward ones.
CASES = {
    name: shape._replace(batch=2, frames=67, channels=17, width=min(shape.width, 11))
    for name, shape in SHAPES.items()
    if name in ("causal_w4", "conformer_w31", "dilated_w3")
} | {
    "wide": SHAPES["wide_w128"]._replace(batch=1, frames=130, channels=2),
    "one_frame": Shape(1, 1, 1, 3),
    "shorter_than_the_filter": Shape(3, 5, 2, 8),
    "prime": Shape(2, 17, 33, 4, 3, "CAUSAL"),
    "valid": Shape(2, 65, 3, 5, 2, "VALID"),
    "uneven": Shape(2, 63, 3, 2, 1, (5, 0)),  # type: ignore[arg-type]
}


class Case:
    """Arguments, and the operation and its definition as functions of (inputs, filters, bias)."""

    def __init__(self, name, implementation, dtype, *, activation="silu", has_lengths=True):
        shape = CASES[name]
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        sizes = [(shape.batch, shape.frames, shape.channels), (shape.width, shape.channels)]
        self.arguments = tuple(
            jnp.asarray(generator.normal(size=size), dtype) for size in (*sizes, (shape.channels,))
        )
        lengths = generator.integers(1, shape.frames + 1, shape.batch).astype(np.int32)
        lengths[0] = shape.frames
        self.lengths = lengths if has_lengths else None
        self.options = {"dilation": shape.dilation, "activation": activation}
        self.padding, self.shape, self.implementation = shape.padding, shape, implementation

    def ours(self, inputs, filters, bias):
        return kernels.depthwise_conv1d(
            inputs,
            filters,
            bias,
            padding=self.padding,
            lengths=None if self.lengths is None else jnp.asarray(self.lengths),
            implementation=self.implementation,
            **self.options,
        )

    def definition(self, inputs, filters, bias):
        lengths = None if self.lengths is None else jnp.asarray(self.lengths)
        options = {"padding": self.padding, "lengths": lengths, **self.options}
        return reference.depthwise_conv1d(inputs, filters, bias, **options)


def value(function):
    return function


def gradients(function):
    """Of every argument, along a direction that differs from element to element."""

    def of_arguments(*arguments):
        y, pullback = jax.vjp(function, *arguments)
        return pullback(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    return of_arguments


def second_derivatives(function):
    def scalar(*arguments):
        return sum(jnp.sum(jnp.sin(g)) for g in gradients(function)(*arguments))

    return jax.grad(scalar, (0, 1, 2))


def tangents(function):
    def along_arguments(*arguments):
        return jax.jvp(function, arguments, tuple(jnp.sin(a) for a in arguments))[1]

    return along_arguments


def exact(transform, case):
    """What the definition gives in float64 for the same arguments."""
    with jax.enable_x64(True):
        arguments = [jnp.asarray(np.asarray(a, np.float64)) for a in case.arguments]
        return jax.tree.map(np.asarray, jax.jit(transform(case.definition))(*arguments))


def check(result, plain, expected):
    """The error against float64 is at most twice that of plain XLA in the same precision."""
    for ours, theirs, true in zip(*map(jax.tree.leaves, (result, plain, expected)), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape == true.shape
        scale = np.abs(true).max(initial=1e-30)
        error = np.abs(np.asarray(ours, np.float64) - true).max(initial=0) / scale
        allowed = np.abs(np.asarray(theirs, np.float64) - true).max(initial=0) / scale
        assert error <= 2 * allowed + 1e-6, (error, allowed)


def compare(transform, case):
    result = jax.jit(transform(case.ours))(*case.arguments)
    plain = jax.jit(transform(case.definition))(*case.arguments)
    check(result, plain, exact(transform, case))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", [name for name in CASES if name != "wide"])
@pytest.mark.parametrize("transform", [value, gradients])
def test_is_its_definition(transform, name, implementation):
    compare(transform, Case(name, implementation, jnp.float32))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transform", [value, gradients])
def test_every_precision(transform, dtype, implementation):
    compare(transform, Case("prime", implementation, dtype))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("transform", [value, gradients])
def test_every_activation_without_lengths(transform, activation, implementation):
    case = Case("valid", implementation, jnp.float32, activation=activation, has_lengths=False)
    compare(transform, case)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("transform", [second_derivatives, tangents])
def test_other_derivatives(transform, implementation):
    compare(transform, Case("prime", implementation, jnp.float32))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_hessian_and_rematerialised_gradient(implementation):
    case = Case("shorter_than_the_filter", implementation, jnp.float32)

    def hessian(function):
        return jax.hessian(lambda x, f, b: jnp.sum(jnp.sin(function(x, f, b))), 1)

    compare(hessian, case)
    compare(lambda function: gradients(jax.checkpoint(function)), case)


MAPPED = [(0, None, None), (None, 0, None), (None, None, 0), (1, 0, 0)]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("axes", MAPPED)
@pytest.mark.parametrize("nesting", ["value", "gradient of the map", "map of the gradient"])
def test_maps_over_any_argument(nesting, axes, implementation):
    def mapped(function):
        if nesting == "map of the gradient":
            return jax.vmap(gradients(function), axes)
        outer = value if nesting == "value" else gradients
        return outer(jax.vmap(function, axes))

    case = Case("uneven", implementation, jnp.float32)
    case.arguments = tuple(
        argument if axis is None else jnp.stack([argument, -argument, 2 * argument], axis)
        for argument, axis in zip(case.arguments, axes, strict=True)
    )
    compare(mapped, case)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_maps_nest(implementation):
    case = Case("shorter_than_the_filter", implementation, jnp.float32)
    x, f, b = case.arguments
    case.arguments = jnp.stack([x, -x]), jnp.stack([f, 2 * f, -f]), jnp.stack([b, -b])
    nested = jax.vmap, (None, 0, None), (0, None, 0)
    compare(lambda function: nested[0](nested[0](gradients(function), nested[1]), nested[2]), case)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gives_the_same_bits_with_and_without_jit(implementation):
    case = Case("prime", implementation, jnp.float32)
    once, again = (jax.jit(gradients(case.ours))(*case.arguments) for _ in range(2))
    eager = case.ours(*case.arguments)
    for left, right in zip(once, again, strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_allclose(jax.jit(case.ours)(*case.arguments), eager, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_lies_in_padded_frames_does_not_count(implementation):
    case = Case("prime", implementation, jnp.float32)
    x, f, b = case.arguments
    assert case.lengths is not None
    padded = np.arange(x.shape[1])[None, :] >= case.lengths[:, None]
    spoilt = jnp.where(padded[:, :, None], jnp.nan, x)
    for transform in (value, gradients):
        clean, dirty = transform(case.ours)(x, f, b), transform(case.ours)(spoilt, f, b)
        for left, right in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
            np.testing.assert_array_equal(left, right)
    assert (np.asarray(gradients(case.ours)(x, f, b)[0])[padded] == 0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("has_lengths", [False, True])
def test_pieces_give_what_the_whole_gives(has_lengths, width, implementation):
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(2, 13, 3)), jnp.float32)
    f = jnp.asarray(generator.normal(size=(width, 3)), jnp.float32)
    options = {
        "padding": "CAUSAL",
        "dilation": 2,
        "activation": "silu",
        "implementation": implementation,
    }
    whole = kernels.depthwise_conv1d(x, f, **options)
    state, parts = None, []
    for start, stop in [(0, 5), (5, 6), (6, 13)]:
        piece = x[:, start:stop]
        lengths = None
        if has_lengths:  # frames of padding must not enter the state
            piece = jnp.pad(piece, ((0, 0), (0, 2), (0, 0)), constant_values=jnp.nan)
            lengths = jnp.full(2, stop - start)
        y, state = kernels.depthwise_conv1d(
            piece, f, lengths=lengths, initial_state=state, return_state=True, **options
        )
        assert state.shape == (2, 2 * (width - 1), 3)
        parts.append(y[:, : stop - start])
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_shard_map_gives_what_one_device_gives(implementation):
    case = Case("prime", implementation, jnp.float32)
    case.lengths = None
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = jax.P("data"), jax.P()
    mapped = jax.shard_map(case.ours, mesh=mesh, in_specs=(rows, whole, whole), out_specs=rows)
    for transform in (value, gradients):
        once = jax.jit(transform(mapped))(*case.arguments)
        for left, right in zip(
            jax.tree.leaves(once),
            jax.tree.leaves(transform(case.ours)(*case.arguments)),
            strict=True,
        ):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


X, F = jnp.zeros((2, 9, 3)), jnp.zeros((4, 3))


def test_the_widest_filter():
    compare(gradients, Case("wide", None, jnp.float32))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X[0], F), {}, r"inputs \(B, T, C\).*received inputs \(9, 3\)"),
        ((X, F[:, :2]), {}, "must share B and C"),
        ((X, F[:0]), {}, "W from 1 on"),
        ((X, F, F), {}, "must share B and C"),
        ((X, F), {"lengths": jnp.zeros(3, jnp.int32)}, "must share B and C"),
        ((X, F), {"lengths": jnp.zeros(2)}, r"lengths must be integer.*astype"),
        ((X.astype(jnp.int32), F), {}, "inputs must be floating"),
        ((X, F), {"padding": "same"}, "padding must be one of.*received 'same'"),
        ((X, F), {"padding": (1, -1)}, r"received \(1, -1\)"),
        ((X, F), {"padding": "VALID", "dilation": 3}, "longer than the filters reach, 9 frames"),
        ((X, F), {"dilation": 0}, "dilation must be an integer from 1 on; received 0"),
        ((X, F), {"activation": "tanh"}, "activation must be one of.*received 'tanh'"),
        ((X, F), {"return_state": True}, "needs padding='CAUSAL'"),
        ((X, F), {"padding": "CAUSAL", "initial_state": X}, r"= \(2, 3, 3\) of float32"),
        ((X, F), {"implementation": "cuda"}, "implementation must be None or one of"),
    ],
)
def test_bad_arguments_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        kernels.depthwise_conv1d(*arguments, **options)
