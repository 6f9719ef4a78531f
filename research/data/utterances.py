"""Transcribed recordings on disk: the one type that every reader of a speech corpus returns.

Nothing but headers is read until a batch asks for the audio.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

from research.errors import DataError


@dataclass(frozen=True)
class Utterance:
    """One recording and what is said in it.

    Attributes:
        name: its name in the corpus, which no other has.
        path: the audio file.
        text: the transcript as published.
        speaker: who says it.
        frames: samples in the file.
        sample_rate: samples per second in the file.
    """

    name: str
    path: Path
    text: str
    speaker: str
    frames: int
    sample_rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class Corpus:
    """Utterances of one part of a data set, in the order of their names.

    Attributes:
        name: of the part, such as "dev-clean".
        utterances: at least one.
        source: one line for people.
    """

    name: str
    utterances: tuple[Utterance, ...] = field(repr=False)
    source: str

    def __post_init__(self) -> None:
        """Check that there are utterances, each once."""
        if not self.utterances:
            raise DataError(f"{self.name} must hold at least one utterance, but it has none")
        seen: set[str] = set()
        for utterance in self.utterances:
            if utterance.name in seen:
                raise DataError(
                    f"every utterance must occur once, but {utterance.name} occurs twice in "
                    f"{self.name}; remove one of them"
                )
            seen.add(utterance.name)

    def __len__(self) -> int:
        """The number of utterances."""
        return len(self.utterances)

    @cached_property
    def seconds(self) -> Float[np.ndarray, " U"]:
        """How long each utterance is."""
        return np.array([utterance.seconds for utterance in self.utterances])

    @property
    def texts(self) -> list[str]:
        """Every transcript, such as for a tokeniser to learn from."""
        return [utterance.text for utterance in self.utterances]

    @cached_property
    def speakers(self) -> tuple[str, ...]:
        """The distinct speakers, sorted."""
        return tuple(sorted({utterance.speaker for utterance in self.utterances}))

    @cached_property
    def sha256(self) -> str:
        """Fingerprint of names, speakers, transcripts and lengths, not of the audio itself."""
        digest = hashlib.sha256()
        for u in self.utterances:
            line = (u.name, u.speaker, u.text, str(u.frames), str(u.sample_rate))
            digest.update("\t".join(line).encode() + b"\n")
        return digest.hexdigest()

    def between(self, shortest: float, longest: float) -> "Corpus":
        """Only what is from `shortest` to `longest` seconds long.

        Raises:
            DataError: nothing is.
        """
        kept = tuple(u for u in self.utterances if shortest <= u.seconds <= longest)
        if not kept:
            raise DataError(
                f"{self.name} must hold an utterance of {shortest:g} to {longest:g} s, but its "
                f"{len(self)} have {self.seconds.min():g} to {self.seconds.max():g} s"
            )
        return replace(self, utterances=kept)


def make_corpus(name: str, utterances: Iterable[Utterance], source: str) -> Corpus:
    """A corpus in the order of the names, with its size in `source`.

    Args:
        name: of the part.
        utterances: in any order.
        source: what it is, without its size.

    Raises:
        DataError: there is no utterance, or one occurs twice.
    """
    ordered = tuple(sorted(utterances, key=lambda utterance: utterance.name))
    corpus = Corpus(name, ordered, source)
    hours, people = corpus.seconds.sum() / 3600, len(corpus.speakers)
    return replace(
        corpus,
        source=f"{source}: {len(corpus):,} utterances, {hours:.2f} h, "
        f"{people} speaker{'s' if people != 1 else ''}",
    )


def describe_audio(name: str, path: Path, text: str, speaker: str) -> Utterance:
    """An utterance with its length from the header of its file.

    Raises:
        DataError: the text is empty, or the file is missing, unreadable, empty or not mono.
    """
    if not text.strip():
        raise DataError(f"every transcript must have text, but that of {name} is empty")
    if not path.is_file():
        raise DataError(
            f"every transcript must have its audio, but there is no {path} for {name}; fetch the "
            "data set again, or remove the line"
        )
    try:
        header = soundfile.info(str(path))
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise DataError(
            f"audio must be a file that libsndfile can read, but {path} is not ({error}); fetch it "
            "again"
        ) from error
    if header.frames < 1 or header.channels != 1:
        raise DataError(
            f"audio must be mono with at least one sample, but {path} has {header.channels} "
            f"channels and {header.frames} samples; replace it"
        )
    return Utterance(name, path, text.strip(), speaker, header.frames, header.samplerate)


def check_splits(
    splits: Mapping[str, Corpus], *, same_speakers: bool = False, same_texts: bool = True
) -> None:
    """Refuse splits that leak into each other.

    Args:
        splits: the parts by name, such as "train" and "test".
        same_speakers: a speaker may be heard in two of them. For sets with a single speaker: what
            is measured then is not how unseen speakers are recognised.
        same_texts: a sentence may be said in two of them.

    Raises:
        DataError: a file is in two parts, or a speaker or text where it may not be.
    """
    kinds = {
        "audio file": lambda u: str(u.path.resolve()),
        **({} if same_speakers else {"speaker": lambda u: u.speaker}),
        **({} if same_texts else {"text": lambda u: u.text}),
    }
    for kind, of in kinds.items():
        owner: dict[str, str] = {}
        for name, corpus in splits.items():
            for value in sorted({of(u) for u in corpus.utterances}):
                if value in owner:
                    raise DataError(
                        f"no {kind} may be in two splits, but {value!r} is in {owner[value]} and "
                        f"in {name}; take other parts, or leave it out of one of them"
                    )
                owner[value] = name
