"""What the arguments of attention must be, and what is said where they are not.

Axes: B batch, T queries, S keys, N heads, K key heads, H dimensions of a head.
"""

import math
import operator
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.arguments import FLOATS, arrays, number

WANTED = {
    "query": "query (B, T, N, H)",
    "key": "key (B, S, K, H)",
    "value": "value (B, S, K, H)",
    "bias": "bias broadcastable to (B, N, T, S)",
    "mask": "mask broadcastable to (B, N, T, S)",
    "query_seq_lengths": "query_seq_lengths (B,)",
    "key_value_seq_lengths": "key_value_seq_lengths (B,)",
    "query_segment_ids": "query_segment_ids (B, T)",
    "key_value_segment_ids": "key_value_segment_ids (B, S)",
    "position_key": "position_key (T + S - 1, N, H)",
    "content_bias": "content_bias (N, H)",
    "position_bias": "position_bias (N, H)",
    "key_filter": "key_filter (W, K, H), (W, K, 1) or (W, K)",
}
BROADCAST = ("bias", "mask")
OF_QUERY_DTYPE = ("key", "value", "position_key", "content_bias", "position_bias", "key_filter")


def of_batch(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays that are there, with a batch axis where query, key and value came without one.

    Raises:
        ValueError: a rank, shape or dtype that does not fit the others.
    """
    given = arrays(**arguments)
    received = ", ".join(f"{name} {a.shape} {a.dtype}" for name, a in given.items())
    wanted = ", ".join(WANTED[name] for name in given)
    three = [given[name] for name in ("query", "key", "value")]
    if len({a.ndim for a in three}) > 1 or three[0].ndim not in (3, 4):
        raise ValueError(
            f"attention takes {wanted}, or all of them without B; received {received}. Add the "
            "missing axis with x[None]."
        )
    if three[0].ndim == 3:
        given |= {name: given[name][None] for name in ("query", "key", "value")}
        # Lengths and segments, too, may come without the axis that query does not have.
        for name in ("query_seq_lengths", "key_value_seq_lengths"):
            if name in given and given[name].ndim == 0:
                given[name] = given[name][None]
        for name in ("query_segment_ids", "key_value_segment_ids"):
            if name in given and given[name].ndim == 1:
                given[name] = given[name][None]
    for name in BROADCAST:
        if name in given and given[name].ndim < 4:
            array = given[name]
            given[name] = array.reshape(*[1] * (4 - array.ndim), *array.shape)
    _check_kinds(given, wanted, received)
    _check_shapes(given, wanted, received)
    return given


def _check_kinds(given, wanted, received):
    for name, array in given.items():
        kind: Any = jnp.floating
        if name == "mask":
            kind = jnp.bool_
        elif name.endswith(("lengths", "ids")):
            kind = jnp.integer
        if not jnp.issubdtype(array.dtype, kind):
            advice = "Use .astype()."
            if name == "mask":
                advice = "True where a key counts: compare with != 0, or pass it as bias."
            raise ValueError(f"{name} must be {kind.__name__}; received {received}. {advice}")
    dtype = given["query"].dtype
    if str(dtype) not in FLOATS:
        raise ValueError(f"query must be one of {FLOATS}; received {received}. Use .astype().")
    for name in OF_QUERY_DTYPE:
        if name in given and given[name].dtype != dtype:
            raise ValueError(
                f"{name} must have the dtype of query, {dtype}; received {received}. Use "
                f"{name}.astype(query.dtype)."
            )
    for one, other in (
        ("query_segment_ids", "key_value_segment_ids"),
        ("key_value_segment_ids", "query_segment_ids"),
    ):
        if one in given and other not in given:
            raise ValueError(
                f"query_segment_ids and key_value_segment_ids belong together; received {one} "
                f"alone: {received}. Pass {other} too, the same ids where queries are keys."
            )


def _check_shapes(given, wanted, received):
    batch, queries, heads, width = given["query"].shape
    keys, key_heads = given["key"].shape[1:3]
    if key_heads == 0 or heads % key_heads:
        raise ValueError(
            f"query must have a multiple of the heads of key and value, so that each key head "
            f"serves N / K of the queries; received {received}. Repeat or drop heads."
        )
    expected = {
        "key": (batch, keys, key_heads, width),
        "value": (batch, keys, key_heads, width),
        "query_seq_lengths": (batch,),
        "key_value_seq_lengths": (batch,),
        "query_segment_ids": (batch, queries),
        "key_value_segment_ids": (batch, keys),
        "position_key": (queries + keys - 1, heads, width),
        "content_bias": (heads, width),
        "position_bias": (heads, width),
    }
    wrong = [name for name in expected if name in given and given[name].shape != expected[name]]
    full = (batch, heads, queries, keys)
    wrong += [
        name
        for name in BROADCAST
        if name in given
        and (
            given[name].ndim != 4
            or any(
                size not in (1, all_) for size, all_ in zip(given[name].shape, full, strict=True)
            )
        )
    ]
    if "key_filter" in given:
        shape = given["key_filter"].shape
        per_head = shape[1:] in ((key_heads,), (key_heads, 1), (key_heads, width))
        if not per_head or shape[0] == 0:
            wrong.append("key_filter")
    if wrong:
        advice = "Check the order of the axes: heads come after frames, except in bias and mask."
        widths = {"key", "value"}.issuperset(wrong) and all(
            given[name].shape[:3] == expected[name][:3] for name in wrong
        )
        if widths:
            advice = f"Project query, key and value to heads of one width, here H {width}."
        sizes = f"B {batch}, T {queries}, S {keys}, N {heads}, K {key_heads}, H {width}"
        raise ValueError(
            f"{wanted} must agree, here with {sizes}, and {', '.join(wrong)} does not; received "
            f"{received}. {advice}"
        )


def scale_of(scale: Any, width: int) -> float:
    """A number that is known while tracing; by default one over the root of the head's width."""
    if scale is None:
        return 1.0 / math.sqrt(max(width, 1))
    return number("scale", scale, "Multiply the query by what is traced, and pass scale=1.0.")


def soft_cap_of(cap: Any) -> float | None:
    """Positive, or None."""
    if cap is None:
        return None
    known = number("logits_soft_cap", cap, "Pass a Python number.")
    if not known > 0:
        raise ValueError(
            f"logits_soft_cap must be positive; received {cap!r}. None leaves the scores as they "
            "are."
        )
    return known


def window_of(window: Any, queries: int, keys: int) -> tuple[int | None, int | None] | None:
    """(left, right), from one number or two; None where there is no bound.

    A side that reaches every key from every query is no bound: so all numbers are small.

    Example:
        >>> window_of((2**40, 3), queries=5, keys=6)
        (None, 3)
    """
    if window is None:
        return None
    try:
        sides = tuple(window) if isinstance(window, tuple | list) else (window, window)
        left, right = (None if side is None else operator.index(side) for side in sides)
    except (TypeError, ValueError):
        left = right = -1
    if min(0 if side is None else side for side in (left, right)) < 0:
        raise ValueError(
            "local_window_size must be one integer or a pair (left, right), from 0 on or None; "
            f"received {window!r}. (3, 0) is the query's own position and three before it."
        )
    left = None if left is None or left >= queries - 1 else left
    right = None if right is None or right >= keys - 1 else right
    return None if left is right is None else (left, right)


def segments_of(query_ids: Any, key_ids: Any) -> tuple[Any, Any]:
    """Ids of any integers as int32, equal where they were, per row: (B, T) and (B, S).

    Raises:
        ValueError: no integer type holds the ids of both.
    """
    if query_ids is None:
        return None, None
    ids = query_ids, key_ids
    if query_ids.dtype == key_ids.dtype == jnp.uint32:  # which wrap one to one
        return query_ids.astype(jnp.int32), key_ids.astype(jnp.int32)
    if all(jnp.iinfo(a.dtype).max <= jnp.iinfo(jnp.int32).max for a in ids):
        return query_ids.astype(jnp.int32), key_ids.astype(jnp.int32)
    kind = np.promote_types(query_ids.dtype, key_ids.dtype)
    if kind.kind not in "iu" or (kind.itemsize > 4 and not jax.config.read("jax_enable_x64")):
        raise ValueError(
            "query_segment_ids and key_value_segment_ids must fit one integer type; received "
            f"{query_ids.dtype} and {key_ids.dtype}. Use .astype(jnp.int32) on both."
        )
    both = jnp.concatenate([a.astype(kind) for a in ids], 1)
    rank = jax.vmap(jnp.searchsorted)(jnp.sort(both, 1), both).astype(jnp.int32)
    return rank[:, : query_ids.shape[1]], rank[:, query_ids.shape[1] :]


def dropout_of(rate: Any, key: Any) -> float:
    """The rate, in [0, 1), with a key where it is not 0."""
    known = number("dropout_rate", rate, "Pass a Python number.")
    if not 0 <= known < 1:
        raise ValueError(f"dropout_rate must be in [0, 1); received {rate!r}.")
    if known and key is None:
        raise ValueError(
            f"dropout_key must be given with dropout_rate; received dropout_rate={rate!r} alone. "
            "Pass a key of jax.random, or dropout_rate=0.0 where nothing is dropped."
        )
    if key is not None:
        key = jnp.asarray(key)
        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        if not (typed and key.ndim == 0) and not _is_raw_key(key):
            raise ValueError(
                f"dropout_key must be one key of jax.random; received {key.shape} {key.dtype}. "
                "Use jax.random.key(seed), or one of jax.random.split's."
            )
    return known


def _is_raw_key(key: Any) -> bool:
    """Whether it is the words of a key, as ``jax.random.PRNGKey`` gives them."""
    try:
        return jax.random.wrap_key_data(key).ndim == 0
    except (TypeError, ValueError):
        return False
