"""Looking up a name, with a hint where it is unknown."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from research.errors import ConfigError

Entry = TypeVar("Entry")


def look_up(registry: Mapping[str, Entry], name: str, kind: str) -> Entry:
    """The entry of that name.

    Args:
        registry: name -> entry.
        name: what to look for.
        kind: what the entries are, for the message.

    Raises:
        ConfigError: no such entry; the message names the nearest.

    Example:
        >>> look_up({"adam": 1}, "adam", "optimizer")
        1
    """
    if name not in registry:
        near = difflib.get_close_matches(name, registry, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"{kind} must be one of {', '.join(registry)}; received {name!r}.{hint}")
    return registry[name]
