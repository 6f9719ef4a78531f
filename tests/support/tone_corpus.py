"""Published layouts with a language that a tiny model learns: letters are tones."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
LETTER = 0.12  # seconds of each tone and of each gap
PARTS = {"train-clean-100": 24, "dev-clean": 4, "dev-other": 4, "test-clean": 5, "test-other": 4}
_LETTERS = "ABCD"


def sentence(text: str, rng: np.random.Generator, rate: int = RATE) -> np.ndarray:
    """Samples of a text, a gap before and after, in a little noise."""
    time = np.arange(round(LETTER * rate)) / rate
    envelope = np.sin(np.pi * time / LETTER)
    tones = {" ": np.zeros_like(time)}
    for number, letter in enumerate(_LETTERS):
        tones[letter] = 0.3 * envelope * np.sin(2 * np.pi * 400 * 1.7**number * time)
    clean = np.concatenate([tones[letter] for letter in f" {text} "])
    return clean + 0.003 * rng.normal(size=clean.size)


def text_of(rng: np.random.Generator) -> str:
    """Two words with three to six letters together."""
    letters = "".join(rng.choice([*_LETTERS], size=rng.integers(3, 7)))
    gap = int(rng.integers(1, len(letters)))
    return f"{letters[:gap]} {letters[gap:]}"


def write_part(part: Path, count: int, seed: int, rate: int = RATE) -> None:
    """A speaker of its own with one chapter."""
    rng = np.random.default_rng(seed)
    prefix = f"{seed}-1"
    folder = part / str(seed) / "1"
    folder.mkdir(parents=True)
    lines = []
    for i in range(count):
        text = text_of(rng)
        soundfile.write(folder / f"{prefix}-{i:04d}.flac", sentence(text, rng, rate), rate)
        lines.append(f"{prefix}-{i:04d} {text}\n")
    (folder / f"{prefix}.trans.txt").write_text("".join(lines))


def write_librispeech(root: Path, train: int = PARTS["train-clean-100"]) -> Path:
    """All parts that the recipe reads; returns the data directory."""
    for seed, (part, count) in enumerate((PARTS | {"train-clean-100": train}).items(), 10):
        write_part(root / "LibriSpeech" / part, count, seed)
    return root


COMMON_VOICE_PARTS = {"train": 12, "dev": 3, "test": 4}


def write_common_voice(root: Path, language: str, rate: int = 32_000) -> Path:
    """A language of Common Voice, a speaker for each split; returns the data directory."""
    folder = root / "common_voice" / language
    suffix = "mp3" if "MP3" in soundfile.available_formats() else "wav"
    (folder / "clips").mkdir(parents=True)
    for seed, (split, count) in enumerate(COMMON_VOICE_PARTS.items(), 30):
        rng = np.random.default_rng(seed)
        lines = ["client_id\tpath\tsentence_id\tsentence\tup_votes\n"]
        for i in range(count):
            text, clip = text_of(rng), f"common_voice_{language}_{seed}{i:03d}.{suffix}"
            soundfile.write(folder / "clips" / clip, sentence(text, rng, rate), rate)
            lines.append(f"speaker{seed}\t{clip}\t{i}\t{text.capitalize()}.\t2\n")
        (folder / f"{split}.tsv").write_text("".join(lines), "utf-8")
    return root
