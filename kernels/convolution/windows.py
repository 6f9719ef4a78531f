"""Where filters are laid on an image: strides, padding, dilation, as callers give them."""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from kernels.arguments import meant, whole_number

PADDINGS = ("SAME", "SAME_LOWER", "VALID")


class Window(NamedTuple):
    """Where the filters are laid on the image.

    Attributes:
        strides: pixels between neighbouring results.
        padding: zeros above and below, left and right; negative numbers cut off.
        dilation: pixels between neighbouring taps.
        groups: of channels, each with filters of its own.
    """

    strides: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def results(self, pixels: Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
        """(U, V) of images of (H, W) pixels and filters of (h, w) taps.

        Example:
            >>> Window((2, 2), ((1, 1), (1, 1))).results((8, 9), (3, 3))
            (4, 5)
        """
        spans = zip(pixels, size, self.strides, self.padding, self.dilation, strict=True)
        return tuple(
            (length + before + after - (taps - 1) * dilation - 1) // stride + 1
            for length, taps, stride, (before, after), dilation in spans
        )

    def taps(self, inputs: Any, size: Sequence[int]) -> list[Any]:
        """What each tap meets, (B, U, V, I), row by row."""
        zero = jnp.zeros((), inputs.dtype)
        padded = lax.pad(
            inputs, zero, ((0, 0, 0), *((a, b, 0) for a, b in self.padding), (0, 0, 0))
        )
        spans = [
            [range(tap * d, length - (taps - 1 - tap) * d, s) for tap in range(taps)]
            for length, taps, d, s in zip(
                padded.shape[1:3], size, self.dilation, self.strides, strict=True
            )
        ]
        rows, columns, channels = padded.shape[0], spans[1], padded.shape[3]
        return [
            lax.slice(
                padded,
                (0, y.start, x.start, 0),
                (rows, y.stop, x.stop, channels),
                (1, y.step, x.step, 1),
            )
            for y in spans[0]
            for x in columns
        ]


def window(
    pixels: Sequence[int],
    size: Sequence[int],
    strides: Any,
    padding: Any,
    dilation: Any = (1, 1),
    groups: int = 1,
) -> Window:
    """The window of what a caller gives, for images of (H, W) pixels and (h, w) taps.

    Raises:
        ValueError: something is not what it must be, or the filters reach over the padded image.

    Example:
        >>> window((5, 5), (3, 3), (2, 2), "SAME").padding
        ((1, 1), (1, 1))
    """
    strides, dilation = _two("strides", strides), _two("dilation", dilation)
    spans = tuple((taps - 1) * d + 1 for taps, d in zip(size, dilation, strict=True))
    pads = _pads(padding, pixels, spans, strides)
    sizes = [length + sum(pad) for length, pad in zip(pixels, pads, strict=True)]
    if any(length < span for length, span in zip(sizes, spans, strict=True)):
        raise ValueError(
            f"padded images must be at least as large as the filters reach, {spans} pixels; "
            f"received {tuple(pixels)} and padding {pads}. Pad more."
        )
    return Window(strides, pads, dilation, groups)


def _two(name, numbers):
    try:
        first, second = map(operator.index, numbers)
    except (TypeError, ValueError):
        first = second = 0
    if min(first, second) < 1:
        one = whole_number(numbers)
        advice = "one for rows and one for columns" if one is None or one < 1 else f"({one}, {one})"
        raise ValueError(
            f"{name} must be two integers from 1 on; received {numbers!r}. Pass {advice}."
        )
    return first, second


def _pads(padding, pixels, spans, strides) -> Any:
    """Pixels of zeros on each side: ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        if padding in PADDINGS:
            pads = lax.padtype_to_pads(pixels, spans, strides, padding)
            return tuple((int(before), int(after)) for before, after in pads)
    else:
        try:
            (top, bottom), (left, right) = padding
            return tuple(
                (operator.index(a), operator.index(b)) for a, b in ((top, bottom), (left, right))
            )
        except (TypeError, ValueError):
            pass
    raise ValueError(
        f"padding must be one of {[*PADDINGS]}, or ((top, bottom), (left, right)) in pixels; "
        f"received {padding!r}.{_padding_advice(padding)}"
    )


def _padding_advice(padding) -> str:
    """Numbers for both sides of both axes, or of each, are torch's."""
    numbers = [padding] * 2 if whole_number(padding) is not None else padding
    pair = isinstance(numbers, list | tuple) and len(numbers) == 2
    known = [whole_number(number) for number in numbers] if pair else [None]
    if None not in known:
        return f" Pass {tuple((number, number) for number in known)} for as many on each side."
    return meant(padding, PADDINGS) or " Pass pixels on each side, or a name."
