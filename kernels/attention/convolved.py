"""Keys that pass through a depthwise filter along the sequence, before or inside attention.

Axes: B rows, S keys, K key heads, H dimensions of a head, W taps of the filter, b rows of an
operand.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kernels.attention import reference
from kernels.attention.operands import Operands, taps_before
from kernels.convolution.depthwise1d.api import depthwise_conv1d
from kernels.dispatch import Implementation
from kernels.rows import of_rows


def convolved_keys(given: Operands, *, causal: bool, implementation: str | None) -> jax.Array:
    """The keys after their filter in one pass, with as many rows as they differ in: (b, S, K, H).

    Args:
        given: with a filter.
        causal: whether no key may know of later ones.
        implementation: of ``kernels.depthwise_conv1d``.
    """
    _, keys, heads, width = given.key.shape
    rows = _rows(given)
    key = of_rows(given.key, rows)
    if 0 in key.shape:
        return key
    lengths = None if given.key_lengths is None else of_rows(given.key_lengths, rows)
    taps = given.key_filter
    if given.key_segments is not None:
        segments = of_rows(given.key_segments, rows)
        widened = given._replace(
            key=key, key_lengths=lengths, key_segments=segments, key_filter=of_rows(taps, rows)
        )
        return reference.filtered_keys(widened, causal)
    before = taps_before(taps.shape[1], causal)

    def filtered(key, taps, lengths):
        return depthwise_conv1d(
            key,
            taps.reshape(taps.shape[0], heads * width),
            padding=(before, taps.shape[0] - 1 - before),
            lengths=lengths,
            implementation=implementation,
        )

    key = key.reshape(rows, keys, heads * width)
    if len(taps) == 1:
        out = filtered(key, taps[0], lengths)
    else:  # filters of their own: a map over the rows is one call
        of_row = (key[:, None], of_rows(taps, rows), None if lengths is None else lengths[:, None])
        out = jax.vmap(filtered)(*of_row)
    return jnp.asarray(out).reshape(rows, keys, heads, width)


def _rows(given: Operands) -> int:
    """The number of rows that the filtered keys need, so that operands with one row stay small."""
    of = (given.key, given.key_filter, given.key_lengths, given.key_segments)
    several = {len(array) for array in of if array is not None} - {1}
    return max(several, default=1) if len(several) < 2 else len(given.query)


def after_filter(
    inner: Implementation,
    implementation: str | None = None,
    fuses: Callable[..., bool] = lambda _, **__: False,
) -> Implementation:
    """Attention that takes a filter of its keys, from one that need not.

    The gradient filters the keys again instead of keeping them.

    Args:
        inner: the attention.
        implementation: of ``kernels.depthwise_conv1d``.
        fuses: operands and options -> whether ``inner`` computes the value with the filter among
            its operands.
    """
    assert inner.saving is not None
    assert inner.gradient is not None
    saving, gradient = inner.saving, inner.gradient

    def before(given: Operands, causal: bool) -> Operands:
        if given.key_filter is None:
            return given
        key = convolved_keys(given, causal=causal, implementation=implementation)
        return given._replace(key=key, key_filter=None)

    def prepared(operands, static):
        given = Operands(*operands)
        inside = given.key_filter is not None and fuses(given, **static)
        return given if inside else before(given, static["causal"])

    def slopes(operands, saved, cotangents, wanted, **static):
        given, wants = Operands(*operands), Operands(*wanted)
        if given.key_filter is None:
            return gradient(operands, saved, cotangents, wanted, **static)

        def filtered(key, key_filter):
            return before(given._replace(key=key, key_filter=key_filter), static["causal"]).key

        key, pullback = jax.vjp(filtered, given.key, given.key_filter)
        of_key = wants.key or wants.key_filter
        inside = wants._replace(key=of_key, key_filter=False)
        names = [name for name, want in inside._asdict().items() if want]
        plain = given._replace(key=key, key_filter=None)
        found = dict(zip(names, gradient(plain, saved, cotangents, inside, **static), strict=True))
        if of_key:
            found["key"], found["key_filter"] = pullback(found["key"])
        return tuple(found[name] for name, want in wants._asdict().items() if want)

    return Implementation(
        lambda *operands, **static: inner.forward(*prepared(operands, static), **static),
        slopes,
        inner.refusal,
        inner.tuning,
        lambda *operands, **static: saving(*prepared(operands, static), **static),
    )
