"""Tasks of a Ray cluster: the one that RAY_ADDRESS names, or one on this machine."""

import importlib
import os
import secrets
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from research.errors import ConfigError
from research.sweep.backends import ChunkFailed, request_for, result_of
from research.sweep.chunks import Chunk
from research.sweep.engine import worker_environment
from research.sweep.worker import answer


class RayTasks:
    """A task of one CPU for each chunk, in Ray's own worker processes.

    Ray does not try again by itself: ``research.sweep.run`` does, as with every backend.

    Args:
        run_path: on a file system that the nodes share.
        data_dir: likewise.

    Raises:
        ConfigError: Ray is not installed.
    """

    chunk_seconds = 60.0

    def __init__(self, run_path: Path, data_dir: str | None):
        if "RAY_ADDRESS" not in os.environ and "RAY_AUTH_MODE" not in os.environ:
            # Whoever knows the token of a cluster, and nobody else, may run code on it.
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        try:
            ray = importlib.import_module("ray")
        except ImportError as error:
            raise ConfigError(
                "the backend ray needs Ray; install it with: pip install 'trellis-lab[ray]'"
            ) from error
        self._ray = ray
        self._run_path = run_path
        self._data_dir = data_dir
        ray.init(
            address=os.environ.get("RAY_ADDRESS"),
            runtime_env={"env_vars": worker_environment()},
            include_dashboard=False,
            log_to_driver=False,
        )
        self._task = ray.remote(num_cpus=1, max_retries=0)(answer)
        self.slots = max(1, int(ray.cluster_resources().get("CPU", 1)))

    def submit(self, chunk: Chunk) -> Future[dict[str, Any]]:
        """Give the chunk to Ray's scheduler."""
        result: Future[dict[str, Any]] = Future()
        request = request_for(chunk, self._run_path, self._data_dir)

        def settle(done: Future[dict[str, Any]]) -> None:
            try:
                result.set_result(result_of(done.result()))
            except ChunkFailed as failure:
                result.set_exception(failure)
            except self._ray.exceptions.RayError as error:
                result.set_exception(ChunkFailed(f"{type(error).__name__}: {error}"))

        self._task.remote(request).future().add_done_callback(settle)
        return result

    def close(self) -> None:
        """Leave the cluster; what this run still had there is stopped."""
        self._ray.shutdown()
