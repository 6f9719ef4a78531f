"""Small files in the layouts of the published data sets, enough for every workload to train on."""

import struct
from pathlib import Path

import numpy as np
import soundfile

CLASSES = 10


def write_fashion_mnist(data_dir: Path, per_class: int = 12) -> None:
    """A bright square in a place of its own for each class, in noise."""
    folder = data_dir / "fashion_mnist"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", per_class), ("t10k", per_class // 3)):
        labels = np.repeat(np.arange(CLASSES, dtype=np.uint8), count)
        images = rng.integers(0, 60, (len(labels), 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = 7 * (int(label) // 4), 7 * (int(label) % 4)
            image[row : row + 7, column : column + 7] += 180
        header = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


def write_spoken_digits(data_dir: Path, takes: int = 7) -> None:
    """A tone of its own for each digit, a little higher for the second speaker."""
    folder = data_dir / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for speaker, pitch in (("ann", 1.0), ("bob", 1.1)):
        for digit in range(10):
            for take in range(takes):
                times = np.arange(rng.integers(1200, 2000)) / 8000
                tone = 0.3 * np.sin(2 * np.pi * (300 + 250 * digit) * pitch * times)
                tone += 0.01 * rng.standard_normal(len(times))
                soundfile.write(folder / f"{digit}_{speaker}_{take}.wav", tone, 8000)
