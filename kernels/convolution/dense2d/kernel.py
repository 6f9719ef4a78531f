"""Convolution of images in Triton: what is launched with which sizes.

The value is one launch, and so is the gradient of the inputs: the transpose, in which each phase of
the strides has its own taps. The filters' gradient is a sum over all results. It has two stages:
programs write sums over parts of the results, and XLA adds the parts up. No atomics.

Axes: B rows, H by W pixels, C channels, h by w taps, O features, U by V pixels of the result;
filters and bias have G rows, a divisor of B.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from kernels import launch
from kernels.compiled import Variant
from kernels.configurations import Choices, Tunable
from kernels.convolution.dense2d import products, tuning
from kernels.convolution.dense2d.form import Form
from kernels.convolution.windows import Window, window
from kernels.dispatch import Implementation
from kernels.variants import POINTER, Listed, variants

# Results behind the last one, of a block that is not full, are counted too.
MOST = 2**31 - 2**16


def _forward(inputs, filters, bias, *, activation, **where):
    inputs, filters, where = _seen(inputs, filters, Window(**where))
    return (_convolve(inputs, filters, bias, None, where, activation),)


def _gradient(operands, outputs, cotangents, wanted, *, activation, **where):
    del outputs
    (inputs, filters, bias), (dz,) = operands, cotangents
    x, f, where = _seen(inputs, filters, Window(**where))
    if activation is not None:
        dz = _convolve(x, f, bias, dz, where, activation)
    wants_inputs, wants_filters, wants_bias = wanted
    gradients = []
    if wants_inputs:
        gradients.append(_input_gradient(x, f, dz, where).reshape(inputs.shape))
    if wants_filters:
        sums = _filter_gradient(x, f, dz, where)
        gradients.append(sums.reshape(filters.shape).astype(filters.dtype))
    if wants_bias:
        by_bias = dz.reshape(bias.shape[0], -1, bias.shape[1])
        gradients.append(jnp.sum(by_bias, 1, dtype=jnp.float32).astype(bias.dtype))
    return tuple(gradients)


def _seen(inputs, filters, where):
    """Operands as the launches take them: of one dtype, and taps in a row joined where they can."""
    pixels, size, where = tuning.joined_taps(inputs.shape, filters.shape, where)
    return inputs.reshape(pixels), filters.astype(inputs.dtype).reshape(size), where


# ---------------------------------------------------------------------- Launches


def _convolve(inputs, filters, bias, cotangent, where, activation):
    """act(bias + convolution), or the cotangent times act': (B, U, V, O)."""
    tunable = tuning.CONVOLVE if cotangent is None else tuning.SLOPE

    def local(inputs, filters, *rest):
        optional = iter(rest)
        added, slopes = (None if a is None else next(optional) for a in (bias, cotangent))
        form = _form(where, inputs.shape, filters.shape)
        return _launch(tunable, form, inputs, filters, added, slopes, activation)

    rules = ["b h w c", launch.row_axis("g", filters, inputs) + " i j c o"]
    rules += [] if bias is None else [launch.row_axis("p", bias, inputs) + " o"]
    rules += [] if cotangent is None else ["b u v o"]
    arrays = [array for array in (inputs, filters, bias, cotangent) if array is not None]
    shared = launch.shares_rows(*arrays)
    return _over_rows(local, ", ".join(rules) + " -> b u v o", *arrays, shared=shared)


def _input_gradient(inputs, filters, dz, where):
    """(B, H, W, C)."""

    def local(dz, filters):
        form = _form(where, (len(dz), *inputs.shape[1:]), filters.shape)
        return _launch(tuning.INPUT_GRADIENT, form.transposed, dz, filters)

    rule = f"b u v o, {launch.row_axis('g', filters, dz)} i j c o -> b h w c"
    return _over_rows(local, rule, dz, filters, shared=launch.shares_rows(dz, filters))


def _launch(tunable, form, image, filters, bias=None, cotangent=None, activation=None):
    """``products.convolve`` with the configuration for a form."""
    config = _chosen(tunable, form, image).config
    blocks = _blocks(form.positions, config.block_results)
    columns = _blocks(form.features, config.block_features)
    shape = (len(image), form.down.results, form.right.results, form.features)
    return launch.kernel_call(
        products.convolve,
        image,
        filters,
        *(image if part is None else part for part in (bias, cotangent)),
        out=jax.ShapeDtypeStruct(shape, image.dtype),
        grid=(columns * blocks * form.phases * len(filters),),
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        F=form,
        HAS_BIAS=bias is not None,
        ROWS_PER_BIAS=1 if bias is None else len(image) // len(bias),
        SLOPE=cotangent is not None,
        ACTIVATION=activation or "",
        **_tile(config),
    )


def _filter_gradient(inputs, filters, dz, where):
    """(G, h, w, C, O) in float32."""
    # What serves all rows is summed over the devices that share them.
    group = launch.row_axis("g", filters, inputs)

    def local(inputs, dz):
        groups = len(inputs) if group == "b" else len(filters)
        shape = (groups, *filters.shape[1:])
        form = _form(where, inputs.shape, shape)
        config = _chosen(tuning.FILTER_GRADIENT, form, inputs).config
        parts, tiles = _parts(form, groups, config)
        partial = launch.kernel_call(
            products.filter_gradient,
            inputs,
            dz,
            out=jax.ShapeDtypeStruct((groups, parts, *shape[1:]), jnp.float32),
            grid=(groups * parts * tiles,),
            num_warps=config.num_warps,
            num_stages=config.num_stages,
            F=form,
            PARTS=parts,
            **_tile(config),
        )
        return jnp.sum(partial, 1)

    rule = f"b h w c, b u v o -> {group} i j c o"
    return _over_rows(local, rule, inputs, dz, shared=launch.shares_rows(inputs, filters))


def _over_rows(function, rule, *arrays, shared):
    """Devices may share the rows, unless some of several filters serve some of them each."""
    axes = {*rule.replace(",", "").replace("->", "").split()}
    return launch.sharded(function, rule, *arrays, whole=sorted(axes if shared else axes - {"b"}))


def _form(where, pixels, filters):
    return Form.of(where, pixels[0] // filters[0], pixels[1:3], filters[1:])


def _blocks(size, block):
    return -(-size // block)


def _tile(config):
    return {
        "BM": config.block_results, "BN": config.block_features, "BK": config.block_inner,
    }  # fmt: skip


def _parts(form, groups, config):
    """Parts that the results are divided into for the filters' gradient, and tiles of each."""
    tiles = _blocks(form.inner, config.block_inner) * _blocks(form.features, config.block_features)
    steps = _blocks(form.positions, config.block_results)
    return min(steps, _blocks(tuning.FEW, tiles * groups)), tiles


# ---------------------------------------------------------------------- Choice


def _refusal(inputs, filters, bias, *, groups, activation, **where):
    del activation
    arrays = [array for array in (inputs, filters, bias) if array is not None]
    if groups > 1:
        return f"its products are of all channels with all features, and groups is {groups}"
    if any(array.dtype == jnp.float64 for array in arrays):
        return "its sums are in float32, and float64 was given"
    if inputs.size == 0:
        return f"it needs at least one pixel, and the inputs are {inputs.shape}"
    down, right = Window(**where).results(inputs.shape[1:3], filters.shape[1:3])
    results = inputs.shape[0] * down * right * filters.shape[4]
    if max(inputs.size, filters.size, results) > MOST:
        return "it counts pixels times channels in 32 bits"
    return None


def _chosen(tunable, form, image):
    return tunable.choose(rows=image.shape[0], dtype=image.dtype.name, **tuning.sizes_of(form))


def _tuning(inputs, filters, bias, *, activation, **where):
    del bias
    pixels, size, where = tuning.joined_taps(inputs.shape, filters.shape, Window(**where))
    form = _form(where, pixels, size)
    launched = [t for t in tuning.TUNABLES if activation is not None or t is not tuning.SLOPE]
    return Choices(_chosen(tunable, form, inputs) for tunable in launched)


conv2d = Implementation(_forward, _gradient, refusal=_refusal, tuning=_tuning)


# ---------------------------------------------------------------------- Compiled alone

_ALL = (tuning.CONVOLVE, tuning.INPUT_GRADIENT, tuning.FILTER_GRADIENT)
# One tap a block and several, phases, patches as channels, one channel; float32 is without matrix
# units.
_COMPILED = [
    *((tunable, "residual_14", "bfloat16") for tunable in _ALL),
    *((tunable, "residual_14", "float32") for tunable in _ALL),
    *((tunable, "patches_16", "bfloat16") for tunable in _ALL),
    (tuning.CONVOLVE, "speech_first", "bfloat16"),
    (tuning.INPUT_GRADIENT, "speech_second", "bfloat16"),
    (tuning.FILTER_GRADIENT, "speech_first", "bfloat16"),
    (tuning.SLOPE, "residual_56", "bfloat16"),
    (tuning.FILTER_GRADIENT, "residual_56", "bfloat16"),
    (tuning.CONVOLVE, "residual_56", "float16"),
]


def compiled_variants(arch: str) -> Iterator[Variant]:
    """What the static report compiles: by the heuristic, and each configuration in a table."""
    listed = (
        Listed(tunable, tuning.sizes(tuning.SHAPES[name], dtype), f"{name}/{dtype}")
        for tunable, name, dtype in _COMPILED
    )
    return variants(arch, listed, tuning.TUNABLES, variant)


def variant(tunable: Tunable, sizes: Mapping[str, Any], config: Any, label: str) -> Variant:
    """A launch for these sizes with a bias and an activation, padded to keep the pixels."""
    pixels = (sizes["rows"], sizes["height"], sizes["width"], sizes["channels"])
    size = (1, sizes["taps_down"], sizes["taps_right"], sizes["channels"], sizes["features"])
    strides = (sizes["stride_down"], sizes["stride_right"])
    form = _form(window(pixels[1:3], size[1:3], strides, "SAME"), pixels, size)
    constants = {"F": form, **_tile(config)}
    pointer, item = POINTER[sizes["dtype"]], jnp.dtype(sizes["dtype"]).itemsize
    moved = (math.prod(pixels) + form.positions * form.features) * item
    if tunable is tuning.FILTER_GRADIENT:
        kernel, signature = products.filter_gradient, {"partial": "*fp32"}
        constants["PARTS"], _ = _parts(form, 1, config)
        moved += constants["PARTS"] * math.prod(size) * 4
    else:
        kernel, signature = products.convolve, {}
        turned, slope = tunable is tuning.INPUT_GRADIENT, tunable is tuning.SLOPE
        moved += math.prod(size) * item + (form.positions * form.features * item if slope else 0)
        constants |= {
            "F": form.transposed if turned else form, "HAS_BIAS": not turned,
            "ROWS_PER_BIAS": form.rows, "SLOPE": slope, "ACTIVATION": "" if turned else "gelu",
        }  # fmt: skip
    names = [name for name in kernel.arg_names if name not in constants]
    return Variant(
        name=f"{tunable.name}/{label}",
        kernel=kernel,
        signature=dict.fromkeys(names, pointer) | signature,
        constants=constants,
        config=config,
        bytes=moved,
        flops=2 * form.positions * form.inner * form.features,
    )
