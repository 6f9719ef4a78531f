"""Synthetic spoken digits from espeak-ng: speech that needs no download.

Runs also as a program, `python -m research.data.synthesis OUT.npz`: espeak-ng keeps state between
utterances, so the same text sounds slightly different the second time. Each utterance is therefore
spoken in a fresh fork of a process that has never used the library. That process must not hold
JAX (its threads do not survive a fork), so `load_synthetic_digits` starts it as a program of its
own. The same machine and the same espeak-ng give the same bits.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import itertools
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
from jaxtyping import Float

from research.data.digit_recordings import SAMPLE_RATE, DigitRecordings, make_recordings
from research.errors import DataError

NAME = "espeak"
FORMAT_VERSION = 1
TAKES = 4
"""Takes of each digit by each voice; they differ in speaking rate and pitch."""

_DAMAGE = (DataError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile)
_log = logging.getLogger(__name__)

# What follows the "+" of a voice is a variant of espeak-ng (throat, pitch, timbre), what precedes
# it an English accent: its name here, and espeak-ng's.
_ACCENTS = {
    "en-gb": "en",
    "en-us": "en-us",
    "en-gb-scotland": "en-gb-scotland",
    "en-gb-x-rp": "en-gb-x-rp",
    "en-029": "en-029",
    "en-us-nyc": "en-us-nyc",
    "en-gb-x-gbclan": "en-gb-x-gbclan",
    "en-gb-x-gbcwmd": "en-gb-x-gbcwmd",
}


def _voices(variants: str) -> tuple[str, ...]:
    """Give the variants the accents in turn."""
    accents = itertools.cycle(_ACCENTS)
    pairs = zip(variants.split(), accents, strict=False)
    return tuple(f"{accent}+{variant}" for variant, accent in pairs)


# No variant is in two lists, and no variant of the last two lists is a near copy of one in the
# first (espeak-ng has several such pairs, as Gene and Gene2): measured as the distance of cepstra.
# Whispers and robots are left out.
TRAINING_VOICES = _voices(
    "Alex Alicia Denis Diogo Gene Hugo Marco Mario Michael Mike Nguyen RicishayMax aunty linda "
    "benjamin croak david ed edward f1 f2 f4 f5 gustave iven iven4 john m1 m4 m6 m7 m8 marcelo "
    "max michel mike2 quincy robert sandro steph"
)
VALIDATION_VOICES = _voices("belinda boris grandma norbert pedro victor")
TEST_VOICES = _voices("Annie Andy f3 Storm shelby m2 m5 pablo paul travis")
ALL_VOICES = TRAINING_VOICES + VALIDATION_VOICES + TEST_VOICES

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_RATES = (110, 175)  # words per minute
_PITCHES = (30, 70)  # of 0..100, around the variant's own
_CHILDREN = max(1, min(8, os.cpu_count() or 1))  # speaking at the same time
_FRAME_SECONDS = 0.01
_SILENCE_RATIO = 0.01  # of the loudest frame's root mean square

# espeak-ng's speak_lib.h
_SYNCHRONOUS, _RATE, _PITCH, _POS_CHARACTER, _UTF8, _DONT_EXIT = 2, 1, 3, 1, 1, 0x8000
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def load_synthetic_digits(
    cache_dir: str | os.PathLike[str],
    *,
    voices: Sequence[str] = ALL_VOICES,
    takes: int = TAKES,
) -> DigitRecordings:
    """Load the synthetic digits, speaking them first where the cache does not hold them.

    Speaking all voices takes about 20 s of one core. The cache is checked on every load; a file
    that does not hold what was written is replaced, with a message in the log.

    Args:
        cache_dir: folder of the cache, made if need be.
        voices: voices to speak with, "accent+variant".
        takes: takes of each digit by each voice.

    Returns:
        The recordings, ordered by voice, digit and take; the voice is the speaker.

    Raises:
        DataError: the wheel `espeakng-loader` is absent, espeak-ng cannot speak, or the cache
            cannot be written.
    """
    settings = _settings(voices, takes)
    path = Path(cache_dir) / f"digits-v{FORMAT_VERSION}-{settings[:8]}.npz"
    if path.exists():
        try:
            return _read(path, settings)
        except (*_DAMAGE, OSError) as error:
            _log.warning("%s is damaged (%s); speaking the digits anew", path, error)
    else:
        _log.info("speaking %d digits with espeak-ng into %s", len(voices) * 10 * takes, path)
    _make(path, voices, takes)
    return _read(path, settings)


def _settings(voices: Sequence[str], takes: int) -> str:
    """Hash of everything that decides what is spoken."""
    text = repr((FORMAT_VERSION, tuple(voices), takes, _WORDS, _RATES, _PITCHES, SAMPLE_RATE))
    return hashlib.sha256(text.encode()).hexdigest()


def _content_hash(samples: np.ndarray, sizes: np.ndarray) -> str:
    digest = hashlib.sha256(sizes.astype("<i8").tobytes())
    digest.update(samples.astype("<i2").tobytes())
    return digest.hexdigest()


def _read(path: Path, settings: str) -> DigitRecordings:
    # Opened here: NumPy leaves a file that it cannot read open.
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if str(arrays["settings"]) != settings:
        raise DataError("it was made with other settings")
    samples, sizes = arrays["samples"], arrays["sizes"]
    if str(arrays["sha256"]) != _content_hash(samples, sizes) or sizes.sum() != samples.size:
        raise DataError("its checksum is wrong")
    clips = np.split(samples.astype(np.float32) / np.float32(2**15), np.cumsum(sizes)[:-1])
    speakers = [str(name) for name in arrays["speakers"]]
    count = len(set(speakers))
    return make_recordings(
        name=NAME,
        clips=clips,
        digits=arrays["digits"].tolist(),
        speakers=speakers,
        takes=arrays["takes"].tolist(),
        source=(
            f"synthetic speech (espeak-ng {arrays['espeak']}): {len(clips)} recordings by "
            f"{count} voices"
        ),
    )


def _make(path: Path, voices: Sequence[str], takes: int) -> None:
    """Have the helper program speak into a file beside `path`, then move it there."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise DataError(
            "synthetic speech needs espeak-ng, but the package espeakng-loader is not installed; "
            "install it with: pip install 'trellis-lab[synthesis]', or use real speech: "
            "python -m research.data fetch fsdd"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".speaking-") as folder:
            partial = Path(folder) / path.name
            _run_helper(partial, voices, takes)
            partial.replace(path)
    except OSError as error:
        raise DataError(
            f"the folder of synthetic speech must be writable, but {path.parent} is not "
            f"({error}); choose another data directory (TRELLIS_DATA)"
        ) from error


def _run_helper(path: Path, voices: Sequence[str], takes: int) -> None:
    command = [sys.executable, "-m", "research.data.synthesis", str(path.absolute())]
    command += ["--takes", str(takes), "--voices", *voices]
    # The helper finds this very package, wherever it was imported from; one thread, as it forks.
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode != 0 or not path.is_file():
        last = (result.stderr.strip() or "no message").splitlines()[-1]
        raise DataError(
            f"espeak-ng must speak the digits, but its program ended with {result.returncode}: "
            f"{last}; use real speech instead: python -m research.data fetch fsdd"
        )


def _speak_all(voices: Sequence[str], takes: int) -> Iterator[tuple[str, int, int, np.ndarray]]:
    """Yield (voice, digit, take, int16 samples at 8 kHz), in this order."""
    library, data = _find_espeak()
    for voice in voices:
        _check_voice(voice, data)
    todo = itertools.product(voices, range(10), range(takes))
    speaking: deque[tuple[str, int, int, _Child]] = deque()
    while True:
        for voice, digit, take in itertools.islice(todo, _CHILDREN - len(speaking)):
            prosody = _prosody(voice, digit, take)
            child = _start_child(library, data, voice, _WORDS[digit], prosody)
            speaking.append((voice, digit, take, child))
        if not speaking:
            return
        voice, digit, take, child = speaking.popleft()
        speech, source_rate = _hear_child(child)
        speech = soxr.resample(speech.astype(np.float64) / 2**15, source_rate, SAMPLE_RATE)
        trimmed = trim_silence(speech, SAMPLE_RATE)
        scaled = np.clip(np.rint(trimmed * 2**15), -(2**15), 2**15 - 1)
        yield voice, digit, take, scaled.astype(np.int16)


class _Prosody(NamedTuple):
    rate: int
    pitch: int
    seed: int  # of the noise in breathy voices


def _prosody(voice: str, digit: int, take: int) -> _Prosody:
    """How a take is spoken, drawn from its own name so that no list order matters."""
    seed = hashlib.sha256(f"{voice} {digit} {take}".encode()).digest()
    rng = np.random.Generator(np.random.Philox(key=int.from_bytes(seed[:8], "little")))
    return _Prosody(
        rate=int(rng.integers(*_RATES)),
        pitch=int(rng.integers(*_PITCHES)),
        seed=int(rng.integers(1, 2**31)),
    )


def trim_silence(samples: Float[np.ndarray, " S"], sample_rate: int) -> Float[np.ndarray, " S2"]:
    """Cut what is before the first and after the last frame of 10 ms that is not silent.

    A frame is silent when its root mean square is below 1 % of the loudest frame's.

    Args:
        samples: a waveform (S,).
        sample_rate: samples per second.

    Returns:
        The part in between, a whole number of frames; all of it when it is shorter than a frame
        or silent throughout.

    Example:
        >>> trim_silence(np.r_[np.zeros(400), np.ones(160), np.zeros(800)], 8000).shape
        (160,)
    """
    frame = round(_FRAME_SECONDS * sample_rate)
    count = len(samples) // frame
    power = (samples[: count * frame].reshape(count, frame) ** 2).mean(axis=1)
    loud = np.flatnonzero(power > _SILENCE_RATIO**2 * power.max(initial=0.0))
    if loud.size == 0:
        return samples
    return samples[loud[0] * frame : (loud[-1] + 1) * frame]


def _find_espeak() -> tuple[ctypes.CDLL, Path]:
    """The library, loaded but not used, and the folder of its data."""
    if not hasattr(os, "fork"):
        raise DataError("speaking needs os.fork, which this system lacks")
    import espeakng_loader

    return ctypes.CDLL(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


def _check_voice(voice: str, data: Path) -> None:
    """espeak-ng takes an unknown variant for none, without a word."""
    accent, _, variant = voice.partition("+")
    if accent not in _ACCENTS or not (data / "voices" / "!v" / variant).is_file():
        raise DataError(
            f"a voice must be accent+variant, with an accent among {', '.join(_ACCENTS)} and a "
            f"variant of espeak-ng, but got {voice!r}"
        )


class _Child(NamedTuple):
    process: int
    pipe: int
    what: str


def _start_child(
    library: ctypes.CDLL, data: Path, voice: str, word: str, prosody: _Prosody
) -> _Child:
    """Fork a process that speaks into a pipe."""
    receiving, sending = os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.close(receiving)
            speech = _speak(library, data, voice, word, prosody)
            with os.fdopen(sending, "wb") as pipe:
                pipe.write(speech)
            status = 0
        finally:
            os._exit(status)  # none of the parent's clean-up belongs to the child
    os.close(sending)
    return _Child(process, receiving, f"{word!r} as {voice}")


def _hear_child(child: _Child) -> tuple[np.ndarray, int]:
    """Wait for a child; returns its int16 samples and their rate."""
    with os.fdopen(child.pipe, "rb") as pipe:
        speech = pipe.read()
    _, status = os.waitpid(child.process, 0)
    if status != 0 or len(speech) <= 4:
        raise DataError(f"espeak-ng must speak {child.what}, but it ended with status {status}")
    return np.frombuffer(speech[4:], "=i2"), int.from_bytes(speech[:4], "little")


def _speak(library: ctypes.CDLL, data: Path, voice: str, word: str, prosody: _Prosody) -> bytes:
    """The sample rate as 4 bytes, then the samples."""
    pieces: list[bytes] = []

    def receive(samples: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int) -> int:
        if count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0  # go on

    callback = _CALLBACK(receive)
    # espeak-ng cuts the path of its data at 160 characters; a relative one is always short.
    os.chdir(data.parent)
    sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, b".", _DONT_EXIT)
    if sample_rate <= 0:
        raise DataError("espeak-ng does not start")
    # Otherwise seeded by the clock; breathy voices then differ from one second to the next.
    library.espeak_ng_SetRandSeed(ctypes.c_long(prosody.seed))
    library.espeak_SetSynthCallback(callback)
    accent, _, variant = voice.partition("+")
    if library.espeak_SetVoiceByName(f"{_ACCENTS[accent]}+{variant}".encode()) != 0:
        raise DataError(f"espeak-ng does not know the voice {voice}")
    library.espeak_SetParameter(_RATE, prosody.rate, 0)
    library.espeak_SetParameter(_PITCH, prosody.pitch, 0)
    text = word.encode() + b"\0"
    size = ctypes.c_size_t(len(text))
    if library.espeak_Synth(text, size, 0, _POS_CHARACTER, 0, _UTF8, None, None) != 0:
        raise DataError(f"espeak-ng cannot speak {word!r}")
    library.espeak_Synchronize()
    return sample_rate.to_bytes(4, "little") + b"".join(pieces)


def _espeak_version(library: ctypes.CDLL) -> str:
    library.espeak_Info.restype = ctypes.c_char_p
    return library.espeak_Info(None).decode().split()[0]


def _main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m research.data.synthesis",
        description="Speak the digits with espeak-ng into an .npz file.",
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--voices", nargs="+", default=ALL_VOICES, metavar="ACCENT+VARIANT")
    parser.add_argument("--takes", type=int, default=TAKES)
    options = parser.parse_args(arguments)
    try:
        spoken = list(_speak_all(options.voices, options.takes))
    except DataError as error:
        sys.exit(str(error))
    samples = np.concatenate([clip for _, _, _, clip in spoken])
    sizes = np.array([clip.size for _, _, _, clip in spoken], np.int64)
    np.savez(
        options.out,
        samples=samples,
        sizes=sizes,
        speakers=np.array([voice for voice, _, _, _ in spoken]),
        digits=np.array([digit for _, digit, _, _ in spoken], np.int32),
        takes=np.array([take for _, _, take, _ in spoken], np.int32),
        espeak=np.array(_espeak_version(_find_espeak()[0])),
        settings=np.array(_settings(options.voices, options.takes)),
        sha256=np.array(_content_hash(samples, sizes)),
    )


if __name__ == "__main__":
    _main(sys.argv[1:])
