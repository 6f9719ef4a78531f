"""The public convolutions of images: argument checks and padding.

Axes: B batch, H by W pixels, I channels, h by w taps, O features, U by V pixels of the result.
"""

import operator
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from kernels.convolution.reference import ACTIVATIONS
from kernels.dispatch import Operation

_conv2d = Operation("conv2d", {"xla": "kernels.convolution.images_xla"})

PADDINGS = ("SAME", "SAME_LOWER", "VALID")


def conv2d(
    inputs: Float[Array, "B H W I"],
    filters: Float[Array, "h w J O"],
    bias: Float[Array, " O"] | None = None,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "SAME",
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "B U V O"]:
    """Convolve images as ``lax.conv_general_dilated`` does: cross-correlation, no flip.

    y[b, u, v, o] = activation(bias[o]
        + sum_ijc inputs[b, u s + i d - top, v s' + j d' - left, c] filters[i, j, c, o])

    with strides s, s' and dilation d, d'. With groups, feature o has the channels of its group
    only. Pixels outside the image count as zero. Products accumulate in float32.

    Args:
        inputs: (B, H, W, I), float32, bfloat16, float16 or float64.
        filters: (h, w, I / groups, O).
        bias: (O,).
        strides: pixels between neighbouring results, down and to the right.
        padding: ``"SAME"`` keeps ceil(H / s) by ceil(W / s') pixels, what is odd below and to the
            right; ``"SAME_LOWER"`` has it above and to the left; ``"VALID"`` adds nothing; or
            ((top, bottom), (left, right)), where negative numbers cut off.
        dilation: pixels between neighbouring taps.
        groups: how many the channels and features are divided into.
        activation: ``"silu"``, ``"gelu"`` (tanh form) or ``"relu"``.
        implementation: ``"xla"`` or ``None``.

    Returns:
        (B, U, V, O) in the dtype of ``inputs``.

    Raises:
        ValueError: an argument that does not fit the others.

    Example:
        >>> import jax.numpy as jnp
        >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> conv2d(image, jnp.ones((2, 2, 1, 1)), padding="VALID")[0, :, :, 0]
        Array([[ 8., 12.],
               [20., 24.]], dtype=float32)
    """
    _check_arrays(inputs, filters, bias, groups)
    strides, dilation = (
        _two(name, a) for name, a in (("strides", strides), ("dilation", dilation))
    )
    spans = [(taps - 1) * d + 1 for taps, d in zip(filters.shape[:2], dilation, strict=True)]
    pads = _pads(padding, inputs.shape[1:3], spans, strides)
    sizes = [size + sum(pad) for size, pad in zip(inputs.shape[1:3], pads, strict=True)]
    if any(size < span for size, span in zip(sizes, spans, strict=True)):
        raise ValueError(
            f"padded images must be at least as large as the filters reach, {tuple(spans)} pixels; "
            f"received {inputs.shape[1:3]} and padding {pads}. Pad more."
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {[*ACTIVATIONS]}; received {activation!r}.")
    (outputs,) = _conv2d(
        inputs,
        filters[None],
        None if bias is None else bias[None],
        strides=strides,
        padding=pads,
        dilation=dilation,
        groups=groups,
        activation=activation,
        implementation=implementation,
    )
    return outputs


def _two(name, numbers):
    try:
        first, second = map(operator.index, numbers)
    except (TypeError, ValueError):
        first = second = 0
    if min(first, second) < 1:
        raise ValueError(f"{name} must be two integers from 1 on; received {numbers!r}.")
    return first, second


def _pads(padding, size, spans, strides):
    """Pixels of zeros on each side: ((top, bottom), (left, right))."""
    if isinstance(padding, str):
        if padding in PADDINGS:
            pads = lax.padtype_to_pads(size, spans, strides, padding)
            return tuple((int(before), int(after)) for before, after in pads)
    else:
        try:
            (top, bottom), (left, right) = padding
            return tuple(
                (operator.index(a), operator.index(b)) for a, b in ((top, bottom), (left, right))
            )
        except (TypeError, ValueError):
            pass
    raise ValueError(
        f"padding must be one of {[*PADDINGS]}, or ((top, bottom), (left, right)) in pixels; "
        f"received {padding!r}."
    )


def _check_arrays(inputs, filters, bias, groups):
    arrays = {"inputs": inputs, "filters": filters, "bias": bias}
    arrays = {name: array for name, array in arrays.items() if array is not None}
    received = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items())
    wanted = "inputs (B, H, W, I), filters (h, w, I / groups, O) and bias (O,)"
    if inputs.ndim != 4 or filters.ndim != 4 or 0 in filters.shape:
        raise ValueError(f"conv2d takes {wanted}, filters not empty; received {received}.")
    if not isinstance(groups, int) or groups < 1 or filters.shape[3] % groups:
        raise ValueError(
            f"groups must be an integer from 1 on that divides the features, {filters.shape[3]}; "
            f"received {groups!r}."
        )
    if inputs.shape[3] != filters.shape[2] * groups:
        raise ValueError(
            f"{wanted}: each of {groups} groups of filters has {filters.shape[2]} channels, so "
            f"inputs must have {filters.shape[2] * groups}; received {received}."
        )
    if bias is not None and bias.shape != filters.shape[3:]:
        raise ValueError(f"{wanted} must share O; received {received}.")
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating; received {received}. Use .astype().")
