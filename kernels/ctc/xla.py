"""CTC in plain XLA: no exponential or logarithm in the recursion, memory for the posteriors alone.

The mathematics is in the README. Every state is a mantissa and an integer exponent. Along each
segment of frames the exponents go first, by maxima and sums of integers; mantissas then follow a
linear recursion whose coefficients are powers of two. The backward pass is its adjoint, and
recomputes one segment at a time. It writes posteriors over the emissions that it has read.

Axes: B rows, T frames, R frames of a segment, K classes, N labels, W = N + 1 slots: slot 0 is the
blank's emission and the state before the first label; slot n is label n, and the blank after it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels.ctc.exponents import (
    DROPPED,
    NEVER,
    SMALLEST,
    ZERO,
    bits,
    inverse_power,
    lowered,
    normalised,
    power,
)
from kernels.dispatch import Implementation
from kernels.rows import of_rows

SEGMENT = 16  # frames between checkpoints


class Pair(NamedTuple):
    """Something of the blank after each label, and of each label: (B, W) both."""

    blank: jax.Array
    label: jax.Array


class Plan(NamedTuple):
    """What both passes need: encoded emissions (B, T, W), valid (B, T), skips (B, W)."""

    emissions: jax.Array
    valid: jax.Array
    skips: jax.Array  # whether label n + 1 may follow label n at once

    def frame(self, t):
        """Emissions (B, W) and validity (B, 1) of one frame."""
        emission = lax.dynamic_index_in_dim(self.emissions, t, 1, keepdims=False)
        return emission, lax.dynamic_slice_in_dim(self.valid, t, 1, 1)

    def segment(self, s):
        """The frames around a segment, its first one among them, and how many it has."""
        frames = self.valid.shape[1]
        size = min(SEGMENT, frames)
        start = jnp.minimum(s * SEGMENT, frames - size)
        emissions = lax.dynamic_slice_in_dim(self.emissions, start, size, 1)
        valid = lax.dynamic_slice_in_dim(self.valid, start, size, 1)
        return Plan(emissions, valid, self.skips), s * SEGMENT - start, size - (s * SEGMENT - start)


def forward(logits, valid, labels, label_lengths, *, blank_id):
    """The loss: (B,)."""
    plan, _, usable = _plan(logits, valid, labels, blank_id)
    loss, *_ = _forward(plan, label_lengths, usable)
    return (loss,)


def saving(logits, valid, labels, label_lengths, *, blank_id):
    """The loss, and the posterior of the blank and of each label: (B, T, W)."""
    plan, _, usable = _plan(logits, valid, labels, blank_id)
    loss, adjoint, checkpoints = _forward(plan, label_lengths, usable)
    return (loss,), (_backward(plan, adjoint, checkpoints),)


def gradient(operands, saved, cotangents, wanted, *, blank_id):
    """Softmax minus what the posteriors give each class, times the cotangent."""
    del wanted
    logits, valid, labels, _ = operands
    (occupancy,), (weight,) = saved, cotangents
    rows, _, classes = logits.shape
    slots = _slots(of_rows(labels, rows), blank_id)
    x, largest, total = _softmax(logits)
    of_largest = -jnp.log(total)[:, :, None]
    # The slope of a class of probability near one, which keeps few digits of a difference, is
    # minus the sum of all others. The barriers keep XLA from storing (B, T, K) terms, which takes
    # longer than computing them again.
    log_probs = (x - lax.optimization_barrier(largest)[:, :, None]) + of_largest
    terms = jnp.exp(x + lax.optimization_barrier(-largest)[:, :, None])
    rest = jnp.sum(terms - jnp.floor(terms), 2)  # without those of the largest, which are 1
    unique = lax.optimization_barrier(total - rest < 1.5)
    counts = (jnp.sum(occupancy, 2) != 0) & (of_rows(valid, rows) != 0)
    weight = jnp.where(counts, weight[:, None], jnp.zeros_like(weight)[:, None])[:, :, None]
    if classes <= slots.shape[1]:
        hot = _one_hot(slots, classes, x.dtype)
        found = jnp.einsum("btw,bwk->btk", occupancy, hot, precision="highest")
        is_largest = (x == largest[:, :, None]) & unique[:, :, None]
        others = _sum_but(is_largest, found) - rest / total
        slope = jnp.where(is_largest, others[:, :, None], jnp.exp(log_probs) - found)
        slope = jnp.where(weight != 0, slope * weight, jnp.zeros_like(slope))
    else:
        # Each slot's class is set, twice alike where two slots have one class.
        same = (slots[:, :, None] == slots[:, None, :]).astype(x.dtype)
        found = jnp.einsum("btw,bwv->btv", occupancy, same, precision="highest")
        at_slots = jnp.take_along_axis(x, slots[:, None, :], 2, mode="clip") - largest[:, :, None]
        is_top = (at_slots == 0) & unique[:, :, None]
        others = _sum_but(is_top, occupancy) - rest / total
        values = (
            jnp.where(is_top, others[:, :, None], jnp.exp(at_slots + of_largest) - found) * weight
        )
        values = jnp.where(weight != 0, values, jnp.zeros_like(values))
        slope = jnp.where(weight != 0, jnp.exp(log_probs) * weight, jnp.zeros_like(x))
        slope = jax.vmap(lambda g, k, v: g.at[:, k].set(v, mode="promise_in_bounds"))(
            slope, slots, values
        )
    return (slope.astype(logits.dtype),)


def _sum_but(left_out, terms):
    return jnp.sum(jnp.where(left_out, jnp.zeros_like(terms), terms), 2)


# ---------------------------------------------------------------------- Emissions


def _softmax(logits):
    """Logits x, their largest, and the sum of e^(x - largest), in float32 or wider."""
    x = logits.astype(jnp.float64 if logits.dtype == jnp.float64 else jnp.float32)
    largest = jnp.max(x, 2)
    largest = jnp.where(jnp.isneginf(largest), jnp.zeros_like(largest), largest)
    return x, largest, jnp.sum(jnp.exp(x - largest[:, :, None]), 2)


def _plan(logits, valid, labels, blank_id):
    rows, _, classes = logits.shape
    valid, labels = of_rows(valid, rows) != 0, of_rows(labels, rows)
    slots = _slots(labels, blank_id)
    x, largest, total = _softmax(logits)
    log_total = jnp.log(total)

    def encoded(values):
        log_probs = (values - largest[:, :, None]) - log_total[:, :, None]
        found = jnp.where((total > 0)[:, :, None], _encode(log_probs), _scalar(ZERO, x))
        return jnp.where(valid[:, :, None], found, jnp.zeros_like(found))

    if classes <= slots.shape[1]:  # each sum has one term that is not zero, so it is exact
        hot = _one_hot(slots, classes, x.dtype)
        emissions = jnp.einsum("btk,bwk->btw", encoded(x), hot, precision="highest")
    else:
        emissions = encoded(jnp.take_along_axis(x, slots[:, None, :], 2, mode="clip"))
    differs = labels[:, 1:] != labels[:, :-1]
    skips = jnp.pad(differs, ((0, 0), (1, 1)), constant_values=True)[:, : slots.shape[1]]
    broken = valid & ~(jnp.isfinite(total) & jnp.isfinite(largest))
    return Plan(emissions, valid, skips), slots, ~jnp.any(broken, 1)


def _slots(labels, blank_id):
    return jnp.pad(labels, ((0, 0), (1, 0)), constant_values=blank_id)


def _one_hot(slots, classes, dtype):
    return (slots[:, :, None] == jnp.arange(classes, dtype=slots.dtype)[None, None, :]).astype(
        dtype
    )


def _encode(log_probs):
    """Log p -> k + (m - 1), where p = m 2^k and 1 <= m < 2: cheap to take apart again."""
    log2 = log_probs * _scalar(1 / np.log(2), log_probs)
    k = jnp.floor(log2)
    encoded = k + (jnp.exp((log2 - k) * _scalar(np.log(2), log2)) - 1)
    return jnp.where(log2 >= SMALLEST, encoded, _scalar(ZERO, encoded))


def _mantissas(emission):
    m = emission - jnp.floor(emission) + 1
    return _by_state(jnp.where(emission >= SMALLEST, m, jnp.zeros_like(m)))


def _exponents(emission):
    return _by_state(jnp.floor(emission).astype(jnp.int32))


def _by_state(emission):
    """The blank's, for every n: (B, 1); and the labels': (B, W). There is no label 0: _enter."""
    return Pair(emission[:, :1], emission)


# ---------------------------------------------------------------------- Recursion


def _enter(blank, label, skips, nothing):
    """What label n is entered from, to the right by one: blank n - 1, with label n - 1 or not."""
    source = jnp.where(skips, label, blank)
    return lax.pad(source, _scalar(nothing, source), ((0, 0, 0), (1, -1, 0)))


def _leave(entered):
    """The other way, for the adjoint."""
    return lax.pad(entered, _scalar(0, entered), ((0, 0, 0), (-1, 1, 0)))


def _scales(plan, first, count, exponents, scales):
    """The exponents after a segment, and for each frame the two scales of its sums."""

    def step(r, carry):
        exponents, scales = carry
        emission, valid = plan.frame(first + r)
        e = _exponents(emission)
        both = jnp.maximum(exponents.blank, exponents.label)
        entering = _enter(exponents.blank, both, plan.skips, NEVER)
        found = Pair(
            _signed_scale(exponents.blank - exponents.label, valid, plan.emissions.dtype),
            _signed_scale(exponents.label - entering, valid, plan.emissions.dtype),
        )
        label = jnp.maximum(exponents.label, entering)
        exponents = Pair(
            jnp.where(valid, both, exponents.blank) + e.blank,
            jnp.where(valid, label, exponents.label) + e.label,
        )
        return exponents, _put(scales, found, r)

    return lax.fori_loop(0, count, step, (exponents, scales))


def _signed_scale(difference, valid, dtype):
    """2^-|d| > 0, negated where the first summand is the smaller; 0 leaves out the second."""
    _, _, bias = bits(dtype)
    scale = power(jnp.maximum(-jnp.abs(difference), 1 - bias), dtype)
    return jnp.where(valid, jnp.where(difference < 0, -scale, scale), jnp.zeros_like(scale))


def _first(scale):
    return jnp.where(scale < 0, -scale, jnp.ones_like(scale))


def _second(scale):
    return jnp.where(scale < 0, jnp.ones_like(scale), scale)


def _step(state, scale, emission, skips):
    """The linear recursion of the mantissas."""
    m = _mantissas(emission)
    both = state.blank * _first(scale.blank) + state.label * _second(scale.blank)
    entering = _enter(state.blank, both, skips, 0)
    label = state.label * _first(scale.label) + entering * _second(scale.label)
    return Pair(both * m.blank, label * m.label)


def _step_back(adjoint, scale, emission, skips):
    """Its transpose."""
    m = _mantissas(emission)
    label = adjoint.label * m.label
    entered = _leave(label * _second(scale.label))
    both = adjoint.blank * m.blank + jnp.where(skips, entered, jnp.zeros_like(entered))
    blank = both * _first(scale.blank) + jnp.where(skips, jnp.zeros_like(entered), entered)
    return Pair(blank, label * _first(scale.label) + both * _second(scale.blank))


def _forward(plan, label_lengths, usable):
    """The loss, the last mantissas' adjoint, and mantissas and exponents before each segment."""
    rows, frames, width = plan.emissions.shape
    dtype = plan.emissions.dtype
    segments = -(-frames // SEGMENT)
    scales = _room(rows, width, dtype)
    first = jnp.broadcast_to(jnp.arange(width)[None, :] == 0, (rows, width))
    mantissas = Pair(first.astype(dtype), jnp.zeros((rows, width), dtype))
    never = jnp.full((rows, width), NEVER, jnp.int32)
    exponents = Pair(jnp.where(first, jnp.zeros_like(never), never), never)

    def segment(carry, s):
        mantissas, exponents, offset, scales = carry
        begin, count = s * SEGMENT, jnp.minimum(SEGMENT, frames - s * SEGMENT)
        following, scales = _scales(plan, begin, count, exponents, scales)

        def step(r, state):
            emission, _ = plan.frame(begin + r)
            return _step(state, _get(scales, r), emission, plan.skips)

        after = lax.fori_loop(0, count, step, mantissas)
        blank, blank_exponent = normalised(after.blank, following.blank)
        label, label_exponent = normalised(after.label, following.label)
        pair, exps = Pair(blank, label), Pair(blank_exponent, label_exponent)
        top = jnp.max(jnp.maximum(exps.blank, exps.label).astype(dtype), 1).astype(jnp.int32)
        top = jnp.where(top > DROPPED, top, jnp.zeros_like(top))
        exps = Pair(*(lowered(e, top) for e in exps))
        return (pair, exps, offset + top.astype(dtype), scales), (mantissas, exponents)

    start = (mantissas, exponents, jnp.zeros(rows, dtype), scales)
    end, checkpoints = lax.scan(segment, start, jnp.arange(segments, dtype=jnp.int32))
    mantissas, exponents, offset, _ = end

    last = of_rows(label_lengths, rows)[:, None]
    m, e = (
        Pair(*(jnp.take_along_axis(a, last, 1, mode="clip") for a in pair))
        for pair in (mantissas, exponents)
    )
    exponent = jnp.maximum(e.blank, e.label)
    scale = Pair(power(e.blank - exponent, dtype), power(e.label - exponent, dtype))
    total = m.blank * scale.blank + m.label * scale.label
    possible = total > 0
    total = jnp.where(possible, total, jnp.ones_like(total))
    log2 = _scalar(np.log(2), total) * (offset[:, None] + exponent.astype(dtype))
    loss = jnp.maximum(-(jnp.log(total) + log2), _scalar(0, total))
    loss = jnp.where(possible, loss, jnp.full_like(loss, jnp.inf))[:, 0]
    at_last = (jnp.arange(width, dtype=last.dtype)[None, :] == last) & possible
    adjoint = Pair(*(jnp.where(at_last, a / total, jnp.zeros_like(total)) for a in scale))
    nan = jnp.full((), jnp.nan, dtype)
    adjoint = Pair(*(jnp.where(usable[:, None], a, nan) for a in adjoint))
    return jnp.where(usable, loss, nan), adjoint, checkpoints


def _backward(plan, adjoint, checkpoints):
    """The posteriors, (B, T, W), in place of the emissions."""
    rows, frames, width = plan.emissions.shape
    segments = -(-frames // SEGMENT)
    room = _room(rows, width, plan.emissions.dtype)
    is_blank = (jnp.arange(width) == 0)[None, :]

    def segment(i, carry):
        occupancy, adjoint, scales, states = carry
        s = segments - 1 - i
        near, begin, count = Plan(occupancy, plan.valid, plan.skips).segment(s)
        mantissas, exponents = jax.tree.map(
            lambda a: lax.dynamic_index_in_dim(a, s, keepdims=False), checkpoints
        )
        _, scales = _scales(near, begin, count, exponents, scales)

        def step(r, carry):
            state, states = carry
            emission, _ = near.frame(begin + r)
            state = _step(state, _get(scales, r), emission, plan.skips)
            return state, _put(states, state, r)

        state, states = lax.fori_loop(0, count, step, (mantissas, states))
        adjoint = Pair(*(a * inverse_power(m) for a, m in zip(adjoint, state, strict=True)))
        sums = jnp.sum(adjoint.blank * state.blank + adjoint.label * state.label, 1, keepdims=True)
        sums = jnp.where(sums == 0, jnp.ones_like(sums), sums)
        adjoint = Pair(adjoint.blank / sums, adjoint.label / sums)

        def back(j, carry):
            occupancy, adjoint = carry
            r = count - 1 - j
            state = _get(states, r)
            emission, valid = near.frame(begin + r)
            blank = jnp.sum(adjoint.blank * state.blank, 1, keepdims=True)
            row = jnp.where(is_blank, blank, adjoint.label * state.label)
            row = jnp.where(valid, row, jnp.zeros_like(row))
            adjoint = _step_back(adjoint, _get(scales, r), emission, plan.skips)
            return lax.dynamic_update_index_in_dim(occupancy, row, s * SEGMENT + r, 1), adjoint

        occupancy, adjoint = lax.fori_loop(0, count, back, (occupancy, adjoint))
        return occupancy, adjoint, scales, states

    carry = (plan.emissions, adjoint, room, room)
    return lax.fori_loop(0, segments, segment, carry)[0]


def _room(rows, width, dtype):
    return Pair(*(jnp.zeros((SEGMENT, rows, width), dtype) for _ in range(2)))


def _get(arrays, r):
    return Pair(*(lax.dynamic_index_in_dim(a, r, keepdims=False) for a in arrays))


def _put(arrays, values, r):
    updates = zip(arrays, values, strict=True)
    return Pair(*(lax.dynamic_update_index_in_dim(a, v, r, 0) for a, v in updates))


def _scalar(value, like):
    return jnp.asarray(value, like.dtype)


ctc_loss = Implementation(forward, gradient, saving=saving)
ctc_occupancy = Implementation(lambda *operands, **static: saving(*operands, **static)[1])
