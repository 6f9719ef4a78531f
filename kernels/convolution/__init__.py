"""Convolutions with their gradients, on CPU, GPU and TPU."""

from kernels.convolution.conformer.api import conformer_convolution
from kernels.convolution.dense2d.api import conv2d
from kernels.convolution.depthwise1d.api import depthwise_conv1d
from kernels.convolution.depthwise2d.api import depthwise_conv2d

__all__ = ["conformer_convolution", "conv2d", "depthwise_conv1d", "depthwise_conv2d"]
