"""Label sequences as nodes of a tree, so that two are equal if their nodes are.

Axes: B batch, W prefixes kept, N most labels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

# Nodes are numbers: the parent of the empty prefix, which is none, and the empty prefix.
NOWHERE, ROOT = 0, 1


class Tree(NamedTuple):
    """The parent and the last label of each node."""

    parents: Array
    labels: Array


def children_between(tree, nodes, counts, kept):
    """For kept prefixes i and j: if i begins j, the node with one label more that does, its label.

    Found by climbing from all j at once, as far as the shortest prefix of all sequences needs.
    The tree goes through the loop unchanged: otherwise XLA would copy it in every frame.
    """
    batch, width = nodes.shape
    shortest = jnp.min(jnp.where(kept, counts, jnp.iinfo(jnp.int32).max), axis=1)
    longest = jnp.max(jnp.where(kept, counts, 0), axis=1)
    levels = jnp.max(longest - shortest, initial=0)

    def climb(carry):
        level, tree, climbed, child, label = carry
        parents, labels = (
            jnp.take_along_axis(table, climbed, axis=1, mode="promise_in_bounds") for table in tree
        )
        found = parents[:, None, :] == nodes[:, :, None]
        child = jnp.where(found, climbed[:, None, :], child)
        label = jnp.where(found, labels[:, None, :], label)
        return level + 1, tree, parents, child, label

    nowhere = jnp.full((batch, width, width), NOWHERE, jnp.int32)
    start = jnp.int32(0), tree, nodes, nowhere, nowhere
    _, tree, _, child, label = jax.lax.while_loop(lambda carry: carry[0] < levels, climb, start)
    child = jnp.where(kept[:, :, None] & kept[:, None, :], child, NOWHERE)
    return tree, (child, label)


def plant(labels_WN, counts_W, room):
    """A tree of these prefixes with room for more nodes, and the node of each."""
    most = labels_WN.shape[1]
    # Prefix j has with prefix i so many labels in common; equal beginnings are the nodes of the
    # first prefix that has them. Node 2 + i N + n has the labels of prefix i up to its n-th.
    same = labels_WN[:, None, :] == labels_WN[None, :, :]
    inside = jnp.arange(most)[None, :] < counts_W[:, None]
    same = same & inside[:, None, :] & inside[None, :, :]
    common = jnp.cumprod(same, axis=2, dtype=jnp.int32).astype(bool)
    first = jnp.argmax(common, axis=0)  # (W, N): of those with the same first n labels
    numbers = 2 + first * most + jnp.arange(most)[None, :]
    numbers = jnp.pad(numbers, ((0, 0), (1, 0)), constant_values=ROOT)
    numbers = numbers.astype(jnp.int32)
    tree = Tree(  # nowhere and the root first
        jnp.pad(numbers[:, :-1].reshape(-1), (2, room), constant_values=NOWHERE),
        jnp.pad(labels_WN.reshape(-1), (2, room), constant_values=0),
    )
    return tree, jnp.take_along_axis(numbers, counts_W[:, None], axis=1)[:, 0]


def read(tree, nodes, counts, *, most, blank_id):
    """The labels of the kept prefixes, (W, N)."""

    def step(at, n):
        inside = n < counts
        label = jnp.where(inside, tree.labels[at], blank_id)
        return jnp.where(inside, tree.parents[at], at), label

    _, labels_NW = jax.lax.scan(step, nodes, jnp.arange(most, dtype=jnp.int32), reverse=True)
    return labels_NW.T.astype(jnp.int32)
