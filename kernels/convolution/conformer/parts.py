"""The operation in terms of a depthwise convolution and a layer norm: what XLA and Triton share.

Statistics that are given are a scale and an offset of each channel. They disappear in the filters
and their bias, so that norm is ``depthwise_conv1d`` with a swish.

Axes: B rows, T frames, U frames out, C channels, W width; small operands have N rows, a divisor of
B, and are (filters, scale, offset, bias, mean, variance).
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels.convolution.frames import zero_after
from kernels.dispatch import Implementation
from kernels.precision import wide
from kernels.rows import of_rows


class Pieces(NamedTuple):
    """What an implementation has of its own.

    Attributes:
        depthwise: of ``depthwise_conv1d``.
        layer: ``layer(h, small, lengths, **options)`` -> swish of the layer norm of the filtered h.
        layer_gradient: ``layer_gradient(h, small, lengths, dy, wanted, **options)`` -> gradients of
            h and the four of ``small`` that this norm has, in order, ``None`` where not wanted.
        gated: dtype of the inputs -> that of h, what the gate gives.
    """

    depthwise: Implementation
    layer: Callable[..., Any]
    layer_gradient: Callable[..., Iterable[Any]]
    gated: Callable[[Any], Any]


def forward(pieces: Pieces, inputs, *small_and_lengths, norm, epsilon, **padding):
    """The value, as ``Implementation`` has it; ``padding`` is ``left`` and ``right``."""
    *small, lengths = small_and_lengths
    h = _gated(pieces, inputs, lengths)
    if norm == "layer":
        y = pieces.layer(h, small, lengths, epsilon=epsilon, **padding)
    else:
        (y,) = pieces.depthwise.forward(
            h, *folded(*small, epsilon=epsilon), lengths, **padding, **_SWISH
        )
    return (y.astype(inputs.dtype),)


def gradient(
    pieces: Pieces, operands, saved, cotangents, wanted, *, norm, epsilon, **padding
) -> tuple:
    """The gradients that are wanted, as ``Implementation`` has it."""
    (inputs, *small, lengths), (dy,) = operands, cotangents
    h = _gated(pieces, inputs, lengths)
    if norm == "layer":
        of_norm = functools.partial(pieces.layer_gradient, epsilon=epsilon)
    else:
        of_norm = functools.partial(_folded_gradient, pieces.depthwise, epsilon=epsilon)
    dh, *slopes = of_norm(h, small, lengths, dy, wanted, **padding)
    dx = zero_after(glu_gradient(inputs, dh), lengths) if wanted[0] else None
    gradients = zip(wanted, (dx, *slopes), strict=False)
    return tuple(slope for is_wanted, slope in gradients if is_wanted)


def in_places(parts: Iterable[Any], wanted: Iterable[bool]) -> list[Any]:
    """The parts in order where something is wanted, ``None`` elsewhere.

    Example:
        >>> in_places((5, 6), (True, False, True))
        [5, None, 6]
    """
    given = iter(parts)
    return [next(given) if is_wanted else None for is_wanted in wanted]


# ---------------------------------------------------------------------- The gate


def _gated(pieces, inputs, lengths):
    """First half x sigmoid(second half), (B, T, C); zeros go in where frames do not count."""
    values, gates = jnp.split(zero_after(inputs, lengths).astype(wide(inputs.dtype)), 2, -1)
    return (values * jax.nn.sigmoid(gates)).astype(pieces.gated(inputs.dtype))


def glu_gradient(inputs, dh):
    """(B, T, 2C), (B, T, C) -> (B, T, 2C), in the dtype of the inputs."""
    values, gates = jnp.split(inputs.astype(wide(inputs.dtype)), 2, -1)
    opened, closed = sigmoids(gates)
    dvalues = dh.astype(values.dtype) * opened
    return jnp.concatenate([dvalues, dvalues * values * closed], -1).astype(inputs.dtype)


def sigmoids(x):
    """sigmoid(x) and sigmoid(-x), each to full precision, of one exponential."""
    small = jnp.exp(-jnp.abs(x))
    larger, smaller = 1 / (1 + small), small / (1 + small)
    positive = x >= 0
    return jnp.where(positive, larger, smaller), jnp.where(positive, smaller, larger)


# ---------------------------------------------------------------------- Given statistics

_SWISH: dict[str, Any] = {"dilation": 1, "activation": "silu"}


def folded(filters, scale, offset, bias, mean, variance, *, epsilon):
    """Filters and bias whose sum is the norm of the sum of those given, in float32 or wider."""
    small = (filters, scale, offset, mean, variance, *(() if bias is None else (bias,)))
    rows = math.lcm(*(array.shape[0] for array in small))
    filters, scale, offset, mean, variance, *rest = (
        of_rows(array.astype(wide(array.dtype)), rows) for array in small
    )
    factor = scale * jax.lax.rsqrt(variance + epsilon)
    centre = mean - rest[0] if rest else mean
    return filters * factor[:, None, :], offset - centre * factor


def _folded_gradient(depthwise, h, small, lengths, dy, wanted, *, epsilon, **padding):
    """Gradients of h and of all in ``small``, through the folded filters."""
    (filters, offset), pullback = jax.vjp(functools.partial(folded, epsilon=epsilon), *small)
    wants_small = any(wanted[1:])
    asked = (wanted[0], wants_small, wants_small, False)
    found = depthwise.gradient((h, filters, offset, lengths), (), (dy,), asked, **padding, **_SWISH)
    dh, dfilters, doffset, _ = in_places(found, asked)
    return dh, *(pullback((dfilters, doffset)) if wants_small else ())
