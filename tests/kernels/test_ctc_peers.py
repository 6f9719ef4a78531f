"""CTC in the cases by which other projects test theirs: what they expect, or what float64 gives."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_exact import row_exactly

from kernels.ctc import ctc_loss

pytestmark = pytest.mark.usefixtures("in_haste")


@functools.cache
def compiled(blank_id=0):
    """The losses and the gradient of their sum."""

    def total(*operands):
        losses = ctc_loss(*operands, blank_id=blank_id)
        return jnp.sum(losses), losses

    return jax.jit(jax.grad(total, has_aux=True))


def batch_of(logits, labels, blank_id=0) -> tuple[Any, ...]:
    """Utterances of their own lengths, padded."""
    frames, count = max(map(len, logits)), max(map(len, labels))
    padded = np.zeros((len(logits), frames, len(logits[0][0])), np.float32)
    targets = np.full((len(labels), count), blank_id)
    for b, (x, y) in enumerate(zip(logits, labels, strict=True)):
        padded[b, : len(x)], targets[b, : len(y)] = x, y
    lengths, label_lengths = ([len(row) for row in rows] for rows in (logits, labels))
    return padded, past(lengths, frames), targets, past(label_lengths, count)


def past(lengths, size):
    """1 in the places after each length."""
    return (np.arange(size)[None, :] >= np.asarray(lengths)[:, None]).astype(np.float32)


# ---------------------------------------------------------------------- Expected values

# Of warp-ctc's tests/test_cpu.cpp, options_test: probabilities (2, 5, 6), the blank being 5.
WARP_PROBABILITIES = np.array([
    [[0.633766, 0.221185, 0.0917319, 0.0129757, 0.0142857, 0.0260553],
     [0.111121, 0.588392, 0.278779, 0.0055756, 0.00569609, 0.010436],
     [0.0357786, 0.633813, 0.321418, 0.00249248, 0.00272882, 0.0037688],
     [0.0663296, 0.643849, 0.280111, 0.00283995, 0.0035545, 0.00331533],
     [0.458235, 0.396634, 0.123377, 0.00648837, 0.00903441, 0.00623107]],
    [[0.30176, 0.28562, 0.0831517, 0.0862751, 0.0816851, 0.161508],
     [0.24082, 0.397533, 0.0557226, 0.0546814, 0.0557528, 0.19549],
     [0.230246, 0.450868, 0.0389607, 0.038309, 0.0391602, 0.202456],
     [0.280884, 0.429522, 0.0326593, 0.0339046, 0.0326856, 0.190345],
     [0.423286, 0.315517, 0.0338439, 0.0393744, 0.0339315, 0.154046]],
])  # fmt: skip
WARP_PATHS = [[0, 1, 2, 1, 0], [0, 1, 5, 1, 0]]  # the only ones of both targets


def test_warp_ctc_options():
    operands = batch_of(np.log(WARP_PROBABILITIES), [[0, 1, 2, 1, 0], [0, 1, 1, 0]], blank_id=5)
    gradient, losses = compiled(blank_id=5)(*operands)
    np.testing.assert_allclose(losses, [3.342112, 5.42262], rtol=1e-5)
    # Its table of expected gradients is the probabilities, less one along these paths.
    expected = WARP_PROBABILITIES - np.eye(6)[WARP_PATHS]
    np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_values_of_k2_and_warp_ctc():
    """Of k2's ctc_loss_test.py, test_case1 to test_case4, and of warp-ctc's small_test."""
    falling = np.arange(-5.0, 0.0)[None, :] - np.array([[0.0], [5.0], [10.0]])
    rising = np.arange(1.0, 16.0).reshape(3, 5)
    small = [[0.1, 0.6, 0.1, 0.1, 0.1], [0.1, 0.1, 0.6, 0.1, 0.1]]
    operands = batch_of(
        [falling, rising, np.full((1, 5), 0.2), small], [[2, 3], [3, 3], [1], [1, 2]]
    )
    expected = [4.938850402832, 7.355742931366, 1.6094379425049, 2.46285836]
    np.testing.assert_allclose(ctc_loss(*operands), expected, rtol=1e-6)


# ---------------------------------------------------------------------- torch's cases


class Case(NamedTuple):
    """Sizes; labels are padded to 60, so that several cases are one program."""

    lengths: tuple[int, ...]
    label_lengths: tuple[int, ...]
    frames: int = 50
    classes: int = 15
    room: int = 60
    blank_id: int = 0
    alike: bool = False

    @property
    def operands(self):
        """Logits, integer lengths as paddings, and the labels in int64, as torch has them."""
        generator = np.random.default_rng(sum(self.label_lengths))
        rows = len(self.lengths)
        logits = generator.normal(size=(rows, self.frames, self.classes)).astype(np.float32)
        labels = generator.integers(1, 2 if self.alike else self.classes, (rows, self.room))
        if self.blank_id:
            labels -= 1
        paddings = past(self.lengths, self.frames), past(self.label_lengths, self.room)
        return logits, paddings[0], labels, paddings[1]


# Of its module tests (common_modules.py) and of TestNN (test_nn.py). Targets in one row behind each
# other and reductions are not ours.
FIFTY = (50, 50, 50)
TORCH = {
    "module": Case(FIFTY, (30, 25, 20)),
    "module, blank last": Case(FIFTY, (30, 25, 20), blank_id=14),
    "empty_target": Case(FIFTY, (0, 0, 0)),
    "empty_target, two of three": Case(FIFTY, (0, 9, 0)),
    "zero_infinity": Case(FIFTY, (60, 25, 20)),
    "zero_lengths": Case((0, 0, 0), (0, 0, 0)),
    "critical_target_len": Case((500,), (256,), 500, 10, 256),
    "long_targets": Case((4000,), (1200,), 4000, 3, 1200, alike=True),
}


def by_numpy(case):
    logits, paddings, labels, label_paddings = case.operands
    rows = [
        row_exactly(x, 1 - p, y[q == 0], case.blank_id)
        for x, p, y, q in zip(logits, paddings, labels, label_paddings, strict=True)
    ]
    return np.array([loss for loss, _, _ in rows]), np.stack([slope for *_, slope in rows])


def by_torch(case):
    torch = pytest.importorskip("torch", reason="a peer that need not be installed")
    logits, _, labels, _ = case.operands
    x = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    losses, without_infinity = (
        torch.nn.functional.ctc_loss(
            x.log_softmax(2).transpose(0, 1),
            torch.tensor(labels),
            case.lengths,
            case.label_lengths,
            blank=case.blank_id,
            reduction="none",
            zero_infinity=zero_infinity,
        )
        for zero_infinity in (False, True)
    )
    (slope,) = torch.autograd.grad(without_infinity.sum(), x)
    return losses.detach().numpy(), slope.numpy()


@pytest.mark.parametrize("oracle", [by_numpy, by_torch])
@pytest.mark.parametrize("name", TORCH)
def test_torch_cases(name, oracle):
    case = TORCH[name]
    gradient, losses = compiled(case.blank_id)(*case.operands)
    expected, slopes = oracle(case)
    np.testing.assert_allclose(losses, expected, rtol=2e-6)
    assert np.isinf(losses).tolist() == [count == 60 for count in case.label_lengths]
    for found, slope in zip(np.asarray(gradient, np.float64), slopes, strict=True):
        assert np.linalg.norm(found - slope) <= 1e-5 * np.linalg.norm(slope)


def test_warp_ctc_class_that_cannot_be():
    """Its inf_test: a class that is needed has the activation -1e30 everywhere."""
    logits, paddings, labels, label_paddings = Case(FIFTY, (10, 10, 10)).operands
    labels[0, 0] = 2
    logits[0, :, 2] = -1e30
    gradient, losses = compiled()(logits, paddings, labels, label_paddings)
    assert losses[0] == np.inf
    assert not gradient[0].any()
    assert np.isfinite(losses[1:]).all()
