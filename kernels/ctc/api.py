"""Public CTC operations: argument checks and the semantics of infeasible targets.

Axes: B batch, T frames, K classes (the blank among them), N labels.
"""

import jax.numpy as jnp
import optax
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Num


def ctc_loss(
    logits: Float[Array, "B T K"],
    logit_paddings: Num[Array, "B T"] | Bool[Array, "B T"],
    labels: Int[Array, "B N"],
    label_paddings: Num[Array, "B N"] | Bool[Array, "B N"],
    *,
    blank_id: int = 0,
    zero_infinity: bool = False,
) -> Float[Array, "B"]:
    """Negative log likelihood of each label sequence under the CTC model.

    loss[b] = -log sum over all frame paths that collapse to labels[b] of
    prod over frames t of softmax(logits[b, t])[path[t]].

    A target that no path can produce (fewer valid frames than labels plus neighbouring repeats) has
    likelihood zero: its loss is infinite, its gradient zero.

    Args:
        logits: unnormalised log probabilities, (B, T, K).
        logit_paddings: 0 for a valid frame, 1 (or True) for a padded one, (B, T).
        labels: label ids in [0, K), padded on the right, (B, N).
        label_paddings: 0 for a valid label, 1 (or True) for a padded one, (B, N).
        blank_id: the class that emits nothing.
        zero_infinity: give infeasible targets the loss 0 instead of infinity.

    Returns:
        The loss in nats per sequence, (B,), never negative; float32, or float64 for such logits.

    Raises:
        ValueError: a rank, shape, dtype or ``blank_id`` that does not fit the others, or a valid
            label that is the blank or outside [0, K). Labels that are traced (under jit) cannot be
            looked at: such a sequence then gets the loss NaN.

    Example:
        >>> import jax.numpy as jnp
        >>> logits = jnp.zeros((1, 4, 3))  # uniform over 3 classes
        >>> loss = ctc_loss(logits, jnp.zeros((1, 4)), jnp.array([[1, 2]]), jnp.zeros((1, 2)))
        >>> bool(jnp.allclose(loss, 4 * jnp.log(3.0) - jnp.log(15.0)))  # 15 = C(4 + 2, 2 * 2) paths
        True

    Source: Graves, Fernandez, Gomez, Schmidhuber, "Connectionist Temporal Classification",
    ICML 2006.
    """
    _check(logits, logit_paddings, labels, label_paddings, blank_id)
    dtype = jnp.float64 if jnp.result_type(logits) == jnp.float64 else jnp.float32
    usable = _usable_labels(labels, label_paddings, jnp.shape(logits)[2], blank_id)
    logits, logit_paddings, label_paddings = (
        jnp.asarray(array, dtype) for array in (logits, logit_paddings, label_paddings)
    )
    # What lies in a padded frame must not matter, not even NaN.
    logits = jnp.where(logit_paddings[:, :, None] == 0, logits, jnp.zeros((), dtype))
    loss = optax.ctc_loss(logits, logit_paddings, labels, label_paddings, blank_id=blank_id)
    feasible = ctc_feasible(logit_paddings, labels, label_paddings)
    # optax rounds a loss near zero to slightly below it, and gives about 1e5 where no path exists.
    infeasible_loss = 0.0 if zero_infinity else jnp.inf
    loss = jnp.where(feasible, jnp.maximum(loss, 0.0), infeasible_loss)
    return jnp.where(usable, loss, jnp.nan)


def ctc_feasible(
    logit_paddings: Num[Array, "B T"] | Bool[Array, "B T"],
    labels: Int[Array, "B N"],
    label_paddings: Num[Array, "B N"] | Bool[Array, "B N"],
) -> Bool[Array, "B"]:
    """Whether each target has any path: frames >= labels + neighbouring repeats.

    Args:
        logit_paddings: 0 for a valid frame, 1 (or True) for a padded one, (B, T).
        labels: label ids, padded on the right, (B, N).
        label_paddings: 0 for a valid label, 1 (or True) for a padded one, (B, N).

    Returns:
        True where the loss is finite for finite logits, (B,).

    Example:
        >>> import jax.numpy as jnp
        >>> two_frames = jnp.zeros((2, 2))
        >>> ctc_feasible(two_frames, jnp.array([[1, 2], [1, 1]]), jnp.zeros((2, 2)))
        Array([ True, False], dtype=bool)
    """
    frames = jnp.sum(~jnp.asarray(logit_paddings).astype(bool), axis=1)
    valid = ~jnp.asarray(label_paddings).astype(bool)
    repeats = (labels[:, 1:] == labels[:, :-1]) & valid[:, 1:] & valid[:, :-1]
    return frames >= jnp.sum(valid, axis=1) + jnp.sum(repeats, axis=1)


def _usable_labels(labels, label_paddings, classes, blank_id) -> Bool[Array, "B"]:
    labels, valid = jnp.asarray(labels), ~jnp.asarray(label_paddings).astype(bool)
    wrong = valid & ((labels < 0) | (labels >= classes) | (labels == blank_id))
    if not isinstance(wrong, Tracer) and bool(wrong.any()):
        found = sorted({int(label) for label in labels[wrong]})
        raise ValueError(
            f"labels must be classes in [0, {classes}) other than the blank {blank_id}; received "
            f"{found}. Mark padding in label_paddings, or give the logits more classes."
        )
    return ~wrong.any(axis=1)


def _check(logits, logit_paddings, labels, label_paddings, blank_id) -> None:
    shapes = {
        "logits": jnp.shape(logits),
        "logit_paddings": jnp.shape(logit_paddings),
        "labels": jnp.shape(labels),
        "label_paddings": jnp.shape(label_paddings),
    }
    received = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    ranks = {"logits": 3, "logit_paddings": 2, "labels": 2, "label_paddings": 2}
    if any(len(shapes[name]) != rank for name, rank in ranks.items()):
        raise ValueError(
            "ctc_loss takes logits (B, T, K), logit_paddings (B, T), labels (B, N), label_paddings "
            f"(B, N); received {received}. A single sequence needs a leading axis: x[None]."
        )
    if (
        shapes["logits"][:2] != shapes["logit_paddings"]
        or shapes["labels"] != shapes["label_paddings"]
        or shapes["logits"][0] != shapes["labels"][0]
    ):
        raise ValueError(
            f"ctc_loss needs equal B everywhere, one T and one N; received {received}. "
            "Check that paddings belong to these logits and labels."
        )
    if not jnp.issubdtype(jnp.result_type(logits), jnp.floating):
        raise ValueError(
            f"logits must be floating point; received {jnp.result_type(logits)}. "
            "Cast them with .astype(jnp.float32)."
        )
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise ValueError(
            f"labels must be integer class ids; received {jnp.result_type(labels)}. "
            "Cast them with .astype(jnp.int32)."
        )
    classes = shapes["logits"][2]
    if not 0 <= blank_id < classes:
        raise ValueError(
            f"blank_id must be a class of the logits, in [0, {classes}); received {blank_id}."
        )
