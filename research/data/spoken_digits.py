"""Spoken digits from whichever source is at hand, split so that no speaker leaks.

Axis suffix: M recordings.
"""

import os
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Int

from research.data import data_dir as resolve_data_dir
from research.data import synthesis
from research.data.digit_recordings import DigitRecordings
from research.data.fsdd import RESERVED_SPEAKERS, load_fsdd, recordings_folder
from research.errors import ConfigError, DataError

__all__ = [
    "RESERVED_SPEAKERS",
    "DigitRecordings",
    "SpeakerSplit",
    "default_speakers",
    "load_spoken_digits",
    "split_speakers",
]

SpokenDigits = Literal["auto", "fsdd", "espeak"]

OFFICIAL_TEST_TAKES = 5
"""Takes 0 to 4 are the official test part of the Free Spoken Digit Dataset."""


class SpeakerSplit(NamedTuple):
    """Positions in the recordings, int32, ascending; the three share no recording."""

    train: Int[np.ndarray, " M_train"]
    validation: Int[np.ndarray, " M_validation"]
    test: Int[np.ndarray, " M_test"]


def load_spoken_digits(
    name: SpokenDigits = "auto", data_dir: str | os.PathLike[str] | None = None
) -> DigitRecordings:
    """Load spoken digits by name.

    Args:
        name: "fsdd" for the Free Spoken Digit Dataset; "espeak" for synthetic voices, made on
            this machine without a download; "auto" for the first where its folder exists under
            the data directory, else the second.
        data_dir: where data lies; None means `$TRELLIS_DATA`, else `~/.cache/trellis`.

    Returns:
        The recordings; `source` says which they are.

    Raises:
        ConfigError: an unknown name.
        DataError: the recordings are missing or cannot be used. A damaged data set is never
            replaced by synthetic speech without a word.
    """
    if name not in get_args(SpokenDigits):
        raise ConfigError(
            f"spoken digits must be one of {', '.join(get_args(SpokenDigits))}, but got {name!r}"
        )
    folder = resolve_data_dir(data_dir)
    if name == "auto":
        name = "fsdd" if recordings_folder(folder).exists() else "espeak"
    if name == "fsdd":
        return load_fsdd(folder)
    return synthesis.load_synthetic_digits(folder / "espeak_digits")


def default_speakers(recordings: DigitRecordings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Choose who is tested and who is validated on when nobody says so.

    Args:
        recordings: the recordings.

    Returns:
        The test speakers and the validation speakers, for `split_speakers`. Synthetic voices:
        the fixed lists of `research.data.synthesis`. Otherwise the alphabetically last speaker
        that is not reserved is the test speaker, and no speaker is set aside for validation.

    Raises:
        DataError: there are fewer than two speakers to choose from.

    Example:
        >>> from research.data.digit_recordings import make_recordings
        >>> clip = np.array([0.5, -0.5])
        >>> default_speakers(make_recordings("x", [clip] * 2, [1, 2], ["ann", "bob"], [0, 0], ""))
        (('bob',), ())
    """
    names = recordings.speaker_names
    if recordings.name == synthesis.NAME:
        return synthesis.TEST_VOICES, synthesis.VALIDATION_VOICES
    candidates = [name for name in names if name not in RESERVED_SPEAKERS]
    if len(candidates) < 2:
        raise DataError(
            "testing on an unseen speaker takes at least two speakers, but the recordings have "
            f"{', '.join(candidates) or 'none'}; add recordings of another speaker"
        )
    return (candidates[-1],), ()


def split_speakers(
    recordings: DigitRecordings,
    test_speakers: tuple[str, ...],
    validation_speakers: tuple[str, ...] = (),
) -> SpeakerSplit:
    """Split recordings so that no test speaker is heard in training or validation.

    Args:
        recordings: the recordings.
        test_speakers: every recording of theirs is for the test.
        validation_speakers: every recording of theirs is for validation. None given: takes 0 to 4
            of the remaining speakers (the official test part of FSDD) are for validation.

    Returns:
        Positions in the recordings for the three splits.

    Raises:
        DataError: a speaker that the recordings do not have, one in two lists, or a split that
            would be empty.

    Example:
        >>> from research.data.digit_recordings import make_recordings
        >>> clips, takes = [np.array([0.5, -0.5])] * 4, [0, 5, 0, 5]
        >>> r = make_recordings("x", clips, [1] * 4, ["ann", "ann", "bob", "bob"], takes, "")
        >>> [part.tolist() for part in split_speakers(r, ("bob",))]
        [[1], [0], [2, 3]]
    """
    for what, names in (("test", test_speakers), ("validation", validation_speakers)):
        if isinstance(names, str):
            raise DataError(f"{what} speakers must be a tuple of names, but got {names!r}")
        unknown = [name for name in names if name not in recordings.speaker_names]
        if unknown:
            raise DataError(
                f"{what} speakers must be among {', '.join(recordings.speaker_names)}, "
                f"but got {', '.join(unknown)}"
            )
    both = sorted(set(test_speakers) & set(validation_speakers))
    if both:
        raise DataError(f"a speaker must be in one split only, but {', '.join(both)} is in two")

    speakers = np.array(recordings.speakers)
    test = np.isin(speakers, np.array(test_speakers, dtype=speakers.dtype))
    if validation_speakers:
        validation = np.isin(speakers, np.array(validation_speakers, dtype=speakers.dtype))
    else:
        validation = ~test & (recordings.takes < OFFICIAL_TEST_TAKES)
    split = SpeakerSplit(
        *(np.flatnonzero(part).astype(np.int32) for part in (~test & ~validation, validation, test))
    )
    for what, part in zip(SpeakerSplit._fields, split, strict=True):
        if part.size == 0:
            raise DataError(
                f"the {what} part must hold recordings, but it is empty with test speakers "
                f"{', '.join(test_speakers) or 'none'} and validation speakers "
                f"{', '.join(validation_speakers) or 'none (takes 0 to 4 of the others)'}"
            )
    return split
