"""The registry of optimizers: a name, a constructor of traced numbers, a search space, a paper."""

from research.optimizers.entry import Optimizer, as_trained
from research.optimizers.registry import NEWEST_VERSION, OPTIMIZERS, build_scheduled, find
from research.optimizers.schedules import SCHEDULES, find_schedule, with_schedule
from research.optimizers.spaces import Range, draw_trials

__all__ = [
    "NEWEST_VERSION",
    "OPTIMIZERS",
    "SCHEDULES",
    "Optimizer",
    "Range",
    "as_trained",
    "build_scheduled",
    "draw_trials",
    "find",
    "find_schedule",
    "with_schedule",
]
