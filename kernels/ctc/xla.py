"""CTC in plain XLA: no exponential or logarithm in the recursion, memory for the posteriors alone.

The mathematics is in the README. Every state is a mantissa and an integer exponent. Along each
segment of frames the exponents go first, by maxima and sums of integers; mantissas then follow a
linear recursion whose coefficients are powers of two. The backward pass is its adjoint, and
recomputes one segment at a time. It writes posteriors over the emissions that it has read.

The loops are written so that XLA's code for a CPU is one function each way (``one_kernel``), and
vectorised. An array that one step reads at two places would prevent that, hence the blank's
emission beside those of the labels; and so would an index that might be negative, hence ``_slice``.

Axes: B rows, T frames, R frames of a segment, K classes, N labels, W = N + 1 slots: slot n is label
n and the blank after it; slot 0 is the blank before the first label, and a label never reached.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kernels import one_kernel
from kernels.ctc import emissions
from kernels.ctc.exponents import (
    DROPPED,
    NEVER,
    SMALLEST,
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
    """What both passes need: encoded emissions (B, T) and (B, T, W), valid (B, T), skips (B, W)."""

    blank: jax.Array
    labels: jax.Array
    valid: jax.Array
    skips: jax.Array  # whether label n + 1 may follow label n at once

    def emission(self, t):
        """Of one frame: the blank's (B, 1), and the labels'."""
        return Pair(_at(self.blank, 1, t)[:, None], _at(self.labels, 1, t))

    def segment(self, s):
        """The frames around a segment, its first one among them, and how many it has."""
        frames = self.valid.shape[1]
        size = min(SEGMENT, frames)
        start = jnp.minimum(s * SEGMENT, frames - size)
        blank, labels, valid = (_slice(a, 1, start, size) for a in self[:3])
        return (
            Plan(blank, labels, valid, self.skips),
            s * SEGMENT - start,
            size - (s * SEGMENT - start),
        )


def forward(logits, valid, labels, label_lengths, *, blank_id):
    """The loss: (B,)."""
    plan, usable, _ = _plan(logits, valid, labels, blank_id)
    loss, *_ = _forward(plan, label_lengths, usable)
    return (loss,)


def saving(logits, valid, labels, label_lengths, *, blank_id):
    """The loss; and for its gradient posteriors, (B, T, W), and the softmax.

    The posteriors are without those of classes that dominate their frame. The softmax of an
    impossible row is that of nothing.
    """
    plan, usable, softmax = _plan(logits, valid, labels, blank_id)
    loss, adjoint, checkpoints = _forward(plan, label_lengths, usable)
    posteriors = _backward(plan, adjoint, checkpoints, without_dominating=True)
    nothing = jnp.full_like(softmax.others, -1)
    others = jnp.where(jnp.isposinf(loss)[:, None], nothing, softmax.others)
    return (loss,), (posteriors, softmax.largest, others)


def gradient(operands, saved, cotangents, wanted, *, blank_id):
    """Softmax minus what the posteriors give each class, times the cotangent."""
    del wanted
    logits, valid, labels, _ = operands
    (posteriors, *softmax), (weight,) = saved, cotangents
    softmax = emissions.Softmax(*softmax)
    rows = logits.shape[0]
    counts = (softmax.others != -1) & (of_rows(valid, rows) != 0)
    slope = emissions.gradient(
        emissions.widened(logits),
        softmax,
        posteriors,
        _slots(of_rows(labels, rows), blank_id),
        jnp.where(counts, weight[:, None], jnp.zeros_like(weight)[:, None]),
    )
    return (slope.astype(logits.dtype),)


def occupancy(logits, valid, labels, label_lengths, *, blank_id):
    """The posterior of the blank and of each label, (B, T, W)."""
    plan, usable, _ = _plan(logits, valid, labels, blank_id)
    _, adjoint, checkpoints = _forward(plan, label_lengths, usable)
    return (_backward(plan, adjoint, checkpoints, without_dominating=False),)


def _plan(logits, valid, labels, blank_id):
    rows = logits.shape[0]
    valid, labels = one_kernel.computed(of_rows(valid, rows) != 0), of_rows(labels, rows)
    slots, x = _slots(labels, blank_id), emissions.widened(logits)
    softmax = emissions.softmax(x)
    differs = labels[:, 1:] != labels[:, :-1]
    skips = jnp.pad(differs, ((0, 0), (1, 1)), constant_values=True)[:, : slots.shape[1]]
    skips = one_kernel.computed(skips)
    broken = valid & ~(jnp.isfinite(softmax.others) & jnp.isfinite(softmax.largest))
    plan = Plan(*emissions.encoded(x, softmax, valid, slots), valid, skips)
    return plan, ~jnp.any(broken, 1), softmax


def _slots(labels, blank_id):
    return jnp.pad(labels, ((0, 0), (1, 0)), constant_values=blank_id)


def _mantissa(emission):
    m = emission - jnp.floor(emission) + 1
    return jnp.where(emission >= SMALLEST, m, jnp.zeros_like(m))


def _exponent(emission):
    return jnp.floor(emission).astype(jnp.int32)


# ---------------------------------------------------------------------- Recursion


def _enter(blank, label, skips, nothing):
    """What label n is entered from, to the right by one: blank n - 1, with label n - 1 or not."""
    source = jnp.where(skips, label, blank)
    return lax.pad(source, _scalar(nothing, source), ((0, 0, 0), (1, -1, 0)))


def _leave(entered):
    """The other way, for the adjoint."""
    return lax.pad(entered, _scalar(0, entered), ((0, 0, 0), (-1, 1, 0)))


def _gaps(plan, first, count, exponents, gaps):
    """The exponents after a segment, and for each frame the gaps between those that it adds up."""

    def step(r, carry):
        exponents, gaps = carry
        emission, valid = plan.emission(first + r), _at(plan.valid, 1, first + r)[:, None]
        both = jnp.maximum(exponents.blank, exponents.label)
        entering = _enter(exponents.blank, both, plan.skips, NEVER)
        gap = Pair(
            _gap(exponents.blank - exponents.label, valid, plan.labels.dtype),
            _gap(exponents.label - entering, valid, plan.labels.dtype),
        )
        label = jnp.maximum(exponents.label, entering)
        exponents = Pair(
            jnp.where(valid, both, exponents.blank) + _exponent(emission.blank),
            jnp.where(valid, label, exponents.label) + _exponent(emission.label),
        )
        return exponents, _put(gaps, gap, r)

    return lax.fori_loop(0, count, step, (exponents, gaps))


def _gap(difference, valid, dtype):
    """Of two summands' exponents, as an integer that takes little room; the highest, if padded."""
    _, _, most = bits(dtype)
    return jnp.where(valid, jnp.clip(difference, -most, most), most).astype(_gap_dtype(dtype))


def _gap_dtype(dtype):
    return jnp.int16 if dtype == jnp.float64 else jnp.int8


def _scale_of_first(gap):
    """What the first of two summands is multiplied by, a power of two: 1 if it is the larger."""
    return power(jnp.minimum(gap.astype(jnp.int32), 0), _float(gap))


def _scale_of_second(gap):
    return power(-jnp.maximum(gap.astype(jnp.int32), 0), _float(gap))


def _float(gap):
    return jnp.float64 if gap.dtype == jnp.int16 else jnp.float32


def _step(state, gap, emission, skips):
    """The linear recursion of the mantissas."""
    both = state.blank * _scale_of_first(gap.blank) + state.label * _scale_of_second(gap.blank)
    entering = _enter(state.blank, both, skips, 0)
    label = state.label * _scale_of_first(gap.label) + entering * _scale_of_second(gap.label)
    return Pair(both * _mantissa(emission.blank), label * _mantissa(emission.label))


def _step_back(adjoint, gap, emission, skips):
    """Its transpose."""
    label = adjoint.label * _mantissa(emission.label)
    entered = _leave(label * _scale_of_second(gap.label))
    both = adjoint.blank * _mantissa(emission.blank) + jnp.where(
        skips, entered, jnp.zeros_like(entered)
    )
    blank = both * _scale_of_first(gap.blank) + jnp.where(skips, jnp.zeros_like(entered), entered)
    return Pair(blank, label * _scale_of_first(gap.label) + both * _scale_of_second(gap.blank))


def _forward(plan, label_lengths, usable):
    """The loss, the last mantissas' adjoint, and mantissas and exponents before each segment."""
    rows, _, width = plan.labels.shape
    dtype = plan.labels.dtype
    first = jnp.broadcast_to(jnp.arange(width)[None, :] == 0, (rows, width))
    mantissas = Pair(first.astype(dtype), jnp.zeros((rows, width), dtype))
    never = jnp.full((rows, width), NEVER, jnp.int32)
    exponents = Pair(jnp.where(first, jnp.zeros_like(never), never), never)

    mantissas, exponents, offset, checkpoints = _segments(plan, mantissas, exponents)

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


def _segments(plan, mantissas, exponents):
    """Mantissas, exponents and offset after all frames; the first two before each segment."""
    rows, frames, width = plan.labels.shape
    dtype = plan.labels.dtype
    segments = -(-frames // SEGMENT)

    def segment(s, carry, plan):
        mantissas, exponents, offset, gaps, checkpoints = carry
        checkpoints = jax.tree.map(
            lambda a, value: _written(a, 0, s, value), checkpoints, (mantissas, exponents)
        )
        begin, count = s * SEGMENT, jnp.minimum(SEGMENT, frames - s * SEGMENT)
        following, gaps = _gaps(plan, begin, count, exponents, gaps)

        def step(r, state):
            return _step(state, _get(gaps, r), plan.emission(begin + r), plan.skips)

        after = lax.fori_loop(0, count, step, mantissas)
        blank, blank_exponent = normalised(after.blank, following.blank)
        label, label_exponent = normalised(after.label, following.label)
        tops = one_kernel.pair_reduced(blank_exponent, label_exponent, jnp.maximum, NEVER)
        top = jnp.maximum(*tops)
        top = jnp.where(top > DROPPED, top, jnp.zeros_like(top))
        exponents = Pair(lowered(blank_exponent, top), lowered(label_exponent, top))
        return Pair(blank, label), exponents, offset + top.astype(dtype), gaps, checkpoints

    def room(like):
        return jnp.zeros((segments, *like.shape), like.dtype)

    carry = (mantissas, exponents, jnp.zeros(rows, dtype), _room(rows, width, _gap_dtype(dtype)))
    carry = (*carry, jax.tree.map(room, (mantissas, exponents)))
    mantissas, exponents, offset, _, checkpoints = one_kernel.fori_loop(
        segments, segment, carry, plan, step_bytes=_step_bytes(plan)
    )
    return mantissas, exponents, offset, checkpoints


def _backward(plan, adjoint, checkpoints, *, without_dominating):
    """The posterior of the blank and of each label, (B, T, W); 0 for what dominates, if wanted."""
    rows, frames, width = plan.labels.shape
    segments = -(-frames // SEGMENT)
    dtype = plan.labels.dtype
    room, small = (_room(rows, width, d) for d in (dtype, _gap_dtype(dtype)))
    is_blank = jnp.arange(width)[None, :] == 0

    def segment(i, carry, plan, checkpoints):
        occupancy, adjoint, gaps, states = carry
        s = segments - 1 - i
        near, begin, count = Plan(plan.blank, occupancy, plan.valid, plan.skips).segment(s)
        mantissas, exponents = jax.tree.map(lambda a: _at(a, 0, s), checkpoints)
        _, gaps = _gaps(near, begin, count, exponents, gaps)

        def step(r, carry):
            state, states = carry
            state = _step(state, _get(gaps, r), near.emission(begin + r), plan.skips)
            return state, _put(states, state, r)

        state, states = lax.fori_loop(0, count, step, (mantissas, states))
        adjoint = Pair(*(a * inverse_power(m) for a, m in zip(adjoint, state, strict=True)))

        def back(j, carry):
            occupancy, adjoint = carry
            r = count - 1 - j
            state, valid = _get(states, r), _at(near.valid, 1, begin + r)
            label = adjoint.label * state.label
            sums = one_kernel.pair_reduced(adjoint.blank * state.blank, label, jnp.add, 0)
            counts = valid & (sum(sums) != 0)
            share = jnp.where(counts, 1 / sum(sums), jnp.zeros_like(sums[0]))
            emission = near.emission(begin + r)
            masses = Pair(sums[0][:, None], label)
            if without_dominating:
                masses = Pair(*map(_unless_dominating, masses, emission))
            posterior = jnp.where(is_blank, masses.blank, masses.label) * share[:, None]
            occupancy = _written(occupancy, 1, s * SEGMENT + r, posterior)
            return occupancy, _step_back(adjoint, _get(gaps, r), emission, plan.skips)

        occupancy, adjoint = lax.fori_loop(0, count, back, (occupancy, adjoint))
        return occupancy, adjoint, gaps, states

    carry = (plan.labels, adjoint, small, room)
    occupancy, *_ = one_kernel.fori_loop(
        segments,
        segment,
        carry,
        plan._replace(labels=None),
        checkpoints,
        step_bytes=_step_bytes(plan),
    )
    return occupancy


def _unless_dominating(posterior, emission):
    return jnp.where(emissions.dominates(emission), jnp.zeros_like(posterior), posterior)


def _step_bytes(plan):
    """Of one frame; none without labels, where XLA simplifies the loop beyond recognition."""
    rows, _, width = plan.labels.shape
    return rows * width * plan.labels.dtype.itemsize if width > 1 else 0


def _room(rows, width, dtype):
    return Pair(*(jnp.zeros((SEGMENT, rows, width), dtype) for _ in range(2)))


def _get(arrays, r):
    return Pair(*(_at(a, 0, r) for a in arrays))


def _put(arrays, values, r):
    return Pair(*(_written(a, 0, r, v) for a, v in zip(arrays, values, strict=True)))


def _at(array, axis, i):
    """Element i >= 0 of an axis."""
    return lax.squeeze(_slice(array, axis, i, 1), (axis,))


def _written(array, axis, i, values):
    """The array with element i >= 0 of an axis replaced."""
    start = [jnp.int32(i if a == axis else 0) for a in range(array.ndim)]
    values = lax.expand_dims(values, (axis,))
    return lax.dynamic_update_slice(array, values, start, allow_negative_indices=False)


def _slice(array, axis, start, size):
    """Elements of an axis from start >= 0 on."""
    starts = [jnp.int32(start if a == axis else 0) for a in range(array.ndim)]
    sizes = [size if a == axis else length for a, length in enumerate(array.shape)]
    return lax.dynamic_slice(array, starts, sizes, allow_negative_indices=False)


def _scalar(value, like):
    return jnp.asarray(value, like.dtype)


ctc_loss = Implementation(forward, gradient, saving=saving)
ctc_occupancy = Implementation(occupancy)
