"""Many trainings, as rows of compiled programs, here or on a cluster."""

from research.sweep.backends import open_backend
from research.sweep.chunks import Plan
from research.sweep.run import Cell, run_cells
from research.sweep.store import Row, Store, store_of
from research.sweep.training import Task, Training

__all__ = [
    "Cell",
    "Plan",
    "Row",
    "Store",
    "Task",
    "Training",
    "open_backend",
    "run_cells",
    "store_of",
]
