"""Many trainings: one after another, or as rows of one compiled program, here or on a cluster."""

from research.sweep.backends import open_backend
from research.sweep.chunks import Plan
from research.sweep.run import Cell, run_cells
from research.sweep.sequential import Execute, Trial, run_trials
from research.sweep.store import Row, Store, store_of
from research.sweep.training import Task, Training

__all__ = [
    "Cell",
    "Execute",
    "Plan",
    "Row",
    "Store",
    "Task",
    "Training",
    "Trial",
    "open_backend",
    "run_cells",
    "run_trials",
    "store_of",
]
