"""Which examples make up a batch: a pure function of the seed and the step.

Nothing is stored between batches, so a run that was interrupted goes on from its step number alone.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Int

from research.errors import ConfigError

_SEEDS = 2**64


@lru_cache(maxsize=32)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    """The order of one epoch. Cached, as every batch of an epoch needs the same one."""
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(size)


def batch_indices(seed: int, step: int, size: int, batch_size: int) -> Int[np.ndarray, " B"]:
    r"""The indices of the examples in the batch of one step.

    The stream of examples is one random permutation after another. Its position p = step * B + i is
    in epoch p // size, and the batch takes permutation(seed, epoch)[p % size] for i in 0..B-1. A
    batch may lie across the end of an epoch; no example is left out or repeated within one.

    Args:
        seed: Selects the stream, 0..2**64 - 1.
        step: Number of the batch, from 0.
        size: Number of examples in the dataset.
        batch_size: Number of examples in the batch, B; may exceed `size`.

    Returns:
        Indices in 0..size-1, int64 (B,).

    Raises:
        ConfigError: An argument is out of range.

    Example:
        >>> epoch = [batch_indices(seed=0, step=step, size=10, batch_size=4) for step in range(5)]
        >>> sorted(np.concatenate(epoch).tolist()) == sorted([*range(10), *range(10)])
        True
    """
    seed, step, size, batch_size = int(seed), int(step), int(size), int(batch_size)
    if not 0 <= seed < _SEEDS:
        raise ConfigError(f"The seed must be in 0..2**64 - 1; it is {seed}.")
    if step < 0 or size < 1 or batch_size < 1:
        raise ConfigError(
            "A batch needs step >= 0, size >= 1 and batch_size >= 1; received "
            f"step={step}, size={size}, batch_size={batch_size}."
        )
    first, last = step * batch_size, (step + 1) * batch_size
    return np.concatenate(
        [
            _permutation(seed, epoch, size)[
                max(first - epoch * size, 0) : min(last - epoch * size, size)
            ]
            for epoch in range(first // size, (last - 1) // size + 1)
        ]
    )
