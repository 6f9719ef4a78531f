"""The public convolution of images: argument checks and padding.

Axes: B batch, H by W pixels, I channels, h by w taps, O features, U by V pixels of the result.
"""

from collections.abc import Sequence

from jaxtyping import Array, Float

from kernels.arguments import arrays, check_dtypes, whole_number
from kernels.convolution.activations import check_activation
from kernels.convolution.layouts import dense_advice, inputs_advice
from kernels.convolution.windows import window
from kernels.dispatch import Operation

_conv2d = Operation(
    "conv2d",
    {
        "xla": "kernels.convolution.dense2d.xla",
        "triton": "kernels.convolution.dense2d.kernel",
    },
    # XLA's convolution is cuDNN's on a GPU; that Triton's is faster anywhere has not been measured.
    preferred={"cuda": ("xla", "triton")},
)


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
        filters: (h, w, I / groups, O); products take them in the dtype of ``inputs``.
        bias: (O,).
        strides: pixels between neighbouring results, down and to the right.
        padding: ``"SAME"`` keeps ceil(H / s) by ceil(W / s') pixels, what is odd below and to the
            right; ``"SAME_LOWER"`` has it above and to the left; ``"VALID"`` adds nothing; or
            ((top, bottom), (left, right)), where negative numbers cut off.
        dilation: pixels between neighbouring taps.
        groups: how many the channels and features are divided into.
        activation: ``"silu"``, ``"gelu"`` (tanh form) or ``"relu"``.
        implementation: ``"xla"``, which is cuDNN's convolution on a GPU, ``"triton"`` (one group,
            no float64), or ``None``, which is ``"xla"`` on every platform: nothing has been
            measured on a GPU.

    Returns:
        (B, U, V, O) in the dtype of ``inputs``.

    Raises:
        ValueError: an argument that does not fit the others.
        NotImplementedError: ``implementation`` cannot compute this, with the reason.

    Example:
        >>> import jax.numpy as jnp
        >>> image = jnp.arange(9.0).reshape(1, 3, 3, 1)
        >>> conv2d(image, jnp.ones((2, 2, 1, 1)), padding="VALID")[0, :, :, 0]
        Array([[ 8., 12.],
               [20., 24.]], dtype=float32)
    """
    inputs, filters, bias, groups = _checked_arrays(inputs, filters, bias, groups)
    where = window(inputs.shape[1:3], filters.shape[:2], strides, padding, dilation, groups)
    check_activation(activation)
    (outputs,) = _conv2d(
        inputs,
        filters[None],
        None if bias is None else bias[None],
        **where._asdict(),
        activation=activation,
        implementation=implementation,
    )
    return outputs


def _checked_arrays(inputs, filters, bias, groups):
    given = arrays(inputs=inputs, filters=filters, bias=bias)
    inputs, filters, bias = given["inputs"], given["filters"], given.get("bias")
    received = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in given.items())
    wanted = "inputs (B, H, W, I), filters (h, w, I / groups, O) and bias (O,)"
    if inputs.ndim != 4 or filters.ndim != 4 or 0 in filters.shape:
        advice = inputs_advice(inputs.shape, 0, 2)
        raise ValueError(f"conv2d takes {wanted}, filters not empty; received {received}.{advice}")
    count = whole_number(groups)
    if count is None or count < 1 or filters.shape[3] % count:
        raise ValueError(
            "groups must be an integer from 1 on, known while tracing, that divides the features, "
            f"{filters.shape[3]}; received {groups!r}. Pass 1, or another divisor of "
            f"{filters.shape[3]}."
        )
    if inputs.shape[3] != filters.shape[2] * count:
        needed = filters.shape[2] * count
        raise ValueError(
            f"{wanted}: each of {count} groups of filters has {filters.shape[2]} channels, so "
            f"inputs must have {needed}; received {received}."
            + (
                inputs_advice(inputs.shape, needed, 2)
                or dense_advice(filters.shape, inputs.shape[3] // count)
            )
        )
    if bias is not None and bias.shape != filters.shape[3:]:
        raise ValueError(
            f"{wanted} must share O; received {received}. Give bias the shape {filters.shape[3:]}."
        )
    check_dtypes(given, received)
    return inputs, filters, bias, count
