"""Models, objectives, optimizers, data and training loops as pure functions."""

from importlib.metadata import version

__version__ = version("trellis-lab")
