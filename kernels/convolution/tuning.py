"""Of each operation: its shapes, and the configurations that its kernels run with."""

from kernels.convolution.conformer import tuning as conformer
from kernels.convolution.dense2d import tuning as dense2d
from kernels.convolution.depthwise1d import tuning as depthwise1d
from kernels.convolution.depthwise2d import tuning as depthwise2d

OPERATIONS = {
    "depthwise_conv1d": depthwise1d,
    "conformer_convolution": conformer,
    "depthwise_conv2d": depthwise2d,
    "conv2d": dense2d,
}
