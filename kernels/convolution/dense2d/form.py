"""What a launch is compiled for: where each result's taps lie, forwards and for the transpose.

Axes: R rows that share filters, H by W pixels that are read, U by V results, C channels, O
features.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kernels.convolution.windows import Window


@dataclass(frozen=True)
class Axis:
    """One direction of the image: which pixel a result has a product with, at each tap.

    Result r has at tap t the pixel r stride + t dilation - before. In the transpose, ``turned``,
    it is the pixel p for which p stride + t dilation - before is r, where there is one. Results
    are then in as many phases as the stride: the remainders of r + before. Those of a phase have
    the same taps, ``every``-th from a first one on, and neighbours among them neighbouring pixels,
    so that no product is with a zero between pixels.

    Attributes:
        pixels: there are along this direction; others count as zero.
        results: likewise.
        taps: of the filters.
        stride: of the convolution.
        before: zeros before the first pixel of the convolution; negative where pixels are cut off.
        dilation: of the convolution.
        turned: whether this is the transpose; ``pixels`` are then the convolution's results.
    """

    pixels: int
    results: int
    taps: int
    stride: int = 1
    before: int = 0
    dilation: int = 1
    turned: bool = False

    @property
    def transposed(self) -> "Axis":
        """Along which the gradient of the pixels is found."""
        return replace(self, pixels=self.results, results=self.pixels, turned=not self.turned)

    @property
    def phases(self) -> int:
        """Of results with the same taps."""
        return self.stride if self.turned else 1

    @property
    def positions(self) -> int:
        """Results of a phase; in some phases the last one does not exist."""
        return -(-self.results // self.phases)

    @property
    def pace(self) -> int:
        """Pixels from one result of a phase to the next."""
        return 1 if self.turned else self.stride

    @property
    def common(self) -> int:
        """What divides the phases that have taps."""
        return math.gcd(self.stride, self.dilation) if self.turned else 1

    @property
    def every(self) -> int:
        """From one tap of a phase to the next."""
        return self.stride // self.common if self.turned else 1

    @property
    def inverse(self) -> int:
        """What a phase, over ``common``, is multiplied by for its first tap, modulo ``every``."""
        return pow(self.dilation // self.common, -1, self.every)

    @property
    def reach(self) -> int:
        """Pixels from one tap of a phase to the next."""
        return -(self.dilation // self.common) if self.turned else self.dilation

    @property
    def ahead(self) -> int:
        """The first result of phase zero."""
        return -self.before % self.stride

    @property
    def inside(self) -> bool:
        """Whether every tap of every result is known to be a pixel."""
        span = (self.taps - 1) * self.dilation
        if self.turned:
            last = self.results - 1 + self.before
            return self.stride == 1 and span <= self.before and last < self.pixels
        last = (self.results - 1) * self.stride + span - self.before
        return self.before <= 0 and last < self.pixels


@dataclass(frozen=True)
class Form:
    """A product of patches with filters, or its transpose.

    Attributes:
        rows: R.
        down: the direction of H and U.
        right: that of W and V.
        channels: of the image that is read.
        features: of the results.
    """

    rows: int
    down: Axis
    right: Axis
    channels: int
    features: int

    @classmethod
    def of(cls, window: Window, rows: int, pixels: Sequence[int], filters: Sequence[int]) -> "Form":
        """The convolution of images of (H, W) pixels, ``rows`` of them a filter, with (h, w, C, O).

        Example:
            >>> window = Window((2, 2), ((1, 1), (1, 1)))
            >>> form = Form.of(window, 1, (8, 9), (3, 3, 3, 4))
            >>> form.down.results, form.right.results, form.positions
            (4, 5, 20)
        """
        results = window.results(pixels, filters[:2])
        spans = zip(pixels, results, filters[:2], *window[:3], strict=True)
        down, right = (
            Axis(pixels, count, taps, stride, before, dilation)
            for pixels, count, taps, stride, (before, _), dilation in spans
        )
        return cls(rows, down, right, filters[2], filters[3])

    @property
    def transposed(self) -> "Form":
        """Whose results are the gradient of this form's pixels, from that of its results."""
        axes = self.down.transposed, self.right.transposed
        return Form(self.rows, *axes, self.features, self.channels)

    @property
    def turned(self) -> bool:
        """Whether this is a transpose."""
        return self.down.turned

    @property
    def phases(self) -> int:
        """Of both directions."""
        return self.down.phases * self.right.phases

    @property
    def positions(self) -> int:
        """Results of a phase, of all rows that share filters."""
        return self.rows * self.down.positions * self.right.positions

    @property
    def inner(self) -> int:
        """Taps times channels."""
        return self.down.taps * self.right.taps * self.channels
