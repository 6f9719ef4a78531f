"""Jobs of a SLURM cluster, through submitit; its local executor does the same on this machine.

Partition, account and time limit are taken from the variables that sbatch reads: SBATCH_PARTITION,
SBATCH_ACCOUNT, SBATCH_TIMELIMIT. A job that fails, is preempted or runs out of time is submitted
again by what waits for it (``research.sweep.run``).
"""

import contextlib
import importlib
import shutil
import sys
import threading
import traceback
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from research.errors import ConfigError
from research.sweep.backends import ChunkFailed, ask, request_for, result_of, start_worker
from research.sweep.chunks import Chunk
from research.sweep.engine import worker_environment

_MINUTES = 240
_JOBS = 32


class SlurmJobs:
    """A job for each chunk; no more than ``workers`` are in the queue at a time.

    Args:
        run_path: on a file system that the nodes share.
        data_dir: likewise.
        workers: how many jobs at a time.
        cluster: "slurm", or "local" for processes here.
        parameters: of ``submitit.AutoExecutor.update_parameters``.
        seconds_between_looks: at the state of the jobs.

    Raises:
        ConfigError: submitit is not installed, or there is no SLURM.
    """

    chunk_seconds = 900.0

    def __init__(
        self,
        run_path: Path,
        data_dir: str | None,
        workers: int | None = None,
        *,
        cluster: str = "slurm",
        parameters: Mapping[str, Any] | None = None,
        seconds_between_looks: float = 5.0,
    ):
        try:
            submitit = importlib.import_module("submitit")
        except ImportError as error:
            raise ConfigError(
                "the backend slurm needs submitit; install it: pip install 'trellis-lab[slurm]'"
            ) from error
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "the backend slurm must be used where sbatch is; it is not on PATH. Start the "
                "command on a login node, or choose --backend local."
            )
        self.slots = workers or _JOBS
        self._run_path = run_path
        self._data_dir = data_dir
        self._environment = worker_environment()
        self._executor = submitit.AutoExecutor(folder=run_path / "jobs", cluster=cluster)
        usual = {"name": "trellis", "timeout_min": _MINUTES, "cpus_per_task": 1}
        self._executor.update_parameters(**{**usual, **(parameters or {})})
        self._waiting: list[tuple[Chunk, Future[dict[str, Any]]]] = []
        self._running: list[tuple[Any, Future[dict[str, Any]]]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._seconds = seconds_between_looks
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def submit(self, chunk: Chunk) -> Future[dict[str, Any]]:
        """Queue a chunk; it becomes a job when there are fewer than ``workers``."""
        future: Future[dict[str, Any]] = Future()
        with self._changed:
            self._waiting.append((chunk, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Cancel all jobs."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        for job, _ in self._running:
            job.cancel(check=False)

    def _watch(self) -> None:
        while True:
            with self._changed:
                if not self._running and not self._waiting:
                    self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                while self._waiting and len(self._running) < self.slots:
                    self._start(*self._waiting.pop(0))
            ended = [(job, future) for job, future in self._running if _ended(job, future)]
            for job, future in ended:
                self._running.remove((job, future))
                _settle(job, future)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, 0.0 if ended else self._seconds)

    def _start(self, chunk: Chunk, future: Future[dict[str, Any]]) -> None:
        """Make a job of a chunk; where that fails the future says so, as this thread must go on."""
        request = request_for(chunk, self._run_path, self._data_dir)
        try:
            job = self._executor.submit(run_in_worker, request, self._environment)
        except Exception as error:
            _fail(future, "sbatch refused the job", error)
        else:
            self._running.append((job, future))


def _ended(job: Any, future: Future[dict[str, Any]]) -> bool:
    """Whether nothing more is to be had of the job, which is then that it cannot be asked."""
    try:
        return job.done()
    except Exception as error:
        with contextlib.suppress(Exception):
            job.cancel(check=False)
        _fail(future, f"the state of job {job.job_id} cannot be known", error)
        return True


def _settle(job: Any, future: Future[dict[str, Any]]) -> None:
    """Give the future what became of the job, unless it has failed already."""
    if future.done():
        return
    try:
        future.set_result(result_of(job.result()))
    except ChunkFailed as failure:
        future.set_exception(failure)
    except Exception as error:
        _fail(future, f"job {job.job_id} ended without a result", error)


def _fail(future: Future[dict[str, Any]], what: str, error: Exception) -> None:
    details = "".join(traceback.format_exception(error))
    future.set_exception(ChunkFailed(f"{what}: {type(error).__name__}: {error}", details))


def run_in_worker(request: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """What a job does: it asks a worker process of its own, and answers as a worker does.

    JAX reads the environment when it starts, and here it has been imported already.
    """
    with start_worker(environment, sys.stderr.fileno()) as worker:
        try:
            return {"result": ask(worker, request)}
        except ChunkFailed as failure:
            return {"error": str(failure), "traceback": failure.details}
        finally:
            worker.kill()
