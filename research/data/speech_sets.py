"""Speech corpora to train one recogniser on, each with the parts that it is watched and tested on.

| name | training | validation | test |
|---|---|---|---|
| librispeech | the parts that are named | dev-clean, dev-other | test-clean, test-other |
| common_voice | train of a language | dev | test |
| prompts | a speaker's telephone prompts | a tenth of their texts | other texts |
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from research.data.common_voice import load_common_voice
from research.data.librispeech import load_librispeech, load_prompts
from research.data.utterances import Corpus, check_splits, make_corpus
from research.errors import DataError
from research.names import look_up

PUBLISHED_HOURS: Mapping[str, float] = {
    "train-clean-100": 100.6,
    "train-clean-360": 363.6,
    "train-other-500": 496.7,
}
"""Length of LibriSpeech's training parts (Panayotov et al. 2015, table 1)."""

_VALIDATION_SHARE = 10  # one text of so many of the prompts


@dataclass(frozen=True)
class SpeechSet:
    """What a recogniser is trained on, and what it is measured on.

    Attributes:
        train: for training.
        validation: by the name of the part, for watching the training and for choices.
        test: by the name of the part, for the end.
    """

    train: Corpus
    validation: Mapping[str, Corpus]
    test: Mapping[str, Corpus]

    @property
    def sha256(self) -> str:
        """Fingerprint of all parts, without the audio."""
        digest = hashlib.sha256(self.train.sha256.encode())
        for parts in (self.validation, self.test):
            for name, corpus in parts.items():
                digest.update(f"{name} {corpus.sha256}\n".encode())
        return digest.hexdigest()


def load_speech_set(
    name: str,
    data_dir: Path,
    *,
    train_parts: tuple[str, ...] = ("train-clean-100",),
    language: str = "en",
) -> SpeechSet:
    """Load a corpus with its parts.

    Args:
        name: one of `SPEECH_SETS`.
        data_dir: the data directory.
        train_parts: of LibriSpeech.
        language: folder of Common Voice, under `common_voice/`.

    Returns:
        The parts; no speaker of LibriSpeech or Common Voice is in two of them.

    Raises:
        ConfigError: no such corpus.
        DataError: see the corpus's own reader; or parts that leak into each other.
    """
    return look_up(SPEECH_SETS, name, "speech set")(data_dir, train_parts, language)


def merge(name: str, corpora: Mapping[str, Corpus]) -> Corpus:
    """One corpus of several; `source` says what of.

    Raises:
        DataError: an utterance is in two of them.
    """
    utterances = [utterance for corpus in corpora.values() for utterance in corpus.utterances]
    return make_corpus(name, utterances, " and ".join(corpora))


def positions(merged: Corpus, parts: Mapping[str, Corpus]) -> dict[str, list[int]]:
    """Where the utterances of each part are in a corpus that was merged of them."""
    owner = {u.name: part for part, corpus in parts.items() for u in corpus.utterances}
    found: dict[str, list[int]] = {part: [] for part in parts}
    for i, utterance in enumerate(merged.utterances):
        found[owner[utterance.name]].append(i)
    return found


def thinned(corpus: Corpus, count: int) -> Corpus:
    """So many of the utterances, at even distances; all of them where there are no more."""
    if count >= len(corpus):
        return corpus
    chosen = np.linspace(0, len(corpus) - 1, count).round().astype(int)
    return replace(corpus, utterances=tuple(corpus.utterances[int(i)] for i in chosen))


def check_rates(parts: SpeechSet, sample_rate: int) -> None:
    """Refuse audio files of another rate, which would be resampled without a word.

    Raises:
        DataError: a file of another rate; the first of them is named.
    """
    for corpus in (parts.train, *parts.validation.values(), *parts.test.values()):
        strangers = [u for u in corpus.utterances if u.sample_rate != sample_rate]
        if strangers:
            raise DataError(
                f"audio must be sampled at {sample_rate} Hz, but {len(strangers)} of the "
                f"{len(corpus)} files of {corpus.name} are not: {strangers[0].path} has "
                f"{strangers[0].sample_rate} Hz. Is it the right corpus? --resample takes any rate."
            )


def _librispeech(data_dir: Path, train_parts: tuple[str, ...], language: str) -> SpeechSet:
    del language
    read = {part: load_librispeech(data_dir, part) for part in train_parts}
    train = merge("+".join(train_parts), read)
    train = replace(train, source=f"LibriSpeech {train.source}")
    parts = SpeechSet(
        train,
        {part: load_librispeech(data_dir, part) for part in ("dev-clean", "dev-other")},
        {part: load_librispeech(data_dir, part) for part in ("test-clean", "test-other")},
    )
    check_splits({"training": train, **parts.validation, **parts.test})
    return parts


def _common_voice(data_dir: Path, train_parts: tuple[str, ...], language: str) -> SpeechSet:
    del train_parts
    found = load_common_voice(data_dir / "common_voice" / language)
    return SpeechSet(found["train"], {"dev": found["dev"]}, {"test": found["test"]})


def _prompts(data_dir: Path, train_parts: tuple[str, ...], language: str) -> SpeechSet:
    """A text that was recorded twice is on one side, and on the same one wherever it lies."""
    del train_parts, language
    train, test = load_prompts(data_dir)
    kept: dict[bool, list] = {True: [], False: []}
    for utterance in train.utterances:
        # Not of the text alone: by that hash the test part was taken out.
        number = int(hashlib.sha256(f"validation {utterance.text}".encode()).hexdigest(), 16)
        kept[number % _VALIDATION_SHARE == 0].append(utterance)
    if not kept[True]:
        raise DataError(
            f"the prompts must have a text for validation, but of the {len(train)} in {train.name} "
            "none was drawn; fetch the data set again"
        )
    validation = make_corpus("validation", kept[True], "telephone prompts")
    rest = make_corpus(train.name, kept[False], "telephone prompts")
    check_splits(
        {"train": rest, "validation": validation, "test": test},
        same_speakers=True,
        same_texts=False,
    )
    return SpeechSet(rest, {"validation": validation}, {"test": test})


SPEECH_SETS: Mapping[str, Callable[[Path, tuple[str, ...], str], SpeechSet]] = {
    "librispeech": _librispeech,
    "common_voice": _common_voice,
    "prompts": _prompts,
}
"""Readers by name."""
