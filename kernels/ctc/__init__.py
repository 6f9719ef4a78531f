"""Connectionist temporal classification (Graves et al. 2006)."""

from kernels.ctc.api import ctc_feasible, ctc_loss

__all__ = ["ctc_feasible", "ctc_loss"]
