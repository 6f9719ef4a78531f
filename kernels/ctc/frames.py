"""The CTC kernels in Triton that take each frame for itself: normalisers, occupancy, gradient.

The gradient's scatter is deterministic, without atomics: the softmax of all classes is written
first, then the classes of labels once more, each by the first position that has the class, which
adds up the occupancies of the others. They are linked in a list per row, made once.

A label's class that has more than half of the probability gets the negative sum of the other
gradients: near convergence both terms of its own difference are almost one.

Axes: F frames of a program, K classes, N labels.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import triton
import triton.language as tl
from triton.language.extra import libdevice


@triton.jit
def _largest_and_others(places, present, K: tl.constexpr, F: tl.constexpr, BLOCK: tl.constexpr):
    """The largest logit of each frame, and the sum of e^(x - largest) of all classes but it."""
    top = tl.full((F,), float("-inf"), tl.float32)
    others = tl.zeros((F,), tl.float32)
    column = tl.arange(0, BLOCK)
    for start in range(0, K, BLOCK):
        mask = present[:, None] & (start + column < K)[None, :]
        x = tl.load(places[:, None] + (start + column)[None, :], mask=mask, other=float("-inf"))
        x = x.to(tl.float32)
        block_top, block_class = tl.max(x, 1, return_indices=True)
        largest = tl.maximum(top, block_top)
        finite = tl.where(largest > float("-inf"), largest, 0.0)
        e = tl.exp(x - finite[:, None])
        # Where the maximum names a NaN, or has passed it over, none is the largest: the NaN stays.
        is_top = (column[None, :] == block_class[:, None]) & (x == block_top[:, None])
        e = tl.where(is_top, 0.0, e)
        # One of the two that were the largest is one of the others now.
        one = tl.exp(tl.minimum(top, block_top) - finite)
        others = others * tl.exp(top - finite) + tl.sum(e, 1) + one
        top = largest
    return tl.where(top > float("-inf"), top, 0.0), others


@triton.jit
def normalise(
    logits, valid, top, others, log_sums,
    T: tl.constexpr, K: tl.constexpr, ROWS_PER_VALID: tl.constexpr, BLOCKS: tl.constexpr,
    F: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Largest logit of each valid frame; sum of e^(x - largest) of the others; log of the whole."""
    row = (tl.program_id(0) // BLOCKS).to(tl.int64)
    t = (tl.program_id(0) % BLOCKS) * F + tl.arange(0, F)
    is_valid = tl.load(valid + row // ROWS_PER_VALID * T + t, mask=t < T, other=0) != 0
    largest, rest = _largest_and_others(
        logits + row * T * K + t * K, is_valid & (t < T), K, F, BLOCK_K
    )
    tl.store(top + row * T + t, largest, mask=t < T)
    # NaN where the largest is infinite.
    rest += 0.0 * largest
    tl.store(others + row * T + t, rest, mask=t < T)
    tl.store(log_sums + row * T + t, libdevice.log1p(rest), mask=t < T)


@triton.jit
def finish(
    blank_mass, label_mass, valid, lengths, occupancy,
    T: tl.constexpr, N: tl.constexpr, ROWS_PER_VALID: tl.constexpr, ROWS_PER_LENGTH: tl.constexpr,
    BLOCKS: tl.constexpr, F: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Occupancies from posteriors: one column for all blanks, and a sum of one in each frame."""
    row = (tl.program_id(0) // BLOCKS).to(tl.int64)
    t = (tl.program_id(0) % BLOCKS) * F + tl.arange(0, F)
    n = tl.arange(0, COLUMNS)[None, :]
    length = tl.load(lengths + row // ROWS_PER_LENGTH)
    is_valid = tl.load(valid + row // ROWS_PER_VALID * T + t, mask=t < T, other=0) != 0
    places = row * T * (N + 1) + (t * (N + 1))[:, None] + n
    known = (is_valid & (t < T))[:, None] & (n <= length)
    blanks = tl.load(blank_mass + places, mask=known, other=0.0)
    labels = tl.load(label_mass + places, mask=known & (n >= 1), other=0.0)
    blank = tl.sum(blanks, 1)
    total = blank + tl.sum(labels, 1)
    scale = tl.where(total == 0.0, 0.0, 1.0 / total)  # NaN stays
    y = tl.where(n == 0, blank[:, None], labels) * scale[:, None]
    tl.store(occupancy + places, y, mask=(t < T)[:, None] & (n <= N))


@triton.jit
def softmax_less_occupancy(
    logits, classes, links, occupancy, top, others, cotangent, out,
    T: tl.constexpr, K: tl.constexpr, N: tl.constexpr, ROWS_PER_LABEL: tl.constexpr,
    BLOCKS: tl.constexpr, F: tl.constexpr, BLOCK_K: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Cotangent times (softmax - occupancy of each class); zero where nothing is occupied."""
    row = (tl.program_id(0) // BLOCKS).to(tl.int64)
    t = (tl.program_id(0) % BLOCKS) * F + tl.arange(0, F)
    classes += row // ROWS_PER_LABEL * (N + 1)
    links += row // ROWS_PER_LABEL * (N + 1)
    occupied = occupancy + row * T * (N + 1) + (t * (N + 1))[:, None]
    n = tl.arange(0, COLUMNS)[None, :]
    own = tl.load(occupied + n, mask=(t < T)[:, None] & (n <= N), other=0.0)
    live = (t < T) & ~(tl.sum(own, 1) == 0.0)
    places = logits + row * T * K + t * K
    results = out + row * T * K + t * K
    largest = tl.load(top + row * T + t, mask=live, other=0.0)
    rest = tl.load(others + row * T + t, mask=live, other=0.0)
    weight = tl.load(cotangent + row).to(tl.float32)
    most = 1.0 / (1.0 + rest)  # the probability of the largest
    for start in range(0, K, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)[None, :]
        x = tl.load(places[:, None] + k, mask=live[:, None] & (k < K), other=0.0)
        p = tl.exp(x.to(tl.float32) - largest[:, None]) * most[:, None]
        p = tl.where(live[:, None], p * weight, 0.0)
        tl.store(results[:, None] + k, p.to(out.dtype.element_ty), mask=(t < T)[:, None] & (k < K))
    tl.debug_barrier()  # other threads than these write to some of the same places now

    inside = n <= N
    mine = tl.load(classes + n, mask=inside, other=0)
    link = tl.load(links + n, mask=inside, other=-1)
    is_first = link >= 0
    following = tl.maximum(link, 0)
    total = own
    while tl.max(tl.max(following, 1), 0) > 0:
        more = following > 0
        total += tl.load(occupied + following, mask=live[:, None] & more, other=0.0)
        following = tl.where(more, -1 - tl.load(links + following, mask=more, other=-1), 0)
    wanted = live[:, None] & is_first
    x = tl.load(places[:, None] + mine, mask=wanted, other=0.0)
    p = tl.exp(x.to(tl.float32) - largest[:, None]) * most[:, None]
    is_top = wanted & (x.to(tl.float32) == largest[:, None]) & (most > 0.5)[:, None]
    top_class = tl.max(tl.where(is_top, mine, -1), 1)
    elsewhere = tl.sum(tl.where(mine == top_class[:, None], 0.0, own), 1)
    g = tl.where(is_top, (elsewhere - rest * most)[:, None], p - total) * weight
    tl.store(results[:, None] + mine, g.to(out.dtype.element_ty), mask=wanted)
