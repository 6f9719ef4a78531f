"""Shapes that are tested and measured, and the configuration that each kernel runs with."""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kernels.configurations import Tunable, bucket_of_sizes, round_up
from kernels.convolution.conformer import reference
from kernels.convolution.frames import padding_frames
from kernels.problems import Cost, Problem

MOST_CHANNELS = 4096  # of a frame that one program holds whole


@dataclass(frozen=True)
class Config:
    """Compile-time parameters of the kernels with a layer norm, which hold all channels.

    Attributes:
        block_frames: positions along time that a program holds at once; it covers four times as
            many frames.
        unroll: taps per iteration of the loop over them.
        num_warps: warps per program.
        num_stages: depth of the software pipeline; the loop has no matrix product, so it is none.
    """

    block_frames: int = 4
    unroll: int = 3
    num_warps: int = 8
    num_stages: int = 2

    def __post_init__(self) -> None:
        powers = ("block_frames", "num_warps")
        wrong = any(getattr(self, name).bit_count() != 1 for name in powers)
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
    norm: str = "layer"
    padding: str | tuple[int, int] = "SAME"
    lengths: bool = False
    state: bool = False
    bias: bool = True


LEGEND = "lengths True: every other row is cut short."

# Conformer-L and -S of the paper, at a quarter of the frames; Parakeet, at an eighth; a chunk.
SHAPES = {
    "conformer_l_500": Shape(8, 500, 512, 31),
    "parakeet_250": Shape(16, 250, 1024, 9, norm="batch_inference", bias=False),
    "conformer_s_500": Shape(16, 500, 144, 31),
    "chunk_16": Shape(8, 16, 512, 31, padding="CAUSAL", state=True),
    "tiny_50": Shape(4, 50, 64, 7),
}


def problem(operation: str, name: str, shape: Shape, dtype: str) -> Problem:
    """A call in this shape, with seeded operands.

    Example:
        >>> call = problem("conformer_convolution", "small", Shape(2, 9, 3, 4), "float32")
        >>> call.function()(*call.arguments).shape
        (2, 9, 3)
    """
    batch, frames, channels, width = shape[:4]
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    vector = (channels,)
    operands: dict[str, Any] = {
        "inputs": generator.normal(size=(batch, frames, 2 * channels)),
        "filters": generator.normal(size=(width, channels)) * width**-0.5,
        "scale": generator.normal(size=vector),
        "offset": generator.normal(size=vector),
    }
    if shape.bias:
        operands["bias"] = generator.normal(size=vector)
    if shape.norm == "batch_inference":
        operands["mean"] = generator.normal(size=vector)
        operands["variance"] = generator.uniform(0.25, 2.0, size=vector)
    if shape.state:
        operands["initial_state"] = generator.normal(size=(batch, width - 1, 2 * channels))
    operands = {name: jnp.asarray(array, dtype) for name, array in operands.items()}
    differentiable = tuple(operands)
    if shape.lengths:
        lengths = np.full(batch, frames, np.int32)
        lengths[1::2] = generator.integers(1, frames + 1, batch // 2)
        operands["lengths"] = jnp.asarray(lengths)
    item = jnp.dtype(dtype).itemsize
    wide = batch * frames * channels * item
    small = sum(operands[name].size * item for name in differentiable[1:])
    multiply_adds = batch * frames * channels * width
    return Problem(
        operation=operation,
        name=name,
        dtype=dtype,
        operands=operands,
        options={"norm": shape.norm, "padding": shape.padding},
        differentiable=differentiable,
        per_row=("inputs", "initial_state", "lengths"),
        definition=reference.conformer_convolution,
        forward=Cost(3 * wide + small, 2 * multiply_adds),
        backward=Cost(5 * wide + 2 * small, 6 * multiply_adds),
    )


def sizes(shape: Shape, dtype: str) -> dict[str, Any]:
    """What a configuration is chosen by, of a call in this shape."""
    reach = shape.width - 1
    left, right = padding_frames(shape.padding, reach)
    return {
        "rows": shape.batch,
        "frames": shape.frames + left + right - reach,
        "channels": shape.channels,
        "width": shape.width,
        "dtype": dtype,
    }


def block_channels(channels: int) -> int:
    """All channels of a frame, and no fewer than a tile has.

    Example:
        >>> block_channels(144)
        256
    """
    return max(16, round_up(channels))


def _filled(block_frames: int, channels: int, each: int) -> int:
    """Warps of a program whose threads hold ``each`` elements of a tile."""
    return min(32, max(1, block_frames * block_channels(channels) // (32 * each)))


def heuristic(*, channels: int, frames: int, width: int, **_: Any) -> Config:
    """For a device without a table: 16 or 32 frames, eight elements of each tile a thread."""
    block_frames = 4 if channels > 256 else 8
    block_frames = max(
        1, min(block_frames, 4096 // block_channels(channels), round_up(frames) // 4)
    )
    warps = _filled(block_frames, channels, 8)
    return Config(block_frames, unroll=3 if width > 4 else 1, num_warps=warps)


def candidates(*, channels: int, frames: int, **_: Any) -> Iterator[Config]:
    """What to try: longer blocks load fewer frames twice, more elements a thread wait less."""
    for block_frames, each, unroll in itertools.product((1, 2, 4, 8, 16), (4, 8, 16), (1, 3)):
        tile = block_frames * block_channels(channels)
        if 32 * each <= tile <= 32 * 32 * each and 4 * block_frames < 2 * frames + 4:
            yield Config(block_frames, unroll, _filled(block_frames, channels, each))


_KERNEL = "kernels.convolution.conformer.kernel"
# The value; the cotangent of what the filters give, with the sums for scale and offset.
FORWARD = Tunable(
    "conformer_convolution.forward", Config, heuristic, candidates, bucket_of_sizes, _KERNEL
)
SLOPE = Tunable(
    "conformer_convolution.slope", Config, heuristic, candidates, bucket_of_sizes, _KERNEL
)
TUNABLES = (FORWARD, SLOPE)
