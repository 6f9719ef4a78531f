"""What JAX differentiates for forward mode and second derivatives: the definition.

The operands are those that ``api.py`` hands to every implementation.
"""

import math

import jax
import jax.numpy as jnp

from kernels.ctc import reference
from kernels.ctc.exponents import SMALLEST
from kernels.dispatch import Implementation
from kernels.rows import of_rows


def forward(logits, valid, labels, label_lengths, *, blank_id):
    """The loss: (B,)."""
    emissions, *rest = _emissions(logits, valid, labels, label_lengths, blank_id)
    return (reference.recursion(emissions, *rest),)


def occupancy(logits, valid, labels, label_lengths, *, blank_id):
    """Minus the loss's slope along each log emission: the state's posterior, (B, T, 1 + N)."""
    emissions, *rest = _emissions(logits, valid, labels, label_lengths, blank_id)
    return (-jax.grad(lambda e: jnp.sum(reference.recursion(e, *rest)))(emissions),)


def _emissions(logits, valid, labels, label_lengths, blank_id):
    rows = logits.shape[0]
    valid, labels, label_lengths = (of_rows(a, rows) for a in (valid, labels, label_lengths))
    valid = valid.astype(bool)
    log_probs = reference.log_softmax(logits, valid)
    emissions = reference.log_emissions(log_probs, labels, blank_id)
    # Nothing moves a loss that is infinite because the other implementations count this as zero.
    impossible = emissions < SMALLEST * math.log(2)
    emissions = jnp.where(impossible, jnp.full_like(emissions, -jnp.inf), emissions)
    return emissions, valid, labels, label_lengths


ctc_loss = Implementation(forward)
ctc_occupancy = Implementation(occupancy)
