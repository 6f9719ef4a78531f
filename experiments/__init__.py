"""Scripts that answer a question: ``python -m experiments`` lists them."""

from research import __version__ as __version__
