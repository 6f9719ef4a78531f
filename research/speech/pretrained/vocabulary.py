"""The labels of a checkpoint: characters (vocab.json) or word pieces (tokenizer.json)."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from research.errors import ConfigError, DataError
from research.speech.pretrained.files import read_json, read_text, typed

FILES = (
    "vocab.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""Where a checkpoint describes its vocabulary."""

_WORD_START = "▁"
_UNKNOWN = "<unk>"


@dataclass(frozen=True)
class Characters:
    """Characters, or other units that are written without spaces between them.

    Attributes:
        tokens: the text of each label, by its number.
        delimiter: the token between words.
        lower: the tokens are upper case and transcripts lower case.
    """

    tokens: tuple[str, ...]
    delimiter: str = "|"
    lower: bool = False

    def encode(self, text: str) -> list[int]:
        """Labels of a text; words are separated by spaces.

        Raises:
            DataError: a character that no token has.

        Example:
            >>> Characters(("<pad>", "|", "a", "b", "ch")).encode("ach b")
            [2, 4, 1, 3]
        """
        cased = text.upper() if self.lower else text
        spaced = " ".join(cased.split()).replace(" ", self.delimiter)
        pieces = self._pattern.findall(spaced)
        unknown = sorted({piece for piece in pieces if piece not in self._numbers})
        if unknown:
            raise DataError(
                f"a text must be made of the tokens of the vocabulary, but {text!r} also has "
                f"{', '.join(map(repr, unknown))}; spell it out or leave it out"
            )
        return [self._numbers[piece] for piece in pieces]

    def decode(self, labels: Sequence[int]) -> str:
        """The text of labels, without blanks.

        Example:
            >>> Characters(("<pad>", "|", "a", "b")).decode([2, 1, 3, 1])
            'a b'
        """
        text = "".join(
            " " if self.tokens[label] == self.delimiter else self.tokens[label] for label in labels
        ).strip()
        return text.lower() if self.lower else text

    def words(self, labels: Sequence[int]) -> list[range]:
        """Which labels make up each word.

        Example:
            >>> Characters(("<pad>", "|", "a", "b")).words([2, 3, 1, 1, 2])
            [range(0, 2), range(4, 5)]
        """
        gaps = [i for i, label in enumerate(labels) if self.tokens[label] == self.delimiter]
        edges = [-1, *gaps, len(labels)]
        spans = [range(a + 1, b) for a, b in pairwise(edges)]
        return [span for span in spans if len(span)]

    def files(self, blank_id: int) -> dict[str, str]:
        """The files of a checkpoint that describe this vocabulary, by name."""
        blank = self.tokens[blank_id]
        settings = {
            "tokenizer_class": "Wav2Vec2CTCTokenizer",
            "pad_token": blank,
            "word_delimiter_token": self.delimiter,
            "do_lower_case": self.lower,
            "unk_token": _UNKNOWN if _UNKNOWN in self._numbers else blank,
            "bos_token": "<s>" if "<s>" in self._numbers else None,
            "eos_token": "</s>" if "</s>" in self._numbers else None,
        }
        return {
            "vocab.json": json.dumps(self._numbers, ensure_ascii=False),
            "tokenizer_config.json": json.dumps(settings, indent=2),
        }

    @cached_property
    def _numbers(self) -> dict[str, int]:
        numbers: dict[str, int] = {}
        for number, token in enumerate(self.tokens):
            numbers.setdefault(token, number)
        return numbers

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.tokens, key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, longest_first), "."]), re.DOTALL)


@dataclass(frozen=True)
class WordPieces:
    """Pieces of words, of which those that begin one start with "▁".

    Attributes:
        tokenizer: the contents of tokenizer.json.

    Raises:
        ConfigError: the library ``tokenizers`` is not installed.
        DataError: it cannot read the file.
    """

    tokenizer: str = field(repr=False)

    def __post_init__(self) -> None:
        """Check that the library can read it."""
        self._library.get_vocab_size()

    @property
    def numbers(self) -> dict[str, int]:
        """The label of each token."""
        return self._library.get_vocab()

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text of each label, by its number."""
        size = self._library.get_vocab_size()
        return tuple(self._library.id_to_token(number) or "" for number in range(size))

    def encode(self, text: str) -> list[int]:
        """Labels of a text."""
        return list(self._library.encode(text, add_special_tokens=False).ids)

    def decode(self, labels: Sequence[int]) -> str:
        """The text of labels, without blanks."""
        return self._library.decode(list(labels), skip_special_tokens=False).strip()

    def words(self, labels: Sequence[int]) -> list[range]:
        """Which labels make up each word."""
        starts = [i for i, label in enumerate(labels) if self._starts_word(label)]
        if labels and starts[:1] != [0]:
            starts = [0, *starts]
        edges = [*starts, len(labels)]
        return [range(a, b) for a, b in pairwise(edges)]

    def files(self, blank_id: int) -> dict[str, str]:
        """The files of a checkpoint that describe this vocabulary, by name."""
        blank = self.tokens[blank_id]
        settings = {"tokenizer_class": "ParakeetTokenizer", "pad_token": blank}
        return {
            "tokenizer.json": self.tokenizer,
            "tokenizer_config.json": json.dumps(settings, indent=2),
        }

    def _starts_word(self, label: int) -> bool:
        return (self._library.id_to_token(label) or "").startswith(_WORD_START)

    @cached_property
    def _library(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ConfigError(
                "tokenizer.json is read by the library tokenizers, which is not installed; "
                "pip install 'trellis-lab[pretrained]'"
            ) from error
        try:
            return Tokenizer.from_str(self.tokenizer)
        except Exception as error:  # the library raises nothing narrower
            raise DataError(
                f"tokenizer.json must be one of the library tokenizers, but cannot be read "
                f"({error}); copy it from where the weights come from"
            ) from error


Vocabulary = Characters | WordPieces


def read_vocabulary(directory: Path, size: int, language: str | None = None) -> Vocabulary:
    """The vocabulary of a checkpoint.

    Labels of the model that no file names are called "<unk>".

    Args:
        directory: of the checkpoint.
        size: how many labels the model has.
        language: which of the vocabularies, where vocab.json has one for each language; by default
            the one that tokenizer_config.json names.

    Returns:
        The labels.

    Raises:
        DataError: the files are missing, damaged, name more labels than the model has or fewer than
            two, or have no such language.
        ConfigError: the library ``tokenizers`` is needed and not installed.
    """
    if (directory / "vocab.json").is_file():
        return _characters(directory, size, language)
    if not (directory / "tokenizer.json").is_file():
        raise DataError(
            f"a checkpoint needs vocab.json or tokenizer.json for its labels, but {directory} "
            "has neither; copy it from where the weights come from"
        )
    if language is not None:
        raise DataError(f"{directory} has one vocabulary, not one for {language!r}")
    pieces = WordPieces(read_text(directory / "tokenizer.json"))
    _check_numbers(pieces.numbers, size, directory / "tokenizer.json")
    return pieces


def _characters(directory: Path, size: int, language: str | None) -> Characters:
    settings = read_json(directory / "special_tokens_map.json", {})
    settings |= read_json(directory / "tokenizer_config.json", {})
    numbers = read_json(directory / "vocab.json")
    if any(isinstance(value, dict) for value in numbers.values()):
        language = language or settings.get("target_lang")
        chosen = numbers.get(language) if isinstance(language, str) else None
        if not isinstance(chosen, dict):
            raise DataError(
                f"vocab.json has a vocabulary for each of {', '.join(sorted(numbers))}; choose one "
                f"as language, not {language!r}"
            )
        numbers = chosen
    elif language is not None:
        raise DataError(f"vocab.json in {directory} has one vocabulary, not one for {language!r}")
    _check_numbers(numbers, size, directory / "vocab.json")
    added = {
        token: typed(number, int, f"{token!r} in added_tokens.json", least=0)
        for token, number in read_json(directory / "added_tokens.json", {}).items()
    }
    tokens = [_UNKNOWN] * size
    for token, number in (added | numbers).items():
        if number < size:
            tokens[number] = token
    delimiter = settings.get("word_delimiter_token") or "|"
    if isinstance(delimiter, dict):
        # A special token is written as text, or as a record that has it as its content.
        delimiter = delimiter.get("content")
    return Characters(
        tuple(tokens),
        typed(delimiter, str, "word_delimiter_token in tokenizer_config.json"),
        typed(
            settings.get("do_lower_case") or False, bool, "do_lower_case in tokenizer_config.json"
        ),
    )


def _check_numbers(numbers: Mapping[str, Any], size: int, path: Path) -> None:
    """Refuse tokens that are not labels of the model, and a vocabulary without any."""
    for token, number in numbers.items():
        if type(number) is not int or not 0 <= number < size:
            raise DataError(
                f"{path.name} must give each token a number from 0 to {size - 1}, since the model "
                f"has {size} labels, but in {path.parent} it gives {token!r} the number "
                f"{number!r}; is it that of another model?"
            )
    if len({*numbers.values()}) < 2:
        raise DataError(
            f"{path.name} must name the {size} labels of the model, the blank and what it can "
            f"say, but in {path.parent} it names {len(numbers)}; copy it from where the weights "
            "come from"
        )
