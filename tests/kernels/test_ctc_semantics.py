"""What CTC promises for input that other implementations get wrong, and for awkward sizes."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_exact import row_exactly

from kernels.ctc import ctc_alignment, ctc_feasible, ctc_loss, ctc_posteriors

pytestmark = pytest.mark.usefixtures("in_haste")


@jax.jit
def value_and_gradient(*operands):
    def total(x, *rest):
        losses = ctc_loss(x, *rest)
        return jnp.sum(jnp.where(jnp.isfinite(losses), losses, jnp.zeros_like(losses))), losses

    gradient, losses = jax.grad(total, has_aux=True)(*operands)
    return losses, gradient


def exactly(logits, labels):
    """Losses and gradients in float64, of rows without padding."""
    rows = [
        row_exactly(np.asarray(x), np.ones(len(x)), np.asarray(y), blank_id=0)
        for x, y in zip(logits, labels, strict=True)
    ]
    return [np.stack(part) for part in ([row[0] for row in rows], [row[2] for row in rows])]


def case(batch, frames, classes, count, seed=0):
    generator = np.random.default_rng(seed)
    logits = jnp.asarray(generator.normal(size=(batch, frames, classes)), jnp.float32)
    labels = jnp.asarray(generator.integers(1, max(classes, 2), (batch, count)), jnp.int32)
    return logits, jnp.zeros((batch, frames)), labels, jnp.zeros((batch, count))


def test_minus_infinity_on_an_unused_class_is_that_class_left_out():
    logits, *rest = case(2, 6, 4, 2)
    rest[1] = jnp.array([[1, 2], [2, 2]])
    losses, gradient = value_and_gradient(logits.at[:, :, 3].set(-jnp.inf), *rest)
    expected, slopes = exactly(logits[:, :, :3], rest[1])
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[:, :, :3], slopes, atol=1e-6)
    assert (gradient[:, :, 3] == 0).all()


@pytest.mark.parametrize("where", ["frame", "label"])
def test_probability_zero_where_it_is_needed_is_infinite_without_gradient(where):
    logits, paddings, _, label_paddings = case(2, 6, 4, 2)
    labels = jnp.array([[1, 2], [2, 3]])
    spoilt = logits.at[0, 3].set(-jnp.inf) if where == "frame" else logits.at[0, :, 1].set(-jnp.inf)
    losses, gradient = value_and_gradient(spoilt, paddings, labels, label_paddings)
    assert losses[0] == jnp.inf
    assert (gradient[0] == 0).all()
    alone = exactly(logits[1:], labels[1:])
    np.testing.assert_allclose(losses[1:], alone[0], rtol=1e-6)
    np.testing.assert_allclose(gradient[1:], alone[1], atol=1e-6)
    assert (ctc_posteriors(spoilt, paddings, labels, label_paddings)[0] == 0).all()


def test_frames_padded_in_mid_sequence_are_skipped():
    generator = np.random.default_rng(1)
    logits, _, labels, label_paddings = case(3, 40, 5, 6, seed=1)
    labels = labels.at[0].set(2)  # repeats: a skipped frame must not part them
    paddings = np.zeros((3, 40))
    for row in paddings:
        row[generator.choice(40, 15, replace=False)] = 1
    losses, gradient = value_and_gradient(
        logits.at[jnp.asarray(paddings) == 1].set(jnp.nan), jnp.asarray(paddings), labels,
        label_paddings,
    )  # fmt: skip
    for b in range(3):
        kept = np.flatnonzero(paddings[b] == 0)
        expected, slopes = exactly(logits[b : b + 1, kept], labels[b : b + 1])
        np.testing.assert_allclose(losses[b], expected[0], rtol=1e-6)
        np.testing.assert_allclose(gradient[b, kept], slopes[0], atol=1e-6)
        assert (gradient[b, paddings[b] == 1] == 0).all()


def test_what_follows_an_emission_that_dominated_is_not_lost():
    """Label 1 is certain, then the blank, then label 1 again: both ways round are as likely."""
    labels, far = [[1]], 60.0
    frames = np.repeat([1, 0, 1], 10)
    logits = jnp.asarray(far * np.eye(3)[frames][None], jnp.float32)
    rest = (jnp.zeros((1, 30)), jnp.array(labels), jnp.zeros((1, 1)))
    losses, gradient = value_and_gradient(logits, *rest)
    expected, slopes = exactly(logits, np.array(labels))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, slopes, atol=1e-6)


@pytest.mark.parametrize("offset", [1e8, -1e8])
def test_a_common_offset_changes_nothing(offset):
    logits, *rest = case(2, 6, 4, 2)
    logits = jnp.round(logits) * 8  # multiples of 8 are exact at 1e8
    losses, gradient = value_and_gradient(logits, *rest)
    moved, slopes = value_and_gradient(logits + offset, *rest)
    np.testing.assert_array_equal(losses, moved)
    np.testing.assert_array_equal(gradient, slopes)


def test_large_logits_are_finite_and_exact():
    generator = np.random.default_rng(2)
    logits = jnp.asarray(generator.choice([-1e4, 1e4], (2, 300, 5)), jnp.float32)
    rest = case(2, 300, 5, 20, seed=3)[1:]
    losses, gradient = value_and_gradient(logits, *rest)
    expected, slopes = exactly(logits, rest[1])
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, slopes, atol=1e-6)


def test_empty_targets_empty_inputs_and_tiny_sizes():
    logits, paddings, labels, label_paddings = case(2, 7, 4, 3)
    blank = -jnp.sum(jax.nn.log_softmax(logits)[:, :, 0], 1)
    padded = ctc_loss(logits, paddings, labels, jnp.ones((2, 3)))
    without = ctc_loss(logits, paddings, labels[:, :0], label_paddings[:, :0])
    np.testing.assert_allclose(padded, blank, rtol=1e-6)
    np.testing.assert_allclose(without, blank, rtol=1e-6)
    nothing = ctc_loss(logits, jnp.ones((2, 7)), labels, label_paddings.at[0].set(1))
    np.testing.assert_array_equal(nothing, [0.0, jnp.inf])
    none = ctc_loss(logits[:, :0], paddings[:, :0], labels, label_paddings.at[0].set(1))
    np.testing.assert_array_equal(none, [0.0, jnp.inf])
    one = ctc_loss(logits[:, :1], paddings[:, :1], labels[:, :1], label_paddings[:, :1])
    likely = jax.nn.log_softmax(logits[:, 0])
    np.testing.assert_allclose(one, -likely[jnp.arange(2), labels[:, 0]], rtol=1e-6)
    only_blank = ctc_loss(jnp.ones((1, 5, 1)), jnp.zeros((1, 5)), labels[:1], jnp.ones((1, 3)))
    np.testing.assert_array_equal(only_blank, [0.0])
    assert ctc_loss(logits[:0], paddings[:0], labels[:0], label_paddings[:0]).shape == (0,)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_what_is_not_a_number_in_a_valid_frame_is_not_hidden(bad):
    logits, *rest = case(2, 6, 4, 2)
    logits = logits.at[0, 2, 3].set(bad)
    loss = lambda x: ctc_loss(x, *rest)  # noqa: E731
    losses, tangents = jax.jvp(loss, (logits,), (jnp.ones_like(logits),))
    gradients = jax.grad(lambda x: loss(x).sum())(logits)
    for found in (losses, tangents, gradients.sum((1, 2))):
        np.testing.assert_array_equal(jnp.isnan(found), [True, False])


@pytest.mark.parametrize("dtype", [jnp.bool_, jnp.int8, jnp.uint8, jnp.bfloat16, jnp.float16])
def test_paddings_of_any_dtype(dtype):
    logits, paddings, labels, label_paddings = case(2, 8, 4, 3)
    paddings, label_paddings = paddings.at[1, 5:].set(1), label_paddings.at[1, 2:].set(1)
    expected = ctc_loss(logits, paddings, labels, label_paddings)
    found = ctc_loss(logits, paddings.astype(dtype), labels, label_paddings.astype(dtype))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [jnp.int8, jnp.uint8, jnp.int16, jnp.uint32])
def test_labels_of_any_integer_dtype_with_more_classes_than_it_holds(dtype):
    logits, paddings, labels, label_paddings = case(1, 8, 300, 3)
    labels = labels % 100 + 1
    expected = ctc_loss(logits, paddings, labels, label_paddings, blank_id=299)
    narrow = labels.astype(dtype)
    for function in (ctc_loss, jax.jit(ctc_loss, static_argnames="blank_id")):
        found = function(logits, paddings, narrow, label_paddings, blank_id=299)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_labels_padded_on_the_left_are_refused():
    logits, paddings, labels, label_paddings = case(1, 8, 4, 3)
    left = label_paddings.at[0, 0].set(1)
    for function in (ctc_loss, ctc_posteriors, ctc_alignment):
        with pytest.raises(ValueError, match="pad on the right"):
            function(logits, paddings, labels, left)
    with pytest.raises(ValueError, match="pad on the right"):
        ctc_feasible(paddings, labels, left)


def test_labels_padded_on_the_left_are_unusable_where_they_are_traced():
    logits, paddings, labels, label_paddings = case(3, 8, 4, 3)
    left = label_paddings.at[0, 0].set(1).at[1, 2].set(1).at[2, 1].set(1)
    losses, gradient = value_and_gradient(logits, paddings, labels, left)
    np.testing.assert_array_equal(jnp.isnan(losses), [True, False, True])
    np.testing.assert_array_equal(losses[1], value_and_gradient(
        logits[1:2], paddings[1:2], labels[1:2], left[1:2]
    )[0][0])  # fmt: skip
    assert not gradient[np.array([0, 2])].any()
    posteriors = jax.jit(ctc_posteriors)(logits, paddings, labels, left)
    np.testing.assert_array_equal(jnp.isnan(posteriors).all((1, 2)), [True, False, True])
    scores = jax.jit(ctc_alignment)(logits, paddings, labels, left).scores
    np.testing.assert_array_equal(jnp.isnan(scores).any(1), [True, False, True])
    feasible = jax.jit(ctc_feasible)(paddings, labels, left)
    np.testing.assert_array_equal(feasible, [False, True, False])


def test_what_is_too_improbable_is_impossible_in_every_derivative():
    """Below 2^-262144 in one frame, 181704 nats."""
    rest = (jnp.zeros((2, 2)), jnp.array([[1], [1]]), jnp.zeros((2, 1)))
    logits = jnp.zeros((2, 2, 3)).at[0, :, 1].set(-181710.0).at[1, :, 1].set(-181700.0)
    losses, gradient = value_and_gradient(logits, *rest)
    np.testing.assert_array_equal(jnp.isinf(losses), [True, False])
    assert losses[1] > 181700
    assert not gradient[0].any()
    assert gradient[1].any()

    direction = jnp.cos(jnp.arange(12.0)).reshape(2, 2, 3)
    slopes = jax.jvp(lambda x: ctc_loss(x, *rest), (logits,), (direction,))[1]
    expected = jnp.sum(gradient * direction, (1, 2))
    np.testing.assert_allclose(slopes, expected, rtol=1e-5)
    assert slopes[0] == 0


def test_lists_are_arrays():
    logits, paddings, labels, label_paddings = case(2, 6, 4, 2)
    arrays = (logits, paddings, labels, label_paddings)
    lists: list[Any] = [array.tolist() for array in arrays]
    for function in (ctc_loss, ctc_posteriors):
        np.testing.assert_array_equal(function(*lists), function(*arrays))
    np.testing.assert_array_equal(ctc_alignment(*lists).frames, ctc_alignment(*arrays).frames)
    np.testing.assert_array_equal(ctc_feasible(*lists[1:]), ctc_feasible(*arrays[1:]))
    parts: Any = list(logits)  # as lists of what may be traced
    np.testing.assert_array_equal(ctc_loss(parts, *lists[1:]), ctc_loss(*arrays))
    far: Any = np.full((2, 2), 2**32 + 1)
    with pytest.raises(ValueError, match=r"labels must be classes.*received \[4294967297\]"):
        ctc_loss(logits, paddings, far, label_paddings)


def test_blanks_in_any_integer_that_is_known():
    operands = case(1, 6, 4, 2)
    expected = ctc_loss(*operands)
    several: list[Any] = [np.int64(0), jnp.int32(0)]
    for blank in several:
        np.testing.assert_array_equal(ctc_loss(*operands, blank_id=blank), expected)
    with pytest.raises(ValueError, match=r"blank_id must be an integer that is known.*Tracer"):
        jax.jit(lambda blank: ctc_loss(*operands, blank_id=blank))(0)
    with pytest.raises(ValueError, match="zero_infinity must be True or False, known while"):
        jax.jit(lambda zero: ctc_loss(*operands, zero_infinity=zero))(True)


@pytest.mark.parametrize("dtype", [jnp.float8_e4m3fn, jnp.float8_e5m2])
def test_dtypes_without_an_implementation_are_refused(dtype):
    logits, *rest = case(1, 6, 4, 2)
    for function in (ctc_loss, ctc_posteriors, ctc_alignment):
        with pytest.raises(ValueError, match=r"floating point, one of .*received float8"):
            function(logits.astype(dtype), *rest)


def test_feasible_agrees_with_the_loss():
    generator = np.random.default_rng(4)
    labels = jnp.asarray(generator.integers(1, 3, (64, 5)))
    paddings = jnp.asarray(np.arange(9)[None] >= generator.integers(0, 10, (64, 1)), jnp.float32)
    label_paddings = jnp.asarray(np.arange(5)[None] >= generator.integers(0, 6, (64, 1)), jnp.int32)
    losses = ctc_loss(jnp.zeros((64, 9, 3)), paddings, labels, label_paddings)
    feasible = jax.jit(ctc_feasible)(paddings, labels, label_paddings)
    np.testing.assert_array_equal(feasible, jnp.isfinite(losses))
    assert 0 < feasible.sum() < 64
