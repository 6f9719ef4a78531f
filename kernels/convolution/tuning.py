"""Shapes that are tested and measured, and the configuration that each kernel runs with."""

import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kernels.convolution import reference
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
        num_stages: depth of the software pipeline.
    """

    block_frames: int = 16
    block_channels: int = 64
    unroll: int = 4
    num_warps: int = 4
    num_stages: int = 2


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


def heuristic(
    batch: int, frames: int, channels: int, width: int, dtype: Any, device: str = "sm_90"
) -> Config:
    """A configuration for a device without a table: 64 consecutive channels, few registers."""
    del batch, frames, dtype, device
    block_channels = max(16, min(64, 1 << (channels - 1).bit_length()))
    return Config(block_channels=block_channels, unroll=4 if width > 4 else 1)


def heuristic_filter_gradient(
    batch: int, frames: int, channels: int, width: int, dtype: Any, device: str = "sm_90"
) -> Config:
    """More frames per program: each one writes W partial sums per channel."""
    del batch, channels, width, dtype, device
    block_frames = max(16, min(64, 1 << (max(1, frames // 4) - 1).bit_length()))
    return Config(block_frames=block_frames, block_channels=32, unroll=1, num_warps=8)
