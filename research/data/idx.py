"""The IDX files of MNIST and Fashion-MNIST, read strictly.

Layout: two zero bytes, the element type (08 is an unsigned byte), the number of dimensions, each
dimension as a big-endian 32-bit integer, then the elements in C order. Published gzip-compressed.

Source: http://yann.lecun.com/exdb/mnist/ (format at the bottom of the page).
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from research.errors import DataError

_GZIP_MAGIC = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08


class IdxImages(NamedTuple):
    """Images and their labels, from a pair of IDX files."""

    images: UInt8[np.ndarray, "N H W"]
    labels: Int32[np.ndarray, " N"]


def find_idx(folder: Path, stem: str, *, fix: str) -> Path:
    """The file `stem` in `folder`, compressed (`.gz`) or plain.

    Args:
        folder: Where the files of the dataset are.
        stem: Published name without `.gz`, such as `train-images-idx3-ubyte`.
        fix: The last sentence of the error message.

    Returns:
        Path of the compressed file, else of the plain one.

    Raises:
        DataError: Neither is there.
    """
    for path in (folder / f"{stem}.gz", folder / stem):
        if path.is_file():
            return path
    raise DataError(f"{folder} must contain {stem}.gz or {stem}; it has neither. {fix}")


def read_idx(path: Path, *, dimensions: int, fix: str) -> UInt8[np.ndarray, "..."]:
    """Read one IDX file of unsigned bytes, compressed or plain.

    Args:
        path: The file.
        dimensions: The number of dimensions it must have.
        fix: The last sentence of an error message: how to come by a good file.

    Returns:
        Its elements, uint8, in the shape that its header gives.

    Raises:
        DataError: It is missing, unreadable, not IDX, of another kind, truncated or too long.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "labels")
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
        ...     read_idx(path, dimensions=1, fix="").tolist()
        [7, 2, 1]
    """
    content = _read(path, fix)
    magic = bytes([0, 0, _UNSIGNED_BYTE, dimensions])
    if content[:4] != magic:
        raise DataError(
            f"{path} must be an IDX file of unsigned bytes in {dimensions} dimension(s), which "
            f"begins with {magic.hex(' ')}; it begins with {content[:4].hex(' ') or 'nothing'}. "
            f"{fix}"
        )
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataError(
            f"{path} must have a header of {header} bytes; the whole file has {len(content)}: it "
            f"is truncated. {fix}"
        )
    shape = tuple(np.frombuffer(content, ">u4", dimensions, offset=4).tolist())
    expected, found = header + math.prod(shape), len(content)
    if found != expected:
        kind = "truncated" if found < expected else "followed by bytes that do not belong to it"
        raise DataError(
            f"{path} says that its shape is {shape}, which takes {expected} bytes; it has {found} "
            f"(decompressed): it is {kind}. {fix}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


def read_idx_pair(images: Path, labels: Path, *, classes: int, fix: str) -> IdxImages:
    """Read a file of images and the file of their labels.

    Args:
        images: IDX file of 3 dimensions: N images of H rows and W columns.
        labels: IDX file of 1 dimension: N labels.
        classes: Labels must be in 0..classes-1.
        fix: The last sentence of an error message.

    Returns:
        Images (N, H, W) uint8 and labels (N,) int32.

    Raises:
        DataError: As `read_idx`; or there are no images, or another number of labels than of
            images, or a label out of range.
    """
    pixels = read_idx(images, dimensions=3, fix=fix)
    numbers = read_idx(labels, dimensions=1, fix=fix)
    if not pixels.size:
        raise DataError(f"{images} must hold images; its shape is {pixels.shape}. {fix}")
    if len(pixels) != len(numbers):
        raise DataError(
            f"There must be a label for every image; {images} has {len(pixels)} images and "
            f"{labels} has {len(numbers)} labels: they are not of one set. {fix}"
        )
    wrong = np.flatnonzero(numbers >= classes)
    if wrong.size:
        raise DataError(
            f"Labels in {labels} must be in 0..{classes - 1}; {wrong.size} are not, the first "
            f"is {numbers[wrong[0]]} at index {wrong[0]}. {fix}"
        )
    return IdxImages(pixels, numbers.astype(np.int32))


def _read(path: Path, fix: str) -> bytes:
    """The content of a file, decompressed if it is gzip by its first bytes.

    Some browsers decompress a download and keep the `.gz` in its name, so the name does not decide.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} must be a readable file; {error.strerror or error}. {fix}") from (
            error
        )
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        return gzip.decompress(content)
    except EOFError as error:
        raise DataError(
            f"{path} must be a complete gzip file; it ends after {len(content)} bytes, before its "
            f"end marker: it is truncated. {fix}"
        ) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} must be a valid gzip file; it is corrupt ({error}). {fix}") from (
            error
        )
