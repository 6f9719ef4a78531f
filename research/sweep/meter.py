"""Seconds of a piece of work: on the clock, of this process's processors, and in the compiler."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import jax

# Tracing, lowering and compilation; JAX reports each when it ends.
_COMPILATION = "/jax/core/compile/"


@dataclasses.dataclass
class Spent:
    """What a block took; complete when it is left."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    compile_seconds: float = 0.0
    compilations: int = 0

    @property
    def running(self) -> float:
        """Seconds outside the compiler."""
        return max(0.0, self.seconds - self.compile_seconds)


@contextlib.contextmanager
def metered() -> Iterator[Spent]:
    """Measure the block.

    Example:
        >>> with metered() as spent:
        ...     _ = jax.jit(lambda x: x * 3)(1.0)
        >>> 0 < spent.compile_seconds <= spent.seconds
        True
    """
    spent = Spent()

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del kwargs
        if event.startswith(_COMPILATION):
            spent.compile_seconds += duration_secs
            spent.compilations += event.endswith("backend_compile_duration")

    jax.monitoring.register_event_duration_secs_listener(listen)
    started, cpu = time.perf_counter(), time.process_time()
    try:
        yield spent
    finally:
        spent.seconds = time.perf_counter() - started
        spent.cpu_seconds = time.process_time() - cpu
        jax.monitoring.unregister_event_duration_listener(listen)
