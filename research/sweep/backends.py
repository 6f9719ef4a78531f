"""Where chunks are run: one seam, ``submit(chunk)``, and what stands behind it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, Protocol

from research.errors import ConfigError
from research.sweep.chunks import Chunk


class ChunkFailed(Exception):
    """An attempt at a chunk ended in an error; ``details`` is the traceback, where there is one."""

    def __init__(self, summary: str, details: str = ""):
        super().__init__(summary)
        self.details = details or summary


class Backend(Protocol):
    """Runs chunks, any number at a time, in whatever order."""

    slots: int  # how many chunks run at once
    chunk_seconds: float  # how long a chunk should take, not to be mostly overhead

    def submit(self, chunk: Chunk) -> Future[dict[str, Any]]:
        """Give out a chunk; the future has what ``execute`` returns, or a ``ChunkFailed``."""
        ...

    def close(self) -> None:
        """Stop all that is running. What is committed stays."""
        ...


def open_backend(
    name: str, run_path: Path, data_dir: Path | str | None, workers: int | None = None
) -> Backend:
    """The backend of that name.

    Args:
        name: "local", processes on this machine; "slurm", jobs through submitit; "ray", tasks on
            the cluster that RAY_ADDRESS names, or else on this machine.
        run_path: the run directory, which all workers must see.
        data_dir: where workloads find their data.
        workers: how many chunks at once; None for as many as there are cores, or 32 jobs.

    Raises:
        ConfigError: no such backend, or the package it needs is not installed.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1; received {workers}.")
    place = None if data_dir is None else str(Path(data_dir).absolute())
    run_path = Path(run_path).absolute()
    if name == "local":
        from research.sweep.local_workers import LocalWorkers

        return LocalWorkers(run_path, place, workers)
    if name == "slurm":
        from research.sweep.slurm_jobs import SlurmJobs

        return SlurmJobs(run_path, place, workers)
    if name == "ray":
        from research.sweep.ray_tasks import RayTasks

        return RayTasks(run_path, place)
    raise ConfigError(f"the backend must be local, slurm or ray; received {name!r}.")


def request_for(chunk: Chunk, run_path: Path, data_dir: str | None) -> dict[str, Any]:
    """The arguments of ``execute``, as plain values."""
    return {"chunk": chunk.to_json(), "run_path": str(run_path), "data_dir": data_dir}


def start_worker(environment: Mapping[str, str], log: IO[str] | int) -> subprocess.Popen[str]:
    """A worker process, with a session of its own.

    Its own session: Ctrl-C reaches this process only, which then stops its workers.
    """
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "research.sweep.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )


def ask(worker: subprocess.Popen[str], request: Mapping[str, Any]) -> dict[str, Any]:
    """What the worker answers.

    Raises:
        ChunkFailed: it answered with an error, or died.
    """
    assert worker.stdin is not None
    assert worker.stdout is not None
    answer = ""
    try:
        worker.stdin.write(json.dumps(request) + "\n")
        worker.stdin.flush()
        answer = worker.stdout.readline()
    except (OSError, ValueError):  # a broken pipe, or closed by `close`
        pass
    if not answer.endswith("\n"):
        status = worker.wait()
        reason = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise ChunkFailed(f"the worker process {worker.pid} ended with {reason}")
    return result_of(json.loads(answer))


def result_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What a worker's answer holds.

    Raises:
        ChunkFailed: an error.
    """
    if "error" in answer:
        raise ChunkFailed(answer["error"], answer["traceback"])
    return answer["result"]
