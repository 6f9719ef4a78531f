"""The Conformer's convolution in Triton: filters, layer norm and swish in one kernel.

The gate comes before it, in XLA, which fuses it with what gives the inputs. In the kernel it would
be computed once for each program and tap that meets a frame; README.md has the arithmetic.

A program holds all channels of four tiles of frames, as ``depthwise1d.kernel`` does of some. With
statistics that are given there is no sum over channels, and the operation is ``depthwise_conv1d``.

The gradient runs the filters again, gives the cotangent of what they give, and leaves the rest to
``depthwise1d.kernel`` and the gate to XLA. Sums over frames have two stages; there are no atomics.

Axes: B rows, T frames in, U frames out, C channels, W width, K blocks of frames.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false
# pyright: reportArgumentType=false

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import triton
import triton.language as tl

from kernels import launch
from kernels.compiled import Variant
from kernels.configurations import Choices, Tunable
from kernels.convolution.conformer import parts, tuning
from kernels.convolution.depthwise1d import kernel as depthwise1d
from kernels.convolution.depthwise1d.kernel import REUSE, four_tiles
from kernels.convolution.tile import activate, slope_of
from kernels.dispatch import Implementation
from kernels.variants import POINTER, Listed, variants


@triton.jit
def _vector(array, row, channel, C: tl.constexpr):
    """One row of (N, C) in float32."""
    return tl.load(array + row * C + channel, mask=channel < C, other=0.0).to(tl.float32)


@triton.jit
def _filtered(
    h, filters, bias, lengths, row, t, channel,
    T: tl.constexpr, C: tl.constexpr, W: tl.constexpr, LEFT: tl.constexpr,
    ROWS_PER_FILTER: tl.constexpr, ROWS_PER_BIAS: tl.constexpr, ROWS_PER_LENGTH: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    UNROLL: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """What the filters give, as four tiles, and how many frames of the row count."""
    length = T
    if HAS_LENGTHS:
        length = tl.minimum(tl.load(lengths + row // ROWS_PER_LENGTH), T)
    start = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    if HAS_BIAS:
        start += _vector(bias, row // ROWS_PER_BIAS, channel, C)[None, :]
    z0, z1, z2, z3 = four_tiles(
        h + row * T * C, filters + (row // ROWS_PER_FILTER) * W * C, start, t, channel, length,
        C, W, LEFT, 1, False, UNROLL, BLOCK_C,
    )  # fmt: skip
    return z0, z1, z2, z3, length


@triton.jit
def _normed(z, channel, C: tl.constexpr, EPSILON: tl.constexpr):
    """Each frame less its mean over its standard deviation, zero past C, and one over that."""
    mean = tl.sum(z, 1) * (1.0 / C)
    centred = tl.where((channel < C)[None, :], z - mean[:, None], 0.0)
    rate = tl.rsqrt(tl.sum(centred * centred, 1) * (1.0 / C) + EPSILON)
    return centred * rate[:, None], rate


@triton.jit
def _store_value(
    z, t, channel, valid, scale, offset, out,
    U: tl.constexpr, C: tl.constexpr, EPSILON: tl.constexpr,
):  # fmt: skip
    n, _ = _normed(z, channel, C, EPSILON)
    y = activate(n * scale[None, :] + offset[None, :], "silu")
    y = tl.where((t < valid)[:, None], y, 0.0)
    stored = (t < U)[:, None] & (channel < C)[None, :]
    place = t[:, None] * C + channel[None, :]
    tl.store(out + place, y.to(out.dtype.element_ty), mask=stored)


@triton.jit
def forward(
    h, filters, scale, offset, bias, lengths, out,
    T: tl.constexpr, U: tl.constexpr, C: tl.constexpr, W: tl.constexpr, LEFT: tl.constexpr,
    ROWS_PER_FILTER: tl.constexpr, ROWS_PER_SCALE: tl.constexpr, ROWS_PER_OFFSET: tl.constexpr,
    ROWS_PER_BIAS: tl.constexpr, ROWS_PER_LENGTH: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, EPSILON: tl.constexpr,
    BLOCKS: tl.constexpr, UNROLL: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Swish(norm(bias + sum_w h[u + w - LEFT] filters[w]) scale + offset)."""
    row = (tl.program_id(0) // BLOCKS).to(tl.int64)
    t = 4 * ((tl.program_id(0) % BLOCKS) * BLOCK_T + tl.arange(0, BLOCK_T))
    channel = tl.arange(0, BLOCK_C)
    z0, z1, z2, z3, length = _filtered(
        h, filters, bias, lengths, row, t, channel, T, C, W, LEFT,
        ROWS_PER_FILTER, ROWS_PER_BIAS, ROWS_PER_LENGTH, HAS_BIAS, HAS_LENGTHS,
        UNROLL, BLOCK_T, BLOCK_C,
    )  # fmt: skip
    valid = length + (U - T)
    s = _vector(scale, row // ROWS_PER_SCALE, channel, C)
    o = _vector(offset, row // ROWS_PER_OFFSET, channel, C)
    out += row * U * C
    _store_value(z0, t, channel, valid, s, o, out, U, C, EPSILON)
    _store_value(z1, t + 1, channel, valid, s, o, out, U, C, EPSILON)
    _store_value(z2, t + 2, channel, valid, s, o, out, U, C, EPSILON)
    _store_value(z3, t + 3, channel, valid, s, o, out, U, C, EPSILON)


@triton.jit
def _store_slope(
    z, t, channel, valid, scale, offset, dy, dz,
    U: tl.constexpr, C: tl.constexpr, EPSILON: tl.constexpr,
):  # fmt: skip
    """Store the cotangent of z; give those of scale and offset, of each frame."""
    n, rate = _normed(z, channel, C, EPSILON)
    place = t[:, None] * C + channel[None, :]
    stored = (t < U)[:, None] & (channel < C)[None, :]
    slope = slope_of(n * scale[None, :] + offset[None, :], "silu")
    counted = stored & (t < valid)[:, None]
    du = slope * tl.load(dy + place, mask=counted, other=0.0).to(tl.float32)
    dn = du * scale[None, :]
    across = tl.sum(dn, 1) * (1.0 / C)
    along = tl.sum(dn * n, 1) * (1.0 / C)
    tile = rate[:, None] * (dn - across[:, None] - n * along[:, None])
    tl.store(dz + place, tile.to(dz.dtype.element_ty), mask=stored)
    return du * n, du


@triton.jit
def slope(
    h, filters, scale, offset, bias, lengths, dy, dz, partial_scale, partial_offset,
    T: tl.constexpr, U: tl.constexpr, C: tl.constexpr, W: tl.constexpr, LEFT: tl.constexpr,
    ROWS_PER_FILTER: tl.constexpr, ROWS_PER_SCALE: tl.constexpr, ROWS_PER_OFFSET: tl.constexpr,
    ROWS_PER_BIAS: tl.constexpr, ROWS_PER_LENGTH: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr, EPSILON: tl.constexpr,
    BLOCKS: tl.constexpr, UNROLL: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """dz, the cotangent before the norm; partial[b, k], sums over the frames of block k."""
    program = tl.program_id(0).to(tl.int64)
    row = program // BLOCKS
    t = 4 * ((tl.program_id(0) % BLOCKS) * BLOCK_T + tl.arange(0, BLOCK_T))
    channel = tl.arange(0, BLOCK_C)
    z0, z1, z2, z3, length = _filtered(
        h, filters, bias, lengths, row, t, channel, T, C, W, LEFT,
        ROWS_PER_FILTER, ROWS_PER_BIAS, ROWS_PER_LENGTH, HAS_BIAS, HAS_LENGTHS,
        UNROLL, BLOCK_T, BLOCK_C,
    )  # fmt: skip
    valid = length + (U - T)
    s = _vector(scale, row // ROWS_PER_SCALE, channel, C)
    o = _vector(offset, row // ROWS_PER_OFFSET, channel, C)
    dy += row * U * C
    dz += row * U * C
    for_scale, for_offset = _store_slope(z0, t, channel, valid, s, o, dy, dz, U, C, EPSILON)
    ds, do = _store_slope(z1, t + 1, channel, valid, s, o, dy, dz, U, C, EPSILON)
    for_scale += ds
    for_offset += do
    ds, do = _store_slope(z2, t + 2, channel, valid, s, o, dy, dz, U, C, EPSILON)
    for_scale += ds
    for_offset += do
    ds, do = _store_slope(z3, t + 3, channel, valid, s, o, dy, dz, U, C, EPSILON)
    for_scale += ds
    for_offset += do
    place = program * C + channel
    tl.store(partial_scale + place, tl.sum(for_scale, 0), mask=channel < C)
    tl.store(partial_offset + place, tl.sum(for_offset, 0), mask=channel < C)


def _layer(h, small, lengths, *, epsilon, left, right):
    (y,) = _launched(tuning.FORWARD, h, small, lengths, None, epsilon, left, right)
    return y


def _layer_gradient(h, small, lengths, dy, wanted, *, epsilon, left, right):
    filters, scale, offset, bias, *_ = small
    dz, *sums = _launched(tuning.SLOPE, h, small, lengths, dy, epsilon, left, right)
    dscale, doffset = (
        by_block.reshape(array.shape[0], -1, array.shape[1]).sum(1).astype(array.dtype)
        for by_block, array in zip(sums, (scale, offset), strict=True)
    )
    asked = (wanted[0], wanted[1], wanted[4], False)
    gradient = depthwise1d.depthwise_conv1d.gradient
    assert gradient is not None
    found = gradient(
        (h, filters, bias, lengths), (), (dz,), asked,
        left=left, right=right, dilation=1, activation=None,
    )  # fmt: skip
    dh, dfilters, dbias, _ = parts.in_places(found, asked)
    return dh, dfilters, dscale, doffset, dbias


# Of each operand, in the order of the kernels; rows by a letter of their own.
_AXES = {
    "h": "b t c", "filters": "g w c", "scale": "m c", "offset": "n c", "bias": "o c",
    "lengths": "l", "dy": "b u c",
}  # fmt: skip
_ROWS = {
    "FILTER": "filters", "SCALE": "scale", "OFFSET": "offset", "BIAS": "bias", "LENGTH": "lengths",
}  # fmt: skip


def _launched(tunable, h, small, lengths, dy, epsilon, left, right):
    """The results of ``forward``, or of ``slope`` where there is a cotangent."""
    operands = dict(zip(_AXES, (h, *small[:4], lengths, dy), strict=True))
    present = {name: array for name, array in operands.items() if array is not None}
    kernel, results = (forward, "b u c") if dy is None else (slope, "b u c, b k c, b k c")
    taken = [name for name in _AXES if name in kernel.arg_names]
    width = operands["filters"].shape[1]
    frames = h.shape[1] + left + right - (width - 1)
    # Of the whole arrays: the number of partial sums must be the same on every device.
    config = _chosen(tunable, h, frames, width).config
    blocks = _blocks(frames, config)

    def local(*arrays):
        given = dict(zip(present, arrays, strict=True))
        rows, size, channels = given["h"].shape
        per_row: dict[str, Any] = {
            f"ROWS_PER_{what}": rows // given[name].shape[0] if name in given else 1
            for what, name in _ROWS.items()
        }
        sums = jax.ShapeDtypeStruct((rows, blocks, channels), jnp.float32)
        out = jax.ShapeDtypeStruct((rows, frames, channels), h.dtype)
        return launch.kernel_call(
            kernel,
            *(given.get(name, given["h"]) for name in taken),
            out=(out,) if dy is None else (out, sums, sums),
            grid=(rows * blocks,),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            T=size, U=frames, C=channels, W=width, LEFT=left, **per_row,
            HAS_BIAS="bias" in given, HAS_LENGTHS="lengths" in given, EPSILON=epsilon,
            BLOCKS=blocks, UNROLL=config.unroll, BLOCK_T=config.block_frames,
            BLOCK_C=tuning.block_channels(channels),
        )  # fmt: skip

    rules = []
    for name, array in present.items():
        first, *others = _AXES[name].split()
        rules.append(" ".join((launch.row_axis(first, array, h), *others)))
    axes = f"{' '.join(rules)} {results}".replace(",", "").split()
    whole = [axis for axis in dict.fromkeys(axes) if axis != "b"]
    whole += ["b"] if launch.shares_rows(*present.values()) else []
    rule = f"{', '.join(rules)} -> {results}"
    return launch.sharded(local, rule, *present.values(), whole=whole)


def _blocks(frames, config):
    return triton.cdiv(frames, REUSE * config.block_frames)


def _chosen(tunable, h, frames, width):
    rows, _, channels = h.shape
    return tunable.choose(
        rows=rows, frames=frames, channels=channels, width=width, dtype=h.dtype.name
    )


def _refusal(inputs, filters, scale, offset, bias, mean, variance, lengths, *, norm, **_):
    arrays = (inputs, filters, scale, offset, bias, mean, variance)
    if any(array is not None and array.dtype == jnp.float64 for array in arrays):
        return "its sums are in float32, and float64 was given"
    if inputs.size >= 2**31:
        return "it counts frames times channels in 32 bits"
    if norm == "layer" and filters.shape[-1] > tuning.MOST_CHANNELS:
        return f"a program holds all channels of a frame, at most {tuning.MOST_CHANNELS}"
    return None


def _tuning(inputs, filters, *rest, norm, left, right, **_):
    h = jax.ShapeDtypeStruct((*inputs.shape[:2], filters.shape[-1]), inputs.dtype)
    width = filters.shape[1]
    frames = h.shape[1] + left + right - (width - 1)
    plain = depthwise1d.depthwise_conv1d.tuning(
        h, filters, None, rest[-1],
        left=left, right=right, dilation=1, activation=None if norm == "layer" else "silu",
    )  # fmt: skip
    if norm != "layer":
        return plain
    return Choices((*(_chosen(kernel, h, frames, width) for kernel in tuning.TUNABLES), *plain))


_PIECES = parts.Pieces(depthwise1d.depthwise_conv1d, _layer, _layer_gradient, lambda dtype: dtype)
conformer_convolution = Implementation(
    functools.partial(parts.forward, _PIECES),
    functools.partial(parts.gradient, _PIECES),
    refusal=_refusal,
    tuning=_tuning,
)


# The slope needs the most registers, most in float32.
_COMPILED = [
    (tuning.FORWARD, "conformer_l_500", "bfloat16"),
    (tuning.SLOPE, "conformer_l_500", "bfloat16"),
    (tuning.SLOPE, "conformer_l_500", "float32"),
]


def compiled_variants(arch: str) -> Iterator[Variant]:
    """What the static report compiles: by the heuristic, and each configuration in a table."""
    listed = (
        Listed(tunable, tuning.sizes(tuning.SHAPES[name], dtype), f"{name}/{dtype}")
        for tunable, name, dtype in _COMPILED
    )
    return variants(arch, listed, tuning.TUNABLES, variant)


def variant(tunable: Tunable, sizes: Mapping[str, Any], config: Any, label: str) -> Variant:
    """A launch for these sizes with all that a call can ask for: bias and lengths."""
    rows, frames, channels, width = (sizes[k] for k in ("rows", "frames", "channels", "width"))
    pointer, item = POINTER[sizes["dtype"]], jnp.dtype(sizes["dtype"]).itemsize
    elements, blocks = rows * frames * channels, _blocks(frames, config)
    is_slope = tunable.name == tuning.SLOPE.name
    arrays = ("h", "filters", "scale", "offset", "bias", *(("dy", "dz") if is_slope else ("out",)))
    sums = ("partial_scale", "partial_offset") if is_slope else ()
    return Variant(
        name=f"{tunable.name}/{label}",
        kernel=slope if is_slope else forward,
        signature=dict.fromkeys(arrays, pointer)
        | dict.fromkeys(sums, "*fp32")
        | {"lengths": "*i32"},
        constants={
            "T": frames, "U": frames, "C": channels, "W": width, "LEFT": (width - 1) // 2,
            **{f"ROWS_PER_{axis}": rows for axis in _ROWS}, "ROWS_PER_LENGTH": 1,
            "HAS_BIAS": True, "HAS_LENGTHS": True, "EPSILON": 1e-5, "BLOCKS": blocks,
            "UNROLL": config.unroll, "BLOCK_T": config.block_frames,
            "BLOCK_C": tuning.block_channels(channels),
        },
        config=config,
        bytes=(3 if is_slope else 2) * elements * item + len(sums) * rows * blocks * channels * 4,
        flops=2 * elements * width,
    )  # fmt: skip
