"""Recordings of single spoken digits: the one type that every source of them returns.

Axis suffix: M recordings, S samples.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from research.errors import DataError

SAMPLE_RATE = 8000
"""Samples per second of every clip."""

CLIP_RMS = 0.1
"""Root mean square every clip is scaled to; recordings differ 16-fold between speakers."""

_SILENCE_RMS = 1e-6


@dataclass(frozen=True, eq=False)
class DigitRecordings:
    """Single spoken digits with who spoke them.

    Attributes:
        name: short name of the source, "fsdd" or "espeak".
        clips: M waveforms, float32 (S,), zero mean and root mean square `CLIP_RMS`.
        digits: the digit spoken, int32 (M,), 0..9.
        speakers: who spoke, one name a recording.
        takes: which repetition of the digit by the speaker, int32 (M,).
        source: one line for people: what the recordings are.
        sha256: fingerprint of the audio as it was read, with its labels.
        sample_rate: samples per second.
    """

    name: str
    clips: tuple[Float[np.ndarray, " S"], ...] = field(repr=False)
    digits: Int[np.ndarray, " M"] = field(repr=False)
    speakers: tuple[str, ...] = field(repr=False)
    takes: Int[np.ndarray, " M"] = field(repr=False)
    source: str
    sha256: str
    sample_rate: int = SAMPLE_RATE

    def __len__(self) -> int:
        """The number of recordings M."""
        return len(self.clips)

    @cached_property
    def sizes(self) -> Int[np.ndarray, " M"]:
        """Samples of each clip."""
        return np.array([clip.size for clip in self.clips], np.int64)

    @cached_property
    def speaker_names(self) -> tuple[str, ...]:
        """The distinct speakers, sorted."""
        return tuple(sorted(set(self.speakers)))

    @cached_property
    def speaker_ids(self) -> Int[np.ndarray, " M"]:
        """For each recording the position of its speaker in `speaker_names`."""
        position = {name: i for i, name in enumerate(self.speaker_names)}
        return np.array([position[name] for name in self.speakers], np.int32)


def make_recordings(
    name: str,
    clips: Sequence[np.ndarray],
    digits: Sequence[int],
    speakers: Sequence[str],
    takes: Sequence[int],
    source: str,
    sample_rate: int = SAMPLE_RATE,
) -> DigitRecordings:
    """Check, fingerprint and level raw clips.

    Args:
        name: short name of the source.
        clips: M waveforms (S,) in [-1, 1].
        digits: M digits, 0..9.
        speakers: M names.
        takes: M repetition numbers, >= 0.
        source: one line for people.
        sample_rate: samples per second of the clips.

    Returns:
        The recordings. The fingerprint is taken before the level is changed, so it does not
        depend on how this machine rounds.

    Raises:
        DataError: no clips, lists of different lengths, a digit outside 0..9, an empty, silent
            or non-finite clip.

    Example:
        >>> r = make_recordings("mine", [np.array([0.5, -0.5])], [7], ["ann"], [0], "one clip")
        >>> len(r), r.digits.tolist(), r.clips[0].round(3).tolist()
        (1, [7], [0.10000000149011612, -0.10000000149011612])
    """
    counts = {len(clips), len(digits), len(speakers), len(takes)}
    if len(counts) != 1:
        raise DataError(
            "clips, digits, speakers and takes must be equally many, but there are "
            f"{len(clips)}, {len(digits)}, {len(speakers)} and {len(takes)}"
        )
    if not clips:
        raise DataError(f"{name} must hold at least one recording, but it is empty")
    for i, (digit, take) in enumerate(zip(digits, takes, strict=True)):
        if not 0 <= digit <= 9:
            raise DataError(
                f"labels must be digits 0 to 9, but recording {i} by {speakers[i]} has {digit}"
            )
        if take < 0:
            raise DataError(f"takes must be >= 0, but recording {i} by {speakers[i]} has {take}")

    digest = hashlib.sha256(f"digits 1 {sample_rate} {len(clips)}".encode())
    levelled = []
    for i, (clip, digit, speaker, take) in enumerate(
        zip(clips, digits, speakers, takes, strict=True)
    ):
        label = f"recording {i} (digit {digit}, {speaker}, take {take})"
        clip = np.ascontiguousarray(clip, np.float32)
        if clip.ndim != 1 or clip.size == 0:
            raise DataError(
                f"a clip must be one-dimensional and not empty, but {label} has {clip.shape}"
            )
        if not np.isfinite(clip).all():
            raise DataError(f"a clip must be finite, but {label} is not")
        digest.update(f"|{digit} {speaker} {take} {clip.size}|".encode())
        digest.update(clip.astype("<f4", copy=False).tobytes())
        centred = clip.astype(np.float64) - clip.mean(dtype=np.float64)
        rms = float(np.sqrt(np.mean(centred**2)))
        if rms < _SILENCE_RMS:
            raise DataError(f"a clip must not be silent, but {label} has RMS {rms:g}")
        levelled.append((centred * (CLIP_RMS / rms)).astype(np.float32))
    for clip in levelled:
        clip.flags.writeable = False
    return DigitRecordings(
        name=name,
        clips=tuple(levelled),
        digits=np.array(digits, np.int32),
        speakers=tuple(speakers),
        takes=np.array(takes, np.int32),
        source=source,
        sha256=digest.hexdigest(),
        sample_rate=sample_rate,
    )
