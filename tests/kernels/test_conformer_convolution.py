"""What only conformer_convolution has: its norms, streaming, padded frames, models side by side.

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
from kernels.convolution.conformer import reference

pytestmark = pytest.mark.usefixtures("in_haste")

needs_triton = pytest.mark.skipif(
    matrix.WITHOUT_TRITON, reason="needs Triton, which is for Linux only"
)
implementations = pytest.mark.parametrize(
    "implementation", ["xla", pytest.param("triton", marks=needs_triton)]
)
NORMS = ["layer", "batch_inference"]


def operands(norm, *, frames=9, width=4, batch=2, channels=3, dtype=jnp.float32):
    """Inputs and filters, and by name what the norm takes."""
    generator = np.random.default_rng(frames + width)
    x, f = (
        jnp.asarray(generator.normal(size=size), dtype)
        for size in [(batch, frames, 2 * channels), (width, channels)]
    )
    names = ["scale", "offset", "bias"] + (["mean", "variance"] if norm != "layer" else [])
    small = {n: jnp.asarray(generator.uniform(0.3, 2.0, channels), dtype) for n in names}
    return x, f, small


# ---------------------------------------------------------------------- Against what users write


def by_hand(x, f, small, padding, lengths):
    """``jax.nn.glu``, ``lax``'s convolution, and the formula of Flax's norms."""
    h = jax.nn.glu(x)
    if lengths is not None:
        h = jnp.where((jnp.arange(x.shape[1])[None, :] < lengths[:, None])[:, :, None], h, 0.0)
    z = jax.lax.conv_general_dilated(
        h,
        f[:, None, :],
        (1,),
        [(len(f) - 1, 0)] if padding == "CAUSAL" else padding,
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=f.shape[1],
        precision="highest",
    )
    z = z + small["bias"][None, None, :]
    if "mean" in small:
        mean, variance = small["mean"][None, None, :], small["variance"][None, None, :]
    else:
        mean = z.mean(-1, keepdims=True)
        variance = jnp.maximum(0.0, (z * z).mean(-1, keepdims=True) - mean * mean)
    factor = jax.lax.rsqrt(variance + 1e-3) * small["scale"][None, None, :]
    return jax.nn.silu((z - mean) * factor + small["offset"][None, None, :])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("padding", "lengths"), [("SAME", None), ("CAUSAL", [9, 4])])
def test_it_is_the_composition_in_float64(norm, padding, lengths):
    with jax.enable_x64(True):
        x, f, small = operands(norm, dtype=jnp.float64)
        lengths = None if lengths is None else jnp.asarray(lengths)
        expected = np.array(
            jax.jit(functools.partial(by_hand, padding=padding))(x, f, small, lengths=lengths)
        )
        for row, length in enumerate([] if lengths is None else np.asarray(lengths)):
            expected[row, length:] = 0
        for function in (reference.conformer_convolution, kernels.conformer_convolution):
            call = functools.partial(function, norm=norm, padding=padding, epsilon=1e-3)
            found = jax.jit(call)(x, f, **small, lengths=lengths)
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@implementations
def test_a_frame_whose_channels_are_alike_has_a_gradient(implementation):
    """Its variance is zero, and epsilon all there is below."""
    x, f, small = operands("layer", channels=1)
    call = functools.partial(kernels.conformer_convolution, implementation=implementation)
    y, dx, dscale = jax.jit(
        problems.gradients(lambda x, scale: call(x, f, scale, small["offset"]))
    )((x, small["scale"]), jnp.ones((2, 9, 1)))
    np.testing.assert_allclose(
        y, jnp.broadcast_to(jax.nn.silu(small["offset"]), y.shape), rtol=1e-5
    )
    assert not np.asarray(dx).any()
    assert not np.asarray(dscale).any()


# ---------------------------------------------------------------------- Streaming


@implementations
def test_pieces_give_what_the_whole_gives(implementation):
    """Values, and gradients through the state."""
    x, f, small = operands("layer")
    call = functools.partial(
        kernels.conformer_convolution, padding="CAUSAL", implementation=implementation
    )

    def pieces(x, f, small):
        state, parts = None, []
        for start, stop in [(0, 2), (2, 9)]:
            # Frames of padding must not enter the state.
            nothing = ((0, 0), (0, 2), (0, 0))
            piece = jnp.pad(x[:, start:stop], nothing, constant_values=jnp.nan)
            lengths = jnp.full(2, stop - start)
            y, state = call(
                piece, f, **small, lengths=lengths, initial_state=state, return_state=True
            )
            assert state.shape == (2, 3, 6)
            parts.append(y[:, : stop - start])
        return jnp.concatenate(parts, 1)

    with matrix.compiled_in_haste():
        found, expected = (
            jax.jit(problems.gradients(function))((x, f, small), jnp.cos(x[:, :, :3]))
            for function in (pieces, lambda x, f, small: call(x, f, **small))
        )
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert problems.error(left, np.asarray(right, np.float64)) < 2e-6


# ---------------------------------------------------------------------- Padded frames


@pytest.mark.parametrize(
    ("implementation", "norm"),
    [
        ("xla", "layer"),
        ("xla", "batch_inference"),
        pytest.param("triton", "layer", marks=needs_triton),
    ],
)
def test_padded_frames_never_leak(implementation, norm):
    """NaN in them, and lengths beyond both ends, change nothing; their gradients are zero."""
    x, f, small = operands(norm, batch=4)
    padded = np.arange(9)[None, :] >= np.array([9, 0, 0, 5])[:, None]
    junk = jnp.where(padded[:, :, None], jnp.nan, x)
    call = functools.partial(
        kernels.conformer_convolution, norm=norm, implementation=implementation
    )

    @jax.jit
    def function(x, direction, lengths):
        value = lambda x, f, small: call(x, f, **small, lengths=lengths)  # noqa: E731
        return problems.gradients(value)((x, f, small), direction)

    dy = jnp.cos(x[:, :, :3])
    clean = function(x, dy, jnp.asarray([9, 0, 0, 5]))
    found = function(junk, jnp.where(padded[:, :, None], jnp.nan, dy), jnp.asarray([99, 0, -3, 5]))
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(clean), strict=True):
        np.testing.assert_array_equal(left, right)
    for array in found[:2]:
        assert not np.asarray(array)[padded].any()
        assert np.asarray(array)[~padded].all()


# ---------------------------------------------------------------------- Transforms


@pytest.mark.parametrize("norm", ["layer", pytest.param("batch_inference", marks=pytest.mark.slow)])
def test_second_derivatives(norm):
    """A Hessian-vector product of every operand, in float64."""
    with jax.enable_x64(True), matrix.compiled_in_haste():
        arrays = operands(norm, frames=5, width=3, dtype=jnp.float64)
        along = jax.tree.map(jnp.cos, arrays)

        def product(function):
            def total(arrays):
                x, f, small = arrays
                y = function(x, f, **small, norm=norm, lengths=jnp.asarray([5, 2]))
                return jnp.sum(y * y)

            return jax.jit(lambda arrays: jax.jvp(jax.grad(total), (arrays,), (along,))[1])

        found = product(kernels.conformer_convolution)(arrays)
        expected = product(reference.conformer_convolution)(arrays)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("implementation", "norm"),
    [
        ("xla", "layer"),
        ("xla", "batch_inference"),
        pytest.param("triton", "layer", marks=[needs_triton, pytest.mark.slow]),
    ],
)
def test_models_side_by_side(implementation, norm):
    """Three models on the same inputs: each has the gradients that it has alone."""
    x, f, small = operands(norm, frames=5)
    # The statistics are shared, so that operands with rows and without meet.
    own = {name: small[name] for name in ("scale", "offset", "bias")}
    shared = {name: array for name, array in small.items() if name not in own}
    models = jax.tree.map(lambda a: jnp.stack([a, a + 0.5, 2 * a]), (f, own))
    call = functools.partial(
        kernels.conformer_convolution, norm=norm, implementation=implementation
    )

    def gradients(x, model, shared):
        f, own = model
        value = lambda x, f, own, shared: call(x, f, **own, **shared)  # noqa: E731
        return problems.gradients(value)((x, f, own, shared), jnp.cos(x[:, :, :3]))

    found = jax.jit(jax.vmap(gradients, (None, 0, None)))(x, models, shared)
    alone = jax.jit(gradients)
    for i in range(3):
        expected = alone(x, jax.tree.map(lambda a, i=i: a[i], models), shared)
        for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(left[i], right, rtol=2e-5, atol=2e-6)


# ---------------------------------------------------------------------- Refusals


@needs_triton
def test_a_layer_norm_over_more_channels_than_a_program_holds():
    x, f, vector = jnp.zeros((1, 2, 2 * 4097)), jnp.zeros((1, 4097)), jnp.zeros(4097)
    call = functools.partial(kernels.conformer_convolution, implementation="triton")
    with pytest.raises(NotImplementedError, match="all channels of a frame, at most 4096"):
        jax.eval_shape(call, x, f, vector, vector)
    given = functools.partial(call, norm="batch_inference", mean=vector, variance=vector)
    assert jax.eval_shape(given, x, f, vector, vector).shape == (1, 2, 4097)


X, F, V = jnp.zeros((2, 9, 6)), jnp.zeros((4, 3)), jnp.zeros(3)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((X[0], F, V, V), {}, r"inputs \(B, T, 2C\).*received inputs \(9, 6\)"),
        ((X[:, :, :3], F, V, V), {}, r"inputs \(B, T, 2C\).*must share B and C"),
        ((X, F[:0], V, V), {}, "W and C from 1 on"),
        ((X, F, V[:2], V), {}, r"must share B and C.*scale \(2,\)"),
        ((X, F, V, V), {"bias": F}, r"must share B and C.*bias \(4, 3\)"),
        ((X, F, V, V), {"lengths": jnp.zeros(2)}, r"lengths must be integer.*astype"),
        ((X, F, V, V), {"norm": "batch"}, "norm must be one of.*received 'batch'"),
        ((X, F, V, V), {"norm": "batch_inference"}, "must be given.*with neither"),
        ((X, F, V, V), {"norm": "batch_inference", "mean": V}, "must be given.*with mean"),
        ((X, F, V, V), {"mean": V, "variance": V}, "for no other; received norm='layer' with mean"),
        ((X, F, V, V), {"epsilon": 0.0}, "epsilon must be a number above zero; received 0.0"),
        ((X, F, V, V), {"padding": "same"}, "padding must be one of.*received 'same'"),
        ((X[:, :2], F, V, V), {"padding": (0, 0)}, "longer than the filters reach, 3 frames"),
        ((X, F, V, V), {"return_state": True}, "needs padding='CAUSAL'"),
        (
            (X, F, V, V),
            {"padding": "CAUSAL", "initial_state": X[:, :3, :3]},
            r"initial_state.*\(2, 3, 6\) of float32; received \(2, 3, 3\)",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        kernels.conformer_convolution(*arguments, **options)
