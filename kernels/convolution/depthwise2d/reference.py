"""The definition: slow, plain, in whatever precision it is given. Tests compare with it.

Axes: B batch, H by W pixels, C channels, h by w taps, U by V pixels of the result.
"""

import jax.numpy as jnp

from kernels.convolution.activations import ACTIVATIONS
from kernels.convolution.windows import window


def depthwise_conv2d(
    inputs, filters, bias=None, *, strides=(1, 1), padding="SAME", dilation=(1, 1), activation=None
):
    """y[u, v] = act(bias + sum_ij x[u s + i d - top, v s' + j d' - left] f[i, j]), in each channel.

    Pixels outside the image count as zero.
    """
    pixels, size = inputs.shape[1:3], filters.shape[:2]
    where = window(pixels, size, strides, padding, dilation)
    axes = zip(pixels, size, where.results(pixels, size), *where[:3], strict=True)
    places, inside = [], []
    for length, taps, results, stride, (before, _), step in axes:
        result, tap = jnp.arange(results)[:, None], jnp.arange(taps)[None, :]
        source = result * stride + tap * step - before
        places.append(jnp.clip(source, 0, length - 1))
        inside.append((source >= 0) & (source < length))
    patches = inputs[:, places[0][:, None, :, None], places[1][None, :, None, :]]
    present = inside[0][:, None, :, None] & inside[1][None, :, None, :]
    patches = patches * present[None, ..., None].astype(patches.dtype)
    z = jnp.einsum("buvijc,ijc->buvc", patches, filters, precision="highest")
    z = z if bias is None else z + bias[None, None, None, :]
    return ACTIVATIONS[activation](z)
