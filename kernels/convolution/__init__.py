"""Convolutions with their gradients, on CPU, GPU and TPU."""

from kernels.convolution.api import depthwise_conv1d
from kernels.convolution.images import conv2d

__all__ = ["conv2d", "depthwise_conv1d"]
