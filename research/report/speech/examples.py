"""The test strings kept as examples of a speech run: read, compared, shown with their errors."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import jiwer
import numpy as np
from jaxtyping import Float, Int

from research.errors import RunError
from research.plots import Heard
from research.report.page import Html, element


class Example(NamedTuple):
    """One test string; alignment and posteriors are per output frame of the encoder."""

    labels: tuple[int, ...]
    hypothesis: tuple[int, ...]
    log_mel: Float[np.ndarray, "T F"]
    log_posteriors: Float[np.ndarray, "U K"]
    alignment: Int[np.ndarray, "U"]
    hop_seconds: float
    frame_seconds: float
    waveform: Float[np.ndarray, "S"]
    sample_rate: float
    boundaries: Float[np.ndarray, "N 2"] | None  # seconds

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return sum(kind != "equal" for kind, _, _ in compare(self.labels, self.hypothesis))


def read_examples(arrays: Mapping[str, np.ndarray], where: str) -> list[Example]:
    """The examples in one file, in its order; padding (zeros) of labels is dropped.

    Raises:
        RunError: an array is missing or does not fit the others.
    """
    found = []
    for i in range(sum(key.startswith("labels_") for key in arrays)):
        try:
            example = Example(
                tuple(int(k) for k in np.ravel(arrays[f"labels_{i}"]) if k),
                tuple(int(k) for k in np.ravel(arrays[f"hypothesis_{i}"]) if k),
                np.asarray(arrays[f"log_mel_{i}"], dtype=float),
                np.asarray(arrays[f"log_posteriors_{i}"], dtype=float),
                np.asarray(arrays[f"alignment_{i}"], dtype=int),
                float(arrays["hop_seconds"]),
                float(arrays["frame_seconds"]),
                np.asarray(arrays[f"waveform_{i}"], dtype=float),
                float(arrays["sample_rate"]),
                _boundaries(arrays, i),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"the examples of {where} are damaged: {error}") from error
        classes = example.log_posteriors.shape[-1] if example.log_posteriors.ndim == 2 else 0
        fits = (
            example.log_mel.ndim == 2
            and example.alignment.shape == example.log_posteriors.shape[:1]
            and example.alignment.size > 0
            and np.isfinite(example.log_mel).all()
            and example.waveform.ndim == 1
            and example.waveform.size > 0
            and example.sample_rate > 0
            and (example.boundaries is None or example.boundaries.shape[1:] == (2,))
            and max((*example.labels, *example.hypothesis, *example.alignment), default=0) < classes
        )
        if not fits:
            raise RunError(
                f"the examples of {where} are damaged: log_mel_{i} {example.log_mel.shape}, "
                f"log_posteriors_{i} {example.log_posteriors.shape} and alignment_{i} "
                f"{example.alignment.shape} do not fit together"
            )
        found.append(example)
    return found


def heard(example: Example, title: str) -> Heard:
    """As the figures take it."""
    return Heard(
        example.log_mel, example.log_posteriors, example.alignment, example.hop_seconds,
        example.frame_seconds, example.waveform, example.sample_rate, example.boundaries, title,
    )  # fmt: skip


def same_audio(one: Example, other: Example) -> bool:
    """Whether two are of one string."""
    return one.labels == other.labels and np.array_equal(one.waveform, other.waveform)


def compare(
    reference: Sequence[int], hypothesis: Sequence[int]
) -> list[tuple[str, int | None, int | None]]:
    """The edits that turn the reference into the hypothesis: (kind, said, heard) per symbol.

    Kinds are "equal", "substitute", "delete" and "insert".

    Example:
        >>> compare([1, 2, 3], [1, 3, 3, 4])[1:]
        [('substitute', 2, 3), ('equal', 3, 3), ('insert', None, 4)]
        >>> compare([1, 2], [])
        [('delete', 1, None), ('delete', 2, None)]
    """
    if not reference or not hypothesis:
        kind = "delete" if reference else "insert"
        return [(kind, *pair) for pair in zip_longest(reference, hypothesis)]
    made: list[tuple[str, int | None, int | None]] = []
    for chunk in jiwer.process_words(_words(reference), _words(hypothesis)).alignments[0]:
        said = reference[chunk.ref_start_idx : chunk.ref_end_idx]
        heard = hypothesis[chunk.hyp_start_idx : chunk.hyp_end_idx]
        made += [(chunk.type, *pair) for pair in zip_longest(said, heard)]
    return made


def transcript(example: Example, names: Sequence[str]) -> tuple[Html, Html]:
    """Reference and hypothesis under each other, symbol by symbol, with the errors marked.

    A dot stands where the other line has a symbol and this one has none.
    """
    said, heard = [], []
    for kind, one, other in compare(example.labels, example.hypothesis):
        width = max(len(names[one]) if one else 1, len(names[other]) if other else 1)
        for line, symbol in ((said, one), (heard, other)):
            text = (names[symbol] if symbol else "·").ljust(width)
            line.append(text if kind == "equal" else element("mark", text))
    return (
        element("span", *said, class_="digits"),
        element("span", *heard, class_="digits"),
    )


def chosen(examples: Sequence[Example], most: int = 3) -> tuple[list[Example], list[Example]]:
    """The examples with most errors, and as many without one; in the file's order where equal.

    Example:
        >>> chosen([])
        ([], [])
    """
    order = sorted(examples, key=lambda example: -example.errors)  # stable: the file's order
    worst = [example for example in order if example.errors]
    right = [example for example in order if not example.errors]
    return worst[:most], right[:most]


def spoken(symbols: Sequence[int], names: Sequence[str], most: int = 48) -> str:
    """Symbols as text: letters and pieces of words run together, other symbols do not.

    Example:
        >>> spoken([2, 1], ["-", "0", "1"]), spoken([1, 2, 1], ["-", "a", " "])
        ('1 0', 'a a')
    """
    if not symbols:
        return "nothing"
    pieces = any(name.startswith("\N{LOWER ONE EIGHTH BLOCK}") for name in names)
    text = ("" if pieces or " " in names else " ").join(names[symbol] for symbol in symbols)
    text = text.replace("\N{LOWER ONE EIGHTH BLOCK}", " ").strip()
    return text if len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def figure_title(example: Example, names: Sequence[str]) -> str:
    """What was said and what was recognised, on two lines."""
    said, hypothesis = spoken(example.labels, names), spoken(example.hypothesis, names)
    return f"said {said}\nrecognised {hypothesis}"


def _boundaries(arrays: Mapping[str, np.ndarray], i: int) -> Float[np.ndarray, "N 2"] | None:
    found = arrays.get(f"boundaries_{i}")
    return None if found is None else np.asarray(found, dtype=float)


def _words(symbols: Sequence[int]) -> str:
    return " ".join(str(symbol) for symbol in symbols)
