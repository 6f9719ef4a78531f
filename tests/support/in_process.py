"""A backend of sweeps without workers."""

from concurrent.futures import Future
from typing import ClassVar

from research.sweep import engine


class InThisProcess:
    """Quick to start, and what a test changes is changed in it.

    ``asked`` has every chunk that any instance was given; a test that counts puts a list there.
    """

    slots = 1
    chunk_seconds = 60.0
    asked: ClassVar[list] = []

    def __init__(self, name, run_path, data_dir, workers=None):
        self.run_path, self.data_dir = run_path, data_dir

    def submit(self, chunk):
        self.asked.append(chunk)
        future = Future()
        future.set_result(engine.execute(chunk, self.run_path, self.data_dir))
        return future

    def close(self):
        pass
