"""What a trained recogniser makes of a corpus: decoded in several ways, and its errors counted.

Axis suffixes: B batch, T frames, K classes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from research.data.digit_strings import StringBatch
from research.data.speech_stream import SpeechStream
from research.errors import ConfigError
from research.speech.beam_search import LabelAutomaton, beam_search
from research.speech.error_rates import ErrorCounts, count_errors
from research.speech.ngram import label_automaton, train_ngram
from research.speech.recogniser import Recogniser, transcribe
from research.speech.tokenisers import CharacterTokeniser, SubwordTokeniser, Tokeniser

Logits = Float[Array, "B T K"]
Frames = Int[Array, " B"]
Decode = Callable[[Logits, Frames], list[list[int]]]


class Heard(NamedTuple):
    """What a recogniser makes of some utterances of a corpus, on the host.

    Attributes:
        indices: their positions in the corpus, (B,).
        logits: (B, T, K).
        frames: valid frames, (B,).
        losses: as in ``research.speech.recogniser.Output``, (B,).
    """

    indices: Int[np.ndarray, " B"]
    logits: Float[np.ndarray, "B T K"]
    frames: Int[np.ndarray, " B"]
    losses: Float[np.ndarray, " B"]


def hear(
    recogniser: Recogniser,
    params: Any,
    stream: SpeechStream,
    place: Callable[[StringBatch], StringBatch] = lambda batch: batch,
) -> Iterator[Heard]:
    """Every utterance of a stream once.

    Args:
        recogniser: its functions.
        params: of its encoder.
        stream: the utterances.
        place: puts a batch on devices; see ``research.mesh``.

    Yields:
        Batches of the stream's shapes: rows after the last index repeat an utterance.
    """
    for batch, indices in stream.once():
        output = recogniser.evaluate(params, place(batch))
        yield Heard(indices, *(np.asarray(x) for x in output))


def write_down(
    heard: Iterable[Heard],
    texts: Sequence[str],
    tokeniser: CharacterTokeniser | SubwordTokeniser,
    decoders: Mapping[str, Decode],
) -> dict[str, "Transcripts"]:
    """Decode what was heard, in every way.

    Args:
        heard: every utterance once, in any order.
        texts: what was said, in the order of the corpus.
        tokeniser: from labels to text; its normalisation is applied to what was said.
        decoders: by name.

    Returns:
        The transcripts of each decoder, in the order of the corpus; single spaces between words.
    """
    said = [tokeniser.norm(text) for text in texts]
    made = {name: Transcripts(said, [""] * len(said)) for name in decoders}
    for batch in heard:
        logits, frames = jnp.asarray(batch.logits), jnp.asarray(batch.frames)
        for name, decode in decoders.items():
            found = decode(logits, frames)[: len(batch.indices)]
            for index, labels in zip(batch.indices, found, strict=True):
                made[name].heard[index] = " ".join(tokeniser.decode(labels).split())
    return made


class Transcripts(NamedTuple):
    """Texts of some utterances: what was said, what was heard; both normalised."""

    said: list[str]
    heard: list[str]

    def of(self, indices: Iterable[int]) -> "Transcripts":
        """Those of some of the utterances."""
        chosen = list(indices)
        return Transcripts([self.said[i] for i in chosen], [self.heard[i] for i in chosen])

    @property
    def words(self) -> list[ErrorCounts]:
        """Edits between the words of each utterance."""
        return count_errors([s.split() for s in self.said], [h.split() for h in self.heard])

    @property
    def characters(self) -> list[ErrorCounts]:
        """Edits between the characters of each utterance, the spaces between words among them."""
        return count_errors([*map(list, self.said)], [*map(list, self.heard)])


def greedy(blank_id: int = 0) -> Decode:
    """The best path."""
    return lambda logits, frames: transcribe(logits, frames, blank_id)


def beam(
    width: int = 16,
    *,
    automaton: LabelAutomaton | None = None,
    top_classes: int | None = None,
    blank_id: int = 0,
) -> Decode:
    """The likeliest labelling that a beam search finds, with an automaton's scores if given."""

    def decode(logits, frames):
        found = beam_search(
            logits,
            frames,
            width=width,
            top_classes=top_classes,
            automaton=automaton,
            blank_id=blank_id,
        )
        labels, counts = np.asarray(found.labels[:, 0]), np.asarray(found.counts[:, 0])
        return [row[:count].tolist() for row, count in zip(labels, counts, strict=True)]

    return decode


def ngram_automaton(tokeniser: Tokeniser, texts: Iterable[str], order: int) -> LabelAutomaton:
    """An n-gram model over a tokeniser's labels, learned from the labels of texts.

    Kneser-Ney smoothing. The scores are plain log-probabilities: see ``weighted``.

    Args:
        tokeniser: from text to labels.
        texts: to learn from, such as the transcripts of the training part.
        order: labels that a probability looks at, the predicted one included.

    Raises:
        ConfigError: an order below 1.
        DataError: no texts.

    Example:
        >>> from research.speech.tokenisers import CharacterTokeniser
        >>> automaton = ngram_automaton(CharacterTokeniser("ab"), ["abab", "ab"], 2)
        >>> bool(automaton.scores[0, 1] > automaton.scores[0, 2])  # texts begin with an a
        True
    """
    symbols = [f"l{label}" for label in range(tokeniser.size)]
    said = [[symbols[label] for label in tokeniser.encode(text)] for text in texts]
    labels = [symbol for label, symbol in enumerate(symbols) if label != tokeniser.blank_id]
    model = train_ngram(said, order, vocabulary=labels)
    return label_automaton(model, symbols, blank_id=tokeniser.blank_id)


def weighted(automaton: LabelAutomaton, weight: float, bonus: float) -> LabelAutomaton:
    """Scores of an n-gram model as a beam search should add them: weight log p + bonus per label.

    Example:
        >>> automaton = LabelAutomaton(-jnp.ones((1, 2)), jnp.zeros((1, 2), int), -jnp.ones(1))
        >>> weighted(automaton, 0.5, 0.2).ends.tolist()
        [-0.5]
    """
    ends = None if automaton.ends is None else weight * automaton.ends
    return LabelAutomaton(weight * automaton.scores + bonus, automaton.next_states, ends)


class Fusion(NamedTuple):
    """How an n-gram model takes part in decoding, and what that gave where it was chosen."""

    weight: float
    bonus: float
    word_error_rate: float


def choose_fusion(
    measure: Callable[[LabelAutomaton], float],
    automaton: LabelAutomaton,
    weights: Sequence[float],
    bonuses: Sequence[float],
) -> Fusion:
    """The weight with the fewest errors without a bonus, then the bonus with the fewest at it.

    Args:
        measure: error rate with an automaton, on speech that is neither trained nor tested on.
        automaton: of ``ngram_automaton``.
        weights: to try.
        bonuses: to try, besides none.

    Raises:
        ConfigError: no weight.
    """
    if not weights:
        raise ConfigError("a weight of the n-gram model must be tried; received none.")
    tried = [Fusion(w, 0.0, measure(weighted(automaton, w, 0.0))) for w in weights]
    best = min(tried, key=lambda fusion: fusion.word_error_rate)
    tried = [
        Fusion(best.weight, b, measure(weighted(automaton, best.weight, b))) for b in bonuses if b
    ]
    return min([best, *tried], key=lambda fusion: fusion.word_error_rate)


def error_lists(counts: Sequence[ErrorCounts]) -> Mapping[str, Any]:
    """Counts as plain lists, one number an utterance, for the records of a run.

    Example:
        >>> error_lists([ErrorCounts(1, 0, 2, 5)])["insertions"]
        [2]
    """
    return {
        "substitutions": [count.substitutions for count in counts],
        "deletions": [count.deletions for count in counts],
        "insertions": [count.insertions for count in counts],
        "labels": [count.reference for count in counts],
    }
