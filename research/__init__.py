"""Models, objectives, optimizers, data and training loops as pure functions."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("trellis-lab")
except PackageNotFoundError:  # a tree that is used without being installed
    __version__ = "0+unknown"
