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
        workers: how many chunks at once; None for as many as there are cores, one where JAX
            computes on an accelerator, or 32 jobs. Ray takes all CPUs of its cluster, no number.

    Raises:
        ConfigError: no such backend, the package it needs is not installed, or a number of workers
            that it cannot have.
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
        if workers is not None:
            raise ConfigError(
                "workers must not be given with the backend ray, which runs a chunk on each CPU of "
                f"its cluster; received {workers}. Leave out --workers, or start the cluster with "
                "fewer CPUs (ray start --num-cpus)."
            )
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
        ChunkFailed: it answered with an error or with what is no answer, or died.
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
    try:
        parsed = json.loads(answer)
    except ValueError as error:
        worker.kill()  # what it says next would be taken for an answer to something else
        worker.wait()
        raise ChunkFailed(
            f"the worker process {worker.pid} must answer with a line of JSON; received "
            f"{answer[:200]!r}"
        ) from error
    return result_of(parsed)


def result_of(answer: Any) -> dict[str, Any]:
    """What a worker's answer holds.

    Raises:
        ChunkFailed: an error, or neither a result nor an error.
    """
    if isinstance(answer, dict) and "error" in answer:
        raise ChunkFailed(str(answer["error"]), str(answer.get("traceback", "")))
    if not isinstance(answer, dict) or not isinstance(answer.get("result"), dict):
        raise ChunkFailed(
            f"a worker must answer with a result or an error; received {str(answer)[:200]!r}."
        )
    return answer["result"]
