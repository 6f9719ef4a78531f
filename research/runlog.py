"""The record of a run: one directory that resumes, never loses a finished trial, and can be read.

    runs/<experiment>/<recipe>-<id>/
      config.json       resolved configuration and data fingerprint; their hash is the id
      environment.json  one entry per session: commit, versions, device
      metrics.jsonl     one evaluation per line
      trials/           one file per finished or diverged trial, committed atomically
      rows/             the same for the trainings of a sweep, named by their settings' hash
      plan.json         how a sweep's trainings are run (research.sweep)
      examples/         arrays for figures, one .npz per trial
      timings.jsonl     seconds; kept apart, because everything else is reproducible
      checkpoints/      the last two states of each training that takes long; the last is the model

A killed process leaves at worst a half-written last line, which reading passes over.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import re
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from research import __version__
from research.environment import describe_environment
from research.errors import RunError

FORMAT = 1
ROW_KEY = re.compile(r"[0-9a-f]{16}")  # names the file of a row; others in rows/ are none


@dataclasses.dataclass(frozen=True)
class Records:
    """Everything a report needs, read from a run directory."""

    path: Path
    experiment: str
    recipe: str
    config: dict[str, Any]
    data: dict[str, Any]
    environment: dict[str, Any]
    metrics: list[dict[str, Any]]
    trials: list[dict[str, Any]]
    timings: list[dict[str, Any]]
    rows: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    version: str = ""  # of Trellis, that began the run

    def examples(self, trial: str) -> dict[str, np.ndarray]:
        """The arrays saved with a trial; empty where there are none."""
        path = self.path / "examples" / f"{trial}.npz"
        if not path.is_file():
            return {}
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            records = self.path / "rows", self.path / "trials"
            found = [folder / f"{trial}.json" for folder in records]
            beside = " and ".join(str(file) for file in (path, *found) if file.is_file())
            raise RunError(
                f"{path} must be a readable .npz file; reading it gave {type(error).__name__}. "
                f"Delete {beside} and start the experiment's command again: the training is run "
                "anew."
            ) from error


@dataclasses.dataclass(frozen=True)
class Run:
    """An open run directory that this process may write to."""

    path: Path

    def finished(self, trial: str) -> dict[str, Any] | None:
        """The record of a trial that has ended, or None."""
        path = self._trial_path(trial)
        return _read_json(path) if path.is_file() else None

    def finish(
        self, trial: str, *, settings: Mapping[str, Any], status: str, result: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Commit a trial's outcome; after this returns the trial is never run again."""
        record = {"trial": trial, "status": status, "settings": settings, "result": result}
        write_json(self._trial_path(trial), record)
        return _read_json(self._trial_path(trial))

    def log(self, trial: str, step: int, **metrics: float) -> None:
        """Append one evaluation to metrics.jsonl."""
        _append(self.path / "metrics.jsonl", {"trial": trial, "step": step, **metrics})

    def log_time(self, trial: str, *, seconds: float, steps: int) -> None:
        """Append the wall-clock cost of a trial's steps in this session to timings.jsonl."""
        record = {"trial": trial, "seconds": round(seconds, 3), "steps": steps}
        _append(self.path / "timings.jsonl", record)

    def save_examples(self, trial: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays that figures of this trial need."""
        path = self.path / "examples" / f"{trial}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **dict(arrays))
        os.replace(temporary, path)

    def checkpoints(self, trial: str) -> Path:
        """Where the checkpoints of a trial go."""
        return self.path / "checkpoints" / trial

    def _trial_path(self, trial: str) -> Path:
        return self.path / "trials" / f"{trial}.json"


def run_id(config: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of the hash of a resolved configuration and its data.

    Example:
        >>> run_id({"steps": 3}, {"sha256": "ab"}) == run_id({"steps": 4}, {"sha256": "ab"})
        False
    """
    text = json.dumps([FORMAT, config, data], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


@contextlib.contextmanager
def open_run(
    root: Path,
    *,
    experiment: str,
    recipe: str,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    seeds: list[int],
    fresh: bool = False,
) -> Iterator[Run]:
    """Make or resume the run directory of a configuration, and hold its lock.

    Args:
        root: the folder of all runs.
        experiment: name of the experiment.
        recipe: name of the recipe that the configuration started from.
        config: the resolved configuration as plain values.
        data: name, source and sha256 of the data.
        seeds: the seeds used, for environment.json.
        fresh: begin anew; an earlier run of the same id is moved aside, not deleted.

    Yields:
        The open run.

    Raises:
        RunError: the directory cannot be written, is in use by another process, or was written by a
            version with another record format.
    """
    config, data = json.loads(json.dumps([config, data]))
    path = root / experiment / f"{recipe}-{run_id(config, data)}"
    head = {
        "format": FORMAT,
        "trellis": __version__,
        "experiment": experiment,
        "recipe": recipe,
        "config": config,
        "data": data,
    }
    with contextlib.ExitStack() as lock:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.enter_context(_lock(path.parent / f".{path.name}.lock", path))
            _prepare(path, head, seeds, fresh)
        except OSError as error:
            raise RunError(
                f"the run directory {path} must be writable; the system says: {error}. Make room "
                "there, or choose another place with --out; what is written already is kept."
            ) from error
        yield Run(path)


def _prepare(path: Path, head: Mapping[str, Any], seeds: list[int], fresh: bool) -> None:
    if fresh and path.exists():
        _move_aside(path)
    for folder in ("trials", "examples", "checkpoints", "figures"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    if (path / "config.json").is_file():
        found = _read_json(path / "config.json")
        _check_format(path, found)
        if found.get("trellis") != head["trellis"]:
            raise RunError(
                f"{path} must have been started by this version of Trellis, {head['trellis']}, to "
                f"be resumed; it was by {found.get('trellis')}, whose trials may differ. Resume it "
                "with that version, or start with --fresh, which moves it aside."
            )
    else:
        write_json(path / "config.json", head)
    _add_session(path / "environment.json", seeds)
    for name in ("metrics.jsonl", "timings.jsonl"):
        _end_last_line(path / name)


def read_run(path: Path) -> Records:
    """Read the records of a run, finished or not.

    Raises:
        RunError: not a run directory, a damaged record, or another record format.
    """
    path = Path(path)
    if not (path / "config.json").is_file():
        raise RunError(
            f"{path} must be a run directory with a config.json; there is none. "
            "Give the directory that an experiment printed, runs/<experiment>/<recipe>-<id>."
        )
    head = _read_json(path / "config.json")
    _check_format(path, head)
    environment = path / "environment.json"
    try:
        return Records(
            path=path,
            experiment=str(head["experiment"]),
            recipe=str(head["recipe"]),
            config=dict(head["config"]),
            data=dict(head["data"]),
            environment=_read_json(environment) if environment.is_file() else {"sessions": []},
            metrics=_last_of_each(_read_lines(path / "metrics.jsonl")),
            trials=sorted(
                (_read_json(file) for file in (path / "trials").rglob("*.json")),
                key=lambda trial: trial["trial"],
            ),
            # One that is damaged is no reason to have no report.
            timings=[x for x in _read_lines(path / "timings.jsonl") if isinstance(x, dict)],
            rows=_read_rows(path / "rows"),
            version=str(head.get("trellis")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(
            f"the records of {path} must have the entries that open_run writes; reading them gave "
            f"{type(error).__name__}: {error}. Start the experiment's command again with --fresh."
        ) from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} must be a readable JSON file; reading it gave: {error}. "
            "Delete it and start the experiment's command again: what it held is made anew."
        ) from error


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    rows = []
    for file in sorted(folder.glob("*.json")):
        if not ROW_KEY.fullmatch(file.stem):
            continue
        row = _read_json(file)
        if not isinstance(row, dict) or row.get("key") != file.stem:
            key = row.get("key") if isinstance(row, dict) else None
            raise RunError(
                f"{file} must hold the training whose key is its name; it has key {key!r}. "
                "Delete it and start the experiment's command again: that training is run anew."
            )
        rows.append(row)
    return rows


def _append(path: Path, record: Mapping[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def _end_last_line(path: Path) -> None:
    """Give a line cut short by a kill its newline, so that the next record starts a line."""
    if path.is_file() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
        with path.open("a") as file:
            file.write("\n")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    records = []
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            # A process killed in mid-write leaves part of a line; its evaluation is made again.
            with contextlib.suppress(ValueError):
                records.append(json.loads(line))
    return records


def _last_of_each(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    latest = {(record["trial"], record["step"]): record for record in metrics}
    return [latest[key] for key in sorted(latest)]


def _check_format(path: Path, head: Any) -> None:
    found = head.get("format") if isinstance(head, dict) else None
    if found != FORMAT:
        raise RunError(
            f"{path} must have record format {FORMAT}; it has {found}, written by "
            "another version of Trellis. Read it with that version, or start the experiment with "
            "--fresh, which moves it aside."
        )


def _move_aside(path: Path) -> None:
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    path.rename(aside)


def _add_session(path: Path, seeds: list[int]) -> None:
    sessions = _sessions(path)
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    session = {"started": started, **describe_environment()}
    earlier = {str(entry["commit"]) for entry in sessions if "commit" in entry}
    earlier -= {session["commit"]}
    if earlier:
        logging.getLogger(__name__).warning(
            "%s was begun at commit %s and goes on at %s: if a model changed in between, start "
            "anew with --fresh",
            path.parent,
            ", ".join(sorted(earlier)),
            session["commit"],
        )
    write_json(path, {"sessions": [*sessions, session], "seeds": seeds})


def _sessions(path: Path) -> list[dict[str, Any]]:
    """The earlier sessions."""
    if not path.is_file():
        return []
    environment = _read_json(path)
    sessions = environment.get("sessions") if isinstance(environment, dict) else None
    if not isinstance(sessions, list) or not all(isinstance(entry, dict) for entry in sessions):
        raise RunError(
            f"{path} must hold an object with the list of sessions; it holds {environment!r:.200}. "
            "Delete it and start the experiment's command again: what it says of earlier sessions "
            "is lost, no training is."
        )
    return sessions


@contextlib.contextmanager
def _lock(lock_path: Path, run_path: Path) -> Iterator[None]:
    """An advisory lock that the system releases however the process ends."""
    with lock_path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise RunError(
                f"only one process may write to {run_path}; process {holder} is doing so. "
                "Wait for it, stop it, or choose another place with --out."
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield
