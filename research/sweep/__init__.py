"""Many trainings: one after another, or as rows of one compiled program, here or on a cluster."""

from research.sweep.sequential import Execute, Trial, run_trials
from research.sweep.training import Training

__all__ = ["Execute", "Training", "Trial", "run_trials"]
