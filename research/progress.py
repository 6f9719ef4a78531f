"""Progress on the terminal: what is running, how far, how long still.

On a terminal, two bars: the whole job and the current trial. Elsewhere (a log file, CI) a plain
line every few seconds.
"""

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts steps of a job that consists of trials; made by ``show_progress``."""

    def __init__(self, console: Console, bars: RichProgress | None, title: str, total: int):
        self._console = console
        self._bars = bars
        self._title = title
        self._total = total
        self._finished = 0
        self._skipped = 0
        self._trial = ""
        self._trial_steps = 0
        self._trial_done = 0
        self._started = time.monotonic()
        self._last_line = self._started
        if bars is not None:
            self._job_bar = bars.add_task(title, total=total)
            self._trial_bar = bars.add_task("", total=None)

    def start(self, trial: str, steps: int, done: int = 0) -> None:
        """Begin a trial of that many steps, of which some may be done already."""
        self._trial, self._trial_steps, self._trial_done = trial, steps, done
        self._skipped += done
        if self._bars is not None:
            self._bars.reset(self._trial_bar, description=f"  {trial}", total=steps)
        self.step(done)

    def step(self, done: int) -> None:
        """Say how many steps of the current trial are done."""
        self._trial_done = done
        overall = self._finished + done
        if self._bars is not None:
            self._bars.update(self._job_bar, completed=overall)
            self._bars.update(self._trial_bar, completed=done)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._print_line(overall)

    def finish(self, note: str = "") -> None:
        """End the current trial, however far it came, and print its outcome."""
        self._finished += self._trial_steps
        if self._bars is not None:
            self._bars.update(self._job_bar, completed=self._finished)
        if note:
            self._console.print(f"  {self._trial}: {note}", highlight=False)

    def skip(self, steps: int) -> None:
        """Count a trial that an earlier session finished."""
        self._finished += steps
        self._skipped += steps
        if self._bars is not None:
            self._bars.update(self._job_bar, completed=self._finished)

    def _print_line(self, overall: int) -> None:
        self._last_line = time.monotonic()
        done_here = overall - self._skipped
        text = f"{self._title}: {100 * overall / max(1, self._total):.0f} %"
        if done_here > 0:
            seconds = (self._last_line - self._started) * (self._total - overall) / done_here
            text += f", about {_clock(seconds)} left"
        text += f" ({self._trial}, step {self._trial_done} of {self._trial_steps})"
        self._console.print(text, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def show_progress(title: str, total_steps: int) -> Iterator[Progress]:
    """Show progress on standard error while the block runs.

    Args:
        title: what the job is.
        total_steps: steps of all trials together.

    Example:
        >>> with show_progress("training", total_steps=3) as progress:
        ...     progress.start("adam/seed-0", steps=3)
        ...     for step in range(3):
        ...         progress.step(step + 1)
        ...     progress.finish()
    """
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield Progress(console, None, title, total_steps)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=console, speed_estimate_period=120.0) as bars:
        yield Progress(console, bars, title, total_steps)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"
