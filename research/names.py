"""Looking up a name, with a hint where it is unknown. Imports no JAX."""

import difflib
from collections.abc import Iterable, Mapping
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
    if not isinstance(name, str) or name not in registry:
        raise ConfigError(
            f"{kind} must be one of {', '.join(registry)}; received {name!r}."
            f"{suggestion(name, registry)}"
        )
    return registry[name]


def suggestion(name: str, names: Iterable[str]) -> str:
    """A sentence, after a space, that asks for the nearest name; nothing where none is near.

    Example:
        >>> suggestion("adm", ["sgd", "adam"])
        " Did you mean 'adam'?"
        >>> suggestion("zzz", ["sgd", "adam"])
        ''
    """
    near = difflib.get_close_matches(str(name), names, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
