"""Of each operation: its shapes, and the configurations that its kernels run with."""

from kernels.convolution.conformer import tuning as conformer
from kernels.convolution.depthwise1d import tuning as depthwise1d

OPERATIONS = {"depthwise_conv1d": depthwise1d, "conformer_convolution": conformer}
