"""Corpora in LibriSpeech's layout: `<part>/<speaker>/<chapter>/` with FLAC files and transcripts.

`<speaker>-<chapter>.trans.txt` has a line `<speaker>-<chapter>-<number> TEXT` for each file
`<speaker>-<chapter>-<number>.flac` beside it. LibriSpeech: Panayotov et al. 2015, CC BY 4.0,
https://www.openslr.org/12. Its parts belong into `LibriSpeech/` under the data directory.
"""

import os
import shlex
from pathlib import Path

from research.data.utterances import Corpus, Utterance, check_splits, describe_audio, make_corpus
from research.errors import DataError


def load_librispeech(data_dir: str | os.PathLike[str], part: str) -> Corpus:
    """Load a part of LibriSpeech from `<data_dir>/LibriSpeech/<part>`.

    Args:
        data_dir: the data directory.
        part: such as "train-clean-100", "dev-clean" or "test-clean".

    Returns:
        Its utterances; the text is in capitals, without punctuation but for apostrophes.

    Raises:
        DataError: see `load_chapters`.
    """
    folder = Path(data_dir) / "LibriSpeech" / part
    if not folder.is_dir():
        raise DataError(
            f"LibriSpeech's {part} must lie in {folder}, but there is no such folder; fetch it "
            f"with: python -m research.data fetch {part} --data-dir {shlex.quote(str(data_dir))} "
            f"or, if it does not know it, unpack {part}.tar.gz there, of https://www.openslr.org/12"
        )
    return load_chapters(folder, f"LibriSpeech {part}")


def load_prompts(data_dir: str | os.PathLike[str]) -> tuple[Corpus, Corpus]:
    """Load English telephone prompts from `<data_dir>/prompts`, for training and for the test.

    One professional speaker (Allison Smith, Digium; CC BY-SA 3.0) in both parts, which share no
    text: a demonstration, not a measure of how unseen speakers are recognised.

    Args:
        data_dir: the data directory.

    Returns:
        The training and the test part.

    Raises:
        DataError: see `load_chapters`; or the parts share a text.
    """
    folder = Path(data_dir) / "prompts"
    parts = {
        split: load_chapters(folder / f"{split}-prompts", f"telephone prompts, {split} part")
        for split in ("train", "test")
    }
    check_splits(parts, same_speakers=True, same_texts=False)
    return parts["train"], parts["test"]


def load_chapters(folder: str | os.PathLike[str], source: str) -> Corpus:
    """Load every chapter under a folder of this layout.

    Args:
        folder: the part, with a folder for each speaker.
        source: what it is, for people.

    Returns:
        Its utterances, by name; the corpus is named after the folder.

    Raises:
        DataError: there is no folder or no utterance in it, audio without transcript or transcript
            without audio, an empty text, a line or file with a name that does not fit, an utterance
            that occurs twice, or audio that cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"{source} must lie in {folder}, but there is no such folder; put there, as in "
            "LibriSpeech, <speaker>/<chapter>/<speaker>-<chapter>-<number>.flac and beside them "
            "<speaker>-<chapter>.trans.txt, a line for each: its name and its text in capitals"
        )
    chapters = sorted(path for path in folder.glob("*/*") if path.is_dir())
    if not chapters:
        raise DataError(
            f"{folder} must have folders <speaker>/<chapter>, but has none; is it the part itself, "
            "such as LibriSpeech/dev-clean?"
        )
    utterances = [utterance for chapter in chapters for utterance in _read_chapter(chapter)]
    return make_corpus(folder.name, utterances, source)


def _read_chapter(chapter: Path) -> list[Utterance]:
    speaker = chapter.parent.name
    prefix = f"{speaker}-{chapter.name}"
    transcript = chapter / f"{prefix}.trans.txt"
    # Hidden files are left by file managers.
    audio = {p.stem: p for p in sorted(chapter.glob("*.flac")) if not p.name.startswith(".")}
    try:
        lines = transcript.read_text("utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError(
            f"every chapter must have its transcript, but there is no {transcript} for "
            f"{len(audio)} audio files; fetch it again"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"a transcript must be UTF-8 text, but {transcript} is not ({error}); fetch it again"
        ) from error
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, text = line.partition(" ")
        if not name.startswith(f"{prefix}-"):
            raise DataError(
                f"a transcript line must begin with a name {prefix}-<number>, but line {number} of "
                f"{transcript} begins with {name!r}"
            )
        if name in texts:
            raise DataError(f"every utterance must occur once, but {name} is twice in {transcript}")
        texts[name] = text
    untold = sorted(audio.keys() - texts.keys())
    if untold:
        raise DataError(
            f"every audio file must have its transcript, but {audio[untold[0]]} has no line in "
            f"{transcript} ({len(untold)} such files); fetch it again, or move them away"
        )
    return [
        describe_audio(name, audio.get(name, chapter / f"{name}.flac"), text, speaker)
        for name, text in texts.items()
    ]
