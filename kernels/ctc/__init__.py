"""Connectionist temporal classification (Graves et al. 2006)."""

from kernels.ctc.alignment import Alignment, ctc_alignment
from kernels.ctc.api import ctc_feasible, ctc_loss, ctc_posteriors

__all__ = ["Alignment", "ctc_alignment", "ctc_feasible", "ctc_loss", "ctc_posteriors"]
