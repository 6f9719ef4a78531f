"""Which probabilities dropout keeps: a function of seed, query and key, computed anywhere.

Philox-4x32 with 7 rounds (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2,
3", SC 2011): key = the seed of a row and head, counter = (s // 4, t, 0, 0), and word s % 4 of the
output decides for query t and key s. Nothing depends on tiles or on the order of programs, so every
implementation drops the same ones, forwards and backwards. Only 32-bit arithmetic, so that it needs
no 64-bit mode.

Axes: B rows, N heads, T queries, S keys.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROUNDS = 7
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORDS = 4


def seeds(key: Any, rows: int, heads: int) -> jax.Array:
    """Two words for each row and head: (B, N, 2) uint32."""
    return jax.random.bits(key, (rows, heads, 2), jnp.uint32)


def threshold(rate: float) -> int:
    """A word below this one drops; at a rate of one half, half of the words do."""
    return min(round(rate * 2**32), 2**32 - 1)


def kept(
    seeds: Any, queries: int, keys: int, rate: float, *, first_query: Any = 0, first_key: Any = 0
) -> jax.Array:
    """Whether each probability of a block is kept.

    Args:
        seeds: (..., 2) uint32.
        queries: how many of them the block has.
        keys: how many of them the block has.
        rate: probability of being dropped, in [0, 1).
        first_query: position of the first one, an integer that may be traced.
        first_key: likewise, a multiple of 4.

    Returns:
        (..., queries, keys) bool.
    """
    if isinstance(first_key, int) and first_key % WORDS:
        raise ValueError(
            f"first_key must be a multiple of {WORDS}, the words of a counter; received "
            f"{first_key}. Start the block earlier and cut off what is not needed."
        )
    blocks = -(-keys // WORDS)
    first_block = jnp.asarray(first_key, jnp.uint32) // np.uint32(WORDS)
    block = first_block + jnp.arange(blocks, dtype=jnp.uint32)
    query = jnp.asarray(first_query, jnp.uint32) + jnp.arange(queries, dtype=jnp.uint32)
    grid = (*seeds.shape[:-1], queries, blocks)
    over = [1] * (seeds.ndim - 1)
    words = philox(
        (
            jnp.broadcast_to(block.reshape(*over, 1, blocks), grid),
            jnp.broadcast_to(query.reshape(*over, queries, 1), grid),
            jnp.zeros(grid, jnp.uint32),
            jnp.zeros(grid, jnp.uint32),
        ),
        (seeds[..., 0][..., None, None], seeds[..., 1][..., None, None]),
    )
    flat = jnp.stack(words, -1).reshape(*grid[:-1], blocks * WORDS)
    return flat[..., :keys] >= np.uint32(threshold(rate))


def philox(counter: Any, key: Any, rounds: int = ROUNDS) -> tuple[Any, Any, Any, Any]:
    """Four random words for each counter of four words, under a key of two; all uint32.

    Example:
        >>> zero = jnp.zeros((), jnp.uint32)
        >>> [hex(int(word)) for word in philox((zero,) * 4, (zero, zero))]
        ['0x5f6fb709', '0xd893f64', '0x4f121f81', '0x4f730a48']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = _product(MULTIPLIERS[0], c0)
        high1, low1 = _product(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = k0 + np.uint32(WEYL[0]), k1 + np.uint32(WEYL[1])
    return c0, c1, c2, c3


def _product(a: int, b: Any) -> tuple[Any, Any]:
    """High and low word of the 64-bit product, from products of 16 bits by 16 bits."""
    half, shift = np.uint32(0xFFFF), np.uint32(16)
    a_low, a_high = np.uint32(a & 0xFFFF), np.uint32(a >> 16)
    b_low, b_high = b & half, b >> shift
    low = a_low * b_low
    middle = a_high * b_low + (low >> shift)  # at most (2^16 - 1)^2 + 2^16 - 1: no carry is lost
    other = a_low * b_high + (middle & half)
    return a_high * b_high + (middle >> shift) + (other >> shift), np.uint32(a) * b
