"""What may follow a convolution, by the name that callers give."""

from typing import Any

import jax

from kernels.arguments import meant

ACTIVATIONS = {
    None: lambda z: z,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,  # the tanh form, which is JAX's default
}


def check_activation(name: Any) -> None:
    """Refuse what is not in ``ACTIVATIONS``.

    Raises:
        ValueError: it is not.

    Example:
        >>> check_activation("silu")
    """
    if not (name is None or isinstance(name, str)) or name not in ACTIVATIONS:
        raise ValueError(
            f"activation must be one of {[*ACTIVATIONS]}; received {name!r}.{_advice(name)}"
        )


def _advice(given: Any) -> str:
    called = getattr(given, "__name__", None) if callable(given) else given
    if called == "swish":
        return " Did you mean 'silu'?"
    if callable(given) and isinstance(called, str) and called in ACTIVATIONS:
        return f" Pass its name, {called!r}."
    return meant(given, ACTIVATIONS) or " Pass None, and apply it to the result."
