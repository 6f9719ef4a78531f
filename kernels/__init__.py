"""Fused operations as pure JAX functions: arrays in, arrays out, no framework above JAX."""

from importlib.metadata import version

from kernels.convolution import depthwise_conv1d
from kernels.ctc import ctc_alignment, ctc_feasible, ctc_loss, ctc_posteriors
from kernels.explanation import explain

__all__ = [
    "ctc_alignment",
    "ctc_feasible",
    "ctc_loss",
    "ctc_posteriors",
    "depthwise_conv1d",
    "explain",
]
__version__ = version("trellis-lab")
