"""Text as label ids of CTC and back: characters, or subwords learned by SentencePiece.

Ids are 0..size - 1, of which one is the blank, which no text has: `kernels.ctc_loss` takes them
with `blank_id=tokeniser.blank_id`, and a model has `tokeniser.size` outputs.
"""

import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, Int

from research.errors import ConfigError, DataError
from research.speech.text import TextNorm

Blank = Literal["first", "last"]
"""Whether the blank is id 0 (wav2vec 2.0, ours) or the last one (NeMo's Parakeet)."""

_UNKNOWN = "⁇"
_CHARACTERS, _SUBWORDS = "trellis characters 1", "trellis subwords 1"


class Tokeniser(Protocol):
    """What every tokeniser offers."""

    @property
    def size(self) -> int:
        """Ids, with the blank."""
        ...

    @property
    def blank_id(self) -> int:
        """The id of the blank."""
        ...

    def encode(self, text: str) -> list[int]:
        """Normalise the text and return its ids, never the blank."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids without blanks or repetitions, as a decoder returns them."""
        ...

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a JSON file, for `load_tokeniser`."""
        ...


@dataclass(frozen=True)
class CharacterTokeniser:
    """One id a character.

    Attributes:
        characters: in the order of their ids, with the space if there is one.
        blank: where the blank is among the ids.
        unknown: what to do with another character: "error", "replace" it by an id of its own, which
            is the last one before or after which the blank comes, or "skip" it.
        norm: applied to text first.

    Example:
        >>> tokeniser = CharacterTokeniser(" abcd")
        >>> tokeniser.encode("Bad  cab"), tokeniser.decode([3, 2, 5])
        ([3, 2, 5, 1, 4, 2, 3], 'bad')
    """

    characters: str
    blank: Blank = "first"
    unknown: Literal["error", "replace", "skip"] = "error"
    norm: TextNorm = field(default_factory=TextNorm)

    def __post_init__(self) -> None:
        """Check that ids and characters stand for each other."""
        _check_blank(self.blank)
        if self.unknown not in ("error", "replace", "skip"):
            raise ConfigError(
                f"unknown characters are an 'error', 'replace' or 'skip', but got {self.unknown!r}"
            )
        if not self.characters or len(set(self.characters)) != len(self.characters):
            raise ConfigError(
                f"a character tokeniser needs characters, each once, but got {self.characters!r}"
            )
        if _UNKNOWN in self.characters:
            raise ConfigError(f"{_UNKNOWN} stands for unknown characters and cannot be one itself")
        strangers = [c for c in self.characters if c != " " and self.norm(c) != c]
        if strangers:
            raise ConfigError(
                "every character must come through the normalisation of text as it is, but "
                f"{strangers[0]!r} becomes {self.norm(strangers[0])!r}; change it, or the TextNorm"
            )

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        *,
        blank: Blank = "first",
        unknown: Literal["error", "replace", "skip"] = "error",
        norm: TextNorm | None = None,
    ) -> "CharacterTokeniser":
        """The characters of the texts, in the order of Unicode.

        Raises:
            DataError: there is no character in the texts.
        """
        norm = TextNorm() if norm is None else norm
        characters = sorted(set().union(*(norm(text) for text in texts)))
        if not characters:
            raise DataError("the texts must have at least one character, but have none")
        return cls("".join(characters), blank, unknown, norm)

    @property
    def size(self) -> int:
        """Ids: the characters, the blank, and one for unknown ones if they are replaced."""
        return len(self.characters) + 1 + (self.unknown == "replace")

    @property
    def blank_id(self) -> int:
        """The id of the blank."""
        return 0 if self.blank == "first" else self.size - 1

    @cached_property
    def _symbols(self) -> tuple[str, ...]:
        """What each id stands for; the blank for nothing."""
        symbols = [*self.characters, *([_UNKNOWN] if self.unknown == "replace" else [])]
        return ("", *symbols) if self.blank == "first" else (*symbols, "")

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {symbol: i for i, symbol in enumerate(self._symbols) if symbol}

    def encode(self, text: str) -> list[int]:
        """Normalise the text and return the id of each character.

        Raises:
            DataError: a character is unknown, where that is an error.
        """
        ids, normal = [], self.norm(text)
        if self.unknown == "skip":  # and the spaces around it are one
            normal = " ".join("".join(c for c in normal if c in self._ids).split())
        for position, character in enumerate(normal):
            known = self._ids.get(character)
            if known is None and self.unknown == "error":
                raise DataError(
                    f"text must be made of {self.characters!r}, but character {position} of "
                    f"{normal!r} is {character!r}; add it, or choose unknown='replace' or 'skip'"
                )
            ids.append(self._ids[_UNKNOWN] if known is None else known)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; an unknown character comes back as ⁇.

        Raises:
            DataError: an id is out of range, or the blank.
        """
        ids = _checked(ids, self)
        return "".join(self._symbols[i] for i in ids)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a JSON file."""
        _write(path, {"kind": _CHARACTERS, **asdict(self)})


@dataclass(frozen=True)
class SubwordTokeniser:
    """Pieces of words from a SentencePiece model, whose ids keep their order beside the blank.

    The package sentencepiece is in the extra `subwords`.

    Attributes:
        model: the bytes of a SentencePiece model, which has a piece for what is unknown.
        blank: where the blank is among the ids.
        norm: applied to text first.

    Source: Kudo & Richardson 2018, "SentencePiece: A simple and language independent subword
    tokenizer", arXiv:1808.06226.
    """

    model: bytes = field(repr=False)
    blank: Blank = "first"
    norm: TextNorm = field(default_factory=TextNorm)

    def __post_init__(self) -> None:
        """Check that the model can be read."""
        _check_blank(self.blank)
        _ = self._processor

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        pieces: int,
        *,
        kind: Literal["unigram", "bpe"] = "unigram",
        blank: Blank = "first",
        norm: TextNorm | None = None,
    ) -> "SubwordTokeniser":
        """Learn pieces from texts; the same texts give the same pieces.

        Args:
            texts: transcripts of the training part only.
            pieces: how many, with one for what is unknown, without the blank.
            kind: SentencePiece's unigram model, or byte pair encoding.
            blank: where the blank is among the ids.
            norm: applied to text first.

        Raises:
            ConfigError: sentencepiece is not installed, or there can be no such number of pieces.
            DataError: there is no text.
        """
        norm = TextNorm() if norm is None else norm
        lines = [line for line in map(norm, texts) if line]
        if not lines:
            raise DataError("pieces are learned from text, but every text is empty")
        model = io.BytesIO()
        try:
            _sentencepiece().SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                vocab_size=pieces,
                model_type=kind,
                character_coverage=1.0,
                normalization_rule_name="identity",
                unk_id=0,
                bos_id=-1,
                eos_id=-1,
                num_threads=1,
                minloglevel=2,
            )
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise ConfigError(
                f"{pieces} pieces of kind {kind!r} cannot be learned from {len(lines)} texts: "
                f"{reason}"
            ) from error
        return cls(model.getvalue(), blank, norm)

    @cached_property
    def _processor(self) -> Any:
        sentencepiece = _sentencepiece()
        processor = sentencepiece.SentencePieceProcessor()
        try:
            loaded = processor.LoadFromSerializedProto(self.model)
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(
                "a subword tokeniser needs the bytes of a whole SentencePiece model, but "
                f"{len(self.model)} bytes are not one ({error}); save it again"
            ) from error
        if loaded is False or processor.GetPieceSize() == 0:
            raise DataError(
                "a subword tokeniser needs the bytes of a whole SentencePiece model, but "
                f"{len(self.model)} bytes are not one; save it again"
            )
        return processor

    @property
    def size(self) -> int:
        """Ids: the pieces and the blank."""
        return self._processor.GetPieceSize() + 1

    @property
    def blank_id(self) -> int:
        """The id of the blank."""
        return 0 if self.blank == "first" else self.size - 1

    @property
    def pieces(self) -> tuple[str, ...]:
        """Every piece in the order of its id, ▁ for the space before a word, without the blank."""
        return tuple(self._processor.IdToPiece(i) for i in range(self.size - 1))

    def encode(self, text: str) -> list[int]:
        """Normalise the text and return the ids of its likeliest pieces."""
        first = int(self.blank == "first")
        return [piece + first for piece in self._processor.EncodeAsIds(self.norm(text))]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; an unknown piece comes back as ⁇.

        Raises:
            DataError: an id is out of range, or the blank.
        """
        first = int(self.blank == "first")
        return self._processor.DecodeIds([i - first for i in _checked(ids, self)]).strip()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a JSON file, the model in hexadecimal digits."""
        values = {"model": self.model.hex(), "blank": self.blank, "norm": asdict(self.norm)}
        _write(path, {"kind": _SUBWORDS, **values})


def load_tokeniser(
    path: str | os.PathLike[str],
) -> CharacterTokeniser | SubwordTokeniser:
    """Read what `save` has written.

    Raises:
        DataError: there is no such file, or it is not a tokeniser's.
    """
    try:
        values = json.loads(Path(path).read_text("utf-8"))
        kind, norm = values.pop("kind"), TextNorm(**values.pop("norm"))
        if kind == _CHARACTERS:
            return CharacterTokeniser(norm=norm, **values)
        if kind == _SUBWORDS:
            return SubwordTokeniser(bytes.fromhex(values.pop("model")), norm=norm, **values)
        reason = f"it is of kind {kind!r}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise DataError(
        f"a tokeniser must be a JSON file that one was saved to, but {path} is not ({reason})"
    )


def label_batch(
    tokeniser: Tokeniser, texts: Sequence[str], *, length: int | None = None
) -> tuple[Int[np.ndarray, "B N"], Float[np.ndarray, "B N"]]:
    """Labels of a batch as `kernels.ctc_loss` and `optax.ctc_loss` take them.

    Args:
        tokeniser: from text to ids.
        texts: B transcripts.
        length: labels N; None for those of the longest text, at least 1.

    Returns:
        Labels, int32 (B, N), the blank in padding; and paddings, float32 (B, N), 1 in padding.

    Raises:
        DataError: a text has more labels than `length`.

    Example:
        >>> labels, paddings = label_batch(CharacterTokeniser("ab"), ["abba", "b"])
        >>> labels.tolist(), paddings.tolist()
        ([[1, 2, 2, 1], [2, 0, 0, 0]], [[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]])
    """
    rows = [tokeniser.encode(text) for text in texts]
    longest = max(map(len, rows), default=0)
    length = max(longest, 1) if length is None else length
    if longest > length:
        text = texts[max(range(len(rows)), key=lambda i: len(rows[i]))]
        raise DataError(
            f"every text must fit into {length} labels, but {text!r} has {longest}; allow more, "
            "leave it out, or take larger pieces"
        )
    labels = np.full((len(rows), length), tokeniser.blank_id, np.int32)
    paddings = np.ones((len(rows), length), np.float32)
    for i, row in enumerate(rows):
        labels[i, : len(row)], paddings[i, : len(row)] = row, 0.0
    return labels, paddings


def _check_blank(blank: str) -> None:
    if blank not in ("first", "last"):
        raise ConfigError(f"the blank is the 'first' or the 'last' id, but got {blank!r}")


def _checked(ids: Iterable[int], tokeniser: Tokeniser) -> list[int]:
    ids = [int(i) for i in ids]
    for i in ids:
        if not 0 <= i < tokeniser.size or i == tokeniser.blank_id:
            raise DataError(
                f"ids to decode must lie in 0..{tokeniser.size - 1} and not be the blank "
                f"({tokeniser.blank_id}), but one is {i}; collapse the path of a CTC model first"
            )
    return ids


def _write(path: str | os.PathLike[str], values: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _sentencepiece() -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise ConfigError(
            "subwords need the package sentencepiece; install it with pip install "
            "'trellis-lab[subwords]'"
        ) from error
    return sentencepiece
