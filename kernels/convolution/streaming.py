"""The state that one call of a causal convolution over time leaves to the next.

Axes: B rows, T frames, C channels, S frames of state, as many as the filters reach back.
"""

from typing import Any

import jax.numpy as jnp


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
    if padding != "CAUSAL":
        raise ValueError(
            f"a state needs padding='CAUSAL', so that no frame waits for the next call; received "
            f"{padding!r}."
        )
    state = jnp.zeros(shape, inputs.dtype) if state is None else state
    if state.shape != shape or state.dtype != inputs.dtype:
        raise ValueError(
            f"initial_state must be the frames that the filters reach back, of all channels of the "
            f"inputs, {shape} of {inputs.dtype}; received {state.shape} of {state.dtype}. Pass the "
            "state that return_state=True gave."
        )
    lengths = None if lengths is None else jnp.clip(lengths, 0, inputs.shape[1]) + reach
    return jnp.concatenate([state, inputs], 1), lengths


def last_frames(inputs: Any, lengths: Any, reach: int) -> Any:
    """The state that ``with_state`` takes next: the last S valid frames of what it gave."""
    if lengths is None:
        return inputs[:, inputs.shape[1] - reach :]
    frames = (lengths - reach)[:, None] + jnp.arange(reach, dtype=jnp.int32)[None, :]
    return jnp.take_along_axis(inputs, frames[:, :, None], 1)
