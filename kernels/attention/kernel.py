"""Attention in Triton: what is launched with which sizes.

The value is one launch. Saved for the gradient are the value, the log of each query's sum, and a
factor for what that lost when it was rounded. The gradient is at most five launches: keys
and values, queries, the bias, the offset bias, position keys; only of what is wanted. None has an
array of (B, N, T, S) beside operands and their gradients.

Axes: B rows, T queries, S keys, N query heads, K key heads, H dimensions of a head.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from kernels import launch
from kernels.attention import backward, bias_gradient, configs, partition
from kernels.attention.convolved import after_filter
from kernels.attention.form import Form, describe
from kernels.attention.forward import forward as forward_kernel
from kernels.attention.operands import Operands
from kernels.attention.variants import compiled_variants, variant
from kernels.configurations import Choices, Tunable, device, round_up
from kernels.dispatch import Implementation

__all__ = ["attention", "compiled_variants", "variant"]

MOST_DIMENSIONS = 256
# Programs that a reduction is spread over, where it can be: a few for each multiprocessor.
_PROGRAMS = 512
_OUT = ("b", "t", "k", "g", "h")
_PER_QUERY = ("b", "t", "k", "g")


def _forward(*operands, **static):
    return _attend(Operands(*operands), static, save=False)


def _saving(*operands, **static):
    out, residual, *saved = _attend(Operands(*operands), static, save=True)
    return (out, residual), (out, *saved)


def _attend(given, static, *, save):
    query = given.query
    if query.size == 0 or given.key.size == 0:
        zero = jnp.zeros(query.shape[:3], jnp.float32)
        return (jnp.zeros_like(query), zero - jnp.inf, *[zero] * (2 if save else 0))

    def local(*arrays):
        given = _operands(names, arrays)
        form = describe(given, **static)
        config = _chosen(configs.FORWARD, form)
        blocks = -(-form.queries // config.block_queries)
        per_query = jax.ShapeDtypeStruct(given.query.shape[:3], jnp.float32)
        saved = per_query if save else jax.ShapeDtypeStruct((1,), jnp.float32)
        results = launch.kernel_call(
            forward_kernel,
            *_pointers(given),
            given.query if given.key_filter is None else given.key_filter,
            out=(
                jax.ShapeDtypeStruct(given.query.shape, given.query.dtype),
                per_query, saved, saved,
            ),
            grid=(blocks * form.heads * form.rows,),
            SAVE=save,
            **_tile(form, config),
        )  # fmt: skip
        return results[: len(outputs)]

    names, arrays, axes = _flat(given)
    outputs = [_OUT, _PER_QUERY, *[_PER_QUERY] * (2 if save else 0)]
    return partition.shared(local, arrays, axes, outputs, given.key.shape[2])


def _gradient(operands, saved, cotangents, wanted, **static):
    given = Operands(*operands)
    wants = Operands(*wanted)._asdict()
    names = [name for name, want in wants.items() if want]
    if given.query.size == 0 or given.key.size == 0:
        return tuple(jnp.zeros_like(getattr(given, name)) for name in names)
    out, log_sums, factors = saved
    cotangent, of_residual = (array.astype(jnp.float32) for array in cotangents)
    # In one pass of XLA over two arrays of the queries' size.
    delta = (jnp.sum(cotangent * out.astype(jnp.float32), 3) - of_residual) * factors
    cotangent = (cotangent * factors[..., None]).astype(given.query.dtype)
    later = (log_sums, cotangent, delta)
    found = {}
    for members, launched in _LAUNCHES:
        asked = tuple(name for name in members if wants[name])
        if asked:
            results = _shared_gradient(launched, asked, given, later, static)
            found |= dict(zip(asked, results, strict=True))
    return tuple(found[name].astype(getattr(given, name).dtype) for name in names)


def _shared_gradient(launched, asked, given, later, static):
    """The gradients that one launch gives, each of the shape of its operand."""

    def local(*arrays):
        return launched(_operands(names, arrays[:-3]), arrays[-3:], asked, static)

    names, arrays, axes = _flat(given)
    outputs = [axes[names.index(name)] for name in asked]
    inputs = [*axes, _PER_QUERY, _OUT, _PER_QUERY]
    return partition.shared(local, [*arrays, *later], inputs, outputs, given.key.shape[2])


def _key_value(given, later, asked, static):
    form = describe(given, **static)
    config = _chosen(configs.KEY_GRADIENT, form)
    blocks = -(-form.keys // config.block_keys)
    of_rows = []
    for name, array in (("key", given.key), ("value", given.value)):
        # Where rows share keys, theirs are added up after the launch.
        dtype = array.dtype if len(array) == form.rows else jnp.float32
        shape = (form.rows, *(array.shape[1:] if name in asked else ()))
        of_rows.append(jax.ShapeDtypeStruct(shape, dtype))
    results = launch.kernel_call(
        backward.key_value_gradient,
        *_pointers(given),
        *later,
        out=tuple(of_rows),
        grid=(blocks * form.key_heads * form.rows,),
        KEY="key" in asked,
        VALUE="value" in asked,
        **_tile(form, config),
    )
    found = dict(zip(("key", "value"), results, strict=True))
    return tuple(_over_rows(found[name], getattr(given, name)) for name in asked)


def _over_rows(array, operand):
    """(B, ...) -> (b, ...), a sum over the rows that share one of an operand."""
    if len(array) == len(operand):
        return array
    return array.reshape(len(operand), -1, *array.shape[1:]).sum(1)


def _query(given, later, asked, static):
    form = describe(given, **static)
    config = _chosen(configs.QUERY_GRADIENT, form)
    blocks = -(-form.queries // config.block_queries)
    of, dtype = given.query.shape, given.query.dtype
    results = launch.kernel_call(
        backward.query_gradient,
        *_pointers(given),
        *later,
        out=tuple(
            jax.ShapeDtypeStruct(of if name in asked else of[:1], dtype)
            for name in ("query", "position_query")
        ),
        grid=(blocks * form.heads * form.rows,),
        QUERY="query" in asked,
        POSITION="position_query" in asked,
        **_tile(form, config),
    )
    found = dict(zip(("query", "position_query"), results, strict=True))
    return tuple(found[name] for name in asked)


def _bias(given, later, asked, static):
    del asked
    form = describe(given, **static)
    config = _chosen(configs.BIAS_GRADIENT, form)
    rows, heads, *_ = given.bias.shape
    query_blocks = -(-form.queries // config.block_queries)
    key_blocks = -(-form.keys // config.block_keys)
    blocks = rows * heads
    shared = form.per.bias * (form.heads // heads)
    if form.bias.query:
        blocks *= query_blocks
    if form.bias.key:
        blocks *= key_blocks
    if not form.bias.query and not form.bias.key:
        shared *= query_blocks
    parts = min(shared, -(-_PROGRAMS // blocks))
    partial = launch.kernel_call(
        bias_gradient.bias_gradient,
        *_pointers(given),
        *later,
        out=jax.ShapeDtypeStruct((parts, *given.bias.shape), jnp.float32),
        grid=(parts * blocks,),
        PARTS=parts,
        EDGE=_has_edges(form, config),
        **_tile(form, config),
    )
    return (partial[0] if parts == 1 else jnp.sum(partial, 0),)


def _along_offsets(given, later, asked, static):
    """The offset bias, or the position keys: partial sums by diagonals of tiles, put together."""
    form = describe(given, **static)
    of_keys = asked == ("position_key",)
    config = _chosen(configs.POSITION_GRADIENT if of_keys else configs.OFFSET_GRADIENT, form)
    block = config.block_queries
    query_blocks, key_blocks = -(-form.queries // block), -(-form.keys // block)
    diagonals = query_blocks + key_blocks - 1
    operand = given.position_key if of_keys else given.offset_bias
    heads = form.heads if of_keys else form.offset_heads
    shared = form.rows // len(operand) * (form.heads // heads)
    blocks = len(operand) * heads * diagonals
    parts = min(shared, -(-_PROGRAMS // blocks))
    behind = (form.width,) if of_keys else ()
    partial = launch.kernel_call(
        bias_gradient.offset_gradient,
        *_pointers(given),
        *later,
        out=jax.ShapeDtypeStruct(
            (parts, len(operand), heads, diagonals, 2 * block, *behind), jnp.float32
        ),
        grid=(parts * blocks,),
        OF_KEYS=of_keys,
        PARTS=parts,
        EDGE=_has_edges(form, config),
        **_tile(form, config),
    )
    sums = jnp.sum(partial, 0)
    # A diagonal has the offsets of its first half in common with the second half of the one before.
    none = [(0, 0)] * len(behind)
    first = jnp.pad(
        sums[..., :block, *[slice(None)] * len(behind)], [(0, 0)] * 2 + [(0, 1), (0, 0), *none]
    )
    second = jnp.pad(
        sums[..., block:, *[slice(None)] * len(behind)], [(0, 0)] * 2 + [(1, 0), (0, 0), *none]
    )
    joined = (first + second).reshape(len(operand), heads, (diagonals + 1) * block, *behind)
    start = query_blocks * block - form.queries
    joined = joined[:, :, start : start + form.offsets]
    return (jnp.swapaxes(joined, 1, 2) if of_keys else joined,)


_LAUNCHES = (
    (("key", "value"), _key_value),
    (("query", "position_query"), _query),
    (("bias",), _bias),
    (("offset_bias",), _along_offsets),
    (("position_key",), _along_offsets),
)


def _flat(given: Operands) -> tuple[list[str], list[Any], list[tuple[str, ...]]]:
    """Names of the operands that there are, these, and their axes."""
    axes = partition.axes_of(given)
    return list(axes), [getattr(given, name) for name in axes], list(axes.values())


def _operands(names: Sequence[str], arrays: Sequence[Any]) -> Operands:
    return Operands(**dict(zip(names, arrays, strict=True)))


def _pointers(given: Operands) -> list[Any]:
    """What every kernel takes, all operands but the filter; one not there is never read."""
    return [given.query if array is None else array for array in given._replace(key_filter=None)][
        :-1
    ]


def _tile(form: Form, config: Any) -> dict[str, Any]:
    return {
        "F": form,
        "BM": config.block_queries,
        "BN": config.block_keys,
        "WIDE": round_up(config.block_queries + config.block_keys - 1),
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }


def _has_edges(form: Form, config: Any) -> bool:
    return form.has_edges or form.keys % config.block_keys != 0


def _chosen(tunable: Tunable, form: Form) -> Any:
    return tunable.choose(**configs.sizes(form)).config


def _refusal(*operands, **static):
    given = Operands(*operands)
    _, queries, heads, width = given.query.shape
    keys = given.key.shape[1]
    kinds = {a.dtype for a in (given.query, given.key, given.value)}
    kinds |= {a.dtype for a in (given.position_query, given.position_key) if a is not None}
    added = [a.dtype for a in (given.bias, given.offset_bias) if a is not None]
    if any(kind == jnp.float64 for kind in (*kinds, *added)):
        return "its sums are in float32, and float64 was given"
    if len(kinds) > 1:
        return f"its products take one dtype, and {sorted(map(str, kinds))} were given"
    if width > MOST_DIMENSIONS:
        return f"a head has at most {MOST_DIMENSIONS} dimensions in it, and {width} were given"
    if _for_a_gpu() and (reason := configs.relative_refusal(describe(given, **static))):
        return reason
    # Of whole blocks: addresses behind the last element are computed, though not used.
    most = max(
        (queries + keys + 2 * MOST_DIMENSIONS) * heads * width, (queries + 256) * (keys + 256)
    )
    form = describe(given, **static)
    of_heads = max(form.bias.head, form.mask.head, 0) * heads  # rows count in 64 bits
    if max(most, of_heads) >= 2**31:
        return (
            "it counts queries times keys (and times heads, of a bias or mask that has them), and "
            "positions times dimensions, in 32 bits"
        )
    return None


def _for_a_gpu():
    """Whether launches are compiled, and so must not spill registers; not interpreted."""
    return launch.target_capability() is not None or device() is not None


def _tuning(*operands, **static):
    form = describe(Operands(*operands), **static)
    sizes = configs.sizes(form)
    return Choices(tunable.choose(**sizes) for tunable in configs.launched(form))


attention = after_filter(
    Implementation(_forward, _gradient, refusal=_refusal, tuning=_tuning, saving=_saving),
    fuses=lambda given, **static: configs.filters_inside(describe(given, **static)),
)
