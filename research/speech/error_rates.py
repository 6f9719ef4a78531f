"""Edit errors between label sequences, counted by jiwer.

Axis suffix: K symbols.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import jiwer
import numpy as np
from jaxtyping import Int

from research.errors import DataError


class ErrorCounts(NamedTuple):
    """The fewest edits that turn a reference into a hypothesis.

    Attributes:
        substitutions: symbols replaced by another.
        deletions: reference symbols that are missing.
        insertions: hypothesis symbols that are too many.
        reference: symbols in the reference.
    """

    substitutions: int
    deletions: int
    insertions: int
    reference: int

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions


def count_errors(
    references: Sequence[Sequence[Hashable]], hypotheses: Sequence[Sequence[Hashable]]
) -> list[ErrorCounts]:
    """Count the edits of each utterance (Levenshtein distance, every edit at cost 1).

    A text is no sequence of symbols: ``text.split()`` is one of words, ``list(text)`` one of
    characters.

    Args:
        references: what was said, one sequence of symbols an utterance; may be empty.
        hypotheses: what was recognised, as many.

    Returns:
        The counts of each utterance. Where several alignments are equally short, jiwer's choice
        decides how the errors divide into kinds; their sum does not depend on it.

    Raises:
        DataError: not as many hypotheses as references, or texts.

    Example:
        >>> count_errors([[1, 2, 3], ["a"]], [[1, 3], ["b"]])[0]
        ErrorCounts(substitutions=0, deletions=1, insertions=0, reference=3)
        >>> count_errors(["the cat sat".split()], ["the cat sit".split()])
        [ErrorCounts(substitutions=1, deletions=0, insertions=0, reference=3)]
    """
    for text in (references, hypotheses, *references, *hypotheses):
        if isinstance(text, str):
            raise DataError(
                "errors are counted between sequences of symbols, one for each utterance; received "
                f"the text {text!r}. Give text.split() of each to count words, or list(text) to "
                "count characters."
            )
    counts = []
    for reference, chunks in zip(references, _alignments(references, hypotheses), strict=True):
        edits: Counter[str] = Counter()
        for chunk in chunks:
            edits[chunk.type] += max(
                chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx
            )
        counts.append(
            ErrorCounts(edits["substitute"], edits["delete"], edits["insert"], len(reference))
        )
    return counts


def error_rate(counts: Sequence[ErrorCounts]) -> float:
    """Divide all edits by all reference symbols; above 1 where there are many insertions.

    Args:
        counts: counts of the utterances.

    Returns:
        (substitutions + deletions + insertions) / reference symbols, over all utterances.

    Raises:
        DataError: the references hold no symbol.

    Example:
        >>> error_rate([ErrorCounts(1, 0, 0, 3), ErrorCounts(0, 0, 1, 5)])
        0.25
    """
    total = sum(count.reference for count in counts)
    if total == 0:
        raise DataError(
            "an error rate needs at least one reference symbol, but the "
            f"{len(counts)} references hold none"
        )
    return sum(ErrorCounts(*count).errors for count in counts) / total


def correct_symbols(
    references: Sequence[Sequence[Hashable]], hypotheses: Sequence[Sequence[Hashable]]
) -> list[list[bool]]:
    """Whether each symbol of the hypotheses is right: matched by the alignment of fewest edits.

    Args:
        references: what was said, one sequence of symbols an utterance.
        hypotheses: what was recognised, as many.

    Returns:
        One truth value for each hypothesis symbol. Where several alignments are equally short,
        jiwer's choice decides.

    Raises:
        DataError: not as many hypotheses as references.

    Example:
        >>> correct_symbols(["abc"], ["axbc"])
        [[True, False, True, True]]
    """
    found = []
    for hypothesis, chunks in zip(hypotheses, _alignments(references, hypotheses), strict=True):
        right = [False] * len(hypothesis)
        for chunk in chunks:
            if chunk.type == "equal":
                matched = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
                right[matched.start : matched.stop] = [True] * len(matched)
        found.append(right)
    return found


def confusion_counts(
    references: Sequence[Sequence[Hashable]],
    hypotheses: Sequence[Sequence[Hashable]],
    symbols: Sequence[Hashable],
) -> Int[np.ndarray, "K+1 K+1"]:
    """Count what each symbol was recognised as.

    Args:
        references: what was said, one sequence an utterance.
        hypotheses: what was recognised, as many.
        symbols: the K symbols, in the order of the rows and columns.

    Returns:
        int64 (K + 1, K + 1): entry [i, j] counts symbol i recognised as symbol j, the last
        column the deleted ones, the last row the inserted ones. [K, K] is 0.

    Raises:
        DataError: a symbol twice, one that is not in `symbols`, or unequal numbers of utterances.

    Example:
        >>> confusion_counts(["ab", "b"], ["b", "ba"], "ab").tolist()
        [[0, 0, 1], [0, 2, 0], [1, 0, 0]]
    """
    position = {symbol: i for i, symbol in enumerate(symbols)}
    if len(position) != len(symbols):
        raise DataError(f"symbols must be distinct, but got {list(symbols)}")
    for sequence in (*references, *hypotheses):
        for symbol in sequence:
            if symbol not in position:
                raise DataError(f"labels must be among {list(symbols)}, but got {symbol!r}")
    absent = len(symbols)
    table = np.zeros((absent + 1, absent + 1), np.int64)
    alignments = _alignments(references, hypotheses)
    for reference, hypothesis, chunks in zip(references, hypotheses, alignments, strict=True):
        for chunk in chunks:
            said = [position[s] for s in reference[chunk.ref_start_idx : chunk.ref_end_idx]]
            heard = [position[s] for s in hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]]
            # "equal" and "substitute" chunks are equally long on both sides; the others one-sided.
            said = said or [absent] * len(heard)
            heard = heard or [absent] * len(said)
            np.add.at(table, (said, heard), 1)
    return table


def _alignments(
    references: Sequence[Sequence[Hashable]], hypotheses: Sequence[Sequence[Hashable]]
) -> list[list[jiwer.AlignmentChunk]]:
    if len(references) != len(hypotheses):
        raise DataError(
            "there must be as many hypotheses as references, but there are "
            f"{len(hypotheses)} and {len(references)}"
        )
    if not references:
        return []
    # jiwer compares words of a text, so each distinct symbol becomes a word.
    words: dict[Hashable, str] = {}
    texts = [
        [" ".join(words.setdefault(s, str(len(words))) for s in sequence) for sequence in group]
        for group in (references, hypotheses)
    ]
    return jiwer.process_words(texts[0], texts[1]).alignments
