"""Datasets as seeded, resumable streams of batches; nothing heavy is imported here."""

import os
from pathlib import Path

__all__ = ["data_dir"]


def data_dir(path: str | os.PathLike[str] | None = None) -> Path:
    """The directory under which every dataset has its folder; it need not exist.

    Args:
        path: An option given by the user; comes before everything else.

    Returns:
        `path`, else the environment variable `TRELLIS_DATA`, else `~/.cache/trellis`.

    Example:
        >>> data_dir("somewhere/else").as_posix()
        'somewhere/else'
    """
    chosen = path or os.environ.get("TRELLIS_DATA") or "~/.cache/trellis"
    return Path(chosen).expanduser()
