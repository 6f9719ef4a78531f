"""Frames of a convolution over time: padding, lengths, and the state from one call to the next.

Axes: B rows, T frames, C channels, S frames of state, as many as the filters reach back.
"""

import operator
from typing import Any

import jax.numpy as jnp

from kernels.arguments import meant, whole_number
from kernels.rows import of_rows


def padding_frames(padding: Any, reach: int) -> tuple[int, int]:
    """Frames of zeros on the left and on the right, for filters that reach over so many.

    Raises:
        ValueError: neither a name nor two integers from 0 on.
    """
    named: dict[Any, Any] = {
        "SAME": (reach // 2, reach - reach // 2),
        "CAUSAL": (reach, 0),
        "VALID": (0, 0),
    }
    try:
        left, right = map(operator.index, named[padding] if isinstance(padding, str) else padding)
    except (KeyError, TypeError, ValueError):
        left = right = -1
    if min(left, right) < 0:
        one = whole_number(padding)
        advice = meant(padding, named) or " Pass (left, right), or a name."
        if one is not None and one >= 0:
            advice = f" Pass {(one, one)} for as many on each side."
        raise ValueError(
            f"padding must be one of {[*named]}, or two numbers of frames (left, right) from 0 on; "
            f"received {padding!r}.{advice}"
        )
    return left, right


def zero_after(array: Any, lengths: Any) -> Any:
    """(B, T, C) with zeros from lengths[b] on, whatever was there."""
    if lengths is None:
        return array
    t = jnp.arange(array.shape[1], dtype=lengths.dtype)
    valid = t[None, :] < of_rows(lengths, array.shape[0])[:, None]
    return jnp.where(valid[:, :, None], array, jnp.zeros((), array.dtype))


def output_lengths(inputs: Any, outputs: Any, lengths: Any) -> Any:
    """How many of the output frames an utterance of lengths[b] frames alone would have."""
    return None if lengths is None else lengths + (outputs.shape[1] - inputs.shape[1])


def with_state(inputs: Any, lengths: Any, state: Any, padding: Any, reach: int) -> tuple[Any, Any]:
    """The state, or as many zeros, before the first frame; lengths then count it.

    Args:
        inputs: (B, T, C).
        lengths: (B,) or None.
        state: (B, S, C) or None.
        padding: as the caller gave it.
        reach: S.

    Returns:
        (B, S + T, C), and the lengths.

    Raises:
        ValueError: the padding is not causal, or the state is of another shape or dtype.
    """
    shape = (inputs.shape[0], reach, inputs.shape[2])
    if not isinstance(padding, str) or padding != "CAUSAL":
        raise ValueError(
            f"a state needs padding='CAUSAL', so that no frame waits for the next call; received "
            f"{padding!r}."
        )
    state = jnp.zeros(shape, inputs.dtype) if state is None else jnp.asarray(state)
    if state.shape != shape or state.dtype != inputs.dtype:
        raise ValueError(
            f"initial_state must be the frames that the filters reach back, of all channels of the "
            f"inputs, {shape} of {inputs.dtype}; received {state.shape} of {state.dtype}. Pass the "
            "state that return_state=True gave."
        )
    lengths = None if lengths is None else lengths + reach
    return jnp.concatenate([state, inputs], 1), lengths


def last_frames(inputs: Any, lengths: Any, reach: int) -> Any:
    """The state that ``with_state`` takes next: the last S valid frames of what it gave."""
    if lengths is None:
        return inputs[:, inputs.shape[1] - reach :]
    frames = (lengths - reach)[:, None] + jnp.arange(reach, dtype=jnp.int32)[None, :]
    return jnp.take_along_axis(inputs, frames[:, :, None], 1)
