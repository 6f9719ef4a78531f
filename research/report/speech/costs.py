"""What a training step and an hour of recognised audio cost, from the timings of a run."""

import math
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

from research.report.rows import entrant_of
from research.report.speech.design import Design, System
from research.report.timings import number, step_seconds
from research.runlog import Records

_TASK = ("workload", "optimizer", "schedule")


class Cost(NamedTuple):
    """Of one system; numbers are NaN where nothing was timed."""

    seconds: float  # of steps and their evaluations, without compilation
    steps: int
    hour: float  # seconds to recognise an hour of audio: the median over trainings
    recognitions: int

    @property
    def seconds_per_step(self) -> float:
        """Of one training."""
        return self.seconds / self.steps if self.steps else math.nan


def read_costs(records: Records, design: Design) -> dict[System, Cost]:
    """The cost of each system, as far as it was timed.

    A recognition names no optimizer, so it counts for every system of the encoder and objective.
    Of the trainings only the longest count, the final ones: those of a search evaluate more often.
    """
    longest: dict[System, int] = defaultdict(int)
    seconds: dict[System, float] = defaultdict(float)
    steps: dict[System, int] = defaultdict(int)
    hours: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in records.timings:
        # Checked one by one: a timing that was lost or damaged is no reason to have no report.
        task, recognition, made = (line.get(key) for key in ("task", "recognition", "steps"))
        if isinstance(recognition, dict):
            place = _place(recognition.get("workload"))
            took, audio = (number(recognition.get(key)) for key in ("seconds", "audio_seconds"))
            if place and took >= 0 and audio > 0:
                hours[place].append(3600 * took / audio)
        if not isinstance(task, dict) or not all(isinstance(task.get(k), str) for k in _TASK):
            continue
        place, took, length = _place(task["workload"]), step_seconds(line), task.get("steps")
        if place is None or math.isnan(took) or not isinstance(made, int) or made <= 0:
            continue
        system = System(*place, entrant_of(task, design.schedule))
        if not isinstance(length, int) or length < longest[system]:
            continue
        if length > longest[system]:
            longest[system], seconds[system], steps[system] = length, 0.0, 0
        seconds[system] += took
        steps[system] += made
    found = {}
    for system in design.systems():
        own = hours[system.encoder, system.objective]
        if steps[system] or own:
            hour = float(np.median(own)) if own else math.nan
            found[system] = Cost(seconds[system], steps[system], hour, len(own))
    return found


def _place(workload: Any) -> tuple[str, str] | None:
    parts = workload.split("/", 3) if isinstance(workload, str) else []
    return (parts[1], parts[2]) if len(parts) == 4 else None
