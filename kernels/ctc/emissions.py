"""What XLA's path computes for each frame alone: softmax, encoded emissions, gradient.

Axes: B rows, T frames, K classes, W = N + 1 slots: the blank, then each label.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels.ctc.exponents import SMALLEST, ZERO
from kernels.precision import wide

# A class dominates its frame where all others have less than this part of its probability ...
_OTHERS = 0.5
# ... so that it has two thirds of the frame's, of which this is the code.
_MOST = -2 / 3


class Softmax(NamedTuple):
    """Of each frame the largest logit, and the sum of e^(x - largest) of all classes but it."""

    largest: jax.Array
    others: jax.Array


def widened(logits):
    """Logits in float32, or float64."""
    return logits.astype(wide(logits.dtype))


def softmax(x) -> Softmax:
    """Both in full precision, however small the others are beside the largest.

    Where one term is about 1 and all others are less than 0.7, the sum of these is taken apart;
    "about" because XLA may round a logit that it computes otherwise here than for the maximum. A
    frame of -inf throughout has -1 others: a sum of zero.
    """
    largest = jnp.max(x, 2)
    largest = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
    total = jnp.sum(jnp.exp(x - largest[:, :, None]), 2)
    # The barrier keeps XLA from storing (B, T, K) terms, which takes longer than a second pass.
    terms = jnp.exp(x + lax.optimization_barrier(-largest)[:, :, None])
    less = jnp.sum(terms * (1 - jnp.floor(terms + 0.3)), 2)
    is_one = jnp.abs(total - less - 1) < 0.3
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
    found = Softmax(*lax.optimization_barrier(tuple(found)))  # as in ``softmax``
    log_total = jnp.log1p(found.others)

    def encode(logits):
        extra = (slice(None), slice(None), *(None,) * (logits.ndim - 2))
        below = logits - found.largest[extra]
        log2 = (below - log_total[extra]) * _scalar(1 / np.log(2), below)
        k = jnp.floor(log2)
        code = k + (jnp.exp((log2 - k) * _scalar(np.log(2), log2)) - 1)
        # ``dominates`` holds of the code where it does of the logit, however either was rounded.
        most = np.array(_MOST, code.dtype)
        more = jnp.maximum(code, np.nextafter(most, -most))
        code = jnp.where(_dominates(below, found.others[extra]), more, jnp.minimum(code, most))
        possible = (log2 >= SMALLEST) & (found.others > -1)[extra]
        code = jnp.where(possible, code, _scalar(ZERO, code))
        return jnp.where(valid[extra], code, jnp.zeros_like(code))

    blank = jnp.take_along_axis(x, slots[:, None, :1], 2, mode="clip")[:, :, 0]
    if _few(x, slots):  # each sum has one term that is not zero, so it is exact
        by_class = _classes(x, slots)[None, :, None] == slots[:, None, :]
        labels = jnp.einsum(
            "btk,bkw->btw", encode(x), by_class.astype(x.dtype), precision="highest"
        )
    else:
        labels = encode(jnp.take_along_axis(x, slots[:, None, :], 2, mode="clip"))
    return encode(blank), labels


def gradient(x, found, posteriors, slots, weight):
    """Softmax less what the posteriors give each class, times the weight: (B, T, K).

    The slope of a class that dominates its frame would keep few digits of that difference. It is
    what the posteriors give all others, less their probability.

    Args:
        x: logits, (B, T, K).
        found: their softmax.
        posteriors: posterior of each slot, (B, T, W), but 0 where ``dominates`` holds of its class.
        slots: the class of each slot, (B, W).
        weight: (B, T); where it is zero so is the gradient, whatever the logits are.
    """
    found = Softmax(*lax.optimization_barrier(tuple(found)))  # as in ``softmax``
    # A select keeps XLA from storing the sums once for each class.
    most = jnp.sum(posteriors, 2) - found.others / (1 + found.others)
    most = jnp.where(found.others < _OTHERS, most, jnp.zeros_like(most))[:, :, None]
    weight = weight[:, :, None]

    def scaled(slope):
        return jnp.where(weight != 0, slope * weight, jnp.zeros_like(slope))

    below = x - found.largest[:, :, None]
    softmax = jnp.exp(below - jnp.log1p(found.others)[:, :, None])
    if _few(x, slots):
        # Their sum with a zero, as XLA would store the matrix all along the recursion, if it could.
        later = slots + jnp.sum(jnp.minimum(posteriors[:, :1, :1], 0), 1).astype(slots.dtype)
        by_slot = later[:, :, None] == _classes(x, slots)[None, None, :]
        given = jnp.einsum("btw,bwk->btk", posteriors, by_slot.astype(x.dtype), precision="highest")
        softmax = softmax - given
    slope = scaled(jnp.where(_dominates(below, found.others[:, :, None]), most, softmax))
    if _few(x, slots):
        return slope
    # The first slot of a class takes what all slots of it are given, and the others nothing: so the
    # order of addition does not matter.
    same = slots[:, :, None] == slots[:, None, :]
    first = jnp.argmax(same, 1) == jnp.arange(slots.shape[1])[None, :]
    takes = (same & first[:, None, :]).astype(x.dtype)
    given = scaled(jnp.einsum("btw,bwv->btv", posteriors, takes, precision="highest"))
    return jax.vmap(lambda s, k, g: s.at[:, k].add(-g, mode="promise_in_bounds"))(
        slope, slots, given
    )


def dominates(code):
    """Whether an encoded emission is of a class with two thirds of its frame's probability."""
    return code > _MOST


def _dominates(below, others):
    """The same of a logit less the largest: about 0, or less than -0.69.

    So the answer does not depend on how the logit was rounded, which may be otherwise in each
    fusion if it is computed in the same program, or again in the backward pass.
    """
    return (below > -0.35) & (others < _OTHERS)


def _few(x, slots):
    """Whether products with one-hot matrices are cheaper than gathering and scattering."""
    return x.shape[2] <= slots.shape[1]


def _classes(x, slots):
    return jnp.arange(x.shape[2], dtype=slots.dtype)


def _scalar(value, like):
    return jnp.asarray(value, like.dtype)
