"""What a step costs, from the timings of a run: seconds of this machine, bytes of state."""

import math
from collections import defaultdict
from typing import NamedTuple

from research.report.optimizers.design import Design
from research.report.rows import entrant_of
from research.report.timings import number, step_seconds
from research.runlog import Records

_TASK = ("workload", "optimizer", "schedule")


class Cost(NamedTuple):
    """Of one entrant on one workload, over all its timed trainings."""

    seconds: float  # of steps and their evaluations, without compilation
    steps: int
    bytes_per_parameter: float  # of optimizer state; NaN where not recorded
    modes: tuple[str, ...]  # how the trainings were run together

    @property
    def seconds_per_step(self) -> float:
        """Of one training; NaN where no step was timed."""
        return self.seconds / self.steps if self.steps else math.nan


def read_costs(records: Records, design: Design) -> dict[tuple[str, str], Cost]:
    """The cost of each workload and entrant, as far as it was timed."""
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    steps: dict[tuple[str, str], int] = defaultdict(int)
    state: dict[tuple[str, str], float] = {}
    modes: dict[tuple[str, str], set[str]] = defaultdict(set)
    for line in records.timings:
        task, made, plan = line.get("task"), line.get("steps"), line.get("plan")
        took = step_seconds(line)
        # Checked one by one: a timing that was lost or damaged is no reason to have no report.
        if not isinstance(task, dict) or not all(isinstance(task.get(k), str) for k in _TASK):
            continue
        if math.isnan(took) or not isinstance(made, int) or made <= 0:
            continue
        key = task["workload"], entrant_of(task, design.schedule)
        seconds[key] += took
        steps[key] += made
        parameters = number(line.get("parameters"))
        if parameters > 0:
            state[key] = number(line.get("state_bytes")) / parameters
        if isinstance(plan, dict) and isinstance(plan.get("mode"), str):
            modes[key].add(plan["mode"])
    return {
        key: Cost(seconds[key], steps[key], state.get(key, math.nan), tuple(sorted(modes[key])))
        for key in seconds
    }
