"""One frame of a CTC prefix beam search, for one sequence.

Axes: K classes (the blank among them), W prefixes kept, P classes extended with.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from research.speech.prefix_tree import NOWHERE


class Beam(NamedTuple):
    """The kept prefixes while the frames of a chunk go by; the arrays are (W,)."""

    nodes: Array
    counts: Array
    last: Array
    blank: Array
    label: Array
    fusion: Array
    states: Array
    offset: Array
    fusion_offset: Array


class _Stays(NamedTuple):
    """Log-probabilities of the prefixes as they are, (W,): paths that end in blank, in a label."""

    blank: Array
    label: Array


class _Choice(NamedTuple):
    """The W best candidates, (W,) each."""

    possible: Array  # whether it is a candidate at all
    stays: Array  # whether it is a prefix as it was, or one with a label more
    source: Array  # the prefix that it comes from
    extension: Array  # where it lies among the extensions, in one line
    by: Array  # the label that extends it


def advance(children, beam, log_probs_K, extensions_P, new, *, most, automaton, blank_id):
    """The beam after a frame, and the parents of the new nodes that it may use.

    Args:
        children: of ``prefix_tree.children_between``: (W, W) nodes and their labels.
        beam: before the frame.
        log_probs_K: of the frame.
        extensions_P: the classes that prefixes are extended with.
        new: a node for each prefix that may come to be, (W,).
        most: labels that a prefix may have.
        automaton: a LabelAutomaton or None.
        blank_id: the class that stands for no label.
    """
    child, child_label = children
    is_child = child == beam.nodes[None, :]
    stays = _staying(beam, is_child, log_probs_K, blank_id)
    extend = _extending(beam, is_child, log_probs_K, extensions_P, most, blank_id)
    added = jnp.zeros_like(extend)
    if automaton is not None:
        added = automaton.scores[beam.states[:, None], extensions_P[None, :]].astype(extend.dtype)
    choice = _choose(beam, stays, extend, added, extensions_P)

    # The node that the extended prefix has already, if it is an ancestor of a kept one.
    known = jnp.max(
        jnp.where(child_label[choice.source] == choice.by[:, None], child[choice.source], NOWHERE),
        axis=1,
    )
    nodes = jnp.where(known == NOWHERE, new, known)
    fusion, states = beam.fusion[choice.source], beam.states[choice.source]
    if automaton is not None:
        following = automaton.next_states[states, choice.by].astype(states.dtype)
        fused = fusion + added.reshape(-1)[choice.extension]
        fusion = jnp.where(choice.stays, fusion, fused)
        states = jnp.where(choice.stays, states, following)
    # A candidate that is forbidden is no prefix, whatever its acoustic probability.
    blank = jnp.where(choice.stays & choice.possible, stays.blank[choice.source], -jnp.inf)
    extended = extend.reshape(-1)[choice.extension]
    label = jnp.where(choice.stays, stays.label[choice.source], extended)
    label = jnp.where(choice.possible, label, -jnp.inf)
    best = jnp.max(jnp.logaddexp(blank, label))
    best = jnp.where(jnp.isfinite(best), best, 0.0)
    common = jnp.where(choice.possible[0], fusion[0], 0.0)
    # NaN compares with nothing and would leave no prefix: what was heard is not known.
    unknown = jnp.where(jnp.any(jnp.isnan(log_probs_K)), jnp.nan, 0.0)
    moved = Beam(
        nodes=jnp.where(choice.stays, beam.nodes[choice.source], nodes),
        counts=beam.counts[choice.source] + jnp.where(choice.stays, 0, 1),
        last=jnp.where(choice.stays, beam.last[choice.source], choice.by),
        blank=blank - best,
        label=label - best,
        fusion=fusion - common,
        states=states,
        offset=beam.offset + best + unknown,
        fusion_offset=beam.fusion_offset + common,
    )
    return moved, beam.nodes[choice.source]


def _total(beam):
    return jnp.logaddexp(beam.blank, beam.label)


def _staying(beam, is_child, log_probs_K, blank_id):
    """Every prefix may stay what it is, by a blank or by its last label again.

    And prefix i with the last label of prefix j is prefix j, if j is a child of i.
    """
    total, of_last = _total(beam), log_probs_K[beam.last]
    again = jnp.where(beam.counts > 0, beam.label + of_last, -jnp.inf)
    repeats = beam.last[None, :] == beam.last[:, None]
    before = jnp.where(repeats & (beam.counts > 0)[:, None], beam.blank[:, None], total[:, None])
    arriving = jnp.where(is_child, before + of_last[None, :], -jnp.inf)
    # There is one parent at most.
    return _Stays(total + log_probs_K[blank_id], jnp.logaddexp(again, jnp.max(arriving, axis=0)))


def _extending(beam, is_child, log_probs_K, extensions_P, most, blank_id):
    """Or be extended, (W, P), unless that is a kept prefix, which ``_staying`` has counted."""
    matches = extensions_P[None, :] == beam.last[:, None]
    repeats = matches & (beam.counts > 0)[:, None]
    before = jnp.where(repeats, beam.blank[:, None], _total(beam)[:, None])
    column = jnp.where(jnp.any(matches, axis=1), jnp.argmax(matches, axis=1), matches.shape[1])
    row = jnp.where(jnp.any(is_child, axis=0), jnp.argmax(is_child, axis=0), len(is_child))
    counted = jnp.zeros(before.shape, bool).at[row, column].set(True, mode="drop")
    allowed = (extensions_P != blank_id)[None, :] & (beam.counts < most)[:, None] & ~counted
    return jnp.where(allowed, before + log_probs_K[extensions_P][None, :], -jnp.inf)


def _choose(beam, stays, extend, added, extensions_P):
    """The best of both kinds, by what the automaton adds too."""
    width = len(beam.nodes)
    candidates = (
        jnp.logaddexp(*stays) + beam.fusion,
        (extend + beam.fusion[:, None] + added).reshape(-1),
    )
    rank, chosen = jax.lax.top_k(jnp.concatenate(candidates), width)
    unmoved, extension = chosen < width, jnp.maximum(chosen - width, 0)
    return _Choice(
        possible=rank > -jnp.inf,
        stays=unmoved,
        source=jnp.where(unmoved, chosen, extension // len(extensions_P)),
        extension=extension,
        by=extensions_P[extension % len(extensions_P)],
    )
