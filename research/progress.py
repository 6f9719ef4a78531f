"""Progress on the terminal: what is running, how far, how long still.

On a terminal, two bars: the whole job and the current trial. Elsewhere (a log file, CI) a plain
line every few seconds.
"""

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

_SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Counts steps of a job that consists of trials; made by ``show_progress``."""

    def __init__(self, console: Console, bars: RichProgress | None, title: str, total: int):
        self._console = console
        self._bars = bars
        self._title = title
        self._total = total
        self._before = 0  # steps of the trials before the current one
        self._trial = ""
        self._steps = 0
        self._done = 0
        self._restored = 0
        # The time of steps alone: a trial's first step waits for compilation, and trials that an
        # earlier session finished take no time, so neither says how long the rest will take.
        self._timed_steps = 0
        self._timed_seconds = 0.0
        self._last_step: float | None = None
        self._last_line = time.monotonic()
        if bars is not None:
            self._job_bar = bars.add_task(title, total=total, left="")
            self._trial_bar = bars.add_task("", total=None, left="")

    def start(self, trial: str, steps: int, done: int = 0) -> None:
        """Begin a trial of that many steps, of which some may be done already."""
        self._trial, self._steps, self._done, self._restored = trial, steps, done, done
        self._last_step = None
        if self._bars is not None:
            self._bars.reset(self._trial_bar, description=f"  {trial}", total=steps)
        self._show()

    @property
    def steps_of_trial(self) -> int:
        """Steps of the current trial that this session did."""
        return self._done - self._restored

    def step(self, done: int) -> None:
        """Say how many steps of the current trial are done."""
        now = time.monotonic()
        if self._last_step is not None:
            self._timed_steps += done - self._done
            self._timed_seconds += now - self._last_step
        self._done, self._last_step = done, now
        self._show()

    def finish(self) -> None:
        """End the current trial, however far it came."""
        self._before += self._steps - self._done
        self._show()
        self._before, self._steps, self._done = self._before + self._done, 0, 0

    def skip(self, steps: int) -> None:
        """Count a trial that an earlier session finished, or that will not be run."""
        self._before += steps
        self._show()

    def say(self, text: str) -> None:
        """Print a line above the bars, or among the lines."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _left(self) -> str:
        if self._timed_steps == 0:
            return ""
        remaining = self._total - self._before - self._done
        seconds = round(remaining * self._timed_seconds / self._timed_steps)
        return f"about {seconds // 60}:{seconds % 60:02d} min left"

    def _show(self) -> None:
        overall = self._before + self._done
        if self._bars is not None:
            self._bars.update(self._job_bar, completed=overall, left=self._left())
            if self._steps:
                self._bars.update(self._trial_bar, completed=self._done)
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            parts = [f"{self._title}: {100 * overall / max(1, self._total):.0f} %", self._left()]
            where = f"({self._trial}, step {self._done} of {self._steps})"
            text = ", ".join(filter(None, parts))
            self._console.print(f"{text} {where}", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def show_progress(title: str, total_steps: int) -> Iterator[Progress]:
    """Show progress on standard error while the block runs.

    Args:
        title: what the job is.
        total_steps: steps of all trials together.

    Yields:
        Where each step is counted.

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
        TextColumn("{task.fields[left]}"),
    )
    with RichProgress(*columns, console=console) as bars:
        yield Progress(console, bars, title, total_steps)
