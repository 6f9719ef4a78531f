"""CTC against the sum over all paths, a closed form, and the promises for unusable input."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels.ctc import ctc_posteriors

pytestmark = pytest.mark.usefixtures("in_haste")


def sum_over_paths(log_probs, labels, blank_id):
    """-log of the summed probability of every frame path that collapses to the labels, and the
    share of it that has class k in frame t."""
    frames, classes = log_probs.shape
    total, shares = 0.0, np.zeros((frames, classes))
    for path in itertools.product(range(classes), repeat=frames):
        collapsed = [k for k, before in zip(path, (None, *path), strict=False) if k != before]
        if [k for k in collapsed if k != blank_id] == list(labels):
            probability = np.exp(sum(log_probs[t, k] for t, k in enumerate(path)))
            total += probability
            shares[np.arange(frames), path] += probability
    return -np.log(total), shares / total


compiled = jax.jit(kernels.ctc_loss)


def single(logits, labels, *, frames=None):
    frames = len(logits) if frames is None else frames
    paddings = np.arange(len(logits))[None] >= frames
    labels = np.asarray(labels, np.int32)[None]
    return compiled(logits[None], paddings, labels, np.zeros(labels.shape))[0]


@pytest.mark.parametrize("blank_id", [0, 2])
def test_is_the_sum_over_paths_with_its_gradient_and_posteriors(blank_id):
    targets = [[], [1], [1, 1], [1, 3], [3, 1, 3], [1, 1, 1]]
    logits = np.random.default_rng(0).normal(size=(len(targets), 5, 4))
    log_probs = logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)
    labels = jnp.array([target + [1] * (3 - len(target)) for target in targets])
    counts = jnp.array([len(target) for target in targets])
    rest = jnp.zeros(logits.shape[:2]), labels, jnp.arange(3)[None, :] >= counts[:, None]

    @jax.jit
    def everything(x):
        def losses(x):
            found = kernels.ctc_loss(x, *rest, blank_id=blank_id)
            return jnp.sum(found), found

        return *jax.grad(losses, has_aux=True)(x), ctc_posteriors(x, *rest, blank_id=blank_id)

    for target, x, gradient, value, found in zip(
        targets, log_probs, *everything(jnp.asarray(logits, jnp.float32)), strict=True
    ):
        expected, posteriors = sum_over_paths(x, target, blank_id)
        np.testing.assert_allclose(value, expected, rtol=1e-5, err_msg=str(target))
        np.testing.assert_allclose(gradient, np.exp(x) - posteriors, atol=2e-6)
        np.testing.assert_allclose(found, posteriors, atol=1e-6)


@pytest.mark.parametrize("equal", [False, True])
def test_uniform_logits_have_a_closed_form(equal):
    frames, count, classes = 1000, 200, 32
    labels = np.ones(count, int) if equal else 1 + np.arange(count) % 2
    ways = math.comb(frames + (1 if equal else count), 2 * count)
    expected = frames * math.log(classes) - math.log(ways)
    assert expected == pytest.approx(2795.8736 if equal else 2705.6311)
    found = single(np.zeros((frames, classes)), labels)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_padded_frames_do_not_count():
    logits = np.random.default_rng(2).normal(size=(6, 4))
    np.testing.assert_allclose(single(logits, [1, 2], frames=4), single(logits[:4], [1, 2]))


@pytest.mark.parametrize(("zero_infinity", "expected"), [(False, np.inf), (True, 0.0)])
def test_infeasible_targets_have_no_gradient_and_leave_the_rest_alone(zero_infinity, expected):
    logits = np.random.default_rng(3).normal(size=(2, 3, 4)).astype(np.float32)
    labels = jnp.array([[1, 1, 2], [1, 2, 3]])  # four frames needed, three needed; three given

    @jax.jit
    def losses_and_gradient(x):
        zeros = jnp.zeros((2, 3))

        def losses(x):
            return kernels.ctc_loss(x, zeros, labels, zeros, zero_infinity=zero_infinity)

        value, pullback = jax.vjp(losses, x)
        return value, *pullback(jnp.ones(2))

    value, gradient = map(np.asarray, losses_and_gradient(logits))
    assert value[0] == expected
    assert (gradient[0] == 0).all()
    np.testing.assert_allclose(value[1], single(logits[1], [1, 2, 3]), rtol=1e-6)
    assert np.abs(gradient[1]).sum() > 0.1


def test_is_never_negative():
    confident = 40.0 * np.eye(4)[[1, 0, 2, 0, 3]]
    assert 0.0 <= single(confident, [1, 2, 3]) < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": jnp.zeros((4, 3))}, r"logits \(B, T, K\).*received logits \(4, 3\)"),
        ({"logit_paddings": jnp.zeros((2, 5))}, "equal B everywhere"),
        ({"label_paddings": jnp.zeros((2, 1))}, "equal B everywhere"),
        ({"logits": jnp.zeros((2, 4, 3), jnp.int32)}, "floating point, one of .*received int32"),
        ({"labels": jnp.zeros((2, 2))}, "integer class ids; received float32"),
        ({"blank_id": 3}, r"in \[0, 3\); received 3"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {
        "logits": jnp.zeros((2, 4, 3)),
        "logit_paddings": jnp.zeros((2, 4)),
        "labels": jnp.ones((2, 2), jnp.int32),
        "label_paddings": jnp.zeros((2, 2)),
    } | change
    blank_id = arguments.pop("blank_id", 0)
    with pytest.raises(ValueError, match=message):
        kernels.ctc_loss(*arguments.values(), blank_id=blank_id)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_half_precision_logits_and_boolean_paddings(dtype):
    logits = np.random.default_rng(4).normal(size=(2, 6, 4)).astype(dtype)
    paddings = np.array([[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]], bool)
    labels, label_paddings = np.array([[1, 2], [3, 0]]), np.array([[0, 0], [0, 1]], bool)
    loss = compiled(logits, paddings, labels, label_paddings)
    as_floats = (array.astype(np.float32) for array in (logits, paddings, label_paddings))
    logits, paddings, label_paddings = as_floats
    exact = compiled(logits, paddings, labels, label_paddings)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, exact, rtol=1e-6)


def test_runs_under_jit_and_vmap():
    logits = np.random.default_rng(5).normal(size=(3, 2, 5, 4)).astype(np.float32)
    labels, zeros = jnp.array([[1, 2], [3, 3]]), jnp.zeros((2, 5))

    def losses(x):
        return kernels.ctc_loss(x, zeros, labels, jnp.zeros((2, 2)))

    mapped = jax.jit(jax.vmap(losses))(logits)
    each = [losses(jnp.asarray(x)) for x in logits]  # without jit
    np.testing.assert_allclose(mapped, each, rtol=1e-6)


@pytest.mark.parametrize("label", [4, -1, 0])
def test_labels_outside_the_alphabet(label):
    labels, zeros = jnp.array([[1, label], [1, 2]]), jnp.zeros((2, 2))
    logits, frames = jnp.zeros((2, 5, 4)), jnp.zeros((2, 5))
    with pytest.raises(ValueError, match=rf"other than the blank 0; received \[{label}\]"):
        kernels.ctc_loss(logits, frames, labels, zeros)
    traced = np.asarray(compiled(logits, frames, labels, zeros))
    assert np.isnan(traced[0])
    assert np.isfinite(traced[1])
    padded = kernels.ctc_loss(logits, frames, labels, zeros.at[0, 1].set(1.0))
    assert jnp.isfinite(padded).all()  # in padding anything may stand


@jax.jit
@jax.value_and_grad
def of_four_frames(logits):
    return single(logits, [1, 2], frames=4)


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
def test_junk_in_padded_frames_is_ignored(junk):
    logits = np.random.default_rng(6).normal(size=(6, 4)).astype(np.float32)
    spoilt = logits.copy()
    spoilt[4:] = junk
    value, gradient = map(np.asarray, of_four_frames(spoilt))
    np.testing.assert_allclose(value, of_four_frames(logits)[0], rtol=1e-6)
    assert (gradient[4:] == 0).all()
    assert np.isfinite(gradient).all()
