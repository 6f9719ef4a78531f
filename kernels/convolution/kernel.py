"""Every kernel of this family, as the static report compiles it."""

from collections.abc import Iterator
from types import ModuleType

from kernels.compiled import Variant
from kernels.convolution.conformer import kernel as conformer
from kernels.convolution.dense2d import kernel as dense2d
from kernels.convolution.depthwise1d import kernel as depthwise1d
from kernels.convolution.depthwise2d import variants as depthwise2d

_MODULES: tuple[ModuleType, ...] = (depthwise1d, conformer, depthwise2d, dense2d)


def compiled_variants(arch: str) -> Iterator[Variant]:
    """The variants of each operation."""
    for module in _MODULES:
        yield from module.compiled_variants(arch)
