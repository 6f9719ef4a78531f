"""The public depthwise convolution of images: argument checks and padding.

Axes: B batch, H by W pixels, C channels, h by w taps, U by V pixels of the result.
"""

from collections.abc import Sequence

from jaxtyping import Array, Float

from kernels.arguments import arrays, check_dtypes
from kernels.convolution.activations import check_activation
from kernels.convolution.layouts import depthwise_advice, inputs_advice, shape_advice
from kernels.convolution.windows import window
from kernels.dispatch import Operation

_operation = Operation(
    "depthwise_conv2d",
    {
        "xla": "kernels.convolution.depthwise2d.xla",
        "triton": "kernels.convolution.depthwise2d.kernel",
    },
)


def depthwise_conv2d(
    inputs: Float[Array, "B H W C"],
    filters: Float[Array, "h w C"],
    bias: Float[Array, " C"] | None = None,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: str | Sequence[tuple[int, int]] = "SAME",
    dilation: tuple[int, int] = (1, 1),
    activation: str | None = None,
    implementation: str | None = None,
) -> Float[Array, "B U V C"]:
    """Filter every channel of images with a filter of its own, as ``lax`` does: no flip.

    y[b, u, v, c] = activation(bias[c]
        + sum_ij inputs[b, u s + i d - top, v s' + j d' - left, c] filters[i, j, c])

    with strides s, s' and dilation d, d'. Pixels outside the image count as zero. Products
    accumulate in float32.

    Args:
        inputs: (B, H, W, C), float32, bfloat16 or float16; float64 in XLA.
        filters: (h, w, C).
        bias: (C,).
        strides: pixels between neighbouring results, down and to the right.
        padding: ``"SAME"`` keeps ceil(H / s) by ceil(W / s') pixels, what is odd below and to the
            right; ``"SAME_LOWER"`` has it above and to the left; ``"VALID"`` adds nothing; or
            ((top, bottom), (left, right)), where negative numbers cut off.
        dilation: pixels between neighbouring taps.
        activation: ``"silu"``, ``"gelu"`` (tanh form) or ``"relu"``.
        implementation: ``"xla"``, ``"triton"``, or ``None``: Triton on CUDA where it can, else XLA.

    Returns:
        (B, U, V, C) in the dtype of ``inputs``.

    Raises:
        ValueError: an argument that does not fit the others.
        NotImplementedError: ``implementation`` cannot compute this, with the reason.

    Example:
        >>> import jax.numpy as jnp
        >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> depthwise_conv2d(image, jnp.ones((2, 2, 1)), padding="VALID")[0, :, :, 0]
        Array([[ 8., 12.],
               [20., 24.]], dtype=float32)
    """
    inputs, filters, bias = _checked_arrays(inputs, filters, bias)
    where = window(inputs.shape[1:3], filters.shape[:2], strides, padding, dilation)
    check_activation(activation)
    (outputs,) = _operation(
        inputs,
        filters[None],
        None if bias is None else bias[None],
        **where._asdict(),
        activation=activation,
        implementation=implementation,
    )
    return outputs


def _checked_arrays(inputs, filters, bias):
    given = arrays(inputs=inputs, filters=filters, bias=bias)
    inputs, filters, bias = given["inputs"], given["filters"], given.get("bias")
    received = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in given.items())
    wanted = "inputs (B, H, W, C), filters (h, w, C) and bias (C,)"
    known = depthwise_advice(filters.shape, inputs.shape[-1], 2) if inputs.ndim else ""
    if inputs.ndim != 4 or filters.ndim != 3 or 0 in filters.shape[:2]:
        advice = known or inputs_advice(inputs.shape, 0, 2)
        raise ValueError(
            f"depthwise_conv2d takes {wanted}, h and w from 1 on; received {received}.{advice}"
        )
    channels = inputs.shape[3:]
    expected = {"filters": (*filters.shape[:2], *channels), "bias": channels}
    if advice := shape_advice(given, expected):
        advice = known or inputs_advice(inputs.shape, filters.shape[2], 2) or advice
        raise ValueError(f"{wanted} must share C; received {received}.{advice}")
    check_dtypes(given, received)
    return inputs, filters, bias
