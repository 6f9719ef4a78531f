"""The definition: slow, plain, in whatever precision it is given. Tests compare with it.

Axes: B batch, H by W pixels, I channels, h by w taps, O features, U by V pixels of the result.
"""

import jax.numpy as jnp

from kernels.convolution.activations import ACTIVATIONS
from kernels.convolution.windows import window


def conv2d(
    inputs, filters, bias=None, *, strides=(1, 1), padding="SAME", dilation=(1, 1), groups=1,
    activation=None,
):  # fmt: skip
    """y[buvo] = act(bias[o] + sum_ijc x[b, u s + i d - top, v s' + j d' - left, c] f[ijco]).

    Pixels outside the image count as zero; with groups, feature o has the channels of its group.
    """
    _, *_, channels, features = filters.shape
    where = window(inputs.shape[1:3], filters.shape[:2], strides, padding, dilation, groups)
    patches = jnp.stack(where.taps(inputs, filters.shape[:2]), 3)
    patches = patches.reshape(*patches.shape[:4], groups, channels)
    by_group = filters.reshape(-1, channels, groups, features // groups)
    z = jnp.einsum("buvtgc,tcgo->buvgo", patches, by_group, precision="highest")
    z = z.reshape(*z.shape[:3], features)
    return ACTIVATIONS[activation](z if bias is None else z + bias[None, None, None, :])
