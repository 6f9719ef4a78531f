"""What the operations ask of their arguments alike, and arrays out of what callers give."""

import difflib
import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FLOATS = ("float32", "bfloat16", "float16", "float64")


def arrays(**given: Any) -> dict[str, Any]:
    """The arguments that are there, as arrays of JAX; lists and numbers too.

    Example:
        >>> arrays(bias=[1.0, 2.0], lengths=None)
        {'bias': Array([1., 2.], dtype=float32)}
    """
    return {name: as_array(name, a) for name, a in given.items() if a is not None}


def as_array(name: str, argument: Any) -> Any:
    """An array of JAX; lengths and ids that are not yet one do not wrap as it becomes one.

    Raises:
        ValueError: ids that do not fit the integers that JAX has.

    Example:
        >>> as_array("lengths", np.array([3, 2**40]))  # JAX has 32 bits by default
        Array([         3, 2147483647], dtype=int32)
    """
    leaves = jax.tree.leaves(argument)
    if not name.endswith(("lengths", "ids")) or any(isinstance(x, jax.Array) for x in leaves):
        return jnp.asarray(argument)
    known = np.asarray(argument)
    if known.dtype.kind not in "iu" or known.dtype.itemsize < 4 or known.size == 0:
        return jnp.asarray(known)
    limits = jnp.iinfo(jnp.int32)
    if name.endswith("lengths"):  # no array has more frames than this
        return jnp.asarray(np.clip(known, -1, limits.max).astype(np.int32))
    if known.min() >= limits.min and known.max() <= limits.max:
        return jnp.asarray(known.astype(np.int32))
    if known.dtype.itemsize > 4 and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            f"{name} must fit int32 unless JAX has 64 bits; received numbers from {known.min()} to "
            f"{known.max()}. Number them anew, from 0 on."
        )
    return jnp.asarray(known)


def counted(lengths: Any, frames: int) -> Any:
    """Lengths from 0 to the number of frames, whatever integers they were, as int32.

    Example:
        >>> counted(jnp.array([-1, 3, 9]), 5)
        Array([0, 3, 5], dtype=int32)
    """
    if lengths is None:
        return None
    most = min(frames, jnp.iinfo(lengths.dtype).max)
    return jnp.clip(lengths, 0, most).astype(jnp.int32)


def check_dtypes(given: Mapping[str, Any], received: str) -> None:
    """Refuse dtypes other than the four that the operations are made for; lengths are integers.

    Raises:
        ValueError: an array of another dtype.
    """
    for name, array in given.items():
        if name == "lengths":
            fits, kind = jnp.issubdtype(array.dtype, jnp.integer), "integer"
        else:
            fits, kind = str(array.dtype) in FLOATS, f"floating, one of {FLOATS}"
        if not fits:
            raise ValueError(f"{name} must be {kind}; received {received}. Use .astype().")


def truth_values(**options: Any) -> None:
    """Refuse what is not a truth value that is known while tracing.

    Raises:
        ValueError: it is not.

    Example:
        >>> truth_values(is_causal=True)
    """
    for name, option in options.items():
        if not isinstance(option, bool):
            raise ValueError(
                f"{name} must be True or False, known while tracing; received {option!r}. Pass "
                "True or False themselves; under jit, name it in static_argnames."
            )


def meant(received: Any, names: Iterable[Any]) -> str:
    """Which of the names a caller may have meant, as an end of a message; nothing if none.

    Example:
        >>> meant("causal", ("SAME", "CAUSAL"))
        " Did you mean 'CAUSAL'?"
    """
    if not isinstance(received, str):
        return ""
    known = {name.casefold(): name for name in names if isinstance(name, str)}
    near = difflib.get_close_matches(received.casefold(), known, 1, 0.7)
    return f" Did you mean {known[near[0]]!r}?" if near else ""


def whole_number(value: Any) -> int | None:
    """An integer that is known while tracing, or ``None`` for anything else.

    Example:
        >>> whole_number(np.int64(4)), whole_number(jnp.int32(4)), whole_number(4.0)
        (4, 4, None)
    """
    try:
        return operator.index(value)
    except (TypeError, jax.errors.ConcretizationTypeError):
        return None


def number(name: str, value: Any, advice: str) -> float:
    """A finite number that is known while tracing.

    Raises:
        ValueError: it is not.
    """
    try:
        known = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, jax.errors.ConcretizationTypeError):
        known = math.nan
    if not math.isfinite(known):
        raise ValueError(
            f"{name} must be a finite number that is known while tracing; received {value!r}. "
            f"{advice}"
        )
    return known
