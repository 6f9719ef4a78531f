"""What XLA's path computes for each frame alone: softmax, encoded emissions, gradient.

Axes: B rows, T frames, K classes, W = N + 1 slots: the blank, then each label.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels.ctc.exponents import SMALLEST, ZERO


class Softmax(NamedTuple):
    """Of each frame the largest logit, and the sum of e^(x - largest) of all classes but it."""

    largest: jax.Array
    others: jax.Array


def widened(logits):
    """Logits in float32, or float64."""
    return logits.astype(jnp.float64 if logits.dtype == jnp.float64 else jnp.float32)


def softmax(x) -> Softmax:
    """Both in full precision, however small the others are beside the largest.

    Terms of the largest are 1, and the floor of all others is 0. A frame of -inf throughout has -1
    others: a sum of zero.
    """
    largest = jnp.max(x, 2)
    largest = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
    total = jnp.sum(jnp.exp(x - largest[:, :, None]), 2)
    # The barrier keeps XLA from storing (B, T, K) terms, which takes longer than a second pass.
    terms = jnp.exp(x + lax.optimization_barrier(-largest)[:, :, None])
    less = jnp.sum(terms - jnp.floor(terms), 2)
    is_one = jnp.abs(total - less - 1) < 0.5
    return Softmax(largest, jnp.where(is_one, less, total - 1))


def encoded(x, found, valid, slots):
    """Emissions as exponents and mantissas in one float: of the blank (B, T), of labels (B, T, W).

    A padded frame has 0 everywhere, the code of a probability of one.

    Args:
        x: logits, (B, T, K).
        found: their softmax.
        valid: which frames count, (B, T).
        slots: the class of each slot, (B, W).
    """
    log_total = jnp.log1p(found.others)

    def encode(logits):
        extra = (slice(None), slice(None), *(None,) * (logits.ndim - 2))
        log2 = (logits - found.largest[extra]) - log_total[extra]
        log2 = log2 * _scalar(1 / np.log(2), log2)
        k = jnp.floor(log2)
        code = k + (jnp.exp((log2 - k) * _scalar(np.log(2), log2)) - 1)
        possible = (log2 >= SMALLEST) & (found.others > -1)[extra]
        code = jnp.where(possible, code, _scalar(ZERO, code))
        return jnp.where(valid[extra], code, jnp.zeros_like(code))

    blank = jnp.take_along_axis(x, slots[:, None, :1], 2, mode="clip")[:, :, 0]
    if _few(x, slots):  # each sum has one term that is not zero, so it is exact
        labels = jnp.einsum("btk,bwk->btw", encode(x), _one_hot(x, slots), precision="highest")
    else:
        labels = encode(jnp.take_along_axis(x, slots[:, None, :], 2, mode="clip"))
    return encode(blank), labels


def gradient(x, found, occupancy, slots, weight):
    """Softmax less what the posteriors give each class, times the weight: (B, T, K).

    The slope of a class that has most of a frame's probability would keep few digits of that
    difference. It is minus the sum of all others.

    Args:
        x: logits, (B, T, K).
        found: their softmax.
        occupancy: posterior of each slot, (B, T, W).
        slots: the class of each slot, (B, W).
        weight: (B, T); where it is zero so is the gradient, whatever the logits are.
    """
    log_share = -jnp.log1p(found.others)[:, :, None]
    largest = lax.optimization_barrier(found.largest)[:, :, None]  # as in ``softmax``
    weight = weight[:, :, None]
    dominates = (found.others < 1)[:, :, None]
    rest = (found.others / (1 + found.others))[:, :, None]

    def scaled(slope):
        return jnp.where(weight != 0, slope * weight, jnp.zeros_like(slope))

    if _few(x, slots):
        given = jnp.einsum("btw,bwk->btk", occupancy, _one_hot(x, slots), precision="highest")
        is_top = (x == largest) & dominates
        elsewhere = jnp.sum(jnp.where(is_top, jnp.zeros_like(given), given), 2, keepdims=True)
        plain = jnp.exp((x - largest) + log_share) - given
        return scaled(jnp.where(is_top, elsewhere - rest, plain))
    # The classes of slots are set, twice alike where two slots have one class.
    same = (slots[:, :, None] == slots[:, None, :]).astype(x.dtype)
    given = jnp.einsum("btw,bwv->btv", occupancy, same, precision="highest")
    at_slots = jnp.take_along_axis(x, slots[:, None, :], 2, mode="clip")
    is_top = (at_slots == largest) & dominates
    elsewhere = jnp.sum(jnp.where(is_top, jnp.zeros_like(given), occupancy), 2, keepdims=True)
    values = jnp.where(is_top, elsewhere - rest, jnp.exp((at_slots - largest) + log_share) - given)
    return jax.vmap(lambda g, k, v: g.at[:, k].set(v, mode="promise_in_bounds"))(
        scaled(jnp.exp((x - largest) + log_share)), slots, scaled(values)
    )


def _few(x, slots):
    """Whether products with one-hot matrices are cheaper than gathering and scattering."""
    return x.shape[2] <= slots.shape[1]


def _one_hot(x, slots):
    classes = jnp.arange(x.shape[2], dtype=slots.dtype)
    return (slots[:, :, None] == classes[None, None, :]).astype(x.dtype)


def _scalar(value, like):
    return jnp.asarray(value, like.dtype)
