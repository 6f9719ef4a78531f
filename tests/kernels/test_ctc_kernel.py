"""CTC in Triton, interpreted, against the recursion in the log domain and float64."""

import contextlib
import importlib
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_exact import row_exactly

from kernels.configurations import override
from kernels.ctc.configs import TUNABLES, RecursionConfig, TileConfig
from kernels.dispatch import Operation

pytestmark = [
    pytest.mark.usefixtures("in_haste"),
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux only"
    ),
]
kernel: Any = None
if importlib.util.find_spec("triton") is not None:
    kernel = importlib.import_module("kernels.ctc.kernel")


class Case:
    """Operands of the operation, and what is expected of it."""

    def __init__(self, logits, labels, *, valid=None, lengths=None, blank_id=0, dtype="float32"):
        self.logits = jnp.asarray(np.asarray(logits, np.float32), dtype)
        rows, size, _ = self.logits.shape
        self.labels = np.asarray(labels, np.int32)
        self.valid = np.asarray(np.ones((rows, size)) if valid is None else valid, np.int32)
        whole = [self.labels.shape[1]] * len(self.labels)
        self.lengths = np.asarray(whole if lengths is None else lengths, np.int32)
        self.blank_id = blank_id
        # Few frames at a time, for the interpreter's sake; `None` is the heuristic's.
        self.config = None if self.labels.shape[1] > 31 else RecursionConfig(32, 1, 2)

    @property
    def operands(self):
        return self.logits, *map(jnp.asarray, (self.valid, self.labels, self.lengths))

    def value(self):
        (loss,) = jax.jit(kernel.ctc_loss.forward, static_argnames="blank_id")(
            *self.operands, blank_id=self.blank_id
        )
        return np.asarray(loss)

    def configured(self):
        if self.config is None:
            return contextlib.nullcontext()
        return override(dict.fromkeys(("ctc_loss.advance", "ctc_loss.spread"), self.config))

    def found(self, cotangent=None):
        rows = self.logits.shape[0]
        given = {"blank_id": self.blank_id}
        cotangent = jnp.ones(rows) if cotangent is None else jnp.asarray(cotangent)
        cotangent = cotangent.astype(jnp.float32)

        @jax.jit
        def everything(operands, cotangent):
            (loss,), saved = kernel.ctc_loss.saving(*operands, **given)
            wanted = (True, False, False, False)
            (slope,) = kernel.ctc_loss.gradient(operands, saved, (cotangent,), wanted, **given)
            return loss, saved[0], slope

        with self.configured():
            loss, occupancy, gradient = everything(self.operands, cotangent)
        assert loss.dtype == occupancy.dtype == jnp.float32
        assert gradient.dtype == self.logits.dtype
        return np.asarray(loss), np.asarray(occupancy), np.asarray(gradient, np.float64)

    def exact(self):
        logits = np.asarray(self.logits, np.float32)
        rows, size, classes = logits.shape
        columns = self.labels.shape[1] + 1
        loss = np.zeros(rows)
        occupancy, gradient = np.zeros((rows, size, columns)), np.zeros((rows, size, classes))
        for b in range(rows):
            folded = [b // (rows // len(a)) for a in (self.valid, self.labels, self.lengths)]
            length = self.lengths[folded[2]]
            loss[b], occupied, gradient[b] = row_exactly(
                logits[b], self.valid[folded[0]], self.labels[folded[1], :length], self.blank_id
            )
            occupancy[b, :, : length + 1] = occupied
        return loss, occupancy, gradient

    def check(self, tolerance=1e-6):
        loss, occupancy, gradient = self.found()
        exact_loss, exact_occupancy, exact_gradient = self.exact()
        np.testing.assert_allclose(loss, exact_loss, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(occupancy, exact_occupancy, rtol=0, atol=2e-6)
        assert distance(gradient, exact_gradient) < tolerance
        nothing = exact_occupancy.sum(2) == 0
        assert not gradient[nothing].any()


def distance(found, exact):
    """Relative, in the Euclidean norm."""
    return np.linalg.norm(found - exact) / max(np.linalg.norm(exact), 1e-30)


def random_case(rows, size, classes, count, *, blank_id=0, seed=0, **more):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, max(1, classes - 1), (rows, count))
    labels = np.where(labels >= blank_id, np.minimum(labels + 1, classes - 1), labels)
    return Case(
        generator.normal(size=(rows, size, classes)), labels, blank_id=blank_id, **more
    )  # fmt: skip


def test_lengths_repeats_and_frames_that_are_not_valid():
    case = random_case(3, 17, 7, 4, blank_id=3)
    case.config = None
    case.labels[0] = [1, 1, 5, 5]
    case.lengths = np.array([4, 2, 0], np.int32)
    case.valid[0, [0, 5, 6]] = 0
    case.valid[1, 3::2] = 0
    case.valid[2, 9:] = 0
    case.logits = case.logits.at[0, 5].set(jnp.nan).at[1, 3].set(jnp.inf)
    case.check()
    np.testing.assert_allclose(case.value(), case.exact()[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "classes", "count"),
    [(1, 1, 0), (1, 3, 1), (2, 2, 1), (2, 70, 2), (6, 2, 3), (7, 33, 1)],
)
def test_small_sizes(size, classes, count):
    random_case(2, size, classes, count).check()


slow = pytest.mark.slow


@pytest.mark.parametrize("count", [pytest.param(31, marks=slow), 32, pytest.param(33, marks=slow)])
def test_labels_that_fill_a_warp_and_one_more(count):
    case = random_case(1, count + 1, 9, count)
    case.labels = np.arange(count)[None] % 8 + 1
    case.config = None
    case.check()


@pytest.mark.parametrize(
    "config", [RecursionConfig(32, 2, 3), RecursionConfig(32, 4, 1), RecursionConfig(64, 2, 4)]
)
def test_every_layout_of_pairs(config):
    case = random_case(1, 8, 5, 6)
    case.labels = np.array([[1, 2, 1, 2, 2, 4]])
    case.config = config
    case.check()


@pytest.mark.parametrize("tile", [TileConfig(4, 16, 1), TileConfig(1, 32, 2)])
def test_more_classes_than_a_tile_has(tile):
    case = random_case(1, 6, 70, 3)
    case.logits = case.logits.at[0, 1, 40].set(9.0).at[0, 2, 69].set(9.0).at[0, 3, 15].set(9.0)
    case.configured = lambda: override({TUNABLES[0].name: tile, TUNABLES[3].name: tile})
    case.check()


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2e-3), ("float16", 3e-4)])
def test_half_precision_is_rounded_once(dtype, tolerance):
    random_case(1, 6, 6, 3, dtype=dtype).check(tolerance)


def test_one_class_many_times_is_added_up():
    # All labels one class: a list through all positions; and a gradient that is none of one label.
    case = Case(np.random.default_rng(0).normal(size=(1, 14, 3)), [[2] * 6])
    case.check()


def test_infeasible_rows_have_no_gradient_and_leave_others_alone():
    logits = np.random.default_rng(1).normal(size=(5, 4, 4)).astype(np.float32)
    logits[1, :, 2] = -np.inf  # a label that no frame allows
    logits[2, 1] = -np.inf  # a frame that allows nothing
    logits[4, :, 3] = -np.inf  # a class that no label needs
    labels = [[1, 1, 1], [1, 2, 1], [1, 2, 0], [2, 0, 0], [1, 2, 0]]
    case = Case(logits, labels, lengths=[3, 3, 2, 1, 2])
    case.valid[3] = 0  # no frames at all
    loss, occupancy, gradient = case.found(cotangent=[np.nan, np.inf, 1.0, np.nan, 2.0])
    exact_loss, exact_occupancy, exact_gradient = case.exact()
    assert np.isposinf(loss[:4]).all()
    assert not occupancy[:4].any()
    assert not gradient[:4].any()
    np.testing.assert_allclose(loss[4], exact_loss[4], rtol=1e-6)
    np.testing.assert_allclose(occupancy[4], exact_occupancy[4], atol=1e-6)
    np.testing.assert_allclose(gradient[4], 2 * exact_gradient[4], atol=1e-6)


def test_bad_logits_of_a_valid_frame_are_not_hidden():
    case = random_case(3, 3, 5, 2)
    case.logits = case.logits.at[0, 2, 3].set(jnp.nan).at[2, 0, 1].set(jnp.inf)
    loss, _, gradient = case.found()
    assert np.isnan(loss).tolist() == [True, False, True]
    assert np.isfinite(gradient[1]).all()
    assert not np.isfinite(gradient[0]).all()
    assert not np.isfinite(gradient[2]).all()


@pytest.mark.parametrize(("scale", "offset"), [(1e4, 0.0), (1.0, 1e6)])
def test_large_logits(scale, offset):
    """Exponents far below what float32 has; and logits of which little but the offset is left."""
    case = random_case(1, 8, 4, 3)
    case.logits = case.logits * jnp.float32(scale) + jnp.float32(offset)
    loss, occupancy, gradient = case.found()
    exact_loss, exact_occupancy, exact_gradient = case.exact()
    np.testing.assert_allclose(loss, exact_loss, rtol=1e-6)
    np.testing.assert_allclose(occupancy, exact_occupancy, atol=1e-5)
    np.testing.assert_allclose(gradient, exact_gradient, atol=1e-5)


def test_classes_that_one_frame_allows():
    """Zeros stay zero however often they are multiplied by zero."""
    case = random_case(2, 18, 4, 2)
    case.labels = np.array([[1, 2], [1, 1]])
    case.logits = case.logits.at[0, :, 1].set(-jnp.inf).at[0, 12, 1].set(0.0)
    case.logits = case.logits.at[1, :, 0].set(-jnp.inf).at[1, 12, 0].set(0.0)
    case.check()


def test_states_whose_ratio_float32_does_not_have():
    # The blank that must stand between equal labels is e^-200 of what the other paths have.
    logits = np.zeros((1, 5, 3), np.float32)
    logits[0, :, 0], logits[0, :, 2] = -200.0, -400.0
    Case(logits, [[1, 1, 1]]).check()


def near_convergence(size, classes, count, seed=0) -> Case:
    """Logits that spell the labels, with a loss around 0.01."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(1, classes, count)
    logits = generator.normal(size=(size, classes))
    spelt = np.zeros(size, int)
    spelt[2 * np.arange(count)] = labels
    logits[np.arange(size), spelt] += 12.0
    return Case(logits[None], [labels])


def test_gradient_is_precise_near_convergence():
    case = near_convergence(12, 8, 4)
    loss, _, gradient = case.found()
    exact_loss, _, exact_gradient = case.exact()
    assert exact_loss[0] < 0.02
    np.testing.assert_allclose(loss, exact_loss, atol=1e-6)
    assert distance(gradient, exact_gradient) < 1e-6
    assert np.abs(gradient.sum(2)).max() < 1e-9


@slow
@pytest.mark.parametrize("count", [20, 40])
def test_gradient_of_long_utterances(count):
    case = random_case(1, 300, 50, count)
    case.check(tolerance=2e-6)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("rows", "size", "classes", "count"),
    [(16, 1000, 32, 200), (4, 2000, 5000, 150), (1, 8000, 32, 1000), (2, 8000, 1000, 300)],
)
def test_gradient_at_full_size(rows, size, classes, count):
    case = random_case(rows, size, classes, count)
    case.config = None
    _, _, gradient = case.found()
    assert distance(gradient, case.exact()[2]) < 1e-5


@slow
def test_gradient_of_long_utterances_near_convergence():
    case = near_convergence(300, 30, 100)
    _, _, gradient = case.found()
    assert distance(gradient, case.exact()[2]) < 2e-6


@slow
def test_as_many_labels_as_there_may_be():
    labels = np.arange(kernel.MOST_LABELS)[None] % 3 + 1
    case = Case(np.random.default_rng(2).normal(size=(1, 12, 4)), labels, lengths=[9])
    case.check()


def test_rows_of_operands_that_serve_several():
    case = random_case(4, 3, 5, 1)
    case.labels, case.lengths, case.valid = case.labels[:2], case.lengths[:1], case.valid[:2]
    case.valid[1, 2] = 0
    case.check()


def test_nothing_to_do():
    case = Case(np.zeros((2, 0, 3)), np.zeros((2, 1)), lengths=[0, 1])
    loss, occupancy, gradient = case.found()
    assert loss.tolist() == [0.0, np.inf]
    assert occupancy.shape == (2, 0, 2)
    assert gradient.shape == (2, 0, 3)
    assert Case(np.zeros((0, 4, 3)), np.zeros((1, 1))).found()[2].shape == (0, 4, 3)


def test_as_an_operation_under_jit_vmap_and_grad():
    modules = {"xla": "kernels.ctc.xla", "triton": "kernels.ctc.kernel"}
    operation = Operation("ctc_loss", modules, derivatives="kernels.ctc.derivatives", saves=True)
    case = random_case(1, 4, 4, 2)
    logits = jnp.stack([case.logits, case.logits[:, ::-1]])

    def total(logits):
        operands = (logits, *case.operands[1:])
        (loss,) = operation(*operands, blank_id=0, implementation="triton")
        return 2 * loss[0]

    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(total)))(logits)
    for value, slope, x in zip(values, slopes, logits, strict=True):
        loss, _, gradient = Case(x, case.labels).exact()
        np.testing.assert_allclose(value, 2 * loss[0], rtol=1e-6)
        np.testing.assert_allclose(slope, 2 * gradient, atol=1e-6)


def test_occupancy_alone():
    case = random_case(1, 4, 4, 2)
    (occupancy,) = kernel.ctc_occupancy.forward(*case.operands, blank_id=0)
    np.testing.assert_allclose(occupancy, case.exact()[1], atol=1e-6)


def test_what_it_refuses():
    def refusal(size, classes, count, dtype=jnp.float32):
        shapes = [(2, size, classes), (2, size), (2, count), (2,)]
        kinds = [dtype] + [jnp.int32] * 3
        arrays = [jax.ShapeDtypeStruct(s, d) for s, d in zip(shapes, kinds, strict=True)]
        return kernel.ctc_loss.refusal(*arrays, blank_id=0)

    assert refusal(2**15, 2**15, 1023) is None
    assert "float64" in refusal(5, 5, 5, np.dtype("float64"))
    assert "1023 labels, and 1024" in refusal(5, 5, 1024)
    assert "32 bits" in refusal(2**16, 2**15, 5)
    assert "32 bits" in refusal(2**22, 5, 600)


def test_a_configuration_without_room_is_refused():
    case = random_case(1, 2, 3, 40)
    case.config = RecursionConfig(32, 1)
    with pytest.raises(ValueError, match="for 40 labels; received"):
        case.found()


def test_configurations():
    sizes = {"rows": 1, "frames": 9, "classes": 40, "dtype": "float32"}
    for labels in (0, 1, 31, 32, 255, 256, 600, kernel.MOST_LABELS):
        for tunable in TUNABLES:
            chosen = tunable.choose(labels=labels, **sizes).config
            candidates = list(tunable.candidates(labels=labels, **sizes))
            key = tunable.bucket(labels=labels, **sizes)
            assert 1 <= len(candidates) == len(set(candidates)) <= 24
            for config in (chosen, *candidates):
                if isinstance(config, RecursionConfig):
                    # For all labels of the bucket that a table would have it for.
                    for more in range(labels, kernel.MOST_LABELS + 1):
                        if tunable.bucket(labels=more, **sizes) != key:
                            break
                        assert config.lanes * config.registers > more
    for wrong in ({"lanes": 16}, {"lanes": 48}, {"registers": 3}, {"frames": 17}, {"frames": 0}):
        with pytest.raises(ValueError, match="must have a power of two from 32"):
            RecursionConfig(**wrong)
    for wrong in ({"block_frames": 3}, {"block_classes": 0}, {"num_warps": 64}):
        with pytest.raises(ValueError, match="must have powers of two"):
            TileConfig(**wrong)
    case = random_case(1, 4, 4, 2)
    assert "ctc_loss.advance" in str(kernel.ctc_loss.tuning(*case.operands, blank_id=0))
