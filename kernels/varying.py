"""What ``shard_map`` asks of a primitive: along which of its axes each array differs by device.

And what ``vmap`` asks where a mesh has explicit axes: one sharding of what it maps over.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.core import ShapedArray, Tracer
from jax.interpreters import mlir


def along(array: Any) -> frozenset:
    """The axes along which an array differs, or one of such a type; JAX moved their home."""
    aval = array if isinstance(array, ShapedArray) else jax.typeof(array)
    kind = getattr(aval, "mat", None)
    return getattr(aval, "vma", frozenset()) if kind is None else kind.varying


def alike(arrays: Sequence[Any]) -> list[Any]:
    """The arrays, made to differ along the same axes, as the operands of a primitive must."""
    axes = frozenset().union(*map(along, arrays))
    missing = [tuple(axes - along(array)) for array in arrays]
    return [
        jax.lax.pcast(array, more, to="varying") if more else array
        for array, more in zip(arrays, missing, strict=True)
    ]


def map_rows(function: Callable, *arrays: Any) -> Any:
    """``vmap``; where some rows are cut along explicit axes, all are, as those of the first."""
    kinds = [jax.typeof(array).sharding for array in arrays]
    cut = [place for place, kind in enumerate(kinds) if kind.spec and kind.spec[0] is not None]
    if not cut:
        return jax.vmap(function)(*arrays)
    first, rows = arrays[cut[0]], kinds[cut[0]].spec[0]
    abstract = kinds[cut[0]].mesh
    mesh = abstract if isinstance(first, Tracer) else first.sharding.mesh
    alike = [
        array
        if kind.spec[0] == rows
        else jax.reshard(array, jax.NamedSharding(mesh, jax.P(rows, *kind.spec[1:])))
        for array, kind in zip(arrays, kinds, strict=True)
    ]
    with jax.sharding.use_abstract_mesh(abstract):
        return jax.vmap(function)(*alike)


def nowhere(aval: Any) -> ShapedArray:
    """The type without axes that it would differ along."""
    return ShapedArray(aval.shape, aval.dtype)


def like(aval: Any, other: Any) -> Any:
    """The type, differing along the axes of another."""
    if not along(other):
        return aval
    # What JAX derives from operands without a mesh has none, and could vary along no axis of it.
    aval = aval.update(sharding=jax.NamedSharding(other.sharding.mesh, jax.P(*[None] * aval.ndim)))
    kind = getattr(other, "mat", None)
    return aval.update(vma=other.vma) if kind is None else aval.update(manual_axis_type=kind)


def lowering(function: Callable) -> Callable:
    """The rule that lowers a function; what it calls need not know of ``shard_map``."""
    lower = mlir.lower_fun(function)

    def rule(context, *arrays, **parameters):
        plain = context.replace(avals_in=[nowhere(aval) for aval in context.avals_in])
        return lower(plain, *arrays, **parameters)

    return rule
