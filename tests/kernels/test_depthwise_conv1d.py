"""What only depthwise_conv1d has: padding, streaming state, odd lengths, wide filters.

The rest is in ``test_matrix.py``.
"""

import functools

import jax
import jax.numpy as jnp
import kernel_matrix as matrix
import numpy as np
import pytest

import kernels
from kernels import problems
from kernels.convolution.depthwise1d import reference
from kernels.convolution.depthwise1d.tuning import SHAPES

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


# ---------------------------------------------------------------------- Against lax

PADDINGS = [  # padding, width, dilation: even and odd reach, all on one side, none, more than that
    ("SAME", 3, 1),
    ("SAME", 4, 3),
    ("CAUSAL", 5, 2),
    ("VALID", 2, 4),
    ((0, 3), 2, 1),
    ((9, 1), 3, 2),
    ("SAME", 1, 5),
]


def by_lax(inputs, filters, bias, padding, dilation):
    """The same from ``lax``, whose padding has no CAUSAL."""
    padding = [(len(filters) * dilation - dilation, 0)] if padding == "CAUSAL" else padding
    y = jax.lax.conv_general_dilated(
        inputs,
        filters[:, None, :],
        (1,),
        padding if isinstance(padding, (str, list)) else [padding],
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=inputs.shape[2],
        precision="highest",
    )
    return y + bias[None, None, :]


def operands(frames, width, dtype, *, batch=2, channels=3):
    generator = np.random.default_rng(frames + width)
    sizes = [(batch, frames, channels), (width, channels), (channels,)]
    return [jnp.asarray(generator.normal(size=size), dtype) for size in sizes]


@pytest.mark.parametrize(("padding", "width", "dilation"), PADDINGS)
def test_padding_means_what_it_means_in_lax(padding, width, dilation):
    options = {"padding": padding, "dilation": dilation}
    with jax.enable_x64(True):
        arrays = operands(11, width, jnp.float64)
        expected = functools.partial(by_lax, padding=padding, dilation=dilation)(*arrays)
        defined = jax.jit(functools.partial(reference.depthwise_conv1d, **options))(*arrays)
        np.testing.assert_allclose(defined, expected, rtol=1e-12, atol=1e-12)
        found = jax.jit(functools.partial(kernels.depthwise_conv1d, **options))(*arrays)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("padding", "width", "dilation"), [PADDINGS[i] for i in (1, 3, 5)])
def test_each_utterance_is_as_if_it_were_alone(padding, width, dilation):
    lengths = np.array([11, 1, 6])
    with jax.enable_x64(True):
        x, f, b = operands(11, width, jnp.float64, batch=len(lengths))
        options = {"padding": padding, "dilation": dilation, "lengths": jnp.asarray(lengths)}
        defined = jax.jit(functools.partial(reference.depthwise_conv1d, **options))(x, f, b)
        for row, length in enumerate(lengths):
            valid = max(0, length + defined.shape[1] - 11)
            assert not np.asarray(defined[row, valid:]).any()
            if valid:
                alone = by_lax(x[row : row + 1, :length], f, b, padding, dilation)[0]
                np.testing.assert_allclose(np.asarray(defined)[row, :valid], alone, atol=1e-12)


# ---------------------------------------------------------------------- Options


@implementations
def test_the_widest_filter(implementation):
    shape = SHAPES["wide_w128"]._replace(batch=1, frames=33, channels=2)
    cell = matrix.Cell(matrix.Case("depthwise_conv1d", "wide", shape, "float32"), implementation)
    transform = matrix.forward if implementation == "xla" else matrix.reverse
    matrix.compare(cell, transform, *cell.problem.operands.values())


@implementations
def test_lengths_beyond_the_ends_are_cut(implementation):
    x, f, b = operands(9, 4, jnp.float32, batch=4)

    @jax.jit
    def function(lengths):
        def value(x, f, b):
            return kernels.depthwise_conv1d(x, f, b, lengths=lengths, implementation=implementation)

        return problems.gradients(value)((x, f, b), jnp.cos(x))

    far, near = function(jnp.asarray([99, 0, -3, 5])), function(jnp.asarray([9, 0, 0, 5]))
    for left, right in zip(far, near, strict=True):
        np.testing.assert_array_equal(left, right)
    assert not np.asarray(far[0][1:3]).any()
    assert not np.asarray(far[1][1:3]).any()


@implementations
def test_inputs_may_be_narrower_than_filters(implementation):
    x, f, b = operands(9, 4, jnp.float32)
    narrow = x.astype(jnp.bfloat16)
    call = functools.partial(kernels.depthwise_conv1d, implementation=implementation)
    y, dx, df, db = jax.jit(problems.gradients(call))((narrow, f, b), jnp.cos(narrow))
    assert [a.dtype for a in (y, dx, df, db)] == [jnp.bfloat16] * 2 + [jnp.float32] * 2
    wide = (narrow.astype(jnp.float32), f, b)
    expected = jax.jit(problems.gradients(call))(wide, jnp.cos(narrow).astype(jnp.float32))
    for found, true, tolerance in zip(
        (y, dx, df, db), expected, (1e-2, 1e-2, 1e-6, 1e-6), strict=True
    ):
        assert problems.error(found, np.asarray(true, np.float64)) < tolerance


# ---------------------------------------------------------------------- Streaming


@implementations
@pytest.mark.parametrize(("width", "has_lengths"), [(4, False), (4, True), (1, True)])
def test_pieces_give_what_the_whole_gives(width, has_lengths, implementation):
    """Values, and gradients through the state."""
    x, f, b = operands(13, width, jnp.float32)
    options = {"padding": "CAUSAL", "dilation": 2}
    call = functools.partial(kernels.depthwise_conv1d, implementation=implementation, **options)

    def pieces(x, f, b):
        state, parts = None, []
        for start, stop in [(0, 5), (5, 6), (6, 13)]:
            piece, lengths = x[:, start:stop], None
            if has_lengths:  # frames of padding must not enter the state
                piece = jnp.pad(piece, ((0, 0), (0, 2), (0, 0)), constant_values=jnp.nan)
                lengths = jnp.full(2, stop - start)
            y, state = call(piece, f, b, lengths=lengths, initial_state=state, return_state=True)
            assert state.shape == (2, 2 * (width - 1), 3)
            parts.append(y[:, : stop - start])
        return jnp.concatenate(parts, 1)

    found, expected = (
        jax.jit(problems.gradients(function))((x, f, b), jnp.cos(x)) for function in (pieces, call)
    )
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=2e-6)


# ---------------------------------------------------------------------- Refusals

X, F = jnp.zeros((2, 9, 3)), jnp.zeros((4, 3))


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
        ((X, F), {"dilation": 0}, "dilation must be an integer from 1 on.*received 0"),
        ((X, F), {"activation": "tanh"}, "activation must be one of.*received 'tanh'"),
        ((X, F), {"return_state": True}, "needs padding='CAUSAL'"),
        ((X, F), {"padding": "CAUSAL", "initial_state": X}, r"\(2, 3, 3\) of float32"),
        ((X, F), {"implementation": "cuda"}, "implementation must be None or one of"),
    ],
)
def test_bad_arguments_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        kernels.depthwise_conv1d(*arguments, **options)
