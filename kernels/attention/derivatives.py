"""What JAX differentiates for forward mode and second derivatives: the definition.

The operands are those that ``api.py`` hands to every implementation.
"""

from kernels.attention import reference
from kernels.attention.operands import Operands
from kernels.dispatch import Implementation
from kernels.rows import of_rows


def forward(*operands, **static):
    """The output (B, T, N, H), and the log of the softmax's denominator (B, T, N)."""
    rows = operands[0].shape[0]
    given = Operands(*(None if array is None else of_rows(array, rows) for array in operands))
    return reference.definition(given, **static)


attention = Implementation(forward)
