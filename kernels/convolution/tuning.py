"""Of each operation: its shapes, and the configurations that its kernels run with."""

from kernels.convolution.dense2d import tuning as dense2d
from kernels.convolution.depthwise1d import tuning as depthwise1d

OPERATIONS = {"depthwise_conv1d": depthwise1d, "conv2d": dense2d}
