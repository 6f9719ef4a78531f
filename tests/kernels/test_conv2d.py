"""conv2d against lax: paddings, strides, dilation, groups, dtypes, derivatives, vmap, errors."""

import functools
import itertools
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste
from kernel_matrix import WITHOUT_TRITON

import kernels

pytestmark = pytest.mark.usefixtures("in_haste")

PADDINGS = ["SAME", "SAME_LOWER", "VALID", ((2, 0), (1, 3)), ((-1, 1), (0, -2))]
SIZES = [  # rows, height, width, channels, taps, features, groups
    (2, 9, 8, 3, (3, 2), 5, 1),
    (1, 9, 8, 1, (2, 3), 4, 1),
    (2, 8, 9, 4, (1, 1), 3, 1),
    (2, 9, 8, 18, (3, 2), 5, 1),
    (2, 9, 7, 4, (3, 3), 6, 2),
    (1, 8, 8, 3, (2, 2), 3, 3),
]


def by_lax(
    inputs, filters, bias=None, *, strides=(1, 1), padding="SAME", dilation=(1, 1), groups=1
):
    y = jax.lax.conv_general_dilated(
        inputs,
        filters,
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision="highest",
    )
    return y if bias is None else y + bias[None, None, None, :]


def operands(size, dtype=jnp.float64, seed=0):
    rows, height, width, channels, taps, features, groups = size
    generator = np.random.default_rng(seed)
    shapes = (rows, height, width, channels), (*taps, channels // groups, features), (features,)
    return tuple(jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes)


def value_and_gradients(function):
    def of_arrays(*arrays):
        value, pullback = jax.vjp(function, *arrays)
        direction = jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)
        return value, *pullback(direction)

    return of_arrays


def assert_same(ours, theirs, arrays, tolerance):
    found, expected = (jax.tree.leaves(jax.jit(f)(*arrays)) for f in (ours, theirs))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_values_and_gradients_are_those_of_lax(size):
    steps = itertools.cycle(
        [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((1, 2), (2, 1)), ((3, 1), (1, 2))]
    )
    with jax.enable_x64(True), compiled_in_haste():
        arrays = operands(size)
        for padding, (strides, dilation) in zip(PADDINGS, itertools.cycle(steps), strict=False):
            options = {
                "strides": strides,
                "padding": padding,
                "dilation": dilation,
                "groups": size[-1],
            }
            ours, theirs = (functools.partial(f, **options) for f in (kernels.conv2d, by_lax))
            assert_same(value_and_gradients(ours), value_and_gradients(theirs), arrays, 1e-12)


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
@pytest.mark.parametrize("size", SIZES[:2], ids=str)
def test_second_derivatives_with_an_activation(size, activation):
    with jax.enable_x64(True), compiled_in_haste():
        arrays = operands(size)
        tangents = tuple(jnp.sin(jnp.arange(a.size * 1.0)).reshape(a.shape) for a in arrays)

        def curvature(function):
            return lambda *arrays: jax.jvp(value_and_gradients(function), arrays, tangents)

        ours = functools.partial(kernels.conv2d, activation=activation)

        def theirs(*arrays):
            return getattr(jax.nn, activation)(by_lax(*arrays))

        assert_same(curvature(ours), curvature(theirs), arrays, 1e-10)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("axes", [(0, 0, 0), (None, 0, 0), (0, None, None), (2, 3, None)], ids=str)
def test_maps_over_images_and_filters(size, axes):
    """Gradients of the map: of shared operands the sum over its members."""
    with jax.enable_x64(True), compiled_in_haste():
        members = [operands(size, seed=seed) for seed in range(3)]
        arrays = tuple(
            parts[0] if axis is None else jnp.stack(parts, axis)
            for axis, *parts in zip(axes, *members, strict=True)
        )
        ours, theirs = (
            value_and_gradients(jax.vmap(functools.partial(f, groups=size[-1]), axes))
            for f in (kernels.conv2d, by_lax)
        )
        assert_same(ours, theirs, arrays, 1e-12)


def test_maps_within_maps():
    with jax.enable_x64(True), compiled_in_haste():
        x, filters, bias = operands(SIZES[0])
        arrays = (
            jnp.stack([x, 2 * x]),
            jnp.stack([jnp.stack([a * filters for a in (1, 2, 3)]), jnp.ones((3, *filters.shape))]),
            bias,
        )
        ours, theirs = (
            value_and_gradients(jax.vmap(jax.vmap(f, (None, 0, None)), (0, 0, None)))
            for f in (kernels.conv2d, by_lax)
        )
        assert_same(ours, theirs, arrays, 1e-12)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_error_is_that_of_rounding_the_result(size, dtype):
    """Sums are in float32: value and gradients are the exact ones, rounded once."""
    arrays = operands(size, dtype)
    ours = functools.partial(kernels.conv2d, groups=size[-1], activation="silu")
    with compiled_in_haste():
        found = jax.jit(value_and_gradients(ours))(*arrays)
    with jax.enable_x64(True), compiled_in_haste():
        wide = tuple(np.asarray(array, np.float64) for array in arrays)
        direction = jnp.asarray(jnp.cos(jnp.arange(found[0].size, dtype=dtype)), jnp.float64)

        def theirs(*arrays):
            def function(*arrays):
                return jax.nn.silu(by_lax(*arrays, groups=size[-1]))

            value, pullback = jax.vjp(function, *arrays)
            return value, *pullback(direction.reshape(value.shape))

        expected = [np.asarray(part) for part in jax.jit(theirs)(*wide)]
    for ours, true in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        error = np.abs(np.asarray(ours, np.float64) - true).max() / np.abs(true).max()
        assert error < (20 if dtype == "float32" else 3) * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_run_xlas_convolution(platform):
    x, filters, bias = operands(SIZES[0], "bfloat16")
    traced = jax.jit(value_and_gradients(kernels.conv2d)).trace(x, filters, bias)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == 3
    assert "stablehlo.concatenate" not in text


@pytest.mark.parametrize("around", ["loop", "map"])
def test_every_convolution_lies_as_a_cpu_has_it_fast(around):
    """XLA turns those that lie otherwise only outside of loops (measured: README)."""
    x, filters, _ = operands((2, 9, 8, 20, (3, 2), 24, 1), "float32")
    arrays = jnp.stack([x, x]), jnp.stack([filters, filters])
    function = value_and_gradients(kernels.conv2d)
    repeated = {
        "loop": lambda *arrays: jax.lax.map(lambda given: function(*given), arrays),
        "map": jax.vmap(function),
    }[around]
    text = jax.jit(repeated).trace(*arrays).lower().as_text()
    found = re.findall(
        r"stablehlo\.convolution.*dim_numbers = (.*?), window.*\{(batch.*?), prec", text
    )
    assert len(found) == 3
    for numbers, groups in found:
        assert numbers == "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
        assert groups == "batch_group_count = 1 : i64, feature_group_count = 1 : i64"


def one_value(function):
    return lambda *arrays: jnp.sum(jnp.cos(function(*arrays)))


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((2, 4, 4, 18, (5, 5), 20, 1), {}),
        ((2, 3, 2, 18, (3, 5), 20, 1), {"padding": ((4, 3), (2, 5)), "strides": (2, 1)}),
        ((2, 6, 6, 18, (5, 5), 20, 1), {"padding": "VALID"}),
        ((2, 3, 4, 18, (4, 4), 20, 1), {"padding": ((6, 7), (6, 5)), "dilation": (2, 2)}),
    ],
    ids=str,
)
def test_filters_of_more_taps_than_images_have_pixels_stay_filters(size, options):
    """XLA has images and filters change places otherwise, which is slow on a CPU."""
    ours, theirs = (functools.partial(f, **options) for f in (kernels.conv2d, by_lax))
    with jax.enable_x64(True):
        arrays = operands(size)
        assert_same(value_and_gradients(ours), value_and_gradients(theirs), arrays, 1e-12)
        hessian = jax.jit(jax.jacfwd(jax.grad(one_value(ours), 2), 2))(*arrays)
        expected = jax.jit(jax.jacfwd(jax.grad(one_value(theirs), 2), 2))(*arrays)
        np.testing.assert_allclose(hessian, expected, rtol=1e-10, atol=1e-10)
    arrays = operands(size, "float32")
    text = jax.jit(value_and_gradients(ours)).lower(*arrays).compile().as_text() or ""
    assert "convolution(" in text
    assert "rhs_reversal" not in text


def test_a_checkpoint_changes_no_bit():
    arrays = operands(SIZES[0], "float32")
    apart = jax.jit(value_and_gradients(kernels.conv2d))(*arrays)
    again = jax.jit(value_and_gradients(jax.checkpoint(kernels.conv2d)))(*arrays)
    for a, b in zip(apart, again, strict=True):
        np.testing.assert_array_equal(a, b)


X, FILTERS = np.zeros((1, 5, 5, 4), np.float32), np.zeros((3, 3, 4, 6), np.float32)
SPAN = jax.ShapeDtypeStruct((2**15, 2**7, 2**7, 4), np.float32)
MANY = jax.ShapeDtypeStruct((3, 3, 4, 2**27), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X[0], FILTERS), {}, r"takes inputs \(B, H, W, I\).* received .*\(5, 5, 4\)"),
        ((X, FILTERS[0]), {}, r"filters \(3, 4, 6\)"),
        ((X, FILTERS[:0]), {}, "filters not empty"),
        ((X[..., :3], FILTERS), {}, "inputs must have 4"),
        ((X, FILTERS), {"groups": 2}, "inputs must have 8"),
        ((X, FILTERS), {"groups": 4}, "divides the features, 6; received 4"),
        ((X, FILTERS, X[0, 0, 0]), {}, r"must share O; .*bias \(4,\)"),
        ((X.astype(int), FILTERS), {}, r"inputs must be floating.*astype"),
        ((X, FILTERS), {"strides": 2}, "strides must be two integers from 1 on; received 2"),
        ((X, FILTERS), {"strides": (0, 1)}, r"received \(0, 1\)"),
        ((X, FILTERS), {"dilation": (1, 1, 1)}, "dilation must be two integers"),
        (
            (X, FILTERS),
            {"padding": "same"},
            "padding must be one of .* received 'same'",
        ),
        ((X, FILTERS), {"padding": (1, 1)}, r"\(\(top, bottom\), \(left, right\)\).* \(1, 1\)"),
        ((X, FILTERS), {"padding": "VALID", "dilation": (3, 1)}, r"reach, \(7, 3\) pixels.* Pad"),
        ((X, FILTERS), {"activation": "tanh"}, "activation must be one of .* received 'tanh'"),
    ],
)
def test_bad_input_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        kernels.conv2d(*map(jnp.asarray, arguments), **options)


# ---------------------------------------------------------------------- In Triton

needs_triton = pytest.mark.skipif(WITHOUT_TRITON, reason="needs Triton, which is for Linux only")
LAID = [  # size, strides, padding, dilation
    (SIZES[0], (1, 1), "SAME_LOWER", (1, 1)),
    (SIZES[0], (2, 3), ((2, 0), (1, 3)), (1, 1)),
    # Strides and dilation with a common factor: some phases of the inputs have no tap.
    ((1, 9, 10, 3, (3, 3), 5, 1), (2, 4), "SAME", (2, 2)),
    ((1, 9, 10, 2, (4, 3), 33, 1), (3, 2), ((-1, 2), (3, -2)), (2, 5)),
    # Blocks of channels within one tap, of several blocks.
    ((2, 4, 5, 64, (2, 3), 17, 1), (1, 2), "SAME", (1, 1)),
    # Patches with a row between them that has no tap; and side by side, whose taps are joined.
    ((2, 8, 9, 2, (2, 3), 4, 1), (3, 3), ((1, 0), (0, 0)), (1, 1)),
    ((1, 6, 7, 2, (2, 3), 4, 1), (2, 3), "VALID", (1, 1)),
]


@needs_triton
@pytest.mark.parametrize(("size", "strides", "padding", "dilation"), LAID, ids=str)
def test_triton_is_lax_wherever_filters_are_laid(size, strides, padding, dilation):
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    arrays = operands(size, "float32")
    ours = functools.partial(kernels.conv2d, implementation="triton", **options)
    assert_close(ours, functools.partial(by_lax, **options), arrays)


@needs_triton
@pytest.mark.parametrize("axes", [(0, None, 0), (0, 0, None)], ids=str)
def test_triton_has_rows_with_filters_and_biases_of_their_own(axes):
    """Of a bias also where rows of one block of results have several."""
    members = [operands((2, 3, 4, 2, (2, 2), 3, 1), "float32", seed) for seed in range(3)]
    parts = zip(axes, *members, strict=True)
    arrays = [found[0] if axis is None else jnp.stack(found) for axis, *found in parts]
    ours = functools.partial(kernels.conv2d, activation="silu", implementation="triton")
    assert_close(jax.vmap(ours, axes), jax.vmap(lambda *a: jax.nn.silu(by_lax(*a)), axes), arrays)


def assert_close(ours, theirs, arrays):
    """Value and gradients in float32 are those in float64, but for rounding."""
    with compiled_in_haste():
        found = jax.jit(value_and_gradients(ours))(*arrays)
        with jax.enable_x64(True):
            wide = [jnp.asarray(np.asarray(array, np.float64)) for array in arrays]
            expected = jax.jit(value_and_gradients(theirs))(*wide)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * float(np.abs(b).max()))


@needs_triton
def test_triton_computes_a_gradient_only_where_it_is_wanted():
    x, filters, bias = operands(SIZES[0], "float32")

    def of_bias(bias):
        return kernels.conv2d(x, filters, bias, activation="relu", implementation="triton").sum()

    text = str(jax.make_jaxpr(jax.grad(of_bias))(bias))
    assert re.findall(r"wanted=\((.*?)\)", text) == ["False, False, True"]
    (found,) = kernels.explain(jax.grad(of_bias), bias)[1:]
    assert [choice.kernel for choice in found.tuning][:2] == ["conv2d.convolve", "conv2d.slope"]


@needs_triton
@pytest.mark.parametrize(
    ("arguments", "options", "reason"),
    [
        ((X, FILTERS[:, :, :2]), {"groups": 2}, "all channels with all features, and groups is 2"),
        ((X.astype("float64"), FILTERS), {}, "in float32, and float64"),
        ((X[:0], FILTERS), {}, r"at least one pixel, and the inputs are \(0, 5, 5, 4\)"),
        ((SPAN, FILTERS), {}, "pixels times channels in 32 bits"),
        ((X, MANY), {}, "pixels times channels in 32 bits"),
    ],
)
def test_what_triton_cannot_compute_is_refused_and_left_to_xla(arguments, options, reason):
    kinds = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arguments]
    with jax.enable_x64(True):
        function = functools.partial(kernels.conv2d, **options)
        with pytest.raises(NotImplementedError, match=f"{reason}.*implementation=None picks"):
            jax.eval_shape(functools.partial(function, implementation="triton"), *kinds)
        assert jax.eval_shape(function, *kinds).shape[3] == arguments[1].shape[3]


def test_half_precision_is_by_matrix_instructions_and_float32_never():
    """TensorFloat-32 would be a matrix instruction."""
    report = Path(kernels.__file__).parent / "results" / "static_report.json"
    rows = json.loads(report.read_text())["kernels"]
    rows = [row for row in rows if row["variant"].startswith("conv2d.")]
    assert {row["variant"].rsplit("/", 1)[1] for row in rows} == {"bfloat16", "float16", "float32"}
    for row in rows:
        assert bool(row["matrix"]) != row["variant"].endswith("/float32"), row["variant"]
