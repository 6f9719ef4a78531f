"""Depthwise convolution in Triton: one kernel forwards and for the input, one for the filters.

A program holds REUSE = 4 tiles of frames whose positions interleave: tile r has the frames
t + r dilation. A tile of inputs that is loaded once then serves four taps, so that W + 3 loads,
not 4 W, make four tiles of outputs. Products and sums are in float32.

The gradient of the filters is deterministic: each program writes its own partial sums, and XLA adds
them up in a second stage. No atomics.

Axes: B rows, T frames in, U frames out, C channels, W width, K blocks of frames.
"""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import triton
import triton.language as tl

from kernels import launch
from kernels.compiled import Variant
from kernels.configurations import Choices, Tunable
from kernels.convolution.depthwise1d import tuning
from kernels.convolution.tile import activate, slope_of
from kernels.dispatch import Implementation
from kernels.variants import POINTER, Listed, variants

REUSE = 4


@triton.jit
def _finish(
    z, t, channel, valid, cotangent, out, U: tl.constexpr, C: tl.constexpr,
    ACTIVATION: tl.constexpr, SLOPE: tl.constexpr,
):  # fmt: skip
    """Store one tile: the activation, or the cotangent times its slope; zero past the valid."""
    place = t[:, None] * C + channel[None, :]
    stored = (t < U)[:, None] & (channel < C)[None, :]
    if SLOPE:
        y = slope_of(z, ACTIVATION) * tl.load(cotangent + place, mask=stored, other=0.0).to(
            tl.float32
        )
    else:
        y = activate(z, ACTIVATION)
    y = tl.where((t < valid)[:, None], y, 0.0)
    tl.store(out + place, y.to(out.dtype.element_ty), mask=stored)


@triton.jit
def four_tiles(
    x, filters, start, t, channel, length,
    C: tl.constexpr, W: tl.constexpr, LEFT: tl.constexpr, DILATION: tl.constexpr,
    FLIP: tl.constexpr, UNROLL: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Tiles r = 0 to 3 of start + sum_w x[u + w DILATION - LEFT] filters[w], u = t + r DILATION.

    x and filters point to those of one row; frames of x from ``length`` on count as zero.
    """
    inside = channel < C
    filters += channel
    z0 = start
    z1 = start
    z2 = start
    z3 = start
    f1 = tl.zeros((BLOCK_C,), tl.float32)
    f2 = f1
    f3 = f1
    for p in tl.range(0, W + 3, loop_unroll_factor=UNROLL):
        w = W - 1 - p if FLIP else p
        f0 = tl.load(filters + w * C, mask=inside & (p < W), other=0.0).to(tl.float32)
        s = t + p * DILATION - LEFT
        present = ((s >= 0) & (s < length))[:, None] & inside[None, :]
        v = tl.load(x + s[:, None] * C + channel[None, :], mask=present, other=0.0)
        v = v.to(tl.float32)
        z0 += v * f0[None, :]
        z1 += v * f1[None, :]
        z2 += v * f2[None, :]
        z3 += v * f3[None, :]
        f3 = f2
        f2 = f1
        f1 = f0
    return z0, z1, z2, z3


@triton.jit
def convolve(
    x, filters, bias, lengths, cotangent, out,
    T: tl.constexpr, U: tl.constexpr, C: tl.constexpr, W: tl.constexpr, LEFT: tl.constexpr,
    DILATION: tl.constexpr, ROWS_PER_FILTER: tl.constexpr, ROWS_PER_BIAS: tl.constexpr,
    ROWS_PER_LENGTH: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    FLIP: tl.constexpr, SLOPE: tl.constexpr,
    ACTIVATION: tl.constexpr, BLOCKS: tl.constexpr, UNROLL: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """out[u] = act(bias + sum_w x[u + w DILATION - LEFT] filters[w]), or cotangent times act'."""
    row = (tl.program_id(0) // BLOCKS).to(tl.int64)
    i = (tl.program_id(0) % BLOCKS) * BLOCK_T + tl.arange(0, BLOCK_T)
    t = (i // DILATION) * (4 * DILATION) + i % DILATION
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < C
    length = T
    if HAS_LENGTHS:
        length = tl.minimum(tl.load(lengths + row // ROWS_PER_LENGTH), T)
    z0 = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    if HAS_BIAS:
        b = tl.load(bias + (row // ROWS_PER_BIAS) * C + channel, mask=inside, other=0.0)
        z0 += b.to(tl.float32)[None, :]
    z0, z1, z2, z3 = four_tiles(
        x + row * T * C, filters + (row // ROWS_PER_FILTER) * W * C, z0, t, channel, length,
        C, W, LEFT, DILATION, FLIP, UNROLL, BLOCK_C,
    )  # fmt: skip
    valid = length + (U - T)
    out += row * U * C
    cotangent += row * U * C
    _finish(z0, t, channel, valid, cotangent, out, U, C, ACTIVATION, SLOPE)
    _finish(z1, t + DILATION, channel, valid, cotangent, out, U, C, ACTIVATION, SLOPE)
    _finish(z2, t + 2 * DILATION, channel, valid, cotangent, out, U, C, ACTIVATION, SLOPE)
    _finish(z3, t + 3 * DILATION, channel, valid, cotangent, out, U, C, ACTIVATION, SLOPE)


@triton.jit
def _cotangent_tile(dz, t, channel, valid, U: tl.constexpr, C: tl.constexpr):
    present = ((t < U) & (t < valid))[:, None] & (channel < C)[None, :]
    tile = tl.load(dz + t[:, None] * C + channel[None, :], mask=present, other=0.0)
    return tile.to(tl.float32)


@triton.jit
def filter_gradient(
    x, dz, lengths, partial_filters, partial_bias,
    T: tl.constexpr, U: tl.constexpr, C: tl.constexpr, W: tl.constexpr, LEFT: tl.constexpr,
    DILATION: tl.constexpr, ROWS_PER_LENGTH: tl.constexpr, HAS_LENGTHS: tl.constexpr,
    BLOCKS: tl.constexpr, UNROLL: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """partial[b, k, w] = sum over frames u of block k of x[b, u + w DILATION - LEFT] dz[b, u]."""
    program = tl.program_id(0).to(tl.int64)
    row = program // BLOCKS
    i = (tl.program_id(0) % BLOCKS) * BLOCK_T + tl.arange(0, BLOCK_T)
    t = (i // DILATION) * (4 * DILATION) + i % DILATION
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < C
    length = T
    if HAS_LENGTHS:
        length = tl.minimum(tl.load(lengths + row // ROWS_PER_LENGTH), T)
    valid = length + (U - T)
    dz += row * U * C
    x += row * T * C
    d0 = _cotangent_tile(dz, t, channel, valid, U, C)
    d1 = _cotangent_tile(dz, t + DILATION, channel, valid, U, C)
    d2 = _cotangent_tile(dz, t + 2 * DILATION, channel, valid, U, C)
    d3 = _cotangent_tile(dz, t + 3 * DILATION, channel, valid, U, C)
    total = tl.sum((d0 + d1) + (d2 + d3), 0)
    tl.store(partial_bias + program * C + channel, total, mask=inside)
    taps = partial_filters + program * W * C + channel
    # The tap w meets tile r when p = w + r: its sum is complete after four steps.
    a0 = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    a1 = a0
    a2 = a0
    for p in tl.range(0, W + 3, loop_unroll_factor=UNROLL):
        s = t + p * DILATION - LEFT
        present = ((s >= 0) & (s < length))[:, None] & inside[None, :]
        v = tl.load(x + s[:, None] * C + channel[None, :], mask=present, other=0.0).to(tl.float32)
        tap = tl.sum(a2 + v * d3, 0)
        tl.store(taps + (p - 3) * C, tap, mask=inside & (p >= 3))
        a2 = a1 + v * d2
        a1 = a0 + v * d1
        a0 = v * d0


def _forward(inputs, filters, bias, lengths, *, left, right, dilation, activation):
    frames = inputs.shape[1] + left + right - (filters.shape[1] - 1) * dilation
    return (_convolve(inputs, filters, bias, lengths, None, frames, left, dilation, activation),)


def _gradient(operands, outputs, cotangents, wanted, *, left, right, dilation, activation):
    inputs, filters, bias, lengths = operands
    dz = cotangents[0]
    frames, change = dz.shape[1], dz.shape[1] - inputs.shape[1]
    if activation is not None:
        dz = _convolve(inputs, filters, bias, lengths, dz, frames, left, dilation, activation)
    wants_inputs, wants_filters, wants_bias, _ = wanted
    gradients = []
    if wants_inputs:
        reach = (filters.shape[1] - 1) * dilation
        shorter = None if lengths is None else jnp.minimum(lengths, inputs.shape[1]) + change
        dx = _convolve(
            dz,
            filters,
            None,
            shorter,
            None,
            inputs.shape[1],
            reach - left,
            dilation,
            None,
            flip=True,
        )
        gradients.append(dx.astype(inputs.dtype))
    if wants_filters or wants_bias:
        taps, sums = _partial_sums(inputs, dz, lengths, filters.shape[1], left, dilation)
        if wants_filters:
            by_filter = taps.reshape(filters.shape[0], -1, *filters.shape[1:])
            gradients.append(by_filter.sum(1).astype(filters.dtype))
        if wants_bias:
            gradients.append(sums.reshape(bias.shape[0], -1, bias.shape[1]).sum(1, bias.dtype))
    return tuple(gradients)


def _convolve(
    x, filters, bias, lengths, cotangent, frames, left, dilation, activation, *, flip=False
):
    def local(x, filters, *rest):
        optional = iter(rest)
        parts = [None if part is None else next(optional) for part in (bias, lengths, cotangent)]
        rows, size, channels = x.shape
        tunable = tuning.CONVOLVE if parts[2] is None else tuning.SLOPE
        config = _chosen(tunable, x, frames, filters.shape[1], dilation).config
        blocks = _blocks(frames, dilation, config)
        return launch.kernel_call(
            convolve,
            x,
            filters,
            *(x if part is None else part for part in parts),
            out=jax.ShapeDtypeStruct((rows, frames, channels), x.dtype),
            grid=(rows * blocks, triton.cdiv(channels, config.block_channels)),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            T=size, U=frames, C=channels, W=filters.shape[1], LEFT=left, DILATION=dilation,
            ROWS_PER_FILTER=rows // filters.shape[0],
            ROWS_PER_BIAS=1 if parts[0] is None else rows // parts[0].shape[0],
            ROWS_PER_LENGTH=1 if parts[1] is None else rows // parts[1].shape[0],
            HAS_BIAS=parts[0] is not None, HAS_LENGTHS=parts[1] is not None, FLIP=flip,
            SLOPE=parts[2] is not None, ACTIVATION=activation or "", BLOCKS=blocks,
            UNROLL=config.unroll, BLOCK_T=config.block_frames, BLOCK_C=config.block_channels,
        )  # fmt: skip

    rules = ["b t c", launch.row_axis("g", filters, x) + " w c"]
    rules += [] if bias is None else [launch.row_axis("h", bias, x) + " c"]
    rules += [] if lengths is None else [launch.row_axis("l", lengths, x)]
    rules += [] if cotangent is None else ["b u c"]
    arrays = [array for array in (x, filters, bias, lengths, cotangent) if array is not None]
    axes = ("t", "u", "w", "g", "h", "l")
    whole = [axis for axis in axes if axis in " ".join((*rules, "u")).split()]
    whole += ["b"] if launch.shares_rows(*arrays) else []
    return launch.sharded(local, ", ".join(rules) + " -> b u c", *arrays, whole=whole)


def _partial_sums(x, dz, lengths, width, left, dilation):
    frames = dz.shape[1]
    # Of the whole arrays: the number of partial sums must be the same on every device.
    config = _chosen(tuning.FILTER_GRADIENT, x, frames, width, dilation).config
    blocks = _blocks(frames, dilation, config)

    def local(x, dz, *lengths):
        rows, size, channels = x.shape
        return launch.kernel_call(
            filter_gradient,
            x,
            dz,
            lengths[0] if lengths else x,
            out=(
                jax.ShapeDtypeStruct((rows, blocks, width, channels), jnp.float32),
                jax.ShapeDtypeStruct((rows, blocks, channels), jnp.float32),
            ),
            grid=(rows * blocks, triton.cdiv(channels, config.block_channels)),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            T=size, U=frames, C=channels, W=width, LEFT=left, DILATION=dilation,
            ROWS_PER_LENGTH=rows // lengths[0].shape[0] if lengths else 1,
            HAS_LENGTHS=bool(lengths), BLOCKS=blocks, UNROLL=config.unroll,
            BLOCK_T=config.block_frames, BLOCK_C=config.block_channels,
        )  # fmt: skip

    arrays = (x, dz) if lengths is None else (x, dz, lengths)
    rule = "b t c, b u c" + ("" if lengths is None else ", " + launch.row_axis("l", lengths, x))
    whole = ["t", "u", "k", "w"] + (["l"] if ", l" in rule else [])
    whole += ["b"] if launch.shares_rows(*arrays) else []
    return launch.sharded(local, rule + " -> b k w c, b k c", *arrays, whole=whole)


def _blocks(frames, dilation, config):
    """Blocks of positions that cover the frames: position i has frames at (i // d) 4 d + i % d."""
    return triton.cdiv(triton.cdiv(frames, REUSE * dilation) * dilation, config.block_frames)


def _refusal(inputs, filters, bias, lengths, **_):
    arrays = [array for array in (inputs, filters, bias) if array is not None]
    if any(array.dtype == jnp.float64 for array in arrays):
        return "its sums are in float32, and float64 was given"
    if inputs.size >= 2**31:
        return "it counts frames times channels in 32 bits"
    return None


def _chosen(tunable, x, frames, width, dilation):
    rows, _, channels = x.shape
    return tunable.choose(
        rows=rows, frames=frames, channels=channels, width=width, dilation=dilation,
        dtype=x.dtype.name,
    )  # fmt: skip


def _tuning(inputs, filters, bias, lengths, *, left, right, dilation, activation):
    width = filters.shape[1]
    frames = inputs.shape[1] + left + right - (width - 1) * dilation
    launched = [t for t in tuning.TUNABLES if activation is not None or t is not tuning.SLOPE]
    return Choices(_chosen(kernel, inputs, frames, width, dilation) for kernel in launched)


depthwise_conv1d = Implementation(_forward, _gradient, refusal=_refusal, tuning=_tuning)


# Narrow, wide, widest and dilated filters take different loops; the activation is the slope's.
_COMPILED = [
    (tunable, name, "bfloat16")
    for name in ("causal_w4", "conformer_w31", "wide_w128", "dilated_w3")
    for tunable in (tuning.CONVOLVE, tuning.FILTER_GRADIENT)
] + [
    (tuning.SLOPE, "causal_w4", "bfloat16"),
    (tuning.SLOPE, "conformer_w31", "bfloat16"),
    (tuning.CONVOLVE, "conformer_w31", "float32"),
    (tuning.FILTER_GRADIENT, "conformer_w31", "float32"),
]


def compiled_variants(arch: str) -> Iterator[Variant]:
    """What the static report compiles: by the heuristic, and each configuration in a table."""
    listed = (
        Listed(tunable, tuning.sizes(tuning.SHAPES[name], dtype), f"{name}/{dtype}")
        for tunable, name, dtype in _COMPILED
    )
    return variants(arch, listed, tuning.TUNABLES, variant)


def variant(tunable: Tunable, sizes: Mapping[str, Any], config: Any, label: str) -> Variant:
    """A launch for these sizes with all that a call can ask for: bias, lengths, an activation."""
    rows, frames, channels, width = (sizes[k] for k in ("rows", "frames", "channels", "width"))
    dilation, pointer = sizes["dilation"], POINTER[sizes["dtype"]]
    elements, item = rows * frames * channels, jnp.dtype(sizes["dtype"]).itemsize
    blocks = _blocks(frames, dilation, config)
    constants = {
        "T": frames, "U": frames, "C": channels, "W": width, "LEFT": (width - 1) * dilation // 2,
        "DILATION": dilation, "ROWS_PER_LENGTH": 1, "HAS_LENGTHS": True, "BLOCKS": blocks,
        "UNROLL": config.unroll, "BLOCK_T": config.block_frames, "BLOCK_C": config.block_channels,
    }  # fmt: skip
    if tunable.name == tuning.FILTER_GRADIENT.name:
        kernel, arrays, moved = filter_gradient, ("x", "dz"), 2 * elements * item
        moved += rows * blocks * (width + 1) * channels * 4
        signature = dict.fromkeys(("partial_filters", "partial_bias"), "*fp32")
    else:
        slope = tunable.name == tuning.SLOPE.name
        kernel, arrays = convolve, ("x", "filters", "bias", "cotangent", "out")
        moved, signature = (3 if slope else 2) * elements * item, {}
        constants |= {
            "ROWS_PER_FILTER": rows, "ROWS_PER_BIAS": rows, "HAS_BIAS": True, "FLIP": False,
            "SLOPE": slope, "ACTIVATION": "silu",
        }  # fmt: skip
    return Variant(
        name=f"{tunable.name}/{label}",
        kernel=kernel,
        signature=signature | dict.fromkeys(arrays, pointer) | {"lengths": "*i32"},
        constants=constants,
        config=config,
        bytes=moved,
        flops=2 * elements * width,
    )
