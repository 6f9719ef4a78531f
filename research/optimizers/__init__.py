"""The registry of optimizers: a name, a constructor of traced numbers, a search space, a paper."""

from research.optimizers.entry import Optimizer, as_trained
from research.optimizers.registry import LATEST, NAMES, build_scheduled, find
from research.optimizers.schedules import SCHEDULES, find_schedule
from research.optimizers.spaces import Range, draw_trials

__all__ = [
    "LATEST",
    "NAMES",
    "SCHEDULES",
    "Optimizer",
    "Range",
    "as_trained",
    "build_scheduled",
    "draw_trials",
    "find",
    "find_schedule",
]
