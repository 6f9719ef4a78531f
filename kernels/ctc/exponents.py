"""Powers of two by the bits of a float, and what is too small to count."""

import jax.numpy as jnp
from jax import lax

# Base-2 exponents. A frame's probability below 2**SMALLEST counts as zero; its exponent is ZERO, so
# that in a segment no sum of possible ones comes near. States below DROPPED end with the segment.
SMALLEST, ZERO, DROPPED, NEVER = -(2**18), -(2**23), -(2**28), -(2**29)


def bits(dtype):
    """The integer of a float's size, the bits of its fraction, the bias of its exponent."""
    return (jnp.int64, 52, 1023) if dtype == jnp.float64 else (jnp.int32, 23, 127)


def power(exponent, dtype):
    """2**exponent; 0 where that is too small."""
    integer, fraction, bias = bits(dtype)
    biased = (jnp.maximum(exponent, -bias) + bias).astype(integer)
    return lax.bitcast_convert_type(biased << fraction, dtype)


def exponent_of(m):
    """The exponent of a positive mantissa."""
    integer, fraction, bias = bits(m.dtype)
    return ((lax.bitcast_convert_type(m, integer) >> fraction) - bias).astype(jnp.int32)


def inverse_power(m):
    """2**-exponent of a mantissa, and 1 for zero."""
    return jnp.where(m > 0, power(-exponent_of(m), m.dtype), jnp.ones_like(m))


def normalised(m, exponent):
    """The same number with 1 <= mantissa < 2, or a zero that is smaller than all others."""
    exponent = jnp.where(m > 0, exponent + exponent_of(m), jnp.full_like(exponent, NEVER))
    return m * inverse_power(m), exponent


def lowered(exponent, top):
    """Exponents relative to each row's highest; what is too far below it counts as none."""
    relative = exponent - top[:, None]
    return jnp.where(relative > DROPPED, relative, jnp.full_like(relative, NEVER))
