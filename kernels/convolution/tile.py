"""What may follow a convolution, and its slope, on a tile in float32."""

# pyright: reportInvalidTypeForm=false, reportMissingImports=false, reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def activate(z, ACTIVATION: tl.constexpr):
    """The activation by its name; "" is none."""
    if ACTIVATION == "relu":
        z = tl.maximum(z, 0.0)
    elif ACTIVATION == "silu":
        z = z * tl.sigmoid(z)
    elif ACTIVATION == "gelu":
        z = z * tl.sigmoid(1.5957691216057308 * (z + 0.044715 * z * z * z))
    return z


@triton.jit
def slope_of(z, ACTIVATION: tl.constexpr):
    """The derivative of the activation."""
    if ACTIVATION == "relu":
        slope = tl.where(z > 0.0, 1.0, 0.0)
    elif ACTIVATION == "silu":
        s = tl.sigmoid(z)
        slope = s * (1.0 + z * tl.sigmoid(-z))  # not 1 - s, which cancels where s is near one
    else:
        a = 1.5957691216057308 * (z + 0.044715 * z * z * z)
        s = tl.sigmoid(a)
        slope = s + z * s * tl.sigmoid(-a) * (1.5957691216057308 + 0.2140644488178007 * z * z)
    return slope
