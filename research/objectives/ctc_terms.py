"""What the objectives over label sequences share: see ``research.objectives.ctc``."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

import kernels


class EncoderOutput(NamedTuple):
    """What an encoder with intermediate predictions gives; others give the logits alone.

    Attributes:
        logits: of the last layer, unnormalised log probabilities, (B, T, K).
        intermediate: of the layers between, (B, T, K) each.
    """

    logits: Float[Array, "B T K"]
    intermediate: tuple[Float[Array, "B T K"], ...] = ()


Outputs = Float[Array, "B T K"] | EncoderOutput
Paddings = Num[Array, "B N"] | Bool[Array, "B N"]


def logits_of(outputs: Outputs) -> Array:
    """The logits of the last layer."""
    return outputs.logits if isinstance(outputs, EncoderOutput) else outputs


def valid_frames(logits: Array, lengths: Array) -> Array:
    """Which frames count, boolean (B, T)."""
    return jnp.arange(logits.shape[1])[None, :] < lengths[:, None]


def losses_of(logits, lengths, labels, label_paddings, blank_id) -> Array:
    """CTC of each utterance in nats, (B,); +inf, with gradient zero, where there is no path."""
    paddings = ~valid_frames(logits, lengths)
    return kernels.ctc_loss(logits, paddings, labels, label_paddings, blank_id=blank_id)


def log_probs_of(logits, lengths) -> tuple[Array, Array]:
    """Log-probabilities, and which frames are valid; finite wherever nothing can come of a frame.

    That is, uniform in padded frames, whatever is there, and where every class is impossible.
    """
    dtype = jnp.float64 if logits.dtype == jnp.float64 else jnp.float32
    valid = valid_frames(logits, lengths)
    usable = valid & ~jnp.all(jnp.isneginf(logits), axis=2)
    return jax.nn.log_softmax(jnp.where(usable[:, :, None], logits, 0).astype(dtype)), valid


def expected(probs, log_probs) -> Array:
    """Sum over the classes of probability times log-probability; 0 log 0 is 0, its slope too."""
    some = probs > 0
    return jnp.sum(jnp.where(some, probs, 0) * jnp.where(some, log_probs, 0), axis=-1)


def mean_per_label(values, losses, label_paddings) -> Array:
    """Mean per label over the utterances that have a path."""
    has_path = ~jnp.isposinf(losses)  # NaN goes on: training must notice
    counts = jnp.sum(~jnp.asarray(label_paddings).astype(bool), axis=1, dtype=values.dtype)
    values = jnp.where(has_path, values, 0.0) / jnp.maximum(counts, 1)
    return jnp.sum(values) / jnp.maximum(jnp.sum(has_path, dtype=values.dtype), 1)
