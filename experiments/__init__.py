"""Scripts that answer a question: ``python -m experiments`` lists them."""

from importlib.metadata import version

__version__ = version("trellis-lab")
