"""Depthwise convolution, with its gradients, on CPU, GPU and TPU."""

from kernels.convolution.api import depthwise_conv1d

__all__ = ["depthwise_conv1d"]
