"""Audio files in, arrays out, with everything that could go wrong said out loud.

Axis suffix: S samples. No JAX here: the speech synthesiser forks (see `research.data.synthesis`).
"""

import os
from pathlib import Path

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from research.errors import DataError

_CHUNK_HEADER = 8  # a four-letter name and a 32-bit size
_LOSSY = ("MP3", "OGG")  # what these decode to may overshoot full scale


def read_audio(
    path: str | os.PathLike[str], *, sample_rate: int, resample: bool = False
) -> Float[np.ndarray, " S"]:
    """Read a mono audio file (WAV, FLAC, anything libsndfile knows) and check that it is whole.

    Nothing is mixed down here, and nothing resampled unless that is asked for: a file of another
    rate or with two channels is an error, because a silent conversion would hide a wrong data set.

    Args:
        path: the file.
        sample_rate: the rate in Hz that the file must have, or is resampled to.
        resample: take a file of any rate.

    Returns:
        Samples in [-1, 1], float32, shape (S,), S >= 1.

    Raises:
        DataError: the file is missing, unreadable, truncated, empty, not mono, of another rate,
            or holds samples that are not finite or beyond full scale (MP3 and Ogg are clipped).

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "tone.wav"
        >>> soundfile.write(path, np.zeros(80), 8000)
        >>> read_audio(path, sample_rate=8000).shape
        (80,)
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"audio must be an existing file, but there is none at {path}")
    _check_riff_is_whole(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels, expected = file.samplerate, file.channels, file.frames
            lossy = file.format in _LOSSY
            samples = file.read(dtype="float32", always_2d=False)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise DataError(
            f"audio must be a file that libsndfile can read, but {path} is not ({error}); "
            "fetch or convert it again"
        ) from error
    if channels != 1:
        raise DataError(
            f"audio must be mono, but {path} has {channels} channels; mix it down or pick one"
        )
    if rate != sample_rate and not resample:
        raise DataError(
            f"audio must be sampled at {sample_rate} Hz, but {path} has {rate} Hz; resample it "
            f"(for example with soxr.resample(samples, {rate}, {sample_rate}))"
        )
    if expected == 0:
        raise DataError(f"audio must hold at least one sample, but {path} is empty")
    if samples.shape[0] != expected:
        raise DataError(
            f"audio must be whole, but {path} promises {expected} samples and holds "
            f"{samples.shape[0]}: it is truncated; fetch it again"
        )
    if not np.isfinite(samples).all():
        bad = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise DataError(f"audio samples must be finite, but sample {bad} of {path} is not")
    peak = float(np.abs(samples).max())
    if peak > 1.0 and not lossy:
        raise DataError(
            f"audio samples must lie in [-1, 1], but {path} reaches {peak:g}; "
            "scale it down (integers stored as float?)"
        )
    if rate != sample_rate:
        samples = soxr.resample(samples, rate, sample_rate)
        if not len(samples):
            raise DataError(
                f"audio must be as long as a sample at {sample_rate} Hz, but {path} has {expected} "
                f"at {rate} Hz"
            )
    return np.clip(samples, -1.0, 1.0) if lossy or rate != sample_rate else samples


def _check_riff_is_whole(path: Path) -> None:
    """Compare the sizes a WAV file promises with the bytes it has.

    libsndfile (like SciPy) reads a truncated WAV without an error and returns what is left.
    """
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"audio must hold at least one sample, but {path} has 0 bytes")
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return  # another format: libsndfile's own frame count is compared instead
        position = len(head)
        while position + _CHUNK_HEADER <= size:
            file.seek(position)
            header = file.read(_CHUNK_HEADER)
            length = int.from_bytes(header[4:], "little")
            end = position + _CHUNK_HEADER + length
            if end > size:
                name = header[:4].decode("latin-1")
                raise DataError(
                    f"audio must be whole, but the {name!r} part of {path} should end at byte "
                    f"{end} and the file has {size}: it is truncated; fetch it again"
                )
            if header[:4] == b"data":
                return
            position = end + length % 2  # chunks are padded to an even size
    raise DataError(f"audio must be whole, but {path} ends before its samples; fetch it again")
