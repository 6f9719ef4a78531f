"""Training of one recogniser: its tokeniser on disk, texts that do not fit."""

import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from research.data.utterances import Corpus
from research.errors import DataError, RunError
from research.speech.recogniser import FrontEnd
from research.speech.tokenisers import CharacterTokeniser, SubwordTokeniser, load_tokeniser

AnyTokeniser = CharacterTokeniser | SubwordTokeniser


def keep_tokeniser(
    folder: Path, checkpoints: Path, make: Callable[[], AnyTokeniser]
) -> AnyTokeniser:
    """The tokeniser of a training: made and saved when it starts, read again when it goes on.

    The fingerprint lies beside the checkpoints: labels of another tokeniser would mean other text.

    Args:
        folder: of the run; the tokeniser is in `tokeniser.json`.
        checkpoints: of the training.
        make: learns it.

    Returns:
        The tokeniser that the checkpoints go with.

    Raises:
        RunError: it is gone, or is another one than the checkpoints were trained with.
        DataError: the file is damaged.
    """
    path, mark = folder / "tokeniser.json", checkpoints / "tokeniser.sha256"
    if not mark.is_file():
        tokeniser = make()
        tokeniser.save(path)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(_fingerprint(path))
        return tokeniser
    if not path.is_file() or _fingerprint(path) != mark.read_text():
        found = f"has {load_tokeniser(path).size} ids" if path.is_file() else "is gone"
        raise RunError(
            f"{path} must be the tokeniser that the checkpoints in {checkpoints} were trained "
            f"with, but it was changed: it {found}. Put the former one back, or start anew with "
            "--fresh."
        )
    return load_tokeniser(path)


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def count_too_long(
    corpus: Corpus, tokeniser: AnyTokeniser, front_end: FrontEnd, encoder: Any
) -> int:
    """How many utterances have more labels than frames, from which CTC learns nothing.

    Raises:
        DataError: all of them.
    """
    log_mel = front_end.log_mel
    samples = np.floor(corpus.seconds * log_mel.sample_rate).astype(int)
    available = encoder.output_lengths(-(-log_mel.frames(samples) // front_end.stack))
    labels = [tokeniser.encode(text) for text in corpus.texts]
    # A blank must come between two equal labels.
    needed = [len(row) + sum(one == other for one, other in pairwise(row)) for row in labels]
    too_long = int((available < np.array(needed)).sum())
    if too_long == len(corpus):
        seconds = encoder.subsampling * front_end.frame_seconds
        raise DataError(
            f"every text of {corpus.name} has more labels than its audio has frames of "
            f"{1000 * seconds:g} ms; is each the text of its audio? If so, take larger pieces."
        )
    return too_long
