"""Beam search over streams without end: labels that are certain leave the beam.

Axes: B batch, W prefixes kept, N most labels.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from research.speech.beam_search import BeamState


class Committed(NamedTuple):
    """Labels that no later frame can change, and the search without them.

    Attributes:
        labels: int32 (B, N), the blank after the last.
        counts: how many, int32 (B,).
        state: the beam, whose prefixes no longer begin with these labels.
    """

    labels: Int[Array, "B N"]
    counts: Int[Array, " B"]
    state: BeamState


def commit_labels(state: BeamState, *, blank_id: int = 0) -> Committed:
    """Take from the beam what all kept prefixes begin with, so that there is room for more labels.

    A prefix grows to ``max_labels`` and no further. Called after each chunk, this makes that the
    limit of how many labels may be undecided at a time. The search goes on as it would have: every
    later prefix begins with what all of today's begin with. The last of these labels stays, since
    it says whether the same label is a repetition.

    Example:
        >>> import jax.numpy as jnp
        >>> from research.speech.beam_search import beam_search
        >>> logits = 9.0 * jnp.eye(4)[jnp.array([[1, 2, 3]])]
        >>> done = commit_labels(beam_search(logits, jnp.array([3]), width=1))
        >>> done.labels[0, : done.counts[0]].tolist(), done.state.labels[0, 0].tolist()
        ([1, 2], [3, 0, 0])
    """
    most = state.labels.shape[2]
    places = jnp.arange(most, dtype=jnp.int32)
    used = state.log_probs > -jnp.inf
    same = state.labels == state.labels[:, :1]
    same &= places[None, None, :] < state.counts[:, :, None]
    shared = jnp.all(same | ~used[:, :, None], axis=1) & jnp.any(used, axis=1)[:, None]
    in_common = jnp.sum(jnp.cumprod(shared, axis=1, dtype=jnp.int32), axis=1, dtype=jnp.int32)
    counts = jnp.maximum(in_common - 1, 0)
    source = places[None, :] + counts[:, None]
    moved = jnp.take_along_axis(state.labels, jnp.minimum(source, most - 1)[:, None, :], axis=2)
    left = jnp.where((source < most)[:, None, :], moved, blank_id)
    labels = jnp.where(places[None, :] < counts[:, None], state.labels[:, 0], blank_id)
    remaining = jnp.where(used, state.counts - counts[:, None], 0)
    return Committed(labels, counts, state._replace(labels=left, counts=remaining))
