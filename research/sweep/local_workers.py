"""Worker processes on this machine, one for each core."""

import contextlib
import os
import subprocess
import threading
import traceback
from collections.abc import Hashable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax

from research.sweep.backends import ChunkFailed, ask, request_for, start_worker
from research.sweep.chunks import Chunk
from research.sweep.engine import worker_environment


class LocalWorkers:
    """The default backend.

    A worker is a process that lives as long as this object, and keeps what it compiled; it is given
    chunks of a task it knows before others. Each CPU worker computes in one thread. Where JAX finds
    an accelerator there is one worker, as the device is the bottleneck.
    """

    chunk_seconds = 60.0

    def __init__(self, run_path: Path, data_dir: str | None, workers: int | None = None):
        self.slots = workers or _default_workers()
        self._run_path = run_path
        self._data_dir = data_dir
        self._environment = worker_environment()
        self._waiting: list[tuple[Chunk, Future[dict[str, Any]]]] = []
        self._changed = threading.Condition()
        self._closed = False
        self._processes: list[subprocess.Popen[str] | None] = [None] * self.slots
        (run_path / "logs").mkdir(parents=True, exist_ok=True)
        self._threads = [
            threading.Thread(target=self._serve, args=(slot,), daemon=True)
            for slot in range(self.slots)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, chunk: Chunk) -> Future[dict[str, Any]]:
        """Queue a chunk for the next free worker."""
        future: Future[dict[str, Any]] = Future()
        with self._changed:
            self._waiting.append((chunk, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Kill the workers."""
        with self._changed:
            self._closed = True
            for process in self._processes:
                if process is not None:
                    process.kill()
            for _, future in self._waiting:
                future.cancel()
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self, slot: int) -> None:
        """Give chunks to one worker, and to its successor when it dies."""
        known: set[Hashable] = set()
        while (taken := self._take(known)) is not None:
            chunk, future = taken
            try:
                worker = self._worker(slot, known)
                if worker is None:
                    future.cancel()
                    break
                known.add(chunk.task)
                result = ask(worker, request_for(chunk, self._run_path, self._data_dir))
            except ChunkFailed as failure:
                future.set_exception(failure)
            except Exception as error:  # whatever it is: without an answer the run would wait
                summary = f"worker {slot} cannot be used: {type(error).__name__}: {error}"
                future.set_exception(ChunkFailed(summary, traceback.format_exc()))
            else:
                future.set_result(result)
        self._end(slot)

    def _take(self, known: set[Hashable]) -> tuple[Chunk, Future[dict[str, Any]]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            familiar = (i for i, (chunk, _) in enumerate(self._waiting) if chunk.task in known)
            return self._waiting.pop(next(familiar, 0))

    def _worker(self, slot: int, known: set[Hashable]) -> subprocess.Popen[str] | None:
        """The process of a slot, started if there is none that lives; None after ``close``."""
        with self._changed:
            process = self._processes[slot]
            if self._closed or (process is not None and process.poll() is None):
                return None if self._closed else process
            known.clear()
            self._release(process)
            log_path = self._run_path / "logs" / f"worker-{slot}.log"
            with log_path.open("a") as log:
                process = start_worker(self._environment, log.fileno())
            self._processes[slot] = process
            return process

    def _end(self, slot: int) -> None:
        process = self._processes[slot]
        if process is not None:
            process.kill()
            process.wait()
            self._release(process)

    @staticmethod
    def _release(process: subprocess.Popen[str] | None) -> None:
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what was not sent has no reader
                        pipe.close()


def _default_workers() -> int:
    if jax.default_backend() != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
