"""The YesNo set: 60 recordings of one man who says eight times yes or no, in Hebrew.

OpenSLR 1, https://www.openslr.org/1. The name of a file is its transcript: `0_1_1_0_1_0_0_1.wav`,
1 for yes (ken), 0 for no (lo).
"""

import os
import re
from pathlib import Path

from research.data.utterances import Corpus, check_splits, describe_audio, make_corpus
from research.errors import DataError

_NAME = re.compile(r"[01](_[01]){7}\.wav")
_WORDS = {"0": "no", "1": "yes"}
_TEST_EVERY = 3


def load_yesno(data_dir: str | os.PathLike[str]) -> tuple[Corpus, Corpus]:
    """Load `<data_dir>/yesno/waves_yesno`.

    The set has no official split: of the files in the order of their names, every third is for the
    test. There is one speaker, so this says nothing about others.

    Args:
        data_dir: the data directory.

    Returns:
        The training and the test part: 40 and 20 of the 60 recordings. Texts are such as
        "no yes yes no yes no no yes".

    Raises:
        DataError: there is no folder, too few recordings in it for both parts, one with another
            name, or one that cannot be read.
    """
    folder = Path(data_dir) / "yesno" / "waves_yesno"
    if not folder.is_dir():
        raise DataError(
            f"the YesNo set must lie in {folder}, but there is no such folder; unpack "
            f"https://www.openslr.org/resources/1/waves_yesno.tar.gz in {folder.parent}"
        )
    found = []
    for path in sorted(folder.glob("*.wav")):
        if path.name.startswith("."):
            continue
        if not _NAME.fullmatch(path.name):
            raise DataError(
                f"a recording must be named like 0_1_1_0_1_0_0_1.wav, but {path} is not; move it "
                "away"
            )
        text = " ".join(_WORDS[digit] for digit in path.stem.split("_"))
        found.append(describe_audio(path.stem, path, text, "yesno"))
    if len(found) < _TEST_EVERY:
        raise DataError(
            f"{folder} must hold at least {_TEST_EVERY} recordings, but it has {len(found)}"
        )
    test = found[_TEST_EVERY - 1 :: _TEST_EVERY]
    train = [utterance for utterance in found if utterance not in test]
    parts = {
        "train": make_corpus("yesno train", train, "YesNo, training part"),
        "test": make_corpus("yesno test", test, "YesNo, test part"),
    }
    check_splits(parts, same_speakers=True)
    return parts["train"], parts["test"]
