"""Shapes that are tested and measured, and the configuration that each kernel runs with."""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kernels.configurations import Tunable, bucket_of_sizes, round_up
from kernels.convolution.depthwise1d import reference
from kernels.convolution.frames import padding_frames
from kernels.problems import Cost, Problem


@dataclass(frozen=True)
class Config:
    """Compile-time parameters of both kernels.

    Attributes:
        block_frames: positions along time that a program holds at once; it covers REUSE times as
            many frames.
        block_channels: channels per program.
        unroll: taps per iteration of the loop over them.
        num_warps: warps per program.
        num_stages: depth of the software pipeline; Triton 3.6 to 3.8 make the same code for any, as
            the loops have no matrix product.
    """

    block_frames: int = 16
    block_channels: int = 64
    unroll: int = 4
    num_warps: int = 4
    num_stages: int = 2

    def __post_init__(self) -> None:
        powers = ("block_frames", "block_channels", "num_warps")
        wrong = [f"{n} {getattr(self, n)}" for n in powers if getattr(self, n).bit_count() != 1]
        wrong += [f"{n} {getattr(self, n)}" for n in ("unroll", "num_stages") if vars(self)[n] < 1]
        if wrong or min(vars(self).values()) < 1 or self.num_warps > 32:
            raise ValueError(
                f"a configuration must have powers of two as {', '.join(powers)} (at most 32), and "
                f"the others from 1 on; received {self}."
            )


class Shape(NamedTuple):
    """Sizes and options of one call; ``lengths`` cuts every other utterance short."""

    batch: int
    frames: int
    channels: int
    width: int
    dilation: int = 1
    padding: str | tuple[int, int] = "SAME"
    activation: str | None = None
    lengths: bool = False


LEGEND = "lengths True: every other row is cut short."

# What speech and state-space models use; the first two are the goals on a GPU.
SHAPES = {
    "causal_w4": Shape(8, 2048, 2048, 4, padding="CAUSAL", activation="silu"),
    "conformer_w31": Shape(32, 1024, 512, 31),
    "parakeet_w9": Shape(16, 250, 1024, 9),
    "wav2vec2_bert_w31": Shape(8, 1000, 1024, 31, padding="CAUSAL"),
    "separable_w7": Shape(32, 100, 144, 7),
    "wide_w128": Shape(4, 999, 256, 128),
    "dilated_w3": Shape(8, 1000, 256, 3, dilation=8),
}


def problem(operation: str, name: str, shape: Shape, dtype: str) -> Problem:
    """A call in this shape, with seeded operands.

    Example:
        >>> call = problem("depthwise_conv1d", "small", Shape(2, 9, 3, 4), "float32")
        >>> call.function()(*call.arguments).shape
        (2, 9, 3)
    """
    batch, frames, channels, width = shape[:4]
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    operands: dict[str, Any] = {
        "inputs": generator.normal(size=(batch, frames, channels)),
        "filters": generator.normal(size=(width, channels)) * width**-0.5,
        "bias": generator.normal(size=(channels,)),
    }
    operands = {name: jnp.asarray(array, dtype) for name, array in operands.items()}
    if shape.lengths:
        lengths = np.full(batch, frames, np.int32)
        lengths[1::2] = generator.integers(1, frames + 1, batch // 2)
        operands["lengths"] = jnp.asarray(lengths)
    element = jnp.dtype(dtype).itemsize
    wide, narrow = batch * frames * channels * element, (width + 1) * channels * element
    multiply_adds = batch * frames * channels * width
    return Problem(
        operation=operation,
        name=name,
        dtype=dtype,
        operands=operands,
        options={
            "padding": shape.padding,
            "dilation": shape.dilation,
            "activation": shape.activation,
        },
        differentiable=("inputs", "filters", "bias"),
        per_row=("inputs", "lengths"),
        definition=reference.depthwise_conv1d,
        forward=Cost(2 * wide + narrow, 2 * multiply_adds),
        backward=Cost(3 * wide + 2 * narrow, 4 * multiply_adds),
    )


def sizes(shape: Shape, dtype: str) -> dict[str, Any]:
    """What a configuration is chosen by, of a call in this shape."""
    left, right = padding_frames(shape.padding, (shape.width - 1) * shape.dilation)
    frames = shape.frames + left + right - (shape.width - 1) * shape.dilation
    chosen_by = {"channels": shape.channels, "width": shape.width, "dilation": shape.dilation}
    return {"rows": shape.batch, "frames": frames, "dtype": dtype, **chosen_by}


def heuristic(*, channels: int, width: int, **_: Any) -> Config:
    """A configuration for a device without a table: 64 consecutive channels, few registers.

    Four taps an iteration spill on sm_100.
    """
    block_channels = max(16, min(64, round_up(channels)))
    return Config(block_channels=block_channels, unroll=3 if width > 4 else 1)


def heuristic_filter_gradient(*, frames: int, **_: Any) -> Config:
    """More frames per program: each one writes W partial sums per channel."""
    block_frames = max(16, min(64, round_up(max(1, frames // 4))))
    return Config(block_frames=block_frames, block_channels=32, unroll=1, num_warps=8)


# (frames, channels, warps) of a program. Each of its four tiles has 4, 8 or 16 elements a thread:
# 16 bytes a load in 32 or 16 bits, or two such loads. A warp covers whole lines of 128 bytes.
_TILES = (
    (8, 64, 4),  # 4 elements: the fewest registers, for float32
    (16, 32, 4),
    (16, 64, 8),
    (8, 64, 2),  # 8 elements: small programs, for short utterances
    (16, 64, 4),
    (32, 64, 8),
    (32, 32, 4),  # half the channels: for few of them
    (8, 128, 4),  # twice the channels: longer lines
    (16, 128, 8),
    (16, 64, 2),  # 16 elements: more loads in flight
    (32, 64, 4),
    (16, 128, 4),
)
# The filter's gradient sums its tile along the frames, so tall tiles write fewer partial sums.
_TALL_TILES = (
    (16, 64, 4),  # 8 elements
    (32, 32, 4),
    (32, 64, 8),
    (64, 32, 8),
    (128, 16, 8),
    (16, 32, 4),  # 4 elements: three tiles of sums and four of cotangents stay in registers
    (32, 32, 8),
    (64, 16, 8),
    (64, 32, 16),
    (128, 32, 16),  # 8 elements of a long tile
)


def _candidates(tiles: Any, unrolls: Any, channels: int, frames: int) -> Iterator[Config]:
    """Tiles that are not mostly outside of the array, each with each number of taps."""
    for (block_frames, block_channels, warps), unroll in itertools.product(tiles, unrolls):
        if block_channels <= max(16, round_up(channels)) and block_frames <= max(16, frames):
            yield Config(block_frames, block_channels, unroll, warps)


def candidates(*, channels: int, frames: int, width: int, **_: Any) -> Iterator[Config]:
    """What to try: the loop as it is, and two, four or for narrow filters all taps at a time."""
    unrolls = (1, 2, 4) if width > 4 else (1, 2, width + 3)
    return _candidates(_TILES, unrolls, channels, frames)


def candidates_filter_gradient(*, channels: int, frames: int, **_: Any) -> Iterator[Config]:
    """What to try: its registers are full, so at most two or four taps at a time."""
    return _candidates(_TALL_TILES, (1, 2, 4), channels, frames)


_KERNEL = "kernels.convolution.depthwise1d.kernel"
# The value and the gradient of the inputs; the cotangent before the activation; the filters'.
CONVOLVE = Tunable(
    "depthwise_conv1d.convolve", Config, heuristic, candidates, bucket_of_sizes, _KERNEL
)
SLOPE = Tunable("depthwise_conv1d.slope", Config, heuristic, candidates, bucket_of_sizes, _KERNEL)
FILTER_GRADIENT = Tunable(
    "depthwise_conv1d.filter_gradient",
    Config,
    heuristic_filter_gradient,
    candidates_filter_gradient,
    bucket_of_sizes,
    _KERNEL,
)
TUNABLES = (CONVOLVE, SLOPE, FILTER_GRADIENT)
