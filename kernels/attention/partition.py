"""Which axes of attention devices may share: rows, key heads, and the query heads of a key head.

``launch.sharded`` with two things more. Heads of queries, of which there are K G, are seen as two
axes, so that a device has the key heads that its query heads use. And a gradient that sums over an
axis that is cut is summed over the devices, as a product's would be.

Axes of the rule: b rows, t queries, s keys, k key heads, g query heads of each, h dimensions, o
offsets, j taps of a filter; what serves all of an axis has a name of its own there.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from kernels.attention.operands import Operands

CUT = ("b", "k", "g")


def axes_of(given: Operands) -> dict[str, tuple[str, ...]]:
    """The axes of each operand that there is, with heads split in two."""
    rows, queries, heads, _ = given.query.shape
    keys = given.key.shape[1]
    found: dict[str, tuple[str, ...]] = {}

    def name(operand: str, axis: str, size: int, whole: int) -> str:
        return axis if size == whole else f"{axis}{list(Operands._fields).index(operand)}"

    for operand, array in given._asdict().items():
        if array is None:
            continue
        shape = array.shape
        row = name(operand, "b", shape[0], rows)
        if operand in ("query", "position_query"):
            rest: tuple[str, ...] = ("t", "k", "g", "h")
        elif operand in ("key", "value"):
            rest = ("s", "k", "h")
        elif operand in ("bias", "mask"):
            split = ("k", "g") if shape[1] == heads else (name(operand, "n", shape[1], heads),)
            last = (name(operand, "t", shape[2], queries), name(operand, "s", shape[3], keys))
            rest = (*split, *last)
        elif operand == "offset_bias":
            split = ("k", "g") if shape[1] == heads else (name(operand, "n", shape[1], heads),)
            rest = (*split, "o")
        elif operand == "position_key":
            rest = ("o", "k", "g", "h")
        elif operand == "dropout_seeds":
            rest = ("k", "g", "w")
        elif operand == "key_filter":
            rest = ("j", "k", "h")
        else:
            rest = {"query_segments": ("t",), "key_segments": ("s",)}.get(operand, ())
        found[operand] = (row, *rest)
    return found


def split_heads(array: Any, axes: Sequence[str], key_heads: int) -> Any:
    """(..., N, ...) -> (..., K, G, ...), where the axes have both."""
    if "g" not in axes:
        return array
    at = axes.index("k")
    shape = array.shape
    return array.reshape(*shape[:at], key_heads, shape[at] // key_heads, *shape[at + 1 :])


def join_heads(array: Any, axes: Sequence[str]) -> Any:
    """The reverse."""
    if "g" not in axes:
        return array
    at = axes.index("k")
    shape = array.shape
    return array.reshape(*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])


def shared(
    function: Callable[..., tuple],
    arrays: Sequence[Any],
    inputs: Sequence[Sequence[str]],
    outputs: Sequence[Sequence[str]],
    key_heads: int,
) -> tuple:
    """``function(*arrays)``, cut along rows and heads where the operands or the results are.

    Args:
        function: of arrays with N heads in one axis, of any number of rows and heads; each result
            that lacks one of the axes that are cut is a sum over it.
        arrays: operands.
        inputs: axes of each, with heads split.
        outputs: axes of each result, likewise.
        key_heads: K.

    Returns:
        The results, with N heads in one axis.
    """

    def split(*arrays: Any) -> tuple:
        joined = [join_heads(a, axes) for a, axes in zip(arrays, inputs, strict=True)]
        per_group = next(a.shape[i.index("k")] for a, i in zip(arrays, inputs, strict=True))
        results = function(*joined)
        return tuple(
            split_heads(result, axes, per_group)
            for result, axes in zip(results, outputs, strict=True)
        )

    def partition(mesh: Any, argument_shapes: Any, result_shape: Any) -> tuple:
        shardings: dict[str, Any] = {}
        for names, array in zip(
            (*inputs, *outputs), (*argument_shapes, *jax.tree.leaves(result_shape)), strict=True
        ):
            spec = array.sharding.spec if array.sharding is not None else ()
            for name, where in zip(names, spec, strict=False):
                if where is not None and name not in whole:
                    shardings.setdefault(name, where)

        def local(*arrays: Any) -> tuple:
            return tuple(
                _summed(result, [shardings[n] for n in CUT if n in shardings and n not in axes])
                for result, axes in zip(split(*arrays), outputs, strict=True)
            )

        placed = [
            NamedSharding(mesh, PartitionSpec(*(shardings.get(name) for name in names)))
            for names in (*inputs, *outputs)
        ]
        return mesh, local, tuple(placed[len(inputs) :]), tuple(placed[: len(inputs)])

    order = list(dict.fromkeys(name for axes in (*inputs, *outputs) for name in axes))
    # An operand that has several rows, each for some of the batch, would have to be cut as well.
    sizes = {
        n: s for a, i in zip(arrays, inputs, strict=True) for n, s in zip(i, a.shape, strict=False)
    }
    partial_rows = any(name[0] == "b" and size > 1 and name != "b" for name, size in sizes.items())
    whole = tuple(n for n in order if n not in CUT or (n == "b" and partial_rows))
    rule = ", ".join(map(" ".join, inputs)) + " -> " + ", ".join(map(" ".join, outputs))
    call = custom_partitioning(split)
    call.def_partition(partition=partition, sharding_rule=rule, need_replication_factors=whole)
    operands = [split_heads(a, i, key_heads) for a, i in zip(arrays, inputs, strict=True)]
    results = jax.lax.platform_dependent(*operands, cpu=split, default=call)
    return tuple(join_heads(r, axes) for r, axes in zip(results, outputs, strict=True))


def _summed(array: Any, places: Sequence[Any]) -> Any:
    """Over the devices along these axes of the mesh."""
    names = functools.reduce(lambda a, b: a + (b if isinstance(b, tuple) else (b,)), places, ())
    if not names:
        return array
    return jax.lax.psum(array.astype(jnp.float32), names).astype(array.dtype)
