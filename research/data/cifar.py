"""The binary version of CIFAR-10, read strictly.

Layout: records of 3073 bytes, the label and then 32 x 32 pixels as a red, a green and a blue plane,
each in row order. Published as data_batch_1.bin to data_batch_5.bin and test_batch.bin, 10,000
records each.

Source: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009).
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from research.errors import DataError

SIDE, CHANNELS, CLASSES = 32, 3, 10
RECORD_BYTES = 1 + CHANNELS * SIDE * SIDE
TRAINING_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"


class CifarImages(NamedTuple):
    """Images and their labels."""

    images: UInt8[np.ndarray, "N 32 32 3"]
    labels: Int32[np.ndarray, " N"]


def read_cifar(path: Path, *, fix: str) -> CifarImages:
    """Read one file of CIFAR-10 in the binary layout.

    Args:
        path: The file.
        fix: The last sentence of an error message: how to come by a good file.

    Returns:
        Images (N, 32, 32, 3) uint8 in RGB, and labels (N,) int32.

    Raises:
        DataError: It is missing, unreadable, empty, not a whole number of records, or has a label
            above 9.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "test_batch.bin")
        ...     _ = path.write_bytes(bytes([3]) + bytes([255]) * 1024 + bytes(2048))
        ...     images, labels = read_cifar(path, fix="")
        >>> images[0, 0, 0].tolist(), labels.tolist()
        ([255, 0, 0], [3])
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} must be a readable file; {error.strerror or error}. {fix}") from (
            error
        )
    if not content or len(content) % RECORD_BYTES:
        whole, rest = divmod(len(content), RECORD_BYTES)
        raise DataError(
            f"{path} must consist of records of {RECORD_BYTES} bytes; it has {len(content)} bytes, "
            f"{whole} records and {rest} bytes more: it is truncated or of another layout. {fix}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    labels = records[:, 0].astype(np.int32)
    wrong = np.flatnonzero(labels >= CLASSES)
    if wrong.size:
        raise DataError(
            f"Labels in {path} must be in 0..{CLASSES - 1}; {wrong.size} are not, the first is "
            f"{labels[wrong[0]]} in record {wrong[0]}: the file is corrupt or of another layout. "
            f"{fix}"
        )
    planes = records[:, 1:].reshape(-1, CHANNELS, SIDE, SIDE)
    return CifarImages(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels)


def read_cifar_files(folder: Path, names: tuple[str, ...], *, fix: str) -> CifarImages:
    """Read those of the named files that are there, one after the other.

    Args:
        folder: Where they are.
        names: Their names, in the order in which they are joined.
        fix: The last sentence of an error message.

    Returns:
        All their images and labels.

    Raises:
        DataError: None of them is there; or as `read_cifar`.
    """
    present = [folder / name for name in names if (folder / name).exists()]
    if not present:
        raise DataError(f"{folder} must contain {' or '.join(names)}; it has none. {fix}")
    parts = [read_cifar(path, fix=fix) for path in present]
    return CifarImages(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
