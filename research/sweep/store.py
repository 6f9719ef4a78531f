"""Finished trainings, one file each, named by the hash of their settings.

A row is committed once, however often and wherever its training is run: the first that comes stays,
and no reader sees a half of it. Stores are merged by copying what one has and the other lacks.
The arrays of a row, where it has some, lie beside the rows in a folder of their own, under its key.
"""

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import RunError
from research.runlog import ROW_KEY
from research.sweep.training import key_of

Row = dict[str, Any]

EXAMPLES = "examples"  # folder of a run directory: arrays of a row, under its key


class Store(NamedTuple):
    """The rows of a run directory: ``path`` is the folder that holds them.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = Store(Path(folder))
        ...     settings = {"optimizer": "adam", "seed": 1}
        ...     row = {"key": key_of(settings), "settings": settings}
        ...     row |= {"status": "finished", "result": {"validation_score": [0.1]}}
        ...     print(store.commit(row), store.commit(row), store.read(row["key"]) == row)
        True False True
    """

    path: Path

    def commit(self, row: Mapping[str, Any]) -> bool:
        """Keep a row for good; False where there is one of that key, which stays as it is.

        When this returns, a crash of the machine does not lose it. Any number of processes, on any
        machines that see the folder, may commit at the same time.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        final = self.path / f"{row['key']}.json"
        temporary = self.path / f".{row['key']}.{uuid.uuid4().hex}.tmp"
        try:
            with temporary.open("w") as file:
                json.dump(row, file, indent=1, allow_nan=False)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, final)  # unlike a rename, it fails where the name is taken
            except FileExistsError:
                return False
            _sync(self.path)
            return True
        finally:
            temporary.unlink(missing_ok=True)

    def keys(self) -> set[str]:
        """Of all rows."""
        if not self.path.is_dir():
            return set()
        stems = (name.removesuffix(".json") for name in os.listdir(self.path))
        return {stem for stem in stems if ROW_KEY.fullmatch(stem)}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of the keys that have no row yet, in their order."""
        there = self.keys()
        return [key for key in keys if key not in there]

    def read(self, key: str) -> Row:
        """The row of a key.

        Raises:
            RunError: no such row, or a file that is not what was committed.
        """
        path = self.path / f"{key}.json"
        try:
            row = json.loads(path.read_text())
            found = {row["key"], key_of(row["settings"])}
            complete = isinstance(row["result"], dict) and row["status"] in ("finished", "diverged")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} must be a readable row; reading it gave {type(error).__name__}: {error}. "
                f"{_HOW_TO_GO_ON}"
            ) from error
        if found != {key} or not complete:
            raise RunError(
                f"{path} must hold a finished training whose settings have the hash {key}; it has "
                f"key {row['key']}, settings of hash {key_of(row['settings'])} and status "
                f"{row['status']!r}. {_HOW_TO_GO_ON}"
            )
        return row

    def rows(self) -> list[Row]:
        """All rows, by key.

        Raises:
            RunError: one of them is damaged.
        """
        return [self.read(key) for key in sorted(self.keys())]

    def merge(self, other: "Store") -> int:
        """Take over the rows of another store that are not here; how many those are.

        The arrays of a row come before it, so that here too a row that is there has them.

        Raises:
            RunError: a row to take over is damaged. Those before it have been taken over.
        """
        number = 0
        for key in sorted(other.keys() - self.keys()):
            row = other.read(key)
            self._copy_arrays(other, key)
            number += self.commit(row)
        return number

    def _copy_arrays(self, other: "Store", key: str) -> None:
        there = other.path.parent / EXAMPLES / f"{key}.npz"
        if not there.is_file():
            return
        folder = self.path.parent / EXAMPLES
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{key}.{uuid.uuid4().hex}.npz"
        try:
            shutil.copyfile(there, temporary)
            os.replace(temporary, folder / there.name)
        finally:
            temporary.unlink(missing_ok=True)


_HOW_TO_GO_ON = "Delete it and start the experiment's command again: that training is run anew."


def store_of(run_path: Path) -> Store:
    """The rows of a run directory."""
    return Store(Path(run_path) / "rows")


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line of JSON to a file that several processes add to.

    One write in append mode, so that lines of different processes do not mix on a local disk.
    """
    line = json.dumps(record, allow_nan=False) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """Make the folder's new name durable, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
