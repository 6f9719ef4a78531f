"""Of the kernels: what the static report compiles."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp

from kernels.compiled import Variant
from kernels.configurations import Tunable
from kernels.convolution.depthwise2d import backward, forward, kernel, tuning
from kernels.convolution.windows import Window
from kernels.variants import POINTER, Listed, variants

# Strides and the size of filters take different loops; the activation is the slope's.
_COMPILED = [
    (tunable, name, "bfloat16")
    for name in ("convnext_7x7", "mobilenet_3x3_stride_2")
    for tunable in (tuning.CONVOLVE, tuning.INPUTS_GRADIENT, tuning.FILTER_GRADIENT)
] + [
    (tuning.SLOPE, "efficientnet_5x5", "bfloat16"),
    (tuning.CONVOLVE, "convnext_7x7", "float32"),
    (tuning.FILTER_GRADIENT, "convnext_7x7", "float32"),
]


def compiled_variants(arch: str) -> Iterator[Variant]:
    """What the static report compiles: by the heuristic, and each configuration in a table."""
    listed = (
        Listed(tunable, tuning.sizes(tuning.SHAPES[name], dtype), f"{name}/{dtype}")
        for tunable, name, dtype in _COMPILED
    )
    return variants(arch, listed, tuning.TUNABLES, variant)


def variant(tunable: Tunable, sizes: Mapping[str, Any], config: Any, label: str) -> Variant:
    """A launch for these sizes with all that a call can ask for: bias, an activation.

    Its padding is that of SAME, or what comes nearest to these sizes.
    """
    pairs = {
        name: (sizes[f"{name}_down"], sizes[f"{name}_across"])
        for name in ("taps", "results", "stride", "dilation")
    }
    taps, results = pairs["taps"], pairs["results"]
    shape = tuple(sizes[name] for name in ("rows", "height", "width", "channels"))
    ends = zip(shape[1:3], taps, results, pairs["stride"], pairs["dilation"], strict=True)
    lost = [(n - 1) * s + (t - 1) * d + 1 - length for length, t, n, s, d in ends]
    pads = tuple((pad // 2, pad - pad // 2) for pad in lost)
    window = Window(pairs["stride"], (pads[0], pads[1]), pairs["dilation"])
    elements = [shape[0] * shape[3] * math.prod(grid) for grid in (shape[1:3], results)]
    pointer, item = POINTER[sizes["dtype"]], jnp.dtype(sizes["dtype"]).itemsize
    moved, extra, types = sum(elements) * item, {}, {}
    if tunable.name == tuning.INPUTS_GRADIENT.name:
        function, arrays = backward.inputs_gradient, ("dz", "filters", "out")
        constants = kernel.turned_constants(window, shape, taps, results, config)
        extra = {"ROWS_PER_FILTER": shape[0]}
    else:
        constants = kernel.constants_of(window, shape, taps, results, config)
        if tunable.name == tuning.FILTER_GRADIENT.name:
            function, arrays = backward.filter_gradient, ("x", "dz")
            types = dict.fromkeys(("partial_filters", "partial_bias"), "*fp32")
            sums = math.prod(taps) + 1
            moved += shape[0] * constants["BLOCKS"] * sums * shape[3] * 4
        else:
            function, arrays = forward.convolve, ("x", "filters", "bias", "cotangent", "out")
            slope = tunable.name == tuning.SLOPE.name
            moved += elements[1] * item if slope else 0
            extra = {
                "ROWS_PER_FILTER": shape[0], "ROWS_PER_BIAS": shape[0], "HAS_BIAS": True,
                "SLOPE": slope, "ACTIVATION": "silu",
            }  # fmt: skip
    return Variant(
        name=f"{tunable.name}/{label}",
        kernel=function,
        signature=types | dict.fromkeys(arrays, pointer),
        constants=constants | extra,
        config=config,
        bytes=moved,
        flops=2 * elements[1] * math.prod(taps),
    )
