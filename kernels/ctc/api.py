"""Public CTC operations: argument checks and the semantics of targets that cannot be produced.

Axes: B batch, T frames, K classes (the blank among them), N labels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Num

from kernels.arguments import FLOATS, truth_values, whole_number
from kernels.dispatch import Operation
from kernels.varying import map_rows

_MODULES = {"xla": "kernels.ctc.xla", "triton": "kernels.ctc.kernel"}
_loss = Operation("ctc_loss", _MODULES, derivatives="kernels.ctc.derivatives", saves=True)
_occupancy = Operation("ctc_occupancy", _MODULES, derivatives="kernels.ctc.derivatives")


class _Operands(NamedTuple):
    """What every implementation is given, and which rows have labels that are classes."""

    logits: jax.Array
    valid: jax.Array
    labels: jax.Array
    label_lengths: jax.Array
    usable: jax.Array


def ctc_loss(
    logits: Float[Array, "B T K"],
    logit_paddings: Num[Array, "B T"] | Bool[Array, "B T"],
    labels: Int[Array, "B N"],
    label_paddings: Num[Array, "B N"] | Bool[Array, "B N"],
    *,
    blank_id: int = 0,
    log_epsilon: float | None = None,
    zero_infinity: bool = False,
    implementation: str | None = None,
) -> Float[Array, " B"]:
    """Negative log likelihood of each label sequence under the CTC model.

    loss[b] = -log sum over all frame paths that collapse to labels[b] of
    prod over frames t of softmax(logits[b, t])[path[t]].

    Takes the place of ``optax.ctc_loss``; ``ctc_loss_with_forward_probs`` has no counterpart, but
    see ``ctc_posteriors``. A target that no path can produce (fewer valid frames
    than labels plus neighbouring repeats, or probability zero where it is needed) has likelihood
    zero: its loss is infinite, its gradient zero. Other rows of the batch do not notice. Zero is
    also what a class counts as in a frame where its log probability is below -181704 nats,
    2^-262144, so that finite logits can have an infinite loss. (In Triton: below
    2^-min(2^21, 2^29 / T) of the likeliest.)

    Args:
        logits: unnormalised log probabilities, (B, T, K); float32, bfloat16, float16, or float64 in
            XLA. -inf is a class that cannot be; NaN and +inf make a row's loss NaN.
        logit_paddings: 0 for a valid frame, 1 (or True) for a padded one, (B, T). Padded frames are
            skipped, in mid-sequence too, whatever they hold.
        labels: label ids in [0, K) other than the blank, padded on the right, (B, N).
        label_paddings: 0 for a valid label, 1 (or True) for a padded one, (B, N).
        blank_id: the class that emits nothing.
        log_epsilon: taken because ``optax`` has it, and ignored: nothing is approximated.
        zero_infinity: give impossible targets the loss 0 instead of infinity.
        implementation: ``"xla"``, ``"triton"``, or ``None`` for the fastest on the platform.

    Returns:
        The loss in nats per sequence, (B,), never negative; float32, or float64 for such logits.

    Raises:
        ValueError: a rank, shape, dtype or ``blank_id`` that does not fit the others, a valid label
            that is the blank or outside [0, K), or one after a padded one. What is traced
            (arguments of a function under ``jit``) cannot be looked at: such a row then gets the
            loss NaN.
        NotImplementedError: ``implementation`` cannot compute this, with the reason.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.zeros((1, 4, 3))  # uniform over 3 classes
        >>> loss = ctc_loss(logits, jnp.zeros((1, 4)), jnp.array([[1, 2]]), jnp.zeros((1, 2)))
        >>> bool(jnp.allclose(loss, 4 * jnp.log(3.0) - jnp.log(15.0)))  # 15 = C(4 + 2, 2 * 2) paths
        True

    Source: Graves, Fernandez, Gomez, Schmidhuber, "Connectionist Temporal Classification",
    ICML 2006.
    """
    del log_epsilon
    truth_values(zero_infinity=zero_infinity)
    (*operands, usable), blank_id, _ = _prepared(
        logits, logit_paddings, labels, label_paddings, blank_id
    )
    (loss,) = _loss(*operands, blank_id=blank_id, implementation=implementation)
    if zero_infinity:
        loss = jnp.where(jnp.isposinf(loss), jnp.zeros_like(loss), loss)
    return jnp.where(usable, loss, jnp.nan)  # no array of NaN, which jax.debug_nans would see


def ctc_posteriors(
    logits: Float[Array, "B T K"],
    logit_paddings: Num[Array, "B T"] | Bool[Array, "B T"],
    labels: Int[Array, "B N"],
    label_paddings: Num[Array, "B N"] | Bool[Array, "B N"],
    *,
    blank_id: int = 0,
    implementation: str | None = None,
) -> Float[Array, "B T K"]:
    """Probability of each class in each frame, given that the path collapses to the labels.

    posterior[b, t, k] = p(path[t] = k | labels[b]) = softmax(logits)[b, t, k] - d loss[b] / d
    logits[b, t, k], computed without that difference.

    Args:
        logits: unnormalised log probabilities, (B, T, K), as in ``ctc_loss``.
        logit_paddings: 0 for a valid frame, 1 (or True) for a padded one, (B, T).
        labels: label ids in [0, K) other than the blank, padded on the right, (B, N).
        label_paddings: 0 for a valid label, 1 (or True) for a padded one, (B, N).
        blank_id: the class that emits nothing.
        implementation: ``"xla"``, or ``None`` for the fastest on the platform.

    Returns:
        (B, T, K), summing to one over the classes; zero in padded frames and for a target that no
        path can produce; float32, or float64 for such logits. NaN where ``ctc_loss`` would be.

    Raises:
        ValueError: as ``ctc_loss``.
        NotImplementedError: ``implementation`` cannot compute this, with the reason.

    Example:
        >>> import jax.numpy as jnp
        >>> logits, labels = jnp.zeros((1, 2, 3)), jnp.array([[1]])
        >>> posteriors = ctc_posteriors(logits, jnp.zeros((1, 2)), labels, jnp.zeros((1, 1)))
        >>> bool(jnp.allclose(posteriors[0, 0], jnp.array([1 / 3, 2 / 3, 0])))  # _1, 11, 1_
        True

    Source: Graves et al., 2006, equation 14.
    """
    (*operands, usable), blank_id, given_frames = _prepared(
        logits, logit_paddings, labels, label_paddings, blank_id
    )
    (occupancy,) = _occupancy(*operands, blank_id=blank_id, implementation=implementation)
    rows, frames, _ = occupancy.shape
    index = jnp.pad(operands[2], ((0, 0), (1, 0)), constant_values=blank_id)
    by_class = jnp.zeros((rows, frames, operands[0].shape[2]), occupancy.dtype)
    posterior = map_rows(
        lambda sums, k, terms: sums.at[:, k].add(terms), by_class, index, occupancy
    )
    return jnp.where(usable[:, None, None], posterior[:, :given_frames], jnp.nan)


def ctc_feasible(
    logit_paddings: Num[Array, "B T"] | Bool[Array, "B T"],
    labels: Int[Array, "B N"],
    label_paddings: Num[Array, "B N"] | Bool[Array, "B N"],
) -> Bool[Array, " B"]:
    """Whether each target has any path: frames >= labels + neighbouring repeats.

    Args:
        logit_paddings: 0 for a valid frame, 1 (or True) for a padded one, (B, T).
        labels: label ids, padded on the right, (B, N).
        label_paddings: 0 for a valid label, 1 (or True) for a padded one, (B, N).

    Returns:
        True where the loss is finite for finite logits, (B,), as long as no log probability is
        below -181704 nats, which ``ctc_loss`` takes for impossible.

    Raises:
        ValueError: a rank, shape or dtype that does not fit the others, or a valid label after a
            padded one; where ``label_paddings`` is traced, the row of such a label gets False.

    Example:
        >>> import jax.numpy as jnp
        >>> two_frames = jnp.zeros((2, 2))
        >>> ctc_feasible(two_frames, jnp.array([[1, 2], [1, 1]]), jnp.zeros((2, 2)))
        Array([ True, False], dtype=bool)
    """
    paddings, ids, padded = (_array(a) for a in (logit_paddings, labels, label_paddings))
    _check_paddings(logit_paddings=paddings, labels=ids, label_paddings=padded)
    if (found := _concrete(padded)) is not None:
        _check_order(found[0].astype(bool))
    frames = jnp.sum(_is_valid(paddings), axis=1, dtype=jnp.int32)
    ids, valid = jnp.asarray(ids), _is_valid(padded)
    repeats = (ids[:, 1:] == ids[:, :-1]) & valid[:, 1:] & valid[:, :-1]
    needed = jnp.sum(valid, axis=1, dtype=jnp.int32) + jnp.sum(repeats, axis=1, dtype=jnp.int32)
    return (frames >= needed) & _is_right_padded(valid)


def _prepared(logits, logit_paddings, labels, label_paddings, blank_id):
    """The operands, with one padded frame where there is none; the blank; how many are given."""
    x, frames, ids, padded = map(_array, (logits, logit_paddings, labels, label_paddings))
    blank = _check(x, frames, ids, padded, blank_id)
    return _operands(x, frames, ids, padded, blank), blank, x.shape[1]


def _array(argument):
    """Lists as arrays; arrays as they are, for NumPy's may have more bits than JAX keeps."""
    if hasattr(argument, "dtype"):
        return argument
    traced = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(argument))
    return jnp.asarray(argument) if traced else np.asarray(argument)


def _operands(logits, logit_paddings, labels, label_paddings, blank_id) -> _Operands:
    classes = jnp.shape(logits)[2]
    valid = _is_valid(label_paddings)
    harmless = valid & ~_is_wrong(jnp.asarray(labels), classes, blank_id)
    labels = jnp.asarray(labels).astype(jnp.int32)
    logits, valid_frames = jnp.asarray(logits), _is_valid(logit_paddings).astype(jnp.int32)
    if logits.shape[1] == 0:  # one padded frame spares every implementation this case
        logits, valid_frames = (
            jnp.pad(a, ((0, 0), (0, 1), (0, 0))[: a.ndim]) for a in (logits, valid_frames)
        )
    return _Operands(
        logits,
        valid_frames,
        jnp.where(harmless, labels, jnp.zeros_like(labels)),
        jnp.sum(valid, axis=1, dtype=jnp.int32),
        jnp.all(harmless | ~valid, axis=1) & _is_right_padded(valid),
    )


def _is_valid(paddings):
    return ~jnp.asarray(paddings).astype(bool)


def _is_right_padded(valid):
    """Rows without a valid label after a padded one."""
    return ~jnp.any(valid[:, 1:] & ~valid[:, :-1], axis=1)


def _is_wrong(labels, classes, blank_id):
    """Where a label is the blank or no class, in any integer dtype: it may not hold ``classes``."""
    most = jnp.iinfo(labels.dtype).max
    wrong = labels < 0
    if classes <= most:
        wrong |= labels >= classes
    return wrong | (labels == blank_id) if blank_id <= most else wrong


def _concrete(*arrays):
    """The arrays in NumPy, or None where one is traced or partly on another host."""
    if any(
        isinstance(array, Tracer) or not getattr(array, "is_fully_addressable", True)
        for array in arrays
    ):
        return None
    return [np.asarray(array) for array in arrays]


def _check(logits, logit_paddings, labels, label_paddings, blank_id) -> int:
    _check_paddings(
        logits=logits, logit_paddings=logit_paddings, labels=labels, label_paddings=label_paddings
    )
    if str(jnp.result_type(logits)) not in FLOATS:
        raise ValueError(
            f"logits must be floating point, one of {FLOATS}; received "
            f"{jnp.result_type(logits)}. Cast them with .astype(jnp.float32)."
        )
    classes = jnp.shape(logits)[2]
    blank = whole_number(blank_id)
    if blank is None or not 0 <= blank < classes:
        raise ValueError(
            "blank_id must be an integer that is known while tracing, a class of the logits in "
            f"[0, {classes}); received {blank_id!r}."
        )
    found = _concrete(labels, label_paddings)
    if found is not None:
        values, padded = found[0], found[1].astype(bool)
        _check_order(padded)
        wrong = ((values < 0) | (values >= classes) | (values == blank)) & ~padded
        if wrong.any():
            raise ValueError(
                f"labels must be classes in [0, {classes}) other than the blank {blank}; "
                f"received {np.unique(values[wrong])[:8].tolist()}. Mark padding in "
                "label_paddings, or give the logits more classes."
            )
    return blank


def _check_order(padded) -> None:
    if (padded[:, :-1] & ~padded[:, 1:]).any():
        raise ValueError(
            "label_paddings must pad on the right: no valid label after a padded one; received "
            f"{padded.astype(int).tolist()}. Move the valid labels to the front."
        )


def _check_paddings(**arrays) -> None:
    shapes = {name: jnp.shape(array) for name, array in arrays.items()}
    received = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    axes = {
        "logits": "(B, T, K)",
        "logit_paddings": "(B, T)",
        "labels": "(B, N)",
        "label_paddings": "(B, N)",
    }
    wanted = ", ".join(f"{name} {axes[name]}" for name in shapes)
    if any(len(shape) != axes[name].count(",") + 1 for name, shape in shapes.items()):
        raise ValueError(
            f"CTC takes {wanted}; received {received}. A single sequence needs a leading axis: "
            "x[None]."
        )
    sizes: dict[str, set[int]] = {}
    for name, shape in shapes.items():
        for axis, size in zip(axes[name].strip("()").split(", "), shape, strict=True):
            sizes.setdefault(axis, set()).add(size)
    if any(len(found) > 1 for found in sizes.values()):
        raise ValueError(
            f"{wanted} need equal B everywhere, one T and one N; received {received}. Check that "
            "paddings belong to these logits and labels."
        )
    if not jnp.issubdtype(jnp.result_type(arrays["labels"]), jnp.integer):
        raise ValueError(
            f"labels must be integer class ids; received {jnp.result_type(arrays['labels'])}. "
            "Cast them with .astype(jnp.int32)."
        )
