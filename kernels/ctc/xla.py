"""CTC in plain XLA."""

import jax
import jax.numpy as jnp

from kernels.ctc import derivatives
from kernels.ctc.derivatives import of_rows
from kernels.ctc.reference import log_softmax
from kernels.dispatch import Implementation


def forward(logits, valid, labels, label_lengths, *, blank_id):
    """The loss: (B,)."""
    return derivatives.forward(logits, valid, labels, label_lengths, blank_id=blank_id)


def saving(logits, valid, labels, label_lengths, *, blank_id):
    """The loss, and the posterior of the blank and of each label: (B, T, 1 + N)."""
    (loss,) = forward(logits, valid, labels, label_lengths, blank_id=blank_id)
    found = derivatives.occupancy(logits, valid, labels, label_lengths, blank_id=blank_id)
    return (loss,), found


def gradient(operands, saved, cotangents, wanted, *, blank_id):
    """Softmax minus what the posteriors give each class."""
    logits, valid, labels, _ = operands
    (occupancy,), (weight,) = saved, cotangents
    rows, _, classes = logits.shape
    valid, labels = of_rows(valid, rows), of_rows(labels, rows)
    blank = jnp.full((rows, 1), blank_id, labels.dtype)
    hot = jax.nn.one_hot(jnp.concatenate([blank, labels], 1), classes, dtype=occupancy.dtype)
    found = jnp.einsum("btn,bnk->btk", occupancy, hot, precision="highest")
    probabilities = jnp.exp(log_softmax(logits, valid != 0))
    on = (jnp.sum(occupancy, 2, keepdims=True) > 0) & (valid != 0)[:, :, None]
    slope = (probabilities - found) * weight[:, None, None]
    return (jnp.where(on, slope, jnp.zeros_like(slope)).astype(logits.dtype),)


ctc_loss = Implementation(forward, gradient, saving=saving)
ctc_occupancy = Implementation(lambda *operands, **static: saving(*operands, **static)[1])
