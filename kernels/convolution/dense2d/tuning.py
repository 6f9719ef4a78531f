"""Shapes that are tested and measured, and the configuration that each kernel runs with."""

import itertools
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kernels.configurations import Tunable, bucket, round_up
from kernels.convolution.dense2d import reference
from kernels.convolution.dense2d.form import Form
from kernels.convolution.windows import Window, window
from kernels.problems import Cost, Problem

# Programs that leave multiprocessors idle, of which large GPUs have 100 to 150 for two each.
FEW = 256


@dataclass(frozen=True)
class Config:
    """Tiles of the products, and how a program works on them.

    Attributes:
        block_results: pixels of the result: rows of the product, in the filters' gradient what it
            sums over in one step.
        block_features: columns of the product.
        block_inner: taps and channels: what a step sums over, in the filters' gradient rows.
        num_warps: warps per program.
        num_stages: of the pipeline of loads.
    """

    block_results: int = 128
    block_features: int = 128
    block_inner: int = 64
    num_warps: int = 8
    num_stages: int = 3

    def __post_init__(self) -> None:
        blocks = (self.block_results, self.block_features, self.block_inner)
        powers = all(n >= 1 and n.bit_count() == 1 for n in (*blocks, self.num_warps))
        if not powers or min(blocks) < 16 or self.num_warps > 16 or self.num_stages < 1:
            raise ValueError(
                "a configuration must have powers of two from 16 on as blocks, one to 16 warps, "
                f"and a stage or more; received {self}."
            )


class Shape(NamedTuple):
    """Sizes and options of one call."""

    batch: int
    height: int
    width: int
    channels: int
    features: int
    taps: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: str | tuple[tuple[int, int], tuple[int, int]] = "SAME"
    dilation: tuple[int, int] = (1, 1)
    activation: str | None = None


# What vision and speech use. "tiny" ones are for a CPU.
SHAPES = {
    "residual_14": Shape(32, 14, 14, 256, 256, activation="relu"),
    "residual_56": Shape(32, 56, 56, 64, 64, activation="relu"),
    "pointwise_56": Shape(32, 56, 56, 64, 256, (1, 1)),
    "halving_56": Shape(32, 56, 56, 128, 128, strides=(2, 2)),
    "patches_16": Shape(32, 224, 224, 3, 768, (16, 16), (16, 16), "VALID"),
    "speech_first": Shape(16, 1000, 80, 1, 256, strides=(2, 2), padding="VALID", activation="relu"),
    "speech_second": Shape(
        16, 499, 39, 256, 256, strides=(2, 2), padding="VALID", activation="relu"
    ),
    "tiny_lenet_1": Shape(64, 28, 28, 1, 6, (5, 5), activation="relu"),
    "tiny_lenet_6": Shape(64, 14, 14, 6, 16, (5, 5), padding="VALID", activation="relu"),
    "tiny_residual_14": Shape(2, 14, 14, 64, 64),
    "tiny_halving_28": Shape(2, 28, 28, 32, 64, strides=(2, 2)),
}


def problem(operation: str, name: str, shape: Shape, dtype: str) -> Problem:
    """A call in this shape, with seeded operands.

    Example:
        >>> call = problem("conv2d", "small", Shape(2, 9, 8, 3, 4, strides=(2, 2)), "float32")
        >>> call.function()(*call.arguments).shape
        (2, 5, 4, 4)
    """
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    image = (shape.batch, shape.height, shape.width, shape.channels)
    size = (*shape.taps, shape.channels, shape.features)
    inner = math.prod(size[:3])
    operands: dict[str, Any] = {
        "inputs": generator.normal(size=image),
        "filters": generator.normal(size=size) * inner**-0.5,
        "bias": generator.normal(size=(shape.features,)),
    }
    operands = {name: jnp.asarray(array, dtype) for name, array in operands.items()}
    results = math.prod(_window(shape).results(image[1:3], shape.taps)) * shape.batch
    element = jnp.dtype(dtype).itemsize
    read = (math.prod(image) + math.prod(size) + shape.features) * element
    written = results * shape.features * element
    multiply_adds = results * shape.features * inner
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
        definition=reference.conv2d,
        forward=Cost(read + written, 2 * multiply_adds),
        backward=Cost(2 * read + written, 4 * multiply_adds),
    )


def _window(shape: Shape) -> Window:
    pixels = (shape.height, shape.width)
    return window(pixels, shape.taps, shape.strides, shape.padding, shape.dilation)


def joined_taps(
    pixels: tuple[int, ...], filters: tuple[int, ...], where: Window
) -> tuple[tuple[int, ...], tuple[int, ...], Window]:
    """Shapes of the same convolution in which taps of a row are one, where patches do not overlap.

    Pixels of such taps lie behind each other, so taps and channels can be one axis: 16 taps of
    three channels are 48 channels, which are loaded as wide as one likes.

    Args:
        pixels: (B, H, W, C).
        filters: (G, h, w, C, O).
        where: strides, padding and dilation.

    Example:
        >>> where = Window((16, 16), ((0, 0), (0, 0)))
        >>> joined_taps((8, 224, 224, 3), (1, 16, 16, 3, 768), where)[:2]
        ((8, 224, 14, 48), (1, 16, 1, 48, 768))
    """
    rows, height, width, channels = pixels
    groups, down, right, _, features = filters
    side_by_side = where.strides[1] == right and where.padding[1] == (0, 0) and width % right == 0
    if not side_by_side or where.dilation[1] != 1:
        return pixels, filters, where
    pixels = (rows, height, width // right, right * channels)
    filters = (groups, down, 1, right * channels, features)
    return pixels, filters, where._replace(strides=(where.strides[0], 1))


def sizes_of(form: Form) -> dict[str, int]:
    """What a configuration is chosen by beside rows and dtype, of a form or its transpose."""
    form = form.transposed if form.turned else form
    axes = {"height": form.down.pixels, "width": form.right.pixels}
    axes |= {"taps_down": form.down.taps, "taps_right": form.right.taps}
    axes |= {"stride_down": form.down.stride, "stride_right": form.right.stride}
    return {**axes, "channels": form.channels, "features": form.features}


def sizes(shape: Shape, dtype: str) -> dict[str, Any]:
    """What a configuration is chosen by, of a call in this shape."""
    image = (shape.batch, shape.height, shape.width, shape.channels)
    filters = (1, *shape.taps, shape.channels, shape.features)
    pixels, filters, where = joined_taps(image, filters, _window(shape))
    form = Form.of(where, shape.batch, pixels[1:3], filters[1:])
    return {"rows": shape.batch, "dtype": dtype, **sizes_of(form)}


def _bucket(
    *, dtype: str, rows: int, height: int, width: int, taps_down: int, taps_right: int,
    stride_down: int, stride_right: int, channels: int, features: int,
) -> str:  # fmt: skip
    return bucket(
        dtype, f"{taps_down}x{taps_right}", f"by {stride_down}x{stride_right}",
        pixels=rows * height * width, channels=channels, features=features,
    )  # fmt: skip


# ---------------------------------------------------------------------- Rules


def _block(size: int, most: int) -> int:
    """The least power of two that covers ``size``, from 16 to ``most``."""
    return max(16, min(most, round_up(size)))


def _inner_block(channels: int, taps: int, most: int) -> int:
    """What divides the channels, so that a block has one tap; else what covers a short sum."""
    whole = [block for block in (64, 32) if block <= most and channels % block == 0]
    return whole[0] if whole else _block(channels * taps, 32)


def _results(
    *, rows: int, height: int, width: int, stride_down: int, stride_right: int, **_: Any
) -> int:
    return rows * -(-height // stride_down) * -(-width // stride_right)


def _tile(dtype: str, results: int, features: int, channels: int, taps: int) -> Config:
    """Of a product of so many results and features, over so many channels and taps."""
    if dtype == "float32":  # each thread computes its part of the tile, without matrix units
        inner = _inner_block(channels, taps, 32)
        return Config(_block(results, 64), _block(features, 64), inner, 4, 1)  # two stages spill
    columns = _block(features, 128)
    fills_the_device = results * features >= FEW * 128 * columns
    block = _block(results, 128 if fills_the_device else 64)
    warps = 8 if block * columns > 64 * 128 else 4
    return Config(block, columns, _inner_block(channels, taps, 64), warps, 3)


def heuristic(*, dtype: str, channels: int, features: int, **sizes: Any) -> Config:
    """For the value and the slope, where a device has no table; no measurement has confirmed it."""
    taps = sizes["taps_down"] * sizes["taps_right"]
    return _tile(dtype, _results(**sizes), features, channels, taps)


def heuristic_input_gradient(*, dtype: str, channels: int, features: int, **sizes: Any) -> Config:
    """For the transpose, which sums over features; each phase has some of the taps."""
    down, right = (-(-sizes[f"taps_{n}"] // sizes[f"stride_{n}"]) for n in ("down", "right"))
    pixels = sizes["rows"] * sizes["height"] * sizes["width"]
    return _tile(dtype, pixels, channels, features, down * right)


def heuristic_filter_gradient(*, dtype: str, channels: int, features: int, **sizes: Any) -> Config:
    """Rows of the product are taps and channels; it sums over results."""
    inner, results = channels * sizes["taps_down"] * sizes["taps_right"], _results(**sizes)
    if dtype == "float32":
        return Config(_block(results, 32), _block(features, 64), _block(inner, 64), 4, 2)
    columns, block = _block(features, 128), _block(inner, 128)
    # Patches of few channels come an element at a time, through registers: fewer at once.
    warps, stages = 8 if block * columns >= 64 * 128 else 4, 3 if block > 32 else 2
    return Config(_block(results, 64), columns, block, warps, stages)


# (rows, columns, warps) of a tile: a warp group of Hopper has 64 rows.
_TILES = (
    (128, 128, 8),
    (64, 128, 4),
    (128, 64, 4),
    (128, 64, 8),
    (64, 64, 4),
    (128, 256, 8),
    (64, 32, 4),
    (64, 16, 4),
    (128, 16, 4),
)
# Products of float32 are in registers, of which large tiles need too many.
_SINGLE_TILES = ((64, 64, 4), (64, 64, 8), (32, 64, 4), (64, 32, 4), (64, 16, 4), (32, 16, 4))


def _tiles(dtype: str, rows: int, columns: int, inner: int) -> Iterator[tuple[int, ...]]:
    """(rows, columns, inner, warps, stages): tiles that are not mostly outside of the product."""
    single = dtype == "float32"
    blocks, stages = ((16, 32), (1, 2)) if single else ((32, 64), (2, 4))
    for tile, k, depth in itertools.product(_SINGLE_TILES if single else _TILES, blocks, stages):
        m, n, warps = tile
        if m <= max(64, round_up(rows)) and n <= _block(columns, 256) and k <= max(32, inner):
            yield m, n, k, warps, depth


def candidates(*, dtype: str, channels: int, features: int, **sizes: Any) -> Iterator[Config]:
    """What to try for the value and the slope."""
    inner = channels * sizes["taps_down"] * sizes["taps_right"]
    return itertools.starmap(Config, _tiles(dtype, _results(**sizes), features, inner))


def candidates_input_gradient(
    *, dtype: str, channels: int, features: int, **sizes: Any
) -> Iterator[Config]:
    """What to try for the transpose."""
    pixels = sizes["rows"] * sizes["height"] * sizes["width"]
    return itertools.starmap(Config, _tiles(dtype, pixels, channels, features))


def candidates_filter_gradient(
    *, dtype: str, channels: int, features: int, **sizes: Any
) -> Iterator[Config]:
    """What to try where rows of the product are taps and channels."""
    inner = channels * sizes["taps_down"] * sizes["taps_right"]
    for m, n, k, *rest in _tiles(dtype, inner, features, _results(**sizes)):
        yield Config(k, n, m, *rest)


_KERNEL = "kernels.convolution.dense2d.kernel"
# The value; the cotangent before the activation; the transpose; the filters' gradient.
CONVOLVE = Tunable("conv2d.convolve", Config, heuristic, candidates, _bucket, _KERNEL)
SLOPE = Tunable("conv2d.slope", Config, heuristic, candidates, _bucket, _KERNEL)
INPUT_GRADIENT = Tunable(
    "conv2d.input_gradient",
    Config,
    heuristic_input_gradient,
    candidates_input_gradient,
    _bucket,
    _KERNEL,
)
FILTER_GRADIENT = Tunable(
    "conv2d.filter_gradient",
    Config,
    heuristic_filter_gradient,
    candidates_filter_gradient,
    _bucket,
    _KERNEL,
)
TUNABLES = (CONVOLVE, SLOPE, INPUT_GRADIENT, FILTER_GRADIENT)
