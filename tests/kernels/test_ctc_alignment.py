"""Alignments against every path, and the promises for awkward and unusable input."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

import kernels
from kernels.ctc import Alignment

pytestmark = pytest.mark.usefixtures("in_haste")


def collapse(path, blank_id):
    return [symbol for symbol, _ in itertools.groupby(path) if symbol != blank_id]


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def path_score(log_probs, path):
    return float(log_probs[np.arange(len(path)), list(path)].sum())


compiled = jax.jit(kernels.ctc_alignment, static_argnames="blank_id")


def aligned(*arrays, **options):
    """As NumPy arrays, of which a slice needs no program."""
    return jax.tree.map(np.asarray, compiled(*arrays, **options))


def align(logits, labels, *, blank_id=0, shape=(12, 3, 4)):
    """One sequence, as NumPy arrays; padded to one shape, so that most tests share a program."""
    (frames, classes), count = np.shape(logits), len(labels)
    padded = np.full((1, shape[0], shape[2]), -np.inf, np.asarray(logits).dtype)
    padded[0, :frames, :classes] = logits
    padded_labels = np.full((1, shape[1]), 99, np.int32)
    padded_labels[0, :count] = labels
    paddings = np.arange(shape[0])[None] >= frames, np.arange(shape[1])[None] >= count
    found = aligned(padded, paddings[0], padded_labels, paddings[1], blank_id=blank_id)
    assert (found.frames[0, frames:] == blank_id).all()
    assert not found.spans[0, count:].any()
    assert not found.scores[0, count:].any()
    whole = Alignment(*(array[0] for array in found))
    return whole._replace(
        frames=whole.frames[:frames], spans=whole.spans[:count], scores=whole.scores[:count]
    )


def described(frames, labels, log_probs, blank_id):
    """Spans and scores as a path that collapses to the labels shows them."""
    runs = [(k, len(list(run))) for k, run in itertools.groupby(frames)]
    ends = np.cumsum([length for _, length in runs])
    spans = [
        (end - length, end) for (k, length), end in zip(runs, ends, strict=True) if k != blank_id
    ]
    scores = [log_probs[start:end, k].sum() for (start, end), k in zip(spans, labels, strict=True)]
    return np.array(spans, int).reshape(-1, 2), np.array(scores)


@pytest.mark.parametrize("blank_id", [0, 1, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_no_path_of_the_labels_is_likelier(blank_id, count):
    rng = np.random.default_rng(10 * count + blank_id)
    frames, classes, batch = 6, 3, 24
    paths = [(p, collapse(p, blank_id)) for p in itertools.product(range(classes), repeat=frames)]
    others = [c for c in range(classes) if c != blank_id]
    logits = 2 * rng.normal(size=(batch, frames, classes))
    labels = np.full((batch, 3), -1)
    labels[:, :count] = rng.choice(others, (batch, count))
    found = aligned(logits, np.zeros((batch, frames)), labels, labels < 0, blank_id=blank_id)
    assert not found.spans[:, count:].any()
    labels = labels[:, :count]
    for i in range(batch):
        log_probs = log_softmax(logits[i])
        best = max(
            path_score(log_probs, path)
            for path, collapsed in paths
            if collapsed == labels[i].tolist()
        )
        path = found.frames[i].tolist()
        assert collapse(path, blank_id) == labels[i].tolist()
        assert path_score(log_probs, path) == pytest.approx(best, abs=1e-5)
        spans, scores = described(path, labels[i], log_probs, blank_id)
        np.testing.assert_array_equal(found.spans[i, :count], spans)
        np.testing.assert_allclose(found.scores[i, :count], scores, rtol=1e-5, atol=1e-6)


def test_of_equally_likely_paths_the_last_states_are_held_longest():
    # Every path is as likely; seen from the end: blank as long as may be, then the labels early.
    assert align(np.zeros((7, 3)), [1, 2]).frames.tolist() == [1, 2, 0, 0, 0, 0, 0]
    assert align(np.zeros((7, 3)), [1, 1]).frames.tolist() == [1, 0, 1, 0, 0, 0, 0]
    # A frame that only the last label explains: before it, the blank is stepped from, not skipped.
    logits = np.zeros((5, 3))
    logits[4] = [-50, -50, 0]
    assert align(logits, [1, 2]).frames.tolist() == [1, 2, 2, 2, 2]


def test_frames_padded_in_mid_sequence_are_skipped():
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(4, 12, 4))
    paddings = rng.random((4, 12)) < 0.35
    logits[paddings] = np.nan
    labels = np.array([[1, 2, 2], [3, 3, 0], [1, 0, 0], [0, 0, 0]])
    label_paddings = labels == 0
    found = aligned(logits, paddings, labels, label_paddings)
    for i in range(4):
        kept, count = np.flatnonzero(~paddings[i]), int((~label_paddings[i]).sum())
        alone = align(logits[i, kept], labels[i, :count])
        np.testing.assert_array_equal(found.frames[i, kept], alone.frames)
        assert (found.frames[i, paddings[i]] == 0).all()
        np.testing.assert_allclose(found.scores[i, :count], alone.scores, rtol=1e-6)
        np.testing.assert_array_equal(found.spans[i, :count, 0], kept[alone.spans[:, 0]])
        np.testing.assert_array_equal(found.spans[i, :count, 1], kept[alone.spans[:, 1] - 1] + 1)
        assert not found.spans[i, count:].any()
        assert not found.scores[i, count:].any()


def test_sequences_without_a_path_are_defined_and_leave_the_rest_alone():
    logits = np.random.default_rng(1).normal(size=(6, 3, 4)).astype(np.float32)
    logits[2, :, 1] = -np.inf  # a needed label is impossible everywhere
    logits[3, 1] = -np.inf  # a frame is impossible
    logits[4, :, 3] = -np.inf  # a class that is not needed
    logits[5, 1, 2] = np.nan
    labels = np.array([[1, 1, 2], [1, 2, 3], [1, 2, 0], [1, 2, 0], [1, 2, 0], [1, 2, 0]])
    frames, spans, scores = aligned(logits, np.zeros((6, 3)), labels, np.float32(labels == 0))
    for i, value in ((0, -np.inf), (2, -np.inf), (3, -np.inf), (5, np.nan)):
        assert not frames[i].any()
        assert not spans[i].any()
        count = int((labels[i] != 0).sum())
        np.testing.assert_array_equal(scores[i], [value] * count + [0.0] * (3 - count))
    np.testing.assert_array_equal(frames[1], [1, 2, 3])
    np.testing.assert_allclose(scores[1], log_softmax(logits[1])[range(3), [1, 2, 3]], rtol=1e-5)
    assert collapse(frames[4], 0) == [1, 2]
    assert np.isfinite(scores[4]).all()


@pytest.mark.parametrize(("batch", "frames", "count"), [(2, 3, 0), (2, 0, 1), (0, 3, 1)])
def test_axes_may_be_empty(batch, frames, count):
    path, spans, scores = aligned(
        np.zeros((batch, frames, 2), np.float32),
        np.zeros((batch, frames)),
        np.ones((batch, count), np.int32),
        np.zeros((batch, count)),
    )
    assert path.shape == (batch, frames)
    assert not path.any()
    assert spans.shape == (batch, count, 2)
    np.testing.assert_array_equal(scores, np.full((batch, count), -np.inf))


def test_a_long_sequence_is_aligned_exactly_in_float32():
    """Sums of 8000 log-probabilities, or of such offsets, would not tell these paths apart."""
    rng = np.random.default_rng(2)
    frames, classes = 8000, 16
    labels = rng.integers(1, classes, 300)
    logits = rng.integers(0, 40, size=(frames, classes)) * 8.0  # 8: float32's spacing at 1e8
    shape = (frames, len(labels), classes)
    with jax.enable_x64(True):
        exact = align(logits / 160, labels, shape=shape)
    assert exact.scores.dtype == np.float64
    best = path_score(logits, exact.frames)
    for scale, offset in ((1 / 160, 0.0), (1.0, 1e8)):
        found = align((scale * logits + offset).astype(np.float32), labels, shape=shape)
        assert found.scores.dtype == np.float32
        assert collapse(found.frames, 0) == labels.tolist()
        assert path_score(logits, found.frames) == pytest.approx(best, rel=0, abs=1e-2)


def test_half_precision_logits_and_boolean_paddings():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(2, 9, 5)).astype(jnp.bfloat16)
    paddings = np.arange(9)[None, :] >= np.array([9, 6])[:, None]
    labels, label_paddings = np.array([[1, 2, 4], [3, 0, 0]]), np.array([[0, 0, 0], [0, 1, 1]])
    found = aligned(logits, paddings, labels, label_paddings.astype(bool))
    exact = aligned(logits.astype(np.float32), paddings.astype(np.int32), labels, label_paddings)
    for array, expected in zip(found, exact, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_runs_under_jit_nested_vmap_and_shard_map():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(2, 3, 2, 7, 4)).astype(np.float32)
    labels, label_paddings = np.array([[1, 2], [3, 3]]), np.array([[0, 0], [0, 1]])
    paddings = np.zeros((2, 7), np.float32)

    def of_logits(x):
        return kernels.ctc_alignment(x, *map(jnp.asarray, (paddings, labels, label_paddings)))

    mapped = map(np.asarray, jax.jit(jax.vmap(jax.vmap(of_logits)))(logits))
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    rows = PartitionSpec("data")
    sharded = jax.jit(
        jax.shard_map(kernels.ctc_alignment, mesh=mesh, in_specs=(rows,) * 4, out_specs=rows)
    )(logits[1, 2], paddings, labels, label_paddings)
    each = [[of_logits(jnp.asarray(x)) for x in row] for row in logits]  # without jit
    for k, array in enumerate(mapped):
        np.testing.assert_array_equal(array, [[found[k] for found in row] for row in each])
    for array, expected in zip(sharded, each[1][2], strict=True):
        np.testing.assert_array_equal(array, expected)


def test_scores_have_the_gradient_of_the_path():
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(3, 6, 4)).astype(np.float32)
    logits[0, 4:] = np.nan
    labels = np.array([[1, 2, 0], [3, 3, 0], [2, 2, 2]])
    paddings, label_paddings = np.zeros((3, 6), np.float32), np.float32(labels == 0)
    paddings[0, 4:] = 1
    paddings[2, 3:] = 1  # three frames are too few for 2, 2, 2

    def total(x):
        rest = map(jnp.asarray, (paddings, labels, label_paddings))
        scores = kernels.ctc_alignment(x, *rest).scores
        return jnp.sum(jnp.where(jnp.isfinite(scores), scores, 0))

    gradient = np.asarray(jax.jit(jax.grad(total))(logits))
    frames = aligned(logits, paddings, labels, label_paddings).frames
    counts = (frames != 0)[:, :, None]
    posteriors = np.exp(log_softmax(np.where(counts, logits, 0)))
    expected = np.where(counts, np.eye(4)[frames] - posteriors, 0)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)
    assert not gradient[2].any()


def test_backpointers_take_a_byte_for_two_states():
    batch, frames, classes, count = 2, 2000, 8, 400
    shapes = ((batch, frames, classes), jnp.float32), ((batch, frames), jnp.bool)
    shapes += ((batch, count), jnp.int32), ((batch, count), jnp.bool)
    operands = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    analysis = jax.jit(kernels.ctc_alignment).lower(*operands).compile().memory_analysis()
    assert analysis is not None
    assert analysis.temp_size_in_bytes < 1.5 * batch * frames * (count + 1)


@pytest.mark.parametrize("label", [4, -1, 0])
def test_labels_outside_the_alphabet(label):
    labels, zeros = jnp.array([[1, label], [1, 2]]), jnp.zeros((2, 2))
    logits, paddings = jnp.zeros((2, 5, 4)), jnp.zeros((2, 5))
    with pytest.raises(ValueError, match=rf"other than the blank 0; received \[{label}\]"):
        kernels.ctc_alignment(logits, paddings, labels, zeros)
    traced = aligned(logits, paddings, labels, zeros)
    assert np.isnan(traced.scores[0]).all()
    assert not traced.frames[0].any()
    assert np.isfinite(traced.scores[1]).all()


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"received logits \(4, 3\)"):
        kernels.ctc_alignment(
            jnp.zeros((4, 3)), jnp.zeros((1, 4)), jnp.ones((1, 1), jnp.int32), jnp.zeros((1, 1))
        )
