"""Shapes that are tested and measured.

Axes: B batch, T queries, S keys, N heads, K key heads, H dimensions of a head, W width of a filter.
"""

import zlib
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.attention import configs, reference
from kernels.attention.bias_functions import alibi
from kernels.attention.configs import TUNABLES
from kernels.attention.form import describe
from kernels.attention.operands import Operands
from kernels.problems import Cost, Problem


class Shape(NamedTuple):
    """Sizes and options of one call.

    Attributes:
        batch: B.
        queries: T.
        heads: N.
        width: H.
        keys: S; 0 for as many as queries.
        key_heads: K; 0 for as many as heads.
        causal: whether a query sees nothing after it.
        window: (left, right) or None.
        bias: the axes along which the bias differs, "nts" for (1, N, T, S); none if empty.
        mask: likewise.
        lengths: whether every other row is cut short.
        segments: sequences that are packed into each row; none for 0.
        soft_cap: of the scores.
        by_distance: whether scores fall with distance (ALiBi).
        dropout: rate.
        relative: whether positions have keys; for relative_attention.
        taps: W of conv_attention.
    """

    batch: int
    queries: int
    heads: int
    width: int
    keys: int = 0
    key_heads: int = 0
    causal: bool = False
    window: tuple[int | None, int | None] | None = None
    bias: str = ""
    mask: str = ""
    lengths: bool = False
    segments: int = 0
    soft_cap: float | None = None
    by_distance: bool = False
    dropout: float = 0.0
    relative: bool = False
    taps: int = 0


LEGEND = (
    "keys 0: as many as queries. key_heads 0: as many as heads. bias, mask: along which axes they "
    "differ (b row, n head, t query, s key), nts: differs by head, query and key; empty: none. "
    "lengths True: every other row is cut short. segments: sequences packed into a row. "
    "by_distance True: ALiBi. taps: of the filter of conv_attention."
)


# The goals on a GPU first; those called "tiny" take a CPU a fraction of a second.
SHAPES = {
    "long_64": Shape(1, 4096, 16, 64),
    "long_64_causal": Shape(1, 4096, 16, 64, causal=True),
    "long_128": Shape(1, 4096, 16, 128),
    "long_128_causal": Shape(1, 4096, 16, 128, causal=True),
    "pairs_2048": Shape(128, 2048, 4, 32, bias="nts", mask="bs"),
    "pairs_512": Shape(32, 512, 4, 32, bias="nts"),
    "decode_4096": Shape(32, 1, 32, 128, keys=4096, key_heads=8, lengths=True),
    "grouped_2048": Shape(2, 2048, 32, 128, key_heads=8, causal=True),
    "capped_256": Shape(2, 2048, 8, 256, key_heads=4, causal=True, soft_cap=50.0),
    "window_1024": Shape(1, 4096, 16, 128, key_heads=4, causal=True, window=(1023, 0)),
    "packed_64": Shape(4, 2048, 8, 64, causal=True, segments=6),
    "distance_1024": Shape(4, 1024, 12, 64, causal=True, by_distance=True),
    "vit_197": Shape(64, 197, 12, 64),
    "vit_257_80": Shape(16, 257, 16, 80),
    "cross_96": Shape(8, 1024, 8, 96, keys=77),
    "wav2vec2_999": Shape(8, 999, 16, 64, lengths=True),
    "tiny_64": Shape(1, 512, 4, 64, causal=True),
    "tiny_vit_197": Shape(2, 197, 3, 64),
    "tiny_bias_32": Shape(2, 256, 4, 32, bias="nts", mask="bs"),
}
# Encoders of speech (20 s), and a language model's.
RELATIVE_SHAPES = {
    "conformer_250": Shape(16, 250, 8, 64, lengths=True, relative=True),
    "parakeet_250": Shape(16, 250, 8, 128, lengths=True, relative=True),
    "conformer_500": Shape(8, 500, 8, 64, lengths=True, relative=True),
    "transformer_xl_1024": Shape(2, 1024, 16, 64, causal=True, relative=True),
    "tiny_conformer_100": Shape(2, 100, 4, 64, lengths=True, relative=True),
}
CONV_SHAPES = {
    "primer_512_w3": Shape(8, 512, 12, 64, causal=True, taps=3),
    "centred_250_w9": Shape(16, 250, 8, 64, lengths=True, taps=9),
    "tiny_primer_128_w3": Shape(2, 128, 4, 64, causal=True, taps=3),
}


def problem(operation: str, name: str, shape: Shape, dtype: str) -> Problem:
    """A call in this shape, with seeded operands.

    Example:
        >>> call = problem("attention", "small", Shape(2, 9, 4, 8, bias="nt"), "float32")
        >>> call.operands["bias"].shape, call.function()(*call.arguments).shape
        ((1, 4, 9, 1), (2, 9, 4, 8))
    """
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    operands, row_names = _arrays(shape, generator)
    differentiable = [name for name in operands if operands[name].dtype == np.float64]
    arrays = {
        name: jnp.asarray(array, dtype if name in differentiable else array.dtype)
        for name, array in operands.items()
    }
    options: dict[str, Any] = {"is_causal": shape.causal}
    if operation != "relative_attention":
        options |= {"local_window_size": shape.window, "logits_soft_cap": shape.soft_cap}
        options["bias_fn"] = alibi(shape.heads) if shape.by_distance else None
        options["dropout_rate"] = shape.dropout
    forward, backward = _costs(shape, operands, jnp.dtype(dtype).itemsize)
    return Problem(
        operation=operation,
        name=name,
        dtype=dtype,
        operands=arrays,
        options=options,
        differentiable=tuple(differentiable),
        per_row=tuple(row_names),
        definition=getattr(reference, operation),
        forward=forward,
        backward=backward,
    )


def _arrays(shape: Shape, generator: Any) -> tuple[dict[str, np.ndarray], list[str]]:
    """The operands, floating ones in float64, and those with a row for each row of the result."""
    rows, queries, heads, width = shape[:4]
    keys, key_heads = shape.keys or queries, shape.key_heads or heads
    full = {"b": rows, "n": heads, "t": queries, "s": keys}
    found = {
        "query": generator.normal(size=(rows, queries, heads, width)),
        "key": generator.normal(size=(rows, keys, key_heads, width)),
        "value": generator.normal(size=(rows, keys, key_heads, width)),
    }
    of_rows = ["query", "key", "value"]
    if shape.relative:
        found["position_key"] = generator.normal(size=(queries + keys - 1, heads, width))
        found["content_bias"] = generator.normal(size=(heads, width))
        found["position_bias"] = generator.normal(size=(heads, width))
    if shape.taps:
        found["key_filter"] = generator.normal(size=(shape.taps, key_heads, width))
        found["key_filter"] *= shape.taps**-0.5
    for name, axes in (("bias", shape.bias), ("mask", shape.mask)):
        if axes:
            sizes = tuple(full[axis] if axis in axes else 1 for axis in "bnts")
            drawn = generator.normal(size=sizes)
            found[name] = drawn if name == "bias" else drawn > -1
            of_rows += [name] if "b" in axes else []
    if shape.lengths:
        lengths = np.array([[queries], [keys]]) * np.ones(rows)
        shares = generator.uniform(0.2, 1.0, rows // 2)
        lengths[:, 1::2] = np.ceil(lengths[:, 1::2] * shares)
        found["query_seq_lengths"], found["key_value_seq_lengths"] = lengths.astype(np.int32)
        of_rows += ["query_seq_lengths", "key_value_seq_lengths"]
    if shape.segments:
        starts = np.sort(generator.integers(0, min(queries, keys), (rows, shape.segments - 1)))
        for name, size in (("query_segment_ids", queries), ("key_value_segment_ids", keys)):
            begun = np.arange(size)[None, :, None] >= starts[:, None, :]
            found[name] = begun.sum(2).astype(np.int32)
            of_rows.append(name)
    if shape.dropout:
        found["dropout_key"] = generator.integers(0, 2**32, 2, np.uint32)
    return found, of_rows


def _costs(shape: Shape, operands: dict[str, np.ndarray], element: int) -> tuple[Cost, Cost]:
    """By the pairs that see each other; masks are not counted as saving anything."""
    heads, width = shape.heads, shape.width
    pairs = heads * _pairs(shape, operands)
    products = 2 + shape.relative  # scores, by position too, and the average of values
    read = sum(a.size * (element if a.dtype == np.float64 else a.itemsize)
               for a in operands.values())  # fmt: skip
    out = operands["query"].size * element
    slopes = sum(a.size * element for a in operands.values() if a.dtype == np.float64)
    filtered = shape.taps * operands["key"].size
    # Scores again, as keeping probabilities would cost more to write; then two for each product.
    return (
        Cost(read + out, 2 * (pairs * products * width + filtered)),
        Cost(read + 2 * out + slopes, 2 * (pairs * (3 * products - 1) * width + 3 * filtered)),
    )


def _pairs(shape: Shape, operands: dict[str, np.ndarray]) -> int:
    """Of a query and a key that it sees, in one head, over all rows."""
    t = np.arange(shape.queries)[None, :]
    keys = shape.keys or shape.queries
    left, right = shape.window or (None, None)
    right = 0 if shape.causal else right
    first = np.zeros_like(t) if left is None else np.maximum(t - left, 0)
    last = np.full_like(t, keys) if right is None else np.minimum(t + right + 1, keys)
    first, last = (np.broadcast_to(a, (shape.batch, shape.queries)) for a in (first, last))
    if shape.segments:
        ids, others = operands["query_segment_ids"], operands["key_value_segment_ids"]
        ranges = [
            (np.searchsorted(row, mine, "left"), np.searchsorted(row, mine, "right"))
            for row, mine in zip(others, ids, strict=True)
        ]
        first = np.maximum(first, [begin for begin, _ in ranges])
        last = np.minimum(last, [end for _, end in ranges])
    if shape.lengths:
        last = np.minimum(last, operands["key_value_seq_lengths"][:, None])
        last = np.where(t < operands["query_seq_lengths"][:, None], last, 0)
    return int(np.maximum(last - first, 0).sum())


def sizes(shape: Shape, dtype: str) -> dict[str, Any]:
    """What a configuration is chosen by, of a call in this shape."""
    rows, queries, heads, width = shape[:4]
    keys, key_heads = shape.keys or queries, shape.key_heads or heads

    def struct(*size: int, of: Any = dtype) -> Any:
        return jax.ShapeDtypeStruct(size, of)

    def extra(axes: str, of: Any) -> Any:
        full = {"b": rows, "n": heads, "t": queries, "s": keys}
        return struct(*(full[x] if x in axes else 1 for x in "bnts"), of=of) if axes else None

    offsets = queries + keys - 1
    lengths = struct(rows, of="int32") if shape.lengths else None
    given = Operands(
        struct(rows, queries, heads, width),
        struct(rows, keys, key_heads, width),
        struct(rows, keys, key_heads, width),
        bias=extra(shape.bias, dtype),
        offset_bias=struct(1, heads, offsets, of="float32") if shape.by_distance else None,
        position_query=struct(rows, queries, heads, width) if shape.relative else None,
        position_key=struct(1, offsets, heads, width) if shape.relative else None,
        mask=extra(shape.mask, "bool"),
        query_lengths=lengths,
        key_lengths=lengths,
        query_segments=struct(rows, queries, of="int32") if shape.segments else None,
        key_segments=struct(rows, keys, of="int32") if shape.segments else None,
        dropout_seeds=struct(rows, heads, 2, of="uint32") if shape.dropout else None,
    )
    return configs.sizes(
        describe(
            given,
            scale=width**-0.5,
            causal=shape.causal,
            window=shape.window,
            soft_cap=shape.soft_cap,
            dropout_rate=shape.dropout,
        )
    )


# The operations of this family that have shapes of their own; their kernels are attention's.
OPERATIONS = {
    operation: SimpleNamespace(
        Shape=Shape,
        LEGEND=LEGEND,
        SHAPES=shapes,
        problem=problem,
        sizes=sizes,
        TUNABLES=TUNABLES,
    )
    for operation, shapes in (
        ("relative_attention", RELATIVE_SHAPES),
        ("conv_attention", CONV_SHAPES),
    )
}

__all__ = ["LEGEND", "OPERATIONS", "SHAPES", "TUNABLES", "Shape", "problem", "sizes"]
