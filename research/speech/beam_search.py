"""CTC prefix beam search: the likeliest labellings rather than the likeliest paths.

A prefix is the labels that a path has collapsed to so far. The search keeps the likeliest prefixes,
each with the probability of all kept paths to it, those that end in blank and those that end in its
last label apart, since a repeated label is a new one only after a blank.

Prefixes are nodes of a tree, and a prefix has one node as long as any kept prefix needs it: a path
that comes to a prefix which was dropped and is an ancestor of a kept one finds its node again. Two
prefixes are therefore equal if their nodes are, and merging is exact; nothing is hashed.

Axes: B batch, T frames, K classes (the blank among them), W prefixes kept, P classes extended with,
N most labels, S states of an automaton.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from research.errors import ConfigError
from research.speech.beam_step import Beam, advance
from research.speech.prefix_tree import Tree, children_between, plant, read


class LabelAutomaton(NamedTuple):
    """Scores of label sequences that are added to their log-probabilities: shallow fusion.

    A sequence starts in state 0; label k in state s adds ``scores[s, k]`` and leads to
    ``next_states[s, k]``. Any n-gram model over the labels is of this form, weighted and with what
    is added for each label put into the scores. -inf forbids a label. The column of the blank is
    not used. Example: bigrams have the label itself as the next state, state 0 being the start.

    Attributes:
        scores: (S, K), nats.
        next_states: (S, K), in [0, S).
        ends: what is added where a sequence ends in a state, such as the score of an n-gram model's
            end of sentence, (S,), nats; nothing if not given. -inf forbids to end there.
    """

    scores: Float[Array, "S K"]
    next_states: Int[Array, "S K"]
    ends: Float[Array, " S"] | None = None


class BeamState(NamedTuple):
    """The prefixes kept, best first, after the frames seen so far; what streaming carries on.

    Attributes:
        labels: int32 (B, W, N), the blank after the last label.
        counts: labels of each prefix, int32 (B, W).
        blank: log-probability of the paths to each that end in blank, less ``offset``, (B, W).
        label: of those that end in the prefix's last label, (B, W).
        fusion: score of each in the automaton, less ``fusion_offset``, (B, W); zeros without one.
        states: state of each in the automaton, int32 (B, W).
        offset: (B,). Apart from the rest, which stays small, so that long inputs lose no digits.
            NaN where a frame was.
        fusion_offset: (B,), likewise.
    """

    labels: Int[Array, "B W N"]
    counts: Int[Array, "B W"]
    blank: Float[Array, "B W"]
    label: Float[Array, "B W"]
    fusion: Float[Array, "B W"]
    states: Int[Array, "B W"]
    offset: Float[Array, "B"]
    fusion_offset: Float[Array, "B"]

    @property
    def log_probs(self) -> Float[Array, "B W"]:
        """Log p(labels are the labelling | logits), of the kept paths; -inf in unused places."""
        return jnp.logaddexp(self.blank, self.label) + self.offset[:, None]

    @property
    def scores(self) -> Float[Array, "B W"]:
        """What the prefixes are ranked by: log-probability plus score in the automaton."""
        return self.log_probs + self.fusion + self.fusion_offset[:, None]


def begin_beam_search(
    batch: int, *, width: int = 16, max_labels: int, blank_id: int = 0, dtype=jnp.float32
) -> BeamState:
    """The state before any frame: the empty prefix, with probability one.

    Args:
        batch: how many sequences.
        width: how many prefixes to keep of each.
        max_labels: longest labelling that is looked for. Prefixes of that length are not extended.
        blank_id: the class that stands for no label.
        dtype: of the scores, float32 or float64.

    Returns:
        The state for ``continue_beam_search``.

    Raises:
        ConfigError: a width under 1 or negative ``max_labels``.
    """
    if width < 1 or max_labels < 0:
        raise ConfigError(
            f"width must be at least 1 and max_labels at least 0; received {width}, {max_labels}."
        )
    first = jnp.arange(width)[None, :] == 0
    empty = jnp.broadcast_to(jnp.where(first, 0.0, -jnp.inf).astype(dtype), (batch, width))
    return BeamState(
        labels=jnp.full((batch, width, max_labels), blank_id, jnp.int32),
        counts=jnp.zeros((batch, width), jnp.int32),
        blank=empty,
        label=jnp.full_like(empty, -jnp.inf),
        fusion=jnp.zeros_like(empty),
        states=jnp.zeros((batch, width), jnp.int32),
        offset=jnp.zeros(batch, dtype),
        fusion_offset=jnp.zeros(batch, dtype),
    )


def beam_search(
    logits: Float[Array, "B T K"],
    lengths: Int[Array, " B"],
    *,
    width: int = 16,
    max_labels: int | None = None,
    top_classes: int | None = None,
    automaton: LabelAutomaton | None = None,
    blank_id: int = 0,
) -> BeamState:
    """The likeliest labellings of each sequence, by CTC prefix beam search.

    Where ``width`` is at least the number of possible labellings, the log-probabilities are exact
    and the first labelling is the best. Otherwise each is a lower bound, of the kept paths. Ties go
    to the prefix that was ahead before, then to the lower class.

    Args:
        logits: unnormalised log probabilities, (B, T, K); float32, bfloat16, float16 or float64.
        lengths: valid frames, (B,); what lies beyond is ignored.
        width: how many prefixes to keep.
        max_labels: longest labelling that is looked for; T if not given.
        top_classes: extend prefixes by so many labels only, the likeliest of each frame; by all if
            not given. Faster with many classes.
        automaton: scores to be added to those of the labellings, with what it adds at the end.
        blank_id: the class that stands for no label.

    Returns:
        The labellings found, best first; see ``BeamState`` for labels, counts and scores.

    Raises:
        ConfigError: a width, ``top_classes``, shape or ``blank_id`` that cannot be.

    Example:
        >>> logits = jnp.log(jnp.array([[[0.6, 0.4], [0.6, 0.4]]]))
        >>> found = beam_search(logits, jnp.array([2]), width=2)
        >>> found.labels[0, 0, : found.counts[0, 0]].tolist()  # the best path is two blanks
        [1]
        >>> print(f"{jnp.exp(found.log_probs[0, 0]):.2f}")  # 0.4 + 0.6 * 0.4
        0.64

    Sources: Graves, "Supervised sequence labelling with recurrent neural networks", 2012, section
    7.5.3; Hannun et al., "First-pass large vocabulary continuous speech recognition using
    bi-directional recurrent DNNs", 2014.
    """
    batch, frames = _check(logits, lengths)
    state = begin_beam_search(
        batch,
        width=width,
        max_labels=max(1, frames) if max_labels is None else max_labels,
        blank_id=blank_id,
        dtype=jnp.float64 if logits.dtype == jnp.float64 else jnp.float32,
    )
    state = continue_beam_search(
        state, logits, lengths, top_classes=top_classes, automaton=automaton, blank_id=blank_id
    )
    return finish_beam_search(state, automaton, blank_id=blank_id)


def finish_beam_search(
    state: BeamState, automaton: LabelAutomaton | None, *, blank_id: int = 0
) -> BeamState:
    """After the last chunk: add what the automaton adds at the end, and rank again.

    Example:
        >>> automaton = LabelAutomaton(jnp.zeros((2, 2)), jnp.ones((2, 2), int), jnp.array([0, -9]))
        >>> state = begin_beam_search(1, width=2, max_labels=1)
        >>> chunk = jnp.log(jnp.array([[[0.4, 0.6]]]))
        >>> state = continue_beam_search(state, chunk, jnp.array([1]), automaton=automaton)
        >>> state.counts.tolist(), finish_beam_search(state, automaton).counts.tolist()
        ([[1, 0]], [[0, 1]])
    """
    if automaton is None or automaton.ends is None:
        return state
    ends = automaton.ends[state.states].astype(state.fusion.dtype)
    possible = (jnp.logaddexp(state.blank, state.label) + ends > -jnp.inf)[:, :, None]
    state = state._replace(
        labels=jnp.where(possible, state.labels, blank_id),
        counts=jnp.where(possible[:, :, 0], state.counts, 0),
        blank=jnp.where(possible[:, :, 0], state.blank, -jnp.inf),
        label=jnp.where(possible[:, :, 0], state.label, -jnp.inf),
        fusion=state.fusion + jnp.where(possible[:, :, 0], ends, 0),
    )
    ranks = jnp.logaddexp(state.blank, state.label) + state.fusion  # offsets would round them
    best_first = jnp.argsort(ranks, axis=1, descending=True, stable=True)
    take = jax.vmap(lambda x, order: x[order])
    fields = {name: take(x, best_first) for name, x in state._asdict().items() if x.ndim > 1}
    return state._replace(**fields)


def continue_beam_search(
    state: BeamState,
    logits: Float[Array, "B T K"],
    lengths: Int[Array, " B"],
    *,
    top_classes: int | None = None,
    automaton: LabelAutomaton | None = None,
    blank_id: int = 0,
) -> BeamState:
    """Go on with the frames of a chunk; chunk by chunk gives what the whole gives.

    What the automaton adds at the end is left to ``finish_beam_search``, and the limit that
    ``max_labels`` sets to a long stream is lifted by ``streaming.commit_labels``.

    Args:
        state: from ``begin_beam_search`` or the chunk before.
        logits: the next frames, (B, T, K).
        lengths: how many of them are valid, (B,); 0 where a sequence has ended.
        top_classes: as in ``beam_search``; the same for every chunk.
        automaton: as in ``beam_search``; the same for every chunk.
        blank_id: the class that stands for no label.

    Returns:
        The state after them.

    Raises:
        ConfigError: as ``beam_search``.

    Example:
        >>> state = begin_beam_search(1, width=2, max_labels=5)
        >>> for frame in (0.4, 0.4):
        ...     chunk = jnp.log(jnp.array([[[1 - frame, frame]]]))
        ...     state = continue_beam_search(state, chunk, jnp.array([1]))
        >>> print(f"{jnp.exp(state.log_probs[0, 0]):.2f}")
        0.64
    """
    batch, _ = _check(logits, lengths)
    classes = logits.shape[2]
    if not 0 <= blank_id < classes:
        raise ConfigError(f"blank_id must lie in 0..{classes - 1}; received {blank_id}.")
    if len(state.offset) != batch:
        raise ConfigError(
            f"logits must have as many rows as the state, {len(state.offset)}; received {batch}."
        )
    if top_classes is not None and top_classes < 1:
        raise ConfigError(f"top_classes must be at least 1; received {top_classes}.")
    if automaton is not None and not automaton.scores.shape == automaton.next_states.shape == (
        automaton.scores.shape[0],
        classes,
    ):
        raise ConfigError(
            f"the automaton's scores and next_states must be (states, {classes}); received "
            f"{automaton.scores.shape} and {automaton.next_states.shape}."
        )
    if logits.shape[1] == 0:
        return state
    extended = classes if top_classes is None else min(top_classes, classes)
    return _continue(state, logits, lengths, automaton, extended=extended, blank_id=blank_id)


def _check(logits, lengths) -> tuple[int, int]:
    if logits.ndim != 3 or lengths.shape != logits.shape[:1]:
        raise ConfigError(
            "beam search takes logits (B, T, K) and lengths (B,); received "
            f"{logits.shape} and {lengths.shape}."
        )
    return logits.shape[0], logits.shape[1]


@functools.partial(jax.jit, static_argnames=("extended", "blank_id"))
def _continue(state, logits, lengths, automaton, *, extended: int, blank_id: int) -> BeamState:
    log_probs_BTK = jax.nn.log_softmax(logits.astype(state.blank.dtype))
    (batch, frames, _), (_, width, most) = log_probs_BTK.shape, state.labels.shape
    tree, nodes = jax.vmap(functools.partial(plant, room=frames * width))(
        state.labels, state.counts
    )
    last = jnp.take_along_axis(tree.labels, nodes, axis=1)
    beam = Beam(nodes, state.counts, last, *state[2:])
    free = tree.labels.shape[1] - frames * width
    # What prefixes are extended with in each frame.
    if extended < logits.shape[2]:
        labels_only = log_probs_BTK.at[:, :, blank_id].set(-jnp.inf)
        extensions_BTP = jax.lax.top_k(labels_only, extended)[1].astype(jnp.int32)
    else:
        every = jnp.arange(extended, dtype=jnp.int32)
        extensions_BTP = jnp.broadcast_to(every, (batch, frames, extended))
    of_sequence = functools.partial(advance, automaton=automaton, blank_id=blank_id, most=most)

    def step(carry, t):
        tree, beam = carry
        start = free + t * width
        kept = jnp.logaddexp(beam.blank, beam.label) > -jnp.inf
        tree, children = children_between(tree, beam.nodes, beam.counts, kept)
        new = jnp.broadcast_to(start + jnp.arange(width, dtype=jnp.int32), (batch, width))
        moved, parents = jax.vmap(of_sequence)(
            children, beam, log_probs_BTK[:, t], extensions_BTP[:, t], new
        )
        # After the end of a sequence nothing refers to the nodes that are written.
        tree = Tree(
            jax.lax.dynamic_update_slice(tree.parents, parents, (jnp.int32(0), start)),
            jax.lax.dynamic_update_slice(tree.labels, moved.last, (jnp.int32(0), start)),
        )
        return (tree, _where(t < lengths, moved, beam)), None

    (tree, beam), _ = jax.lax.scan(step, (tree, beam), jnp.arange(frames, dtype=jnp.int32))
    used = jnp.logaddexp(beam.blank, beam.label) > -jnp.inf
    beam = beam._replace(counts=jnp.where(used, beam.counts, 0))
    labels = jax.vmap(functools.partial(read, most=most, blank_id=blank_id))(
        tree, beam.nodes, beam.counts
    )
    return BeamState(labels, beam.counts, *beam[3:])


def _where(condition_B, beam, other):
    """The rows of one beam where the condition holds, those of another elsewhere."""
    return jax.tree.map(
        lambda a, b: jnp.where(condition_B.reshape(-1, *[1] * (a.ndim - 1)), a, b), beam, other
    )
