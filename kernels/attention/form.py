"""What a launch of attention is compiled for: sizes, strides, which operands there are, constants.

One hashable object is the constant of every kernel; kernels read its attributes as they would read
parameters. All of it is known when the launch is lowered, so that loads are wide and what a call
does not have costs nothing.

Axes: B rows, T queries, S keys, K key heads, G query heads of each, N = K G, H dimensions of a
head, R = T + S - 1 offsets, b rows of an operand.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

from kernels.attention import dropout
from kernels.attention.operands import Operands, taps_before
from kernels.configurations import round_up

_LOG2_E = math.log2(math.e)
# The least side of a product on the matrix units.
LEAST = 16


@dataclass(frozen=True)
class Rows:
    """How many rows of the queries share a row of an operand, B / b; 0 where there is none."""

    key: int = 1
    value: int = 1
    bias: int = 0
    offset_bias: int = 0
    position_key: int = 0
    mask: int = 0
    query_lengths: int = 0
    key_lengths: int = 0
    query_segments: int = 0
    key_segments: int = 0
    dropout_seeds: int = 0
    key_filter: int = 0


@dataclass(frozen=True)
class Strides:
    """Of (b, 1 or N, 1 or T, 1 or S): elements to the next; 0 along an axis that serves all."""

    row: int = 0
    head: int = 0
    query: int = 0
    key: int = 0


@dataclass(frozen=True)
class Form:
    """One form of attention at one size.

    Attributes:
        rows: B.
        queries: T.
        keys: S.
        key_heads: K.
        group: G.
        width: H.
        dtype: of the queries.
        per: rows of each operand.
        bias: strides.
        mask: strides.
        offset_heads: heads of the offset bias, 1 or N.
        scale: of the products.
        left: keys before a query that it sees; ``None`` for all.
        right: keys after it; the causal order is 0.
        cap: soft cap of the scores, or ``None``.
        threshold: a random word below it drops a probability.
        keep: the probability of being kept.
        taps: of the filter that keys pass through, 0 without one.
        before: how many of them come before the key.
    """

    rows: int
    queries: int
    keys: int
    key_heads: int
    group: int
    width: int
    dtype: str = "float32"
    per: Rows = Rows()
    bias: Strides = Strides()
    mask: Strides = Strides()
    offset_heads: int = 1
    scale: float = 1.0
    left: int | None = None
    right: int | None = None
    cap: float | None = None
    threshold: int = 0
    keep: float = 1.0
    taps: int = 0
    before: int = 0

    @property
    def heads(self) -> int:
        """N."""
        return self.key_heads * self.group

    @property
    def padded(self) -> int:
        """H as tiles have it: a power of two."""
        return max(LEAST, round_up(self.width))

    @property
    def query_stride(self) -> int:
        """From a query to the next, and from the position key of an offset to the next."""
        return self.heads * self.width

    @property
    def key_stride(self) -> int:
        """From a key to the next."""
        return self.key_heads * self.width

    @property
    def offsets(self) -> int:
        """R."""
        return self.queries + self.keys - 1

    @property
    def offsets_row(self) -> int:
        """From a row of the offset bias to the next."""
        return self.offset_heads * self.offsets

    @property
    def offsets_head(self) -> int:
        """From a head of the offset bias to the next."""
        return 0 if self.offset_heads == 1 else self.offsets

    @property
    def is_plain(self) -> bool:
        """Whether nothing comes between products and exponentials.

        Then one multiply-add both scales a score and subtracts the maximum, unless the scale turns
        the order around.
        """
        return not (self.per.bias or self.per.offset_bias) and self.cap is None and self.scale > 0

    @property
    def base(self) -> float:
        """Logits are natural ones times this.

        In base 2 the exponential needs no product of its own. In float32 its rounding would show:
        the difference from the residual is small where it matters, and is multiplied after.
        """
        return 1.0 if self.dtype == "float32" else _LOG2_E

    @property
    def power(self) -> float:
        """What a difference of logits is multiplied by to have it in base 2."""
        return _LOG2_E / self.base

    @property
    def natural(self) -> float:
        """What a logit is multiplied by to have it natural."""
        return 1.0 / self.base

    @property
    def unit(self) -> float:
        """What the exponential multiplies a product by, where nothing else has."""
        return self.scale * self.base if self.is_plain else 1.0

    @property
    def factor(self) -> float:
        """What a product is multiplied by before anything is added; a cap takes it natural."""
        return self.scale * (self.base if self.cap is None else 1.0)

    @property
    def bias_factor(self) -> float:
        """What is added to it is multiplied by this."""
        return self.base if self.cap is None else 1.0

    @property
    def cap_factor(self) -> float:
        """Of the hyperbolic tangent, for a logit."""
        return (self.cap or 1.0) * self.base

    @property
    def has_edges(self) -> bool:
        """Whether some tile has places that are not seen for where they lie."""
        windowed = self.left is not None or self.right is not None
        return windowed or bool(self.per.query_lengths or self.per.key_lengths)

    @property
    def exact_tangent(self) -> bool:
        """Whether the tangent must be right to float32 near zero, which costs far more."""
        return self.dtype == "float32"

    @property
    def extras(self) -> str:
        """A word for configurations: what makes a tile larger than its products."""
        if self.per.position_key:
            return "relative"
        more = self.per.bias or self.per.offset_bias or self.per.mask or self.per.query_segments
        if more or self.per.dropout_seeds or self.cap is not None:
            return "biased"
        return "filtered" if self.taps else "plain"


def describe(
    given: Operands,
    *,
    scale: float,
    causal: bool,
    window: tuple[int | None, int | None] | None,
    soft_cap: float | None,
    dropout_rate: float,
) -> Form:
    """The form of a call, from its operands or their shapes."""
    rows, queries, heads, width = given.query.shape
    keys, key_heads = given.key.shape[1:3]
    per = {}
    for field in fields(Rows):
        array = getattr(given, field.name)
        per[field.name] = 0 if array is None else max(1, rows // max(1, array.shape[0]))
    left, right = window or (None, None)
    if causal:
        right = 0 if right is None else min(right, 0)
    drops = given.dropout_seeds is not None
    taps = 0 if given.key_filter is None else given.key_filter.shape[1]
    return Form(
        rows=rows,
        queries=queries,
        keys=keys,
        key_heads=key_heads,
        group=heads // max(1, key_heads),
        width=width,
        dtype=given.query.dtype.name,
        per=Rows(**per),
        bias=_strides(given.bias),
        mask=_strides(given.mask),
        offset_heads=1 if given.offset_bias is None else given.offset_bias.shape[1],
        scale=float(scale),
        left=left,
        right=right,
        cap=None if soft_cap is None else float(soft_cap),
        threshold=dropout.threshold(dropout_rate) if drops else 0,
        keep=1.0 - dropout_rate if drops else 1.0,
        taps=taps,
        before=taps_before(taps, causal) if taps else 0,
    )


def _strides(array: Any) -> Strides:
    if array is None:
        return Strides()
    _, heads, queries, keys = array.shape
    whole = (heads * queries * keys, queries * keys, keys, 1)
    sizes = (2, heads, queries, keys)  # rows are counted apart
    return Strides(*(step if size > 1 else 0 for step, size in zip(whole, sizes, strict=True)))
