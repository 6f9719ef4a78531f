"""Depthwise convolution of images in Triton: what is launched, where, and how.

The kernels are in forward.py and backward.py. Products and sums are in float32.

Axes: B rows, H by W pixels, U by V results, C channels, h by w taps, K blocks of pixels.
"""

import math

import jax
import jax.numpy as jnp
import triton

from kernels import launch
from kernels.configurations import Choices
from kernels.convolution.depthwise2d import backward, forward, tuning
from kernels.convolution.windows import Window
from kernels.dispatch import Implementation

REUSE = 4  # tiles of a program


def _forward(inputs, filters, bias, *, activation, **window):
    return (_convolve(Window(**window), inputs, filters, bias, None, activation),)


def _gradient(operands, outputs, cotangents, wanted, *, activation, **window):
    del outputs
    window, (inputs, filters, bias), (dz,) = Window(**window), operands, cotangents
    if activation is not None:
        dz = _convolve(window, inputs, filters, bias, dz, activation)
    wants_inputs, wants_filters, wants_bias = wanted
    gradients = []
    if wants_inputs:
        gradients.append(_inputs_gradient(window, inputs, filters, dz))
    if wants_filters or wants_bias:
        taps, sums = _partial_sums(window, inputs, filters, dz)
        if wants_filters:
            by_filter = taps.reshape(filters.shape[0], -1, *filters.shape[1:])
            gradients.append(by_filter.sum(1).astype(filters.dtype))
        if wants_bias:
            by_bias = sums.reshape(bias.shape[0], -1, bias.shape[1])
            gradients.append(by_bias.sum(1).astype(bias.dtype))
    return tuple(gradients)


def _convolve(window, x, filters, bias, cotangent, activation):
    results = window.results(x.shape[1:3], filters.shape[1:3])
    tunable = tuning.CONVOLVE if cotangent is None else tuning.SLOPE

    def local(x, filters, *rest):
        optional = iter(rest)
        parts = [None if part is None else next(optional) for part in (bias, cotangent)]
        rows, _, _, channels = x.shape
        config = _chosen(tunable, window, x.shape, filters.shape[1:3], x.dtype).config
        constants = constants_of(window, x.shape, filters.shape[1:3], results, config)
        return launch.kernel_call(
            forward.convolve,
            x,
            filters,
            *(x if part is None else part for part in parts),
            out=jax.ShapeDtypeStruct((rows, *results, channels), x.dtype),
            grid=(rows * constants["BLOCKS"], triton.cdiv(channels, config.block_channels)),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            ROWS_PER_FILTER=rows // filters.shape[0],
            ROWS_PER_BIAS=1 if parts[0] is None else rows // parts[0].shape[0],
            HAS_BIAS=parts[0] is not None,
            SLOPE=parts[1] is not None,
            ACTIVATION=activation or "",
            **constants,
        )

    rules = ["b y x c", launch.row_axis("g", filters, x) + " i j c"]
    rules += [] if bias is None else [launch.row_axis("h", bias, x) + " c"]
    rules += [] if cotangent is None else ["b u v c"]
    arrays = [array for array in (x, filters, bias, cotangent) if array is not None]
    return _sharded(local, rules, "b u v c", *arrays)


def _inputs_gradient(window, inputs, filters, dz):
    def local(dz, filters):
        rows, *results, channels = dz.shape
        shape = (rows, *inputs.shape[1:3], channels)
        taps = filters.shape[1:3]
        config = _chosen(tuning.INPUTS_GRADIENT, window, shape, taps, dz.dtype).config
        constants = turned_constants(window, shape, taps, results, config)
        programs = rows * math.prod(window.strides) * constants["BLOCKS"]
        return launch.kernel_call(
            backward.inputs_gradient,
            dz,
            filters,
            out=jax.ShapeDtypeStruct(shape, inputs.dtype),
            grid=(programs, triton.cdiv(channels, config.block_channels)),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            ROWS_PER_FILTER=rows // filters.shape[0],
            **constants,
        )

    rules = ["b u v c", launch.row_axis("g", filters, dz) + " i j c"]
    return _sharded(local, rules, "b y x c", dz, filters)


def _partial_sums(window, x, filters, dz):
    taps = filters.shape[1:3]
    # Of the whole arrays: the number of partial sums must be the same on every device.
    config = _chosen(tuning.FILTER_GRADIENT, window, x.shape, taps, x.dtype).config
    constants = constants_of(window, x.shape, taps, dz.shape[1:3], config)
    blocks = constants["BLOCKS"]

    def local(x, dz):
        rows, _, _, channels = x.shape
        return launch.kernel_call(
            backward.filter_gradient,
            x,
            dz,
            out=(
                jax.ShapeDtypeStruct((rows, blocks, *taps, channels), jnp.float32),
                jax.ShapeDtypeStruct((rows, blocks, channels), jnp.float32),
            ),
            grid=(rows * blocks, triton.cdiv(channels, config.block_channels)),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            **constants | {"C": channels},
        )

    return _sharded(local, ["b y x c", "b u v c"], "b k i j c, b k c", x, dz)


def _sharded(function, rules, results, *arrays):
    """Images and channels may be cut; a device has its pixels and taps whole."""
    rule = ", ".join(rules) + " -> " + results
    whole = [axis for axis in "yxuvijghk" if axis in rule.replace(",", "").split()]
    whole += ["b"] if launch.shares_rows(*arrays) else []
    return launch.sharded(function, rule, *arrays, whole=whole)


def _axes(window):
    """(residues, rows from tile to tile), down and likewise across: see forward.py."""
    pairs = list(zip(window.strides, window.dilation, strict=True))
    return [(stride // math.gcd(stride, d), d // math.gcd(stride, d)) for stride, d in pairs]


def _sizes(window, shape, taps, results, config):
    (top, _), (left, _) = window.padding
    return {
        "H": shape[1], "W": shape[2], "U": results[0], "V": results[1], "C": shape[3],
        "TAPS_Y": taps[0], "TAPS_X": taps[1],
        "STRIDE_Y": window.strides[0], "STRIDE_X": window.strides[1], "TOP": top, "LEFT": left,
        "DILATION_Y": window.dilation[0], "DILATION_X": window.dilation[1],
        "UNROLL": config.unroll, "BLOCK": config.block_pixels, "BLOCK_C": config.block_channels,
    }  # fmt: skip


def constants_of(window, shape, taps, results, config):
    """Of the kernels whose programs have results."""
    (residues, apart), _ = _axes(window)
    blocks = _blocks(results[0], results[1], apart, config)
    sizes = _sizes(window, shape, taps, results, config)
    return sizes | {"RESIDUES": residues, "APART": apart, "BLOCKS": blocks}


def turned_constants(window, shape, taps, results, config):
    """Of the kernel whose programs have pixels of a phase."""
    down, across = _axes(window)
    rows, columns = (triton.cdiv(shape[1 + axis], window.strides[axis]) for axis in (0, 1))
    blocks = _blocks(rows, columns, down[1], config)
    return _sizes(window, shape, taps, results, config) | {
        "RESIDUES_Y": down[0], "RESIDUES_X": across[0], "APART_Y": down[1], "APART_X": across[1],
        "INVERSE_Y": pow(down[1], -1, down[0]), "INVERSE_X": pow(across[1], -1, across[0]),
        "BLOCKS": blocks,
    }  # fmt: skip


def _blocks(rows, columns, apart, config):
    """Blocks of pixels that cover so many: tiles are ``apart`` rows from one another."""
    return triton.cdiv(triton.cdiv(rows, REUSE * apart) * apart * columns, config.block_pixels)


def _chosen(tunable, window, shape, taps, dtype):
    results = window.results(shape[1:3], taps)
    return tunable.choose(
        **tuning.chosen_by(shape, taps, results, window.strides, window.dilation, dtype.name)
    )


def _refusal(inputs, filters, bias, *, activation, **window):
    del activation
    arrays = [array for array in (inputs, filters, bias) if array is not None]
    if any(array.dtype == jnp.float64 for array in arrays):
        return "its sums are in float32, and float64 was given"
    rows, *pixels, channels = inputs.shape
    results = Window(**window).results(pixels, filters.shape[1:3])
    if rows * channels * max(math.prod(pixels), math.prod(results)) >= 2**31:
        return "it counts pixels times channels in 32 bits"
    return None


def _tuning(inputs, filters, bias, *, activation, **window):
    del bias
    launched = [t for t in tuning.TUNABLES if activation is not None or t is not tuning.SLOPE]
    taps = filters.shape[1:3]
    return Choices(
        _chosen(kernel, Window(**window), inputs.shape, taps, inputs.dtype) for kernel in launched
    )


depthwise_conv2d = Implementation(_forward, _gradient, refusal=_refusal, tuning=_tuning)
