"""What is said where arrays of a convolution have their axes in another order."""

from collections.abc import Mapping, Sequence
from typing import Any

# (channels, taps ...) -> (taps ..., channels), by the number of axes of taps.
_LAST = {1: "filters.T", 2: "filters.transpose(1, 2, 0)"}
_LAST_OF_ONE = {1: "filters[:, 0].T", 2: "filters[:, 0].transpose(1, 2, 0)"}
_INPUTS = {1: "inputs.transpose(0, 2, 1)", 2: "inputs.transpose(0, 2, 3, 1)"}


def depthwise_advice(filters: Sequence[int], channels: int, taps: int) -> str:
    """What to pass instead of filters in the layout of ``lax``, of torch, or channels first.

    Args:
        filters: their shape.
        channels: that they must have.
        taps: how many axes of taps there are.

    Returns:
        The end of a message; nothing where the layout is none of these.

    Example:
        >>> depthwise_advice((9, 1, 256), channels=256, taps=1)
        ' These are in the layout of lax. Pass filters.squeeze(-2).'
    """
    if len(filters) == taps + 2 and tuple(filters[-2:]) == (1, channels):
        return " These are in the layout of lax. Pass filters.squeeze(-2)."
    if len(filters) == taps + 2 and tuple(filters[:2]) == (channels, 1):
        return f" These are in the layout of torch. Pass {_LAST_OF_ONE[taps]}."
    if len(filters) == taps + 1 and filters[0] == channels != filters[-1]:
        return f" These have channels first. Pass {_LAST[taps]}."
    if len(filters) == taps:
        column = "filters[..., None]"
        if channels > 1:
            column = f"jnp.broadcast_to({column}, {(*filters, channels)})"
        return f" These lack the axis of channels. Pass {column}."
    return ""


def dense_advice(filters: Sequence[int], channels: int) -> str:
    """Likewise for filters (h, w, I, O) of images, of which torch has (O, I, h, w).

    Example:
        >>> dense_advice((5, 4, 3, 3), channels=4)
        ' These are in the layout of torch. Pass filters.transpose(2, 3, 1, 0).'
    """
    if len(filters) == 4 and filters[1] == channels != filters[2]:
        return " These are in the layout of torch. Pass filters.transpose(2, 3, 1, 0)."
    return ""


def inputs_advice(inputs: Sequence[int], channels: int, taps: int) -> str:
    """What to pass instead of inputs with channels first, or of a single row; else nothing.

    Example:
        >>> inputs_advice((8, 256, 100), channels=256, taps=1)
        ' inputs have channels first. Pass inputs.transpose(0, 2, 1).'
    """
    if len(inputs) == taps + 2 and inputs[1] == channels != inputs[-1]:
        return f" inputs have channels first. Pass {_INPUTS[taps]}."
    if len(inputs) == taps + 1:
        return " A single row needs a leading axis. Pass inputs[None]."
    return ""


def shape_advice(given: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> str | None:
    """Which shape the first array that has another must have; ``None`` if all have theirs.

    Example:
        >>> import jax.numpy as jnp
        >>> shape_advice({"bias": jnp.ones(3)}, {"filters": (9, 4), "bias": (4,)})
        ' Give bias the shape (4,).'
    """
    for name, shape in expected.items():
        if name in given and given[name].shape != shape:
            return f" Give {name} the shape {shape}."
    return None
