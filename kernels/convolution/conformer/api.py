"""The public Conformer convolution: argument checks, padding, streaming state.

Axes: B batch, T frames, U frames out, C channels, W width, S = W - 1 frames of state.
"""

from typing import Any

from jaxtyping import Array, Float, Int

from kernels import arguments
from kernels.arguments import arrays, check_dtypes, counted, meant, truth_values
from kernels.convolution.frames import last_frames, padding_frames, with_state
from kernels.convolution.layouts import depthwise_advice, inputs_advice, shape_advice
from kernels.dispatch import Operation

NORMS = ("layer", "batch_inference")
_operation = Operation(
    "conformer_convolution",
    {
        "xla": "kernels.convolution.conformer.xla",
        "triton": "kernels.convolution.conformer.kernel",
    },
)


def conformer_convolution(
    inputs: Float[Array, "B T 2*C"],
    filters: Float[Array, "W C"],
    scale: Float[Array, " C"],
    offset: Float[Array, " C"],
    *,
    norm: str = "layer",
    mean: Float[Array, " C"] | None = None,
    variance: Float[Array, " C"] | None = None,
    epsilon: float = 1e-5,
    bias: Float[Array, " C"] | None = None,
    padding: str | tuple[int, int] = "SAME",
    lengths: Int[Array, " B"] | None = None,
    initial_state: Float[Array, "B S 2*C"] | None = None,
    return_state: bool = False,
    implementation: str | None = None,
) -> Float[Array, "B U C"] | Any:  # the pair with return_state, which few callers must tell apart
    """The middle of the Conformer's convolution module: GLU, depthwise filters, norm, swish.

    h = inputs[..., :C] sigmoid(inputs[..., C:])
    z[b, t, c] = bias[c] + sum_w h[b, t + w - left, c] filters[w, c]
    y = swish((z - mean) / sqrt(variance + epsilon) scale + offset)

    with mean and variance over the C channels of each frame, or those given. Frames before the
    first and from ``lengths[b]`` on count as zero, after the GLU; an output frame that utterance b
    alone would not have is zero. Sums are in float32.

    Args:
        inputs: (B, T, 2C), float32, bfloat16 or float16; float64 in XLA.
        filters: (W, C).
        scale: of the norm, (C,).
        offset: of the norm, (C,).
        norm: ``"layer"``, or ``"batch_inference"`` for a batch norm that is no longer trained.
        mean: (C,), for ``"batch_inference"`` only, where it must be given; it has a gradient.
        variance: likewise.
        epsilon: added to the variance, in its units, the square of those of z. PyTorch's default,
            also for a layer norm; Flax's ``LayerNorm`` has 1e-6.
        bias: of the filters, (C,).
        padding: frames of zeros on each side, (left, right); ``"SAME"`` keeps T frames,
            ``"CAUSAL"`` too, all of them on the left; ``"VALID"`` adds none.
        lengths: number of valid frames of each utterance, (B,), integer.
        initial_state: the S = W - 1 frames of ``inputs`` before the first, (B, S, 2C); causal only.
            They are kept as they came, not gated: twice the memory, but nothing is rounded between
            chunks, and gradients pass through as through inputs.
        return_state: give the last S valid frames too, the state of the next call; causal only.
        implementation: ``"xla"``, ``"triton"``, or ``None``: Triton on CUDA where it can, else XLA.

    Returns:
        (B, U, C) with U = T + left + right - (W - 1), in the dtype of ``inputs``; with
        ``return_state`` the pair of that and the state.

    Raises:
        ValueError: an argument that does not fit the others.
        NotImplementedError: ``implementation`` cannot compute this, with the reason.

    Example:
        >>> import jax.numpy as jnp
        >>> x = jnp.ones((1, 3, 8)).at[:, :, 0].set(3.0)
        >>> y = conformer_convolution(x, jnp.ones((1, 4)), jnp.ones(4), jnp.zeros(4))
        >>> print(y.shape, jnp.round(y[0, 0], 1))
        (1, 3, 4) [ 1.5 -0.2 -0.2 -0.2]

    Source: Gulati et al., "Conformer: Convolution-augmented Transformer for Speech Recognition",
    2020, arXiv 2005.08100, section 2.2.
    """
    truth_values(return_state=return_state)
    epsilon = _checked_norm(norm, mean, variance, epsilon)
    inputs, filters, *vectors, lengths = _checked_arrays(
        inputs, filters, lengths, scale=scale, offset=offset, bias=bias, mean=mean,
        variance=variance,
    )  # fmt: skip
    lengths = counted(lengths, inputs.shape[1])
    reach = filters.shape[0] - 1
    left, right = padding_frames(padding, reach)
    if inputs.shape[1] + left + right <= reach:
        raise ValueError(
            f"inputs must be longer than the filters reach, {reach} frames, after padding; "
            f"received {inputs.shape[1]} frames and padding {(left, right)}. Pad more."
        )
    if initial_state is not None or return_state:
        inputs, lengths = with_state(inputs, lengths, initial_state, padding, reach)
        left = 0
    outputs, *_ = _operation(
        inputs,
        *(None if array is None else array[None] for array in (filters, *vectors)),
        lengths,
        left=left,
        right=right,
        norm=norm,
        epsilon=epsilon,
        implementation=implementation,
    )
    return (outputs, last_frames(inputs, lengths, reach)) if return_state else outputs


def _checked_norm(norm, mean, variance, epsilon):
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {[*NORMS]}; received {norm!r}.{meant(norm, NORMS)}")
    given = [name for name, a in (("mean", mean), ("variance", variance)) if a is not None]
    wanted = ["mean", "variance"] if norm == "batch_inference" else []
    if given != wanted:
        raise ValueError(
            f"mean and variance must be given for norm='batch_inference', and for no other; "
            f"received norm={norm!r} with {' and '.join(given) or 'neither'}."
        )
    known = arguments.number("epsilon", epsilon, "Pass a Python number.")
    if not known > 0:
        raise ValueError(
            f"epsilon must be a number above zero; received {epsilon!r}. 1e-5 is usual."
        )
    return known


def _checked_arrays(inputs, filters, lengths, **vectors):
    given = arrays(inputs=inputs, filters=filters, **vectors, lengths=lengths)
    inputs, filters = given["inputs"], given["filters"]
    received = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in given.items())
    wanted = f"inputs (B, T, 2C), filters (W, C), lengths (B,), and (C,) for {', '.join(vectors)}"
    known = depthwise_advice(filters.shape, inputs.shape[-1] // 2, 1) if inputs.ndim else ""
    if inputs.ndim != 3 or filters.ndim != 2 or 0 in filters.shape:
        advice = known or inputs_advice(inputs.shape, 0, 1)
        raise ValueError(
            f"conformer_convolution takes {wanted}, W and C from 1 on; received {received}.{advice}"
        )
    channels = filters.shape[1:]
    expected = {"inputs": (*inputs.shape[:2], 2 * channels[0]), "lengths": inputs.shape[:1]}
    expected |= dict.fromkeys(vectors, channels)
    if advice := shape_advice(given, expected):
        advice = known or inputs_advice(inputs.shape, 2 * channels[0], 1) or advice
        raise ValueError(f"{wanted} must share B and C; received {received}.{advice}")
    check_dtypes(given, received)
    return inputs, filters, *map(given.get, (*vectors, "lengths"))
