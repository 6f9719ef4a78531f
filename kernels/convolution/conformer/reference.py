"""The definition: slow, plain, in whatever precision it is given. Tests compare with it.

Axes: B batch, T frames, U frames out, C channels, W width of the filters.
"""

from typing import Any

import jax
import jax.numpy as jnp

from kernels.convolution.depthwise1d import reference as depthwise


def conformer_convolution(
    inputs,
    filters,
    scale,
    offset,
    *,
    norm="layer",
    mean: Any = None,
    variance: Any = None,
    epsilon=1e-5,
    bias=None,
    padding="SAME",
    lengths=None,
    initial_state=None,
):
    """swish(norm(depthwise(glu(inputs)))), frames past the end zero before the filters and after.

    The state is the frames before the first, for causal filters.

    Gulati et al., "Conformer", 2020, figure 2, from the gated linear unit to the swish.
    """
    if initial_state is not None:
        inputs, padding = jnp.concatenate([initial_state, inputs], 1), (0, 0)
        lengths = None if lengths is None else lengths + initial_state.shape[1]
    values, gates = jnp.split(inputs, 2, -1)
    h = values * jax.nn.sigmoid(gates)
    z = depthwise.depthwise_conv1d(h, filters, bias, padding=padding, lengths=lengths)
    if norm == "layer":
        mean, variance = jnp.mean(z, -1, keepdims=True), jnp.var(z, -1, keepdims=True)
    else:
        mean, variance = mean[None, None, :], variance[None, None, :]
    n = (z - mean) * jax.lax.rsqrt(variance + epsilon)
    y = jax.nn.silu(n * scale[None, None, :] + offset[None, None, :])
    return y if lengths is None else _zero_after(y, lengths + (y.shape[1] - inputs.shape[1]))


def _zero_after(y, lengths):
    t = jnp.arange(y.shape[1], dtype=lengths.dtype)
    return jnp.where((t[None, :] < lengths[:, None])[:, :, None], y, jnp.zeros((), y.dtype))
