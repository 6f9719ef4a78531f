"""What may follow a convolution, by the name that callers give."""

from typing import Any

import jax

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
        raise ValueError(f"activation must be one of {[*ACTIVATIONS]}; received {name!r}.")
