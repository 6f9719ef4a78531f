"""The Free Spoken Digit Dataset, as published: `recordings/{digit}_{speaker}_{index}.wav`.

Six speakers, 50 takes of each digit, 8 kHz mono 16-bit; CC BY-SA 4.0,
https://github.com/Jakobovski/free-spoken-digit-dataset. Indices 0 to 4 are its official test part.
"""

import os
import re
import shlex
from pathlib import Path

from research.data.digit_recordings import SAMPLE_RATE, DigitRecordings, make_recordings
from research.errors import DataError
from research.speech.audio import read_audio

RESERVED_SPEAKERS = ("lucas",)
"""Kept back for a final measurement: never trained or tuned on, left out unless asked for."""

_NAME = re.compile(r"(?P<digit>[0-9])_(?P<speaker>[A-Za-z][A-Za-z-]*)_(?P<take>[0-9]+)\.wav")


def recordings_folder(data_dir: str | os.PathLike[str]) -> Path:
    """Where the recordings lie under a data directory.

    Example:
        >>> recordings_folder("data").as_posix()
        'data/fsdd/recordings'
    """
    return Path(data_dir) / "fsdd" / "recordings"


def load_fsdd(
    data_dir: str | os.PathLike[str], *, include_reserved: bool = False
) -> DigitRecordings:
    """Load the recordings under `<data_dir>/fsdd/recordings`, checked and levelled.

    Any subset of the published speakers and takes is accepted; `source` says how many there are.

    Args:
        data_dir: the data directory.
        include_reserved: also load `RESERVED_SPEAKERS`. Only for a final measurement.

    Returns:
        The recordings, ordered by speaker, digit and take.

    Raises:
        DataError: there is no folder, no recording in it, a .wav file that is not named
            `{digit}_{speaker}_{index}.wav`, or one that cannot be used.
    """
    folder = recordings_folder(data_dir)
    fetch = (
        f"fetch it with: python -m research.data fetch fsdd --data-dir {shlex.quote(str(data_dir))}"
    )
    if not folder.is_dir():
        raise DataError(
            f"the Free Spoken Digit Dataset must lie in {folder}, but there is no such folder; "
            f"{fetch}"
        )
    found = []
    for path in folder.iterdir():
        # Hidden files are left by file managers (`._0_george_0.wav` on macOS).
        if path.name.startswith(".") or path.suffix.lower() != ".wav":
            continue
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise DataError(
                "a recording must be named {digit}_{speaker}_{index}.wav with one digit, but "
                f"{path} is not; move it away, or {fetch}"
            )
        speaker = match["speaker"]
        if include_reserved or speaker not in RESERVED_SPEAKERS:
            found.append((speaker, int(match["digit"]), int(match["take"]), path))
    if not found:
        raise DataError(f"there must be recordings in {folder}, but there are none; {fetch}")
    found.sort()
    clips = []
    for _, _, _, path in found:
        try:
            clips.append(read_audio(path, sample_rate=SAMPLE_RATE))
        except DataError as error:
            raise DataError(f"{error}. To replace it, {fetch}") from error
    speakers = [speaker for speaker, _, _, _ in found]
    names = sorted(set(speakers))
    return make_recordings(
        name="fsdd",
        clips=clips,
        digits=[digit for _, digit, _, _ in found],
        speakers=speakers,
        takes=[take for _, _, take, _ in found],
        source=(
            f"Free Spoken Digit Dataset: {len(clips)} recordings by {len(names)} "
            f"{'speaker' if len(names) == 1 else 'speakers'} ({', '.join(names)})"
        ),
    )
