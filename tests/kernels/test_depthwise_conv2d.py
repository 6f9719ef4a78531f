"""What only depthwise_conv2d has: against lax where strides, dilation and padding meet; errors.

The rest is in ``test_matrix.py``.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import kernel_matrix as matrix
import numpy as np
import pytest

import kernels
from kernels import peers, problems
from kernels.convolution.depthwise2d import reference, xla

pytestmark = pytest.mark.usefixtures("in_haste")

implementations = pytest.mark.parametrize(
    "implementation",
    [
        "xla",
        pytest.param(
            "triton",
            marks=pytest.mark.skipif(
                matrix.WITHOUT_TRITON, reason="needs Triton, which is for Linux only"
            ),
        ),
    ],
)
CASES = [  # taps, strides, padding, dilation
    ((3, 3), (1, 1), "SAME", (1, 1)),
    ((3, 3), (2, 2), "SAME_LOWER", (1, 1)),
    ((5, 4), (2, 1), "SAME", (1, 2)),
    ((2, 5), (3, 2), "VALID", (2, 1)),
    ((1, 1), (2, 3), ((0, 3), (1, 0)), (1, 1)),
    ((4, 2), (1, 1), ((-1, 4), (5, -2)), (3, 2)),
    # Some pixels meet no tap, and strides share a divisor with dilation.
    ((2, 3), (4, 6), ((-1, 9), (5, -2)), (6, 4)),
]


def by_lax(x, f, b, *, strides=(1, 1), padding="SAME", dilation=(1, 1)):
    y = jax.lax.conv_general_dilated(
        x,
        f[:, :, None, :],
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[3],
        precision="highest",
    )
    return y + b[None, None, None, :]


def operands(taps, dtype="float64", *, images=(2, 9, 8, 3), seed=0):
    generator = np.random.default_rng(seed)
    shapes = images, (*taps, images[3]), images[3:]
    return tuple(jnp.asarray(generator.normal(size=shape), dtype) for shape in shapes)


def with_gradients(function):
    """The value of arrays, and every gradient along a direction."""

    def of_arrays(*arrays):
        value = jax.eval_shape(function, *arrays)
        along = problems.cotangent(value.shape, value.dtype)
        return problems.gradients(function)(arrays, along)

    return of_arrays


def assert_same(ours, theirs, arrays, tolerance):
    found, expected = (jax.jit(function)(*arrays) for function in (ours, theirs))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------- Against lax


@pytest.mark.parametrize(("taps", "strides", "padding", "dilation"), CASES, ids=str)
def test_value_and_gradients_are_those_of_lax(taps, strides, padding, dilation):
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    ours, theirs, defined = (
        functools.partial(function, **options)
        for function in (kernels.depthwise_conv2d, by_lax, reference.depthwise_conv2d)
    )
    with jax.enable_x64(True), matrix.compiled_in_haste():
        assert_same(
            lambda *arrays: (*with_gradients(ours)(*arrays), defined(*arrays)),
            lambda *arrays: (*with_gradients(theirs)(*arrays), theirs(*arrays)),
            operands(taps),
            1e-12,
        )


@pytest.mark.skipif(matrix.WITHOUT_TRITON, reason="needs Triton, which is for Linux only")
@pytest.mark.parametrize(("taps", "strides", "padding", "dilation"), CASES[4:], ids=str)
def test_kernels_meet_the_same_taps(taps, strides, padding, dilation):
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    arrays = operands(taps, "float32", images=(1, 9, 8, 2))
    ours = functools.partial(kernels.depthwise_conv2d, **options, implementation="triton")
    theirs = functools.partial(kernels.depthwise_conv2d, **options, implementation="xla")
    with matrix.compiled_in_haste():
        assert_same(with_gradients(ours), with_gradients(theirs), arrays, 1e-5)


@pytest.mark.parametrize("axes", [(None, 0, 0), (3, 1, None)], ids=str)
def test_maps_over_images_and_filters(axes):
    """Gradients of the map: of shared operands the sum over its members."""
    with jax.enable_x64(True), matrix.compiled_in_haste():
        members = [operands((3, 2), seed=seed) for seed in range(3)]
        arrays = tuple(
            parts[0] if axis is None else jnp.stack(parts, axis)
            for axis, *parts in zip(axes, *members, strict=True)
        )
        options = {"strides": (2, 1)}
        ours, theirs = (
            with_gradients(jax.vmap(functools.partial(function, **options), axes))
            for function in (kernels.depthwise_conv2d, by_lax)
        )
        assert_same(ours, theirs, arrays, 1e-12)


@implementations
def test_maps_within_maps_over_filters(implementation):
    x, f, b = operands((2, 3), "float32", images=(1, 4, 3, 2))
    ours = functools.partial(kernels.depthwise_conv2d, implementation=implementation)
    filters = jnp.stack([jnp.stack([f, 2 * f, -f]), jnp.stack([f + 1, f * f, f - 3])])
    arrays = jnp.stack([x, x + 1]), filters, b
    ours, theirs = (
        with_gradients(jax.vmap(jax.vmap(function, (None, 0, None)), (0, 0, None)))
        for function in (ours, by_lax)
    )
    with matrix.compiled_in_haste():
        assert_same(ours, theirs, arrays, 2e-5)


def test_a_loop_over_layers_gives_what_the_layers_give():
    layer = functools.partial(kernels.depthwise_conv2d, activation="silu")

    def looped(x, filters, b):
        return jax.lax.scan(lambda x, f: (layer(x, f, b), None), x, filters)[0]

    def unrolled(x, filters, b):
        return functools.reduce(lambda x, f: layer(x, f, b), filters, x)

    with jax.enable_x64(True), matrix.compiled_in_haste():
        x, f, b = operands((3, 2))
        arrays = x, jnp.stack([f, -f]), b
        assert_same(with_gradients(looped), with_gradients(unrolled), arrays, 1e-12)


# ---------------------------------------------------------------------- Numbers


@implementations
def test_inputs_may_be_narrower_than_filters(implementation):
    x, f, b = operands((3, 2), "float32", images=(1, 5, 4, 2))
    narrow = x.astype(jnp.bfloat16)
    call = functools.partial(kernels.depthwise_conv2d, implementation=implementation)
    with matrix.compiled_in_haste():
        y, dx, df, db = jax.jit(problems.gradients(call))((narrow, f, b), jnp.cos(narrow))
        wide = (narrow.astype(jnp.float32), f, b)
        along = jnp.cos(narrow).astype(jnp.float32)
        expected = jax.jit(problems.gradients(call))(wide, along)
    assert [a.dtype for a in (y, dx, df, db)] == [jnp.bfloat16] * 2 + [jnp.float32] * 2
    for found, true, tolerance in zip(
        (y, dx, df, db), expected, (1e-2, 1e-2, 1e-6, 1e-6), strict=True
    ):
        assert problems.error(found, np.asarray(true, np.float64)) < tolerance


@implementations
def test_the_same_bits_twice(implementation):
    arrays = operands((2, 3), "float32", images=(2, 4, 3, 2))
    call = functools.partial(kernels.depthwise_conv2d, implementation=implementation)
    with matrix.compiled_in_haste():
        function = jax.jit(with_gradients(call))
        first, again = function(*arrays), function(*arrays)
    for a, b in zip(first, again, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(
    ("peer", "taps"), [("lax", (3, 2)), ("torch", (3, 2)), ("torch", (3, 3))], ids=str
)
def test_a_peer_computes_the_definition_and_its_gradients(peer, taps):
    """Even taps have more padding on one side, for which torch needs another call."""
    if peer == "torch":
        pytest.importorskip("torch")
    load = problems.load("depthwise_conv2d")
    shape = load.Shape(2, 7, 6, 3, taps, (2, 1), activation="gelu")
    problem = load.problem("depthwise_conv2d", "odd", shape, "float32")
    made = peers.PEERS["depthwise_conv2d"][peer](problem, True)
    if isinstance(made, peers.LibraryPeer):
        found = made.read(made.start())
    else:
        assert isinstance(made, peers.JaxPeer), made
        found = jax.jit(with_gradients(made.function))(*problem.arguments)
    true = jax.jit(with_gradients(problem.plain()))(*problem.arguments)
    for of_peer, defined in zip(found, true, strict=True):
        assert problems.error(of_peer, np.asarray(defined, np.float64)) < 1e-5


# ---------------------------------------------------------------------- Programs


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_no_grouped_convolution_is_left(platform):
    arrays = operands((3, 3), "float32")
    traced = jax.jit(with_gradients(kernels.depthwise_conv2d)).trace(*arrays)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.multiply" in text
    assert "stablehlo.convolution" not in text


def test_a_step_has_terms_enough_and_not_too_many():
    for height, width in itertools.product((*range(1, 70), 224), repeat=2):
        rows, columns = xla._step(height, width)
        assert rows <= height
        assert columns <= width
        assert min(xla.FEWEST, height * width) <= rows * columns <= 3 * xla.MOST


# ---------------------------------------------------------------------- Refusals


@pytest.mark.skipif(matrix.WITHOUT_TRITON, reason="needs Triton, which is for Linux only")
@pytest.mark.parametrize("pads", [((0, 0), (0, 0)), ((2**15, 0), (0, 2**15))])
def test_more_than_32_bits_can_count_is_refused(pads):
    rows = 2 if pads[0][0] else 2**9
    x = jax.ShapeDtypeStruct((rows, 2**11, 2**11, 1), jnp.bfloat16)
    f = jax.ShapeDtypeStruct((1, 1, 1), jnp.bfloat16)
    with pytest.raises(NotImplementedError, match="in 32 bits"):
        jax.eval_shape(
            lambda x, f: kernels.depthwise_conv2d(x, f, padding=pads, implementation="triton"),
            x,
            f,
        )


X, F = np.zeros((1, 5, 5, 4), np.float32), np.zeros((3, 3, 4), np.float32)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X[0], F), {}, r"inputs \(B, H, W, C\).*received inputs \(5, 5, 4\)"),
        ((X, F[0]), {}, r"filters \(3, 4\)"),
        ((X, F[:0]), {}, "h and w from 1 on"),
        ((X, F[..., :2]), {}, "must share C"),
        ((X, F, X[0, 0, :, 0]), {}, r"must share C; .*bias \(5,\)"),
        ((X.astype(int), F), {}, r"inputs must be floating.*astype"),
        ((X, F), {"strides": 2}, "strides must be two integers from 1 on; received 2"),
        ((X, F), {"dilation": (1, 0)}, r"dilation must be two integers.*received \(1, 0\)"),
        ((X, F), {"padding": "same"}, "padding must be one of .* received 'same'"),
        ((X, F), {"padding": "VALID", "dilation": (3, 1)}, r"reach, \(7, 3\) pixels.* Pad"),
        ((X, F), {"activation": "tanh"}, "activation must be one of .* received 'tanh'"),
    ],
)
def test_bad_input_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        kernels.depthwise_conv2d(*map(jnp.asarray, arguments), **options)
