"""Fused operations as pure JAX functions: arrays in, arrays out, no framework above JAX."""

from importlib.metadata import version

from kernels.ctc import ctc_feasible, ctc_loss

__all__ = ["ctc_feasible", "ctc_loss"]
__version__ = version("trellis-lab")
