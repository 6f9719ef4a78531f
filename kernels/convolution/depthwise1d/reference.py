"""The definition: slow, plain, in whatever precision it is given. Tests compare with it.

Axes: B batch, T frames, C channels, W width of the filters.
"""

import jax.numpy as jnp

from kernels.convolution.activations import ACTIVATIONS
from kernels.convolution.frames import padding_frames


def depthwise_conv1d(
    inputs, filters, bias=None, *, padding, dilation=1, activation=None, lengths=None
):
    """y[b, t, c] = act(bias[c] + sum_w inputs[b, t + w dilation - left, c] filters[w, c]).

    Frames outside [0, lengths[b]) count as zero; an output frame that an utterance of lengths[b]
    frames alone would not have is zero.
    """
    batch, frames, _ = inputs.shape
    width = filters.shape[0]
    left, right = padding_frames(padding, (width - 1) * dilation)
    lengths = jnp.full(batch, frames) if lengths is None else lengths
    lost = (width - 1) * dilation - left - right
    t = jnp.arange(frames - lost, dtype=lengths.dtype)
    source = t[:, None] + jnp.arange(width, dtype=t.dtype)[None, :] * dilation - left
    inside = (source >= 0)[None] & (source[None] < lengths[:, None, None])
    windows = inputs[:, jnp.clip(source, 0, frames - 1)] * inside[..., None].astype(inputs.dtype)
    z = jnp.einsum("btwc,wc->btc", windows, filters, precision="highest")
    z = z if bias is None else z + bias[None, None, :]
    valid = t[None, :] < (lengths - lost)[:, None]
    return jnp.where(valid[:, :, None], ACTIVATIONS[activation](z), jnp.zeros((), z.dtype))
