"""Shapes that are tested and measured, and the configuration that each kernel runs with."""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kernels.configurations import Tunable, bucket_of_sizes, round_up
from kernels.convolution.depthwise2d import reference
from kernels.convolution.windows import window
from kernels.problems import Cost, Problem


@dataclass(frozen=True)
class Config:
    """Compile-time parameters of the kernels.

    Attributes:
        block_pixels: pixels of an image that a program holds at once; it covers REUSE times as
            many.
        block_channels: channels per program.
        unroll: taps of a column per iteration of the loop down it.
        num_warps: warps per program.
        num_stages: depth of the software pipeline; Triton 3.6 to 3.8 make the same code for any, as
            the loops have no matrix product.
    """

    block_pixels: int = 16
    block_channels: int = 64
    unroll: int = 2
    num_warps: int = 4
    num_stages: int = 2

    def __post_init__(self) -> None:
        powers = ("block_pixels", "block_channels", "num_warps")
        wrong = [name for name in powers if getattr(self, name).bit_count() != 1]
        if wrong or min(vars(self).values()) < 1 or self.num_warps > 32:
            raise ValueError(
                f"a configuration must have powers of two as {', '.join(powers)} (at most 32), and "
                f"the others from 1 on; received {self}."
            )


class Shape(NamedTuple):
    """Sizes and options of one call."""

    batch: int
    height: int
    width: int
    channels: int
    taps: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: str | tuple[tuple[int, int], tuple[int, int]] = "SAME"
    dilation: tuple[int, int] = (1, 1)
    activation: str | None = None


# What image models use; the first is the goal on a GPU, the last three fit a CPU.
SHAPES = {
    "convnext_7x7": Shape(128, 56, 56, 96, (7, 7)),
    "convnext_last_7x7": Shape(128, 7, 7, 768, (7, 7)),
    "mobilenet_3x3": Shape(128, 56, 56, 128, (3, 3), activation="relu"),
    "mobilenet_3x3_stride_2": Shape(128, 112, 112, 64, (3, 3), (2, 2), activation="relu"),
    "efficientnet_5x5": Shape(128, 14, 14, 672, (5, 5), activation="silu"),
    "efficientnet_5x5_stride_2": Shape(128, 56, 56, 144, (5, 5), (2, 2), activation="silu"),
    "tiny_3x3": Shape(8, 28, 28, 32, (3, 3)),
    "tiny_3x3_stride_2": Shape(8, 56, 56, 64, (3, 3), (2, 2), activation="relu"),
    "tiny_7x7": Shape(4, 28, 28, 96, (7, 7)),
}


def problem(operation: str, name: str, shape: Shape, dtype: str) -> Problem:
    """A call in this shape, with seeded operands.

    Example:
        >>> call = problem("depthwise_conv2d", "small", Shape(2, 5, 4, 3, (3, 2)), "float32")
        >>> call.function()(*call.arguments).shape
        (2, 5, 4, 3)
    """
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    count = shape.taps[0] * shape.taps[1]
    operands: dict[str, Any] = {
        "inputs": generator.normal(size=shape[:4]),
        "filters": generator.normal(size=(*shape.taps, shape.channels)) * count**-0.5,
        "bias": generator.normal(size=(shape.channels,)),
    }
    operands = {name: jnp.asarray(array, dtype) for name, array in operands.items()}
    element = jnp.dtype(dtype).itemsize
    height, width = _results(shape)
    narrow = (count + 1) * shape.channels * element
    before = operands["inputs"].nbytes
    results = shape.batch * height * width * shape.channels
    return Problem(
        operation=operation,
        name=name,
        dtype=dtype,
        operands=operands,
        options={
            "strides": shape.strides,
            "padding": shape.padding,
            "dilation": shape.dilation,
            "activation": shape.activation,
        },
        differentiable=("inputs", "filters", "bias"),
        per_row=("inputs",),
        definition=reference.depthwise_conv2d,
        forward=Cost(before + results * element + narrow, 2 * results * count),
        backward=Cost(2 * before + results * element + 2 * narrow, 4 * results * count),
    )


def sizes(shape: Shape, dtype: str) -> dict[str, Any]:
    """What a configuration is chosen by, of a call in this shape."""
    return chosen_by(
        (shape.batch, shape.height, shape.width, shape.channels),
        shape.taps,
        _results(shape),
        shape.strides,
        shape.dilation,
        dtype,
    )


def chosen_by(
    inputs: Any, taps: Any, results: Any, strides: Any, dilation: Any, dtype: str
) -> dict[str, Any]:
    """Of images (B, H, W, C), (h, w) taps and (U, V) results, as numbers with names."""
    rows, height, width, channels = inputs
    return {
        "rows": rows, "height": height, "width": width, "channels": channels,
        "taps_down": taps[0], "taps_across": taps[1],
        "results_down": results[0], "results_across": results[1],
        "stride_down": strides[0], "stride_across": strides[1],
        "dilation_down": dilation[0], "dilation_across": dilation[1],
        "dtype": dtype,
    }  # fmt: skip


def _results(shape):
    pixels = shape.height, shape.width
    where = window(pixels, shape.taps, shape.strides, shape.padding, shape.dilation)
    return where.results(pixels, shape.taps)


def heuristic(*, channels: int, **_: Any) -> Config:
    """A configuration for a device without a table: few registers, and 64 consecutive channels.

    Fewer where more than an eighth of them would lie outside of the array.
    """
    block_channels = max(16, min(64, round_up(channels)))
    if block_channels == 64 and 8 * (-channels % 64) > channels:
        block_channels = 32
    return Config(block_pixels=1024 // max(32, block_channels), block_channels=block_channels)


def heuristic_filter_gradient(*, results_down: int, results_across: int, **_: Any) -> Config:
    """More pixels per program: each one writes h w partial sums per channel."""
    pixels = max(16, min(64, round_up(results_down * results_across // 4)))
    return Config(block_pixels=pixels, block_channels=32, unroll=1, num_warps=8)


# (pixels, channels, warps) of a program. Each of its four tiles has 4, 8 or 16 elements a thread:
# 16 bytes a load in 32 or 16 bits, or two such loads. A warp covers whole lines of 128 bytes.
_TILES = (
    (8, 64, 4),  # 4 elements
    (16, 32, 4),
    (16, 64, 8),
    (8, 64, 2),  # 8 elements: small programs, for small images
    (16, 64, 4),
    (32, 32, 4),
    (32, 64, 8),
    (8, 128, 4),  # twice the channels: longer lines
    (16, 64, 2),  # 16 elements: more loads in flight
    (32, 64, 4),
)
# The filters' gradient sums its tile along the pixels, so tall tiles write fewer partial sums.
_TALL_TILES = (
    (16, 64, 4),  # 8 elements
    (32, 32, 4),
    (32, 64, 8),
    (64, 32, 8),
    (16, 32, 4),  # 4 elements: three tiles of sums and four of cotangents stay in registers
    (32, 32, 8),
    (64, 16, 8),
    (64, 32, 16),
    (128, 32, 16),  # 8 elements of a long tile
)


def _candidates(
    tiles: Any, unrolls: Any, channels: int, results_down: int, results_across: int
) -> Iterator[Config]:
    """Tiles that are not mostly outside of the image, each with each number of taps."""
    most = max(16, results_down * results_across)
    for (pixels, block_channels, warps), unroll in itertools.product(tiles, unrolls):
        if block_channels <= max(16, round_up(channels)) and pixels <= most:
            yield Config(pixels, block_channels, unroll, warps)


def candidates(
    *, channels: int, results_down: int, results_across: int, taps_down: int, **_: Any
) -> Iterator[Config]:
    """What to try: the loop as it is, and two or all taps of a column at a time."""
    unrolls = (1, 2, 4) if taps_down > 7 else (1, 2, taps_down + 3)
    return _candidates(_TILES, unrolls, channels, results_down, results_across)


def candidates_filter_gradient(
    *, channels: int, results_down: int, results_across: int, **_: Any
) -> Iterator[Config]:
    """What to try: its registers are full, so at most two or four taps at a time."""
    return _candidates(_TALL_TILES, (1, 2, 4), channels, results_down, results_across)


def _tunable(name, heuristic, candidates):
    module = "kernels.convolution.depthwise2d.variants"
    return Tunable(
        f"depthwise_conv2d.{name}", Config, heuristic, candidates, bucket_of_sizes, module
    )


# The value; the cotangent before the activation; the inputs' gradient; the filters'.
CONVOLVE = _tunable("convolve", heuristic, candidates)
SLOPE = _tunable("slope", heuristic, candidates)
INPUTS_GRADIENT = _tunable("inputs_gradient", heuristic, candidates)
FILTER_GRADIENT = _tunable("filter_gradient", heuristic_filter_gradient, candidates_filter_gradient)
TUNABLES = (CONVOLVE, SLOPE, INPUTS_GRADIENT, FILTER_GRADIENT)
