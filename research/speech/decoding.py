"""From CTC logits to labels.

Axis suffixes: B batch, T frames, K classes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def greedy_decode(
    logits: Float[Array, "B T K"], lengths: Int[Array, " B"], blank_id: int = 0
) -> tuple[Int[Array, "B T"], Int[Array, " B"]]:
    """Decode by the best path: the likeliest class of each frame, repeats merged, blanks dropped.

    Graves et al. 2006, "Connectionist temporal classification", section 3.2. The best path is
    not always the best labelling. Ties go to the lowest class, as in `argmax`.

    Args:
        logits: scores of the classes, any monotone scale, (B, T, K).
        lengths: valid frames, (B,); what lies beyond is ignored.
        blank_id: the class that stands for no label.

    Returns:
        Labels, int32 (B, T), filled up with `blank_id`; and how many there are, int32 (B,).

    Example:
        >>> path = jnp.array([[1, 1, 0, 1, 2, 2, 0]])
        >>> tokens, counts = greedy_decode(jax.nn.one_hot(path, 3), jnp.array([7]))
        >>> tokens[0, : counts[0]].tolist()
        [1, 1, 2]
    """
    return _greedy_decode(logits, lengths, blank_id)


@jax.jit
def _greedy_decode(logits: Array, lengths: Array, blank_id: Array | int) -> tuple[Array, Array]:
    batch, frames, _ = logits.shape
    path = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    # A frame before the first that equals no class, so that the first label is never a repeat.
    previous = jnp.pad(path[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    valid = jnp.arange(frames)[None, :] < lengths[:, None]
    kept = (path != blank_id) & (path != previous) & valid
    position = jnp.where(kept, jnp.cumsum(kept, axis=1) - 1, frames)  # `frames`: dropped
    tokens = jnp.full((batch, frames), blank_id, jnp.int32)
    rows = jnp.arange(batch)[:, None]
    return tokens.at[rows, position].set(path, mode="drop"), kept.sum(axis=1, dtype=jnp.int32)
