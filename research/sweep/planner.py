"""Which way of running the trainings of a task is fastest here: timed for a few windows of each.

What counts is the time for all the work: compilation and steps, with the rows that fill up calls.
Measuring is work too, so it may take a fifth of what the scan, which is timed first, would take for
everything; what does not fit is not tried, and the record says so.
"""

import itertools
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from research.sweep.chunks import Plan
from research.sweep.program import Prepared, Program, make_program, windows
from research.sweep.training import Task, Training

_SHARE = 0.2  # of the work that measuring for it may take
_MOST_ROWS = 10
_ENOUGH_SECONDS = 0.3
_MOST_REPEATS = 5


class Timing(NamedTuple):
    """What one way of running costs."""

    plan: Plan
    seconds_per_step: float  # of one training
    compile_seconds: float

    def total(self, trial_steps: int, trainings: int) -> float:
        """Seconds for so many steps of single trainings, which come so many at a time.

        Example:
            >>> Timing(Plan("vmap", 4, 4), 0.1, 2.0).total(600, trainings=6)
            82.0
        """
        filled = math.ceil(trainings / self.plan.chunk) * self.plan.chunk / trainings
        return self.compile_seconds + trial_steps * filled * self.seconds_per_step


class Choice(NamedTuple):
    """The plan, what was measured of each, and what was not tried, with the reason."""

    plan: Plan
    timings: tuple[Timing, ...]
    untried: tuple[tuple[Plan, str], ...]
    program: Program

    def record(self, trial_steps: int, trainings: int) -> dict[str, Any]:
        """As plain values, for plan.json."""
        measured = [
            {
                **timing.plan._asdict(),
                "seconds_per_trial_step": timing.seconds_per_step,
                "compile_seconds": round(timing.compile_seconds, 3),
                "total_seconds": round(timing.total(trial_steps, trainings), 3),
            }
            for timing in self.timings
        ]
        untried = [{**plan._asdict(), "not_tried": reason} for plan, reason in self.untried]
        best = next(timing for timing in self.timings if timing.plan == self.plan)
        return {
            **self.plan._asdict(),
            "seconds_per_trial_step": best.seconds_per_step,
            "compile_seconds": round(best.compile_seconds, 3),
            "trial_steps": trial_steps,
            "trainings": trainings,
            "why": [*measured, *untried],
        }


def rows_for(trainings: int) -> int:
    """How many trainings a call takes: up to ten, with the fewest rows that only fill up.

    Example:
        >>> [rows_for(trainings) for trainings in (1, 3, 10, 20, 21, 64)]
        [1, 3, 10, 10, 7, 8]
    """
    most = min(trainings, _MOST_ROWS)
    least = math.ceil(most / 2)
    return min(range(most, least - 1, -1), key=lambda rows: -trainings % rows)


def candidates(trainings: int) -> list[Plan]:
    """The ways to run so many trainings, the likeliest to win first.

    Example:
        >>> [f"{mode} {chunk}/{group}" for mode, chunk, group in candidates(8)]
        ['scan 1/1', 'vmap 8/8', 'step 1/1', 'chunked 8/4', 'chunked 8/2', 'map 8/1']
    """
    rows = rows_for(trainings)
    if rows == 1:
        return [Plan("scan"), Plan("step")]
    divisors = [group for group in range(rows // 2, 1, -1) if rows % group == 0]
    return [
        Plan("scan"),
        Plan("vmap", rows, rows),
        Plan("step"),
        *(Plan("chunked", rows, group) for group in divisors),
        Plan("map", rows, 1),
    ]


def choose(
    prepared: Prepared,
    task: Task,
    trainings: Sequence[Training],
    trial_steps: int,
    *,
    share: float = _SHARE,
) -> Choice:
    """Measure and choose.

    Args:
        prepared: the workload.
        task: what is planned for.
        trainings: of the task, as many as are run at a time; the first are what is measured.
        trial_steps: the work to plan for, in steps of one training.
        share: of the time for that work, how much the measurements may take; infinite to try all.
    """
    number = len(trainings)
    first, *others = candidates(number)
    timing, best_program = measure(prepared, task, first, trainings)
    timings, untried = [timing], []
    left = share * timing.total(trial_steps, number)
    for plan in others:
        expected = _cost_of_trying(timings[0], plan, task)
        if expected > left:
            reason = f"trying takes about {expected:.1f} s, of {max(0.0, left):.1f} s to spend"
            untried.append((plan, reason))
            continue
        began = _now()
        timing, program = measure(prepared, task, plan, trainings)
        left -= _now() - began
        if timing.total(trial_steps, number) < min(t.total(trial_steps, number) for t in timings):
            best_program = program
        timings.append(timing)
    best = min(timings, key=lambda timing: timing.total(trial_steps, number))
    return Choice(best.plan, tuple(timings), tuple(untried), best_program)


def _cost_of_trying(scan: Timing, plan: Plan, task: Task) -> float:
    """Seconds: compilation about as long as the scan's, and two windows."""
    steps = 2 * plan.chunk * task.evaluate_every
    return scan.compile_seconds + steps * scan.seconds_per_step


def measure(
    prepared: Prepared, task: Task, plan: Plan, trainings: Sequence[Training]
) -> tuple[Timing, Program]:
    """Seconds of one plan, evaluation included: the median of a few windows.

    The first window is not among them: it waits for tracing and compilation.
    """
    program = make_program(prepared.workload, task, plan)
    running = itertools.chain.from_iterable(
        windows(program, prepared, plan, trainings[: plan.chunk]) for _ in itertools.count()
    )
    first, seconds = _seconds_of(running), [_seconds_of(running)]
    while sum(seconds) < _ENOUGH_SECONDS and len(seconds) < _MOST_REPEATS:
        seconds.append(_seconds_of(running))
    window = statistics.median(seconds)
    per_step = window / (plan.chunk * task.evaluate_every)
    return Timing(plan, per_step, max(0.0, first - window)), program


def _seconds_of(running: Iterator[Any]) -> float:
    """Of the next window."""
    began = _now()
    next(running)
    return _now() - began


def _now() -> float:
    """What seconds are counted by.

    On a CPU a worker has one thread, and its processor time is what the wall's would be if nobody
    else used the core: other workers, which may be compiling now and training later, do not count.
    """
    return time.process_time() if jax.default_backend() == "cpu" else time.perf_counter()
