"""The registry of optimizers: a name, a constructor of traced numbers, a search space, a paper."""

from research.optimizers.registry import OPTIMIZERS, Optimizer, find
from research.optimizers.schedules import SCHEDULES, find_schedule, with_schedule
from research.optimizers.spaces import Range, draw_trials

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Optimizer",
    "Range",
    "draw_trials",
    "find",
    "find_schedule",
    "with_schedule",
]
