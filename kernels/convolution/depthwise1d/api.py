"""The public depthwise convolution: argument checks, padding, streaming state.

Axes: B batch, T frames, C channels, W width of the filters, S = (W - 1) dilation frames of state.
"""

from typing import Any

from jaxtyping import Array, Float, Int

from kernels.arguments import arrays, check_dtypes, counted, truth_values, whole_number
from kernels.convolution.activations import check_activation
from kernels.convolution.frames import last_frames, padding_frames, with_state
from kernels.convolution.layouts import depthwise_advice, inputs_advice, shape_advice
from kernels.dispatch import Operation

_operation = Operation(
    "depthwise_conv1d",
    {
        "xla": "kernels.convolution.depthwise1d.xla",
        "triton": "kernels.convolution.depthwise1d.kernel",
    },
)


def depthwise_conv1d(
    inputs: Float[Array, "B T C"],
    filters: Float[Array, "W C"],
    bias: Float[Array, " C"] | None = None,
    *,
    padding: str | tuple[int, int] = "SAME",
    dilation: int = 1,
    activation: str | None = None,
    lengths: Int[Array, " B"] | None = None,
    initial_state: Float[Array, "B S C"] | None = None,
    return_state: bool = False,
    implementation: str | None = None,
) -> Float[Array, "B U C"] | Any:  # the pair with return_state, which few callers must tell apart
    """Filter every channel along time with a filter of its own, as ``lax`` does: no flip.

    y[b, t, c] = activation(bias[c] + sum_w inputs[b, t + w dilation - left, c] filters[w, c])

    Frames before the first and from ``lengths[b]`` on count as zero; an output frame that utterance
    b alone would not have is zero. Products accumulate in float32.

    Args:
        inputs: (B, T, C), float32, bfloat16 or float16; float64 in XLA.
        filters: (W, C).
        bias: (C,).
        padding: frames of zeros on each side, (left, right); ``"SAME"`` keeps T frames,
            ``"CAUSAL"`` too, all of them on the left; ``"VALID"`` adds none.
        dilation: frames between neighbouring taps.
        activation: ``"silu"``, ``"gelu"`` (tanh form) or ``"relu"``.
        lengths: number of valid frames of each utterance, (B,), integer.
        initial_state: the S = (W - 1) dilation frames before the first, (B, S, C); causal only.
        return_state: give the last S valid frames too, the state of the next call; causal only.
        implementation: ``"xla"``, ``"triton"``, or ``None``: Triton on CUDA where it can, else XLA.

    Returns:
        (B, T + left + right - (W - 1) dilation, C) in the dtype of ``inputs``; with
        ``return_state`` the pair of that and the state.

    Raises:
        ValueError: an argument that does not fit the others.
        NotImplementedError: ``implementation`` cannot compute this, with the reason.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.arange(1.0, 5.0)[None, :, None]
        >>> depthwise_conv1d(x, jnp.ones((2, 1)), padding="CAUSAL")[0, :, 0]
        Array([1., 3., 5., 7.], dtype=float32)
    """
    truth_values(return_state=return_state)
    inputs, filters, bias, lengths = _checked_arrays(inputs, filters, bias, lengths)
    lengths = counted(lengths, inputs.shape[1])
    dilation = _checked_dilation(dilation)
    reach = (filters.shape[0] - 1) * dilation
    left, right = padding_frames(padding, reach)
    if inputs.shape[1] + left + right <= reach:
        raise ValueError(
            f"inputs must be longer than the filters reach, {reach} frames, after padding; "
            f"received {inputs.shape[1]} frames and padding {(left, right)}. Pad more."
        )
    check_activation(activation)
    if initial_state is not None or return_state:
        inputs, lengths = with_state(inputs, lengths, initial_state, padding, reach)
        left = 0
    outputs, *_ = _operation(
        inputs,
        filters[None],
        None if bias is None else bias[None],
        lengths,
        left=left,
        right=right,
        dilation=dilation,
        activation=activation,
        implementation=implementation,
    )
    return (outputs, last_frames(inputs, lengths, reach)) if return_state else outputs


def _checked_dilation(dilation):
    checked = whole_number(dilation)
    if checked is None or checked < 1:
        raise ValueError(
            "dilation must be an integer from 1 on that is known while tracing; received "
            f"{dilation!r}. Pass a Python integer."
        )
    return checked


def _checked_arrays(inputs, filters, bias, lengths):
    given = arrays(inputs=inputs, filters=filters, bias=bias, lengths=lengths)
    inputs, filters = given["inputs"], given["filters"]
    received = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in given.items())
    wanted = "inputs (B, T, C), filters (W, C), bias (C,) and lengths (B,)"
    known = depthwise_advice(filters.shape, inputs.shape[-1], 1) if inputs.ndim else ""
    if inputs.ndim != 3 or filters.ndim != 2 or filters.shape[0] == 0:
        advice = known or inputs_advice(inputs.shape, 0, 1)
        raise ValueError(
            f"depthwise_conv1d takes {wanted}, W from 1 on; received {received}.{advice}"
        )
    expected = {"filters": (filters.shape[0], inputs.shape[2]), "bias": inputs.shape[2:]}
    expected["lengths"] = inputs.shape[:1]
    if advice := shape_advice(given, expected):
        advice = known or inputs_advice(inputs.shape, filters.shape[1], 1) or advice
        raise ValueError(f"{wanted} must share B and C; received {received}.{advice}")
    check_dtypes(given, received)
    return inputs, filters, given.get("bias"), given.get("lengths")
