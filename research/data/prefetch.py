"""Batches read ahead of the step that needs them, by threads."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

from research.errors import ConfigError

T = TypeVar("T")


class Prefetched(Generic[T]):
    """The same batches as of a function of the step, while those of the next steps are being read.

    Batches are the function's, so nothing about their order or content changes, and a run still
    goes on from its step number alone. Decoding of audio and resampling let other threads run.

    Args:
        batches: step number -> batch; called by several threads at a time.
        stop: no batch from this step on is read ahead.
        ahead: how many batches are kept ready.
        workers: threads.

    Raises:
        ConfigError: no thread, or no batch to keep.

    Example:
        >>> with Prefetched(lambda step: step * step, stop=4) as batches:
        ...     [batches(step) for step in range(1, 4)]
        [1, 4, 9]
    """

    def __init__(
        self, batches: Callable[[int], T], *, stop: int, ahead: int = 8, workers: int = 4
    ) -> None:
        if min(ahead, workers) < 1:
            raise ConfigError(
                f"reading ahead needs ahead and workers of at least 1; received {ahead}, {workers}."
            )
        self._batches, self._stop, self._ahead = batches, stop, ahead
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")
        self._waiting: dict[int, Future[T]] = {}

    def __call__(self, step: int) -> T:
        """The batch of a step; an error of reading it is raised here.

        Steps that go up one by one find theirs ready; any other is read when it is asked for.
        """
        for number in (step, *range(step + 1, min(step + self._ahead, self._stop))):
            if number not in self._waiting:
                self._waiting[number] = self._threads.submit(self._batches, number)
        found = self._waiting.pop(step)
        beyond = range(step, step + self._ahead)
        for number in [number for number in self._waiting if number not in beyond]:
            self._waiting.pop(number).cancel()
        return found.result()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Drop what waits; wait for what is being read."""
        self._threads.shutdown(wait=True, cancel_futures=True)
