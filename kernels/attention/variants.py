"""The launches of attention that the static report compiles.

Axes: B rows, T queries, S keys, N query heads, K key heads, H dimensions of a head.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from kernels.attention import backward, bias_gradient, configs, forward
from kernels.attention.form import Form, Rows, Strides
from kernels.compiled import Variant
from kernels.configurations import Tunable, round_up
from kernels.variants import POINTER, Listed, variants

_SUMS = ("residual", "log_sums", "factors", "delta", "partial")
_INTEGERS = ("query_lengths", "key_lengths", "query_segments", "key_segments")
_KERNELS = {
    configs.FORWARD.name: forward.forward,
    configs.KEY_GRADIENT.name: backward.key_value_gradient,
    configs.QUERY_GRADIENT.name: backward.query_gradient,
    configs.BIAS_GRADIENT.name: bias_gradient.bias_gradient,
    configs.OFFSET_GRADIENT.name: bias_gradient.offset_gradient,
    configs.POSITION_GRADIENT.name: bias_gradient.offset_gradient,
}


_BATCH = {"rows": 4, "queries": 2048, "keys": 2048, "heads": 16, "key_heads": 4}
_GRADIENTS = (configs.KEY_GRADIENT, configs.QUERY_GRADIENT)
# Kernel, extras, dimensions, dtype. What has dropout has a bias, a mask, segments and lengths too.
_COMPILED = (
    [
        (tunable, "plain", width, "bfloat16")
        for width in (64, 128, 256)
        for tunable in (configs.FORWARD, *_GRADIENTS)
    ]
    + [
        (tunable, extras, width, "bfloat16")
        for width, words in (
            (64, ("biased", "dropout", "relative")),
            (128, ("dropout", "relative")),
        )
        for extras in words
        for tunable in (configs.FORWARD, *_GRADIENTS)
    ]
    + [(tunable, "biased", 64, "bfloat16") for tunable in configs.TUNABLES[3:5]]
    + [(tunable, "biased", 128, "bfloat16") for tunable in configs.TUNABLES[3:5]]
    + [(configs.POSITION_GRADIENT, "relative", width, "bfloat16") for width in (64, 128)]
    + [(tunable, "plain", 64, "float32") for tunable in (configs.FORWARD, *_GRADIENTS)]
    + [(tunable, "biased", 64, "float32") for tunable in configs.TUNABLES[3:5]]
    + [(configs.FORWARD, "plain", 64, "float16")]
    + [(configs.FORWARD, "filtered", 64, dtype) for dtype in ("bfloat16", "float32")]
    + [(configs.FORWARD, "filtered", 128, "bfloat16")]
)


def compiled_variants(arch: str) -> Iterator[Variant]:
    """What the static report compiles: by the heuristic, and each configuration in a table."""
    listed = (
        Listed(
            tunable,
            {**_BATCH, "width": width, "dtype": dtype, "extras": extras},
            f"{extras}_{width}/{dtype}",
        )
        for tunable, extras, width, dtype in _COMPILED
        if extras != "filtered" or width <= configs.most_filtered(dtype, arch)
    )
    return variants(arch, listed, configs.TUNABLES, variant)


def form_of(
    sizes: Mapping[str, Any], *, causal: bool = True, bias: bool = False, offsets: bool = False
) -> Form:
    """A form with what costs most among those that have these sizes and this word for extras."""
    rows, queries, keys = sizes["rows"], sizes["queries"], sizes["keys"]
    heads, extras = sizes["heads"], sizes["extras"]
    plain = Form(
        rows=rows, queries=queries, keys=keys, key_heads=sizes["key_heads"],
        group=heads // sizes["key_heads"], width=sizes["width"], dtype=sizes["dtype"],
        scale=sizes["width"] ** -0.5, right=0 if causal else None,
    )  # fmt: skip
    per = {"position_key": rows, "mask": 1} if extras == "relative" else {}
    if extras in ("biased", "dropout"):
        per = {"mask": 1, "query_segments": 1, "key_segments": 1, "key_lengths": 1}
        bias = bias or not offsets
    if extras == "dropout":
        per["dropout_seeds"] = 1
    if extras == "filtered":
        per = {"key_filter": rows, "key_lengths": 1}
    if bias:
        per["bias"] = rows
    if offsets:
        per["offset_bias"] = rows
    square = Strides(heads * queries * keys, queries * keys, keys, 1)
    return replace(
        plain,
        per=Rows(**per),
        bias=square if "bias" in per else Strides(),
        mask=Strides(queries * keys, 0, keys, 1) if "mask" in per else Strides(),
        offset_heads=heads if offsets else 1,
        threshold=2**28 if "dropout_seeds" in per else 0,
        keep=0.9375 if "dropout_seeds" in per else 1.0,
        taps=9 if "key_filter" in per else 0,
        before=8 if "key_filter" in per else 0,
    )


def variant(
    tunable: Tunable, sizes: Mapping[str, Any], config: Any, label: str, *, causal: bool = True
) -> Variant:
    """A launch for these sizes."""
    form = form_of(
        sizes, causal=causal, bias=tunable is configs.BIAS_GRADIENT,
        offsets=tunable is configs.OFFSET_GRADIENT,
    )  # fmt: skip
    constants: dict[str, Any] = {
        "F": form, "BM": config.block_queries, "BN": config.block_keys,
        "WIDE": round_up(config.block_queries + config.block_keys - 1), "KEY": True, "VALUE": True,
        "SAVE": True, "QUERY": True, "POSITION": form.per.position_key > 0, "PARTS": 1,
        "EDGE": form.has_edges, "OF_KEYS": tunable is configs.POSITION_GRADIENT,
    }  # fmt: skip
    kernel = _KERNELS[tunable.name]
    names = kernel.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    pointers = dict.fromkeys(names, POINTER[sizes["dtype"]])
    pointers |= dict.fromkeys(_INTEGERS, "*i32") | {"mask": "*i1", "seeds": "*u32"}
    pointers |= dict.fromkeys(_SUMS, "*fp32")
    moved, flops = _cost(tunable, form)
    signature = {name: pointers[name] for name in names if name not in constants}
    return Variant(f"{tunable.name}/{label}", kernel, signature, constants, config, moved, flops)


def _cost(tunable: Tunable, form: Form) -> tuple[float, float]:
    """Bytes that must move, each array once, and operations of the products on what is seen."""
    item = jnp.dtype(form.dtype).itemsize
    of_queries = form.rows * form.queries * form.query_stride * item
    of_keys = form.rows * form.keys * form.key_stride * item
    square = form.rows * form.queries * form.keys
    of_bias = form.heads * form.queries * form.keys * item if form.per.bias else 0
    extra = of_bias + (square // form.per.mask if form.per.mask else 0)
    product = 2 * square * form.heads * form.width * (0.5 if form.right is not None else 1.0)
    positions = 2 if form.per.position_key else 0  # a band of offsets is twice as wide as a tile
    reads, writes, products = {
        configs.FORWARD.name: (of_queries + 2 * of_keys, of_queries, 2),
        configs.KEY_GRADIENT.name: (2 * of_queries + 2 * of_keys, 2 * of_keys, 4),
        configs.QUERY_GRADIENT.name: (2 * of_queries + 2 * of_keys, of_queries, 3 + positions),
        configs.BIAS_GRADIENT.name: (2 * of_queries + 2 * of_keys, of_bias, 2),
        configs.OFFSET_GRADIENT.name: (2 * of_queries + 2 * of_keys, 0, 2),
        configs.POSITION_GRADIENT.name: (2 * of_queries + 2 * of_keys, 0, 2 + positions),
    }[tunable.name]
    if positions:
        reads += of_queries + form.offsets * form.query_stride * item
    return reads + writes + extra, product * (products + positions)
