"""The recursion over frames in Triton: from both ends at once to the middle frame, and back.

Pair j, 0 <= j <= N, holds the two states that have emitted j labels: ``phi``, in a blank after the
label j, and ``emit``, in the label j. With s_j = phi_j + emit_j a frame makes of them

    phi'_j = y(blank) s_j,    emit'_j = y(label j) (emit_j + (s or phi)_{j-1}),

where phi is for a label that repeats the one before. Read backwards, a sentence is a sentence
again: one program of a row, direction 0, goes through the first half of the valid frames, another
through the second half with frames and labels reversed (``advance``). Where they meet, the
probability of the labels is a sum over products of both (``meet``). From there each goes back
through its frames with the posterior probabilities of its states (``spread``).

- Each state is a mantissa and an integer exponent of its own: nothing underflows however long the
  utterance or poor the logits are, and no logarithm is taken.
- Emissions are gathered from the logits, relative to the largest logit of the frame. The
  normaliser, which all paths share, enters the loss at the end.
- Saved is the share of the smaller part in each of the two sums: the distribution of the state
  before, given that after. The posterior goes back along these: its sum stays one, so that it
  needs neither exponents nor emissions. It takes the shares' place in memory.
- Frames that are not valid are not in ``order``, so that the loops have no masks. What a direction
  lacks to whole blocks of frames precedes them as frames of which the blank is certain: they leave
  the state of the start as it is.

A program is a warp, or L / 32 of them for long labels. Its tensors have the axes (R, L) where R
stays in a thread: pair j is register j % R of lane j // R, so that all but one of a thread's
registers have their neighbour in the next register, and with one warp the last gets it by a
shuffle, without a barrier.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import triton
import triton.language as tl
from triton.language.extra import libdevice

# The exponent of zero. States that are not zero stay above -2**29.
_ZERO = tl.constexpr(-(2**30))
_BLOCK = tl.constexpr(256)


@triton.jit
def _power(d):
    """2^d for integers d <= 0; zero from -127 on."""
    return ((tl.maximum(d, -127) << 23) + 0x3F800000).to(tl.float32, bitcast=True)


@triton.jit
def _probability(x, top, LEAST: tl.constexpr):
    """e^(x - top) as mantissa in [0.7, 1.5] and exponent; zero below 2^LEAST."""
    d = x.to(tl.float32) - top
    # Adding 1.5 * 2^23 rounds to an integer, which the low bits then hold.
    rounded = d * 1.4426950408889634 + 12582912.0
    k = rounded - 12582912.0
    # log(2) in two parts: the product with the first is exact.
    r = (d - k * 0.693359375) + k * 2.1219444005469057e-4
    possible = rounded > LEAST + 12582912.0
    exponent = rounded.to(tl.int32, bitcast=True) - 0x4B400000
    mantissa = libdevice.fast_expf(r)
    return tl.where(possible, mantissa, 0.0), tl.where(possible, exponent, _ZERO)


@triton.jit
def _sum(am, ae, bm, be, SHARE: tl.constexpr):
    """The sum of a and b; and the share of the smaller in it, negative where that is a."""
    a = am * _power(tl.minimum(ae - be, 0))
    b = bm * _power(tl.minimum(be - ae, 0))
    share = a
    if SHARE:
        root = libdevice.rsqrt(tl.maximum(a + b, 1e-37))
        share = tl.minimum(a, b) * root * root
        share = tl.where(a < b, -share, share)
    return a + b, tl.maximum(ae, be), share


@triton.jit
def _shares(share):
    """The shares of both parts, each as precise as its size."""
    less = tl.abs(share)
    more = 1.0 - less
    first_is_less = share.to(tl.int32, bitcast=True) < 0
    return tl.where(first_is_less, less, more), tl.where(first_is_less, more, less)


@triton.jit
def _normal(m, e):
    """The same number with a mantissa in [1, 2)."""
    bits = m.to(tl.int32, bitcast=True) >> 23
    scaled = m * ((254 - bits) << 23).to(tl.float32, bitcast=True)
    return scaled, tl.maximum(e + (bits - 127), _ZERO)


@triton.jit
def _last_two(a, b, _, c, d, is_single):
    """Of the joined runs (.., a, b) and (.., c, d), the last two elements."""
    return tl.where(is_single, b, c), d, is_single & False


@triton.jit
def _from_left(bits, nothing, L: tl.constexpr, R: tl.constexpr):
    """Of integers, those one place before, and ``nothing`` at the first place."""
    lane = tl.arange(0, L)
    r = tl.arange(0, R)[:, None]
    # A sum of one register and zeros, and a scan of runs of one: the compiler knows the results.
    last = tl.sum(tl.where(r == R - 1, bits, 0), 0)
    moved = tl.where(lane == 0, nothing, tl.gather(last, tl.maximum(lane - 1, 0), 0))[None, :]
    if R > 1:
        single = tl.full((R, L), 1, tl.int1)
        before, _, _ = tl.associative_scan((bits, bits, single), 0, _last_two)
        moved = tl.where(r == 0, moved, before)
    return moved


@triton.jit
def _arrive(pm, pe, em, ee, skips, L: tl.constexpr, R: tl.constexpr, SHARE: tl.constexpr):
    """What the emissions multiply: s_j and emit_j + (s or phi)_{j-1}, with shares."""
    sm, se, own = _sum(pm, pe, em, ee, SHARE)
    sent_m = tl.where(skips, sm, pm).to(tl.int32, bitcast=True)
    sent_e = tl.where(skips, se, pe)
    if L == 32:
        left_m = _from_left(sent_m, 0, L, R)
        left_e = _from_left(sent_e, _ZERO, L, R)
    else:
        # Through shared memory, both at once for half of the barriers.
        sent = (sent_e.to(tl.int64) << 32) | (sent_m.to(tl.int64) & 0xFFFFFFFF)
        sent = _from_left(sent, _ZERO * 4294967296, L, R)
        left_m = sent.to(tl.int32)
        left_e = (sent >> 32).to(tl.int32)
    qm, qe, stayed = _sum(em, ee, left_m.to(tl.float32, bitcast=True), left_e, SHARE)
    return sm, se, qm, qe, own, stayed


@triton.jit
def _pairs(labels, length, direction, REVERSE: tl.constexpr, L: tl.constexpr, R: tl.constexpr):
    """Where pair j is among blanks and labels, whether it exists, and whether it skips on."""
    j = tl.arange(0, L)[None, :] * R + tl.arange(0, R)[:, None]
    if REVERSE:
        j = L * R - 1 - j
    inside = j <= length
    is_label = inside & (j >= 1)
    phi_at = tl.where(direction == 0, j, length - j)
    emit_at = tl.where(direction == 0, j, length - j + 1)
    following = tl.where(direction == 0, emit_at, emit_at - 2)
    label = tl.load(labels + (emit_at - 1), mask=is_label, other=0)
    next_label = tl.load(labels + following, mask=is_label & (j < length), other=-1)
    return j, inside, is_label, phi_at, emit_at, label, next_label != label


@triton.jit
def _frame(order, i, steps, half):
    """The frame of a step; -1 before the first and after the last."""
    place = i - steps + half
    return tl.load(order + place, mask=(place >= 0) & (i < steps), other=-1)


@triton.jit
def _list_frames(valid, log_sums, order, direction, T: tl.constexpr):
    """Write the valid frames in the direction's order; how many, and the sum of log_sums."""
    count = 0
    sums = tl.zeros((_BLOCK,), tl.float32)
    for start in range(0, T, _BLOCK):
        i = start + tl.arange(0, _BLOCK)
        t = tl.where(direction == 0, i, T - 1 - i)
        is_valid = tl.load(valid + t, mask=i < T, other=0) != 0
        ones = is_valid.to(tl.int32)
        tl.store(order + count + tl.cumsum(ones, 0) - 1, t, mask=is_valid)
        sums += tl.load(log_sums + t, mask=is_valid, other=0.0)
        count += tl.sum(ones, 0)
    return count, tl.sum(sums, 0)


@triton.jit
def _look_up(
    logits, top, order, label, is_label, first, steps, half,
    K: tl.constexpr, BLANK: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Of D frames: their numbers, largest logits, and the logits of the blank and the labels."""
    frames, tops, blanks, emissions = (), (), (), ()
    for k in tl.static_range(D):
        t = _frame(order, first + k, steps, half)
        frames = frames + (t,)
        tops = tops + (tl.load(top + t, mask=t >= 0, other=0.0),)
        blanks = blanks + (tl.load(logits + t * K + BLANK, mask=t >= 0, other=0.0),)
        places = logits + t * K + label
        emissions = emissions + (tl.load(places, mask=is_label & (t >= 0), other=float("-inf")),)
    return frames, tops, blanks, emissions


@triton.jit
def advance(
    logits, valid, labels, lengths, top, log_sums,
    blank_mass, label_mass, order, counts, sums, states,
    T: tl.constexpr, K: tl.constexpr, N: tl.constexpr, BLANK: tl.constexpr,
    ROWS_PER_VALID: tl.constexpr, ROWS_PER_LABEL: tl.constexpr, ROWS_PER_LENGTH: tl.constexpr,
    SAVE: tl.constexpr, LEAST: tl.constexpr, L: tl.constexpr, R: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """The states of a row after half of its frames; with SAVE the shares in each."""
    row = tl.program_id(0).to(tl.int64)
    direction = tl.program_id(1)
    program = row * 2 + direction
    order += program * T
    logits += row * T * K
    top += row * T
    blank_mass += row * T * (N + 1)
    label_mass += row * T * (N + 1)
    count, log_sum = _list_frames(
        valid + row // ROWS_PER_VALID * T, log_sums + row * T, order, direction, T
    )
    half = (count + 1 - direction) // 2
    tl.store(counts + program, half)
    tl.store(sums + program, log_sum)
    length = tl.load(lengths + row // ROWS_PER_LENGTH)
    j, inside, is_label, phi_at, emit_at, label, skips = _pairs(
        labels + row // ROWS_PER_LABEL * N, length, direction, False, L, R
    )
    tl.debug_barrier()  # the frames' list is read by other threads than wrote it

    pm = tl.where(j == 0, 1.0, 0.0)
    pe = tl.where(j == 0, 0, _ZERO)
    em = tl.zeros((R, L), tl.float32)
    ee = tl.full((R, L), _ZERO, tl.int32)
    blocks = tl.cdiv(half, D)
    steps = blocks * D
    here = _look_up(logits, top, order, label, is_label, 0, steps, half, K, BLANK, D)
    for block in range(blocks):
        ahead = _look_up(
            logits, top, order, label, is_label, (block + 1) * D, steps, half, K, BLANK, D
        )
        frames, tops, blanks, emissions = here
        for k in tl.static_range(D):
            sm, se, qm, qe, own, stayed = _arrive(pm, pe, em, ee, skips, L, R, SAVE)
            if SAVE:
                t = frames[k]
                phi_places = blank_mass + t * (N + 1) + phi_at
                emit_places = label_mass + t * (N + 1) + emit_at
                tl.store(phi_places, own, mask=inside & (t >= 0))
                tl.store(emit_places, stayed, mask=is_label & (t >= 0))
            bm, be = _probability(blanks[k], tops[k], LEAST)
            ym, ye = _probability(emissions[k], tops[k], LEAST)
            pm = sm * bm
            pe = tl.maximum(se + be, _ZERO)
            em = qm * ym
            ee = tl.maximum(qe + ye, _ZERO)
        # A frame grows mantissas by less than 2^3, and never shrinks the largest by more than 2.
        pm, pe = _normal(pm, pe)
        em, ee = _normal(em, ee)
        here = ahead

    sm, se, qm, qe, own, stayed = _arrive(pm, pe, em, ee, skips, L, R, False)
    # Pair j is in column j of the eight rows of its states and of what would arrive.
    places = states + program * (8 * (N + 1)) + j
    present = j <= N
    tl.store(places, pm.to(tl.int32, bitcast=True), mask=present)
    tl.store(places + (N + 1), pe, mask=present)
    tl.store(places + 2 * (N + 1), em.to(tl.int32, bitcast=True), mask=present)
    tl.store(places + 3 * (N + 1), ee, mask=present)
    tl.store(places + 4 * (N + 1), sm.to(tl.int32, bitcast=True), mask=present)
    tl.store(places + 5 * (N + 1), se, mask=present)
    tl.store(places + 6 * (N + 1), qm.to(tl.int32, bitcast=True), mask=present)
    tl.store(places + 7 * (N + 1), qe, mask=present)


@triton.jit
def _product(mine, other, mask, W: tl.constexpr):
    """Of two numbers, mantissas in a row and exponents in the next."""
    m = tl.load(mine, mask=mask, other=0).to(tl.float32, bitcast=True)
    m *= tl.load(other, mask=mask, other=0).to(tl.float32, bitcast=True)
    e = tl.load(mine + W, mask=mask, other=_ZERO) + tl.load(other + W, mask=mask, other=_ZERO)
    return m, tl.where(m > 0.0, e, 2 * _ZERO)


@triton.jit
def meet(
    states, sums, lengths, loss, start,
    N: tl.constexpr, ROWS_PER_LENGTH: tl.constexpr, SAVE: tl.constexpr, S: tl.constexpr,
):  # fmt: skip
    """The loss of a row, and with SAVE the posterior of the states of a direction's last frame."""
    W: tl.constexpr = N + 1
    row = tl.program_id(0).to(tl.int64)
    direction = tl.program_id(1)
    length = tl.load(lengths + row // ROWS_PER_LENGTH)
    j = tl.arange(0, S)
    mine = states + (row * 2 + direction) * (8 * W) + j
    # Pair length - j of the other direction has the labels that pair j has not.
    other = states + (row * 2 + 1 - direction) * (8 * W) + 4 * W + (length - j)
    phi, phi_e = _product(mine, other, j <= length, W)
    emit, emit_e = _product(mine + 2 * W, other + (2 * W + 1), (j <= length) & (j >= 1), W)
    largest = tl.max(tl.maximum(phi_e, emit_e), 0)
    phi *= _power(phi_e - largest)
    emit *= _power(emit_e - largest)
    total = tl.sum(phi + emit, 0)
    # NaN or infinity among the logits of a valid frame is NaN in their log sum.
    log_sum = tl.load(sums + row * 2)
    poison = 0.0 * log_sum
    if direction == 0:
        log_total = tl.log(tl.maximum(total, 1e-37)) + largest.to(tl.float32) * 0.6931471805599453
        value = tl.where(total > 0.0, tl.maximum(log_sum - log_total, 0.0), float("inf"))
        tl.store(loss + row, value + poison)
    if SAVE:
        scale = tl.where(total > 0.0, 1.0 / tl.maximum(total, 1e-37), 0.0) + poison
        start += (row * 2 + direction) * (2 * W)
        phi_at = tl.where(direction == 0, j, length - j)
        tl.store(start + phi_at, phi * scale, mask=j <= length)
        tl.store(start + W + direction + phi_at, emit * scale, mask=(j <= length) & (j >= 1))


@triton.jit
def _load_shares(
    blank_mass, label_mass, order, phi_at, emit_at, inside, is_label, first, steps, half,
    W: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    frames, own, stayed = (), (), ()
    for k in tl.static_range(D):
        t = _frame(order, first - k, steps, half)
        frames = frames + (t,)
        phi_places = blank_mass + t * W + phi_at
        emit_places = label_mass + t * W + emit_at
        own = own + (tl.load(phi_places, mask=inside & (t >= 0), other=0.0),)
        stayed = stayed + (tl.load(emit_places, mask=is_label & (t >= 0), other=0.0),)
    return frames, own, stayed


@triton.jit
def spread(
    blank_shares, label_shares, order, counts, start, labels, lengths, blank_mass, label_mass,
    T: tl.constexpr, N: tl.constexpr, ROWS_PER_LABEL: tl.constexpr, ROWS_PER_LENGTH: tl.constexpr,
    L: tl.constexpr, R: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Posterior probabilities of all states, from the middle frame outwards, for the shares."""
    W: tl.constexpr = N + 1
    row = tl.program_id(0).to(tl.int64)
    direction = tl.program_id(1)
    program = row * 2 + direction
    order += program * T
    blank_mass += row * T * W
    label_mass += row * T * W
    half = tl.load(counts + program)
    length = tl.load(lengths + row // ROWS_PER_LENGTH)
    # What leaves pair j comes to pair j - 1: the pairs are held in reverse.
    _, inside, is_label, phi_at, emit_at, _, skips = _pairs(
        labels + row // ROWS_PER_LABEL * N, length, direction, True, L, R
    )
    start += program * (2 * W)
    phi = tl.load(start + phi_at, mask=inside, other=0.0)
    emit = tl.load(start + W + emit_at, mask=is_label, other=0.0)
    blocks = tl.cdiv(half, D)
    steps = blocks * D
    here = _load_shares(
        blank_mass, label_mass, order, phi_at, emit_at, inside, is_label, steps - 1, steps, half,
        W, D,
    )  # fmt: skip
    for block in range(blocks):
        ahead = _load_shares(
            blank_mass, label_mass, order, phi_at, emit_at, inside, is_label,
            steps - 1 - (block + 1) * D, steps, half, W, D,
        )  # fmt: skip
        frames, own, stayed = here
        for k in tl.static_range(D):
            t = frames[k]
            tl.store(blank_mass + t * W + phi_at, phi, mask=inside & (t >= 0))
            tl.store(label_mass + t * W + emit_at, emit, mask=is_label & (t >= 0))
            stays, leaves = _shares(stayed[k])
            left = (leaves * emit).to(tl.int32, bitcast=True)
            came = _from_left(left, 0, L, R).to(tl.float32, bitcast=True)
            both = phi + tl.where(skips, came, 0.0)
            from_phi, from_emit = _shares(own[k])
            phi = from_phi * both + tl.where(skips, 0.0, came)
            emit = from_emit * both + stays * emit
        here = ahead
