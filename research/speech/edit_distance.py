"""Edit distances inside JAX, for error rates that are counted in a compiled program.

Axes: B batch, N labels of the references, M labels of the hypotheses.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


def edit_distance(
    references: Int[Array, "B N"],
    reference_lengths: Int[Array, " B"],
    hypotheses: Int[Array, "B M"],
    hypothesis_lengths: Int[Array, " B"],
) -> Int[Array, " B"]:
    """The fewest substitutions, deletions and insertions that turn one into the other, of each row.

    d[m, n] = min(d[m-1, n-1] + (h_m != r_n), d[m-1, n] + 1, d[m, n-1] + 1), row by row. The last
    term runs along the row: with d[m, n] = min over k <= n of (e[k] + n - k), e being the minimum
    of the first two, it is a running minimum of e[k] - k.

    Args:
        references: label ids, (B, N); what lies beyond the length is ignored.
        reference_lengths: labels of each, 0..N, (B,).
        hypotheses: (B, M), likewise.
        hypothesis_lengths: 0..M, (B,).

    Returns:
        Edits, int32 (B,).

    Example:
        >>> said, heard = jnp.array([[1, 2, 3]]), jnp.array([[2, 3, 3, 9]])
        >>> edit_distance(said, jnp.array([3]), heard, jnp.array([3])).tolist()
        [2]

    Source: Wagner & Fischer, "The String-to-String Correction Problem", J. ACM 1974.
    """
    batch, size = references.shape
    offsets = jnp.arange(size + 1, dtype=jnp.int32)[None, :]

    def next_row(row, heard):
        label, position = heard
        substituted = row[:, :-1] + (references != label[:, None])
        first = jnp.full((batch, 1), position + 1, jnp.int32)
        edits = jnp.minimum(row[:, 1:] + 1, substituted)
        edits = jnp.concatenate([first, edits], axis=1)
        edits = offsets + jax.lax.cummin(edits - offsets, axis=1)
        return jnp.where((position < hypothesis_lengths)[:, None], edits, row), None

    start = jnp.broadcast_to(offsets, (batch, size + 1))
    positions = jnp.arange(hypotheses.shape[1], dtype=jnp.int32)
    last, _ = jax.lax.scan(next_row, start, (hypotheses.T, positions))
    return jnp.take_along_axis(last, reference_lengths[:, None], axis=1)[:, 0]
