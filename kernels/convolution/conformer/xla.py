"""The Conformer's convolution in plain XLA, for CPU and TPU.

What the filters give is kept apart, and so is what the norm's gradient gives: XLA would compute
both again for each sum over channels (``kernels.apart``).

Axes: B rows, T frames, U frames out, C channels; small operands have N rows, a divisor of B.
"""

import functools

import jax
import jax.numpy as jnp

from kernels.apart import apart
from kernels.convolution.conformer import parts
from kernels.convolution.depthwise1d import xla as depthwise1d
from kernels.convolution.frames import output_lengths, zero_after
from kernels.dispatch import Implementation
from kernels.precision import wide
from kernels.rows import by_rows, of_rows

_FILTERS = {"dilation": 1, "activation": None}


def _gradient(operands, saved, cotangents, wanted, **options):
    gradient = functools.partial(depthwise1d.gradient, wanted=wanted, **options)
    return apart(
        lambda operands, cotangents: gradient(operands, saved, cotangents), operands, cotangents
    )


def _layer(h, small, lengths, *, epsilon, **padding):
    filters, scale, offset, bias, *_ = small
    (z,) = depthwise1d.forward(h, filters, bias, lengths, **padding, **_FILTERS)
    n, _ = _normed(z, epsilon)
    y = jax.nn.silu(n * _by_frame(scale, z) + _by_frame(offset, z))
    return zero_after(y, output_lengths(h, y, lengths))


def _layer_gradient(h, small, lengths, dy, wanted, *, epsilon, **padding):
    filters, scale, offset, bias, *_ = small
    (z,) = depthwise1d.forward(h, filters, bias, lengths, **padding, **_FILTERS)
    dy = zero_after(dy, output_lengths(h, dy, lengths))
    dz, dscale, doffset = apart(
        functools.partial(_norm_gradient, epsilon=epsilon), z, scale, offset, dy
    )
    wanted = (wanted[0], wanted[1], wanted[4], False)
    found = _gradient((h, filters, bias, lengths), (), (dz,), wanted, **padding, **_FILTERS)
    dh, dfilters, dbias, _ = parts.in_places(found, wanted)
    return dh, dfilters, dscale, doffset, dbias


def _normed(z, epsilon):
    """Each frame less its mean over its standard deviation, and one over that: (B, U, 1)."""
    centred = z - jnp.mean(z, -1, keepdims=True)
    rate = jax.lax.rsqrt(jnp.mean(centred * centred, -1, keepdims=True) + epsilon)
    return centred * rate, rate


def _norm_gradient(z, scale, offset, dy, *, epsilon):
    """Gradients of z, scale and offset of swish(n scale + offset), n the layer norm of z."""
    n, rate = _normed(z, epsilon)
    factor = _by_frame(scale, z)
    u = n * factor + _by_frame(offset, z)
    opened, closed = parts.sigmoids(u)
    du = dy.astype(z.dtype) * opened * (1 + u * closed)
    dn = du * factor
    dz = dn - jnp.mean(dn, -1, keepdims=True) - n * jnp.mean(dn * n, -1, keepdims=True)
    return dz * rate, _over_frames(du * n, scale), _over_frames(du, offset)


def _by_frame(array, z):
    """(N, C) -> (B, 1, C), in the dtype of z."""
    return of_rows(array.astype(z.dtype), z.shape[0])[:, None, :]


def _over_frames(array, small):
    """Sums (B, U, C) over the frames of each row of ``small``, (N, C)."""
    return jnp.sum(by_rows(array, small.shape[0]), (1, 2)).astype(small.dtype)


_PIECES = parts.Pieces(
    Implementation(depthwise1d.forward, _gradient), _layer, _layer_gradient, wide
)
conformer_convolution = Implementation(
    functools.partial(parts.forward, _PIECES), functools.partial(parts.gradient, _PIECES)
)
