"""Checks that configurations of published models share."""

from collections.abc import Collection
from typing import Any

from research.errors import ConfigError


def check_choice(name: str, received: Any, supported: Collection[Any]) -> None:
    """Refuse an option of a checkpoint that our model has not.

    Raises:
        ConfigError: it is not among those supported.

    Example:
        >>> check_choice("hidden_act", "relu", ("relu", "silu"))
    """
    if received not in supported:
        raise ConfigError(
            f"{name} of the model must be one of {', '.join(map(repr, supported))}, but is "
            f"{received!r}: this checkpoint cannot be run here"
        )


def check_heads(width: int, heads: int) -> None:
    """Refuse a width that heads cannot share.

    Raises:
        ConfigError: the width is not a multiple of the heads.

    Example:
        >>> check_heads(8, 2)
    """
    if heads < 1 or width % heads:
        raise ConfigError(
            f"hidden_size must be a multiple of num_attention_heads, but they are {width} and "
            f"{heads}"
        )
