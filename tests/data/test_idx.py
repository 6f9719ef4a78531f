import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from research.data.idx import find_idx, read_idx, read_idx_pair
from research.errors import DataError

FIX = "To repair it: do this."


def encode(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3, 5), dtype=np.uint8)
LABELS = np.array([0, 9, 3, 3], dtype=np.uint8)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("array", [IMAGES, LABELS], ids=["images", "labels"])
def test_what_was_written_is_read(tmp_path: Path, array: np.ndarray, compressed: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(encode(array)) if compressed else encode(array))
    read = read_idx(path, dimensions=array.ndim, fix=FIX)
    assert read.dtype == np.uint8
    assert np.array_equal(read, array)


def test_a_compressed_name_may_hold_a_plain_file(tmp_path: Path) -> None:
    path = tmp_path / "labels.gz"
    path.write_bytes(encode(LABELS))
    assert np.array_equal(read_idx(path, dimensions=1, fix=FIX), LABELS)


GOOD = encode(IMAGES)
PACKED = gzip.compress(GOOD)
FLIPPED = bytearray(PACKED)
FLIPPED[-6] ^= 0xFF  # in the checksum at the end


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "begins with nothing"),
        (b"<html>404", "begins with 3c 68 74 6d"),
        (encode(LABELS), r"00 00 08 03; it begins with 00 00 08 01"),
        (b"\0\0\x0d\x03" + GOOD[4:], "unsigned bytes.*begins with 00 00 0d 03"),
        (GOOD[:9], "header of 16 bytes.*truncated"),
        (GOOD[:-1], r"\(4, 3, 5\), which takes 76 bytes; it has 75 .*truncated"),
        (GOOD[:16], "it has 16 .*truncated"),
        (GOOD + b"\0", "it has 77 .*do not belong"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "truncated"),
        (gzip.compress(GOOD[:-1]), "it has 75 .*truncated"),
        (PACKED[:-10], "complete gzip file.*truncated"),
        (PACKED[:5], "complete gzip file.*truncated"),
        (bytes(FLIPPED), "valid gzip file; it is corrupt"),
        (PACKED[:12] + b"\xff\xff\xff" + PACKED[15:], "gzip"),
        (PACKED + b"garbage", "valid gzip file; it is corrupt"),
    ],
)
def test_a_bad_file(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_idx(path, dimensions=3, fix=FIX)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(FIX)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(DataError, match="must be a readable file") as caught:
            read_idx(path, dimensions=1, fix=FIX)
        assert str(path) in str(caught.value)


def test_the_compressed_file_is_found_before_the_plain_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must contain x\.gz or x; it has neither"):
        find_idx(tmp_path, "x", fix=FIX)
    (tmp_path / "x").touch()
    assert find_idx(tmp_path, "x", fix=FIX) == tmp_path / "x"
    (tmp_path / "x.gz").touch()
    assert find_idx(tmp_path, "x", fix=FIX) == tmp_path / "x.gz"


def write_pair(folder: Path, images: np.ndarray, labels: np.ndarray) -> tuple[Path, Path]:
    paths = folder / "images", folder / "labels"
    for path, array in zip(paths, (images, labels), strict=True):
        path.write_bytes(encode(array))
    return paths


def test_a_pair(tmp_path: Path) -> None:
    images, labels = read_idx_pair(*write_pair(tmp_path, IMAGES, LABELS), classes=10, fix=FIX)
    assert np.array_equal(images, IMAGES)
    assert labels.dtype == np.int32
    assert labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (IMAGES, LABELS[:3], "has 4 images .* has 3 labels"),
        (IMAGES, np.array([0, 1, 10, 11]), r"in 0\.\.9; 2 are not, the first is 10 at index 2"),
        (IMAGES[:0], LABELS[:0], r"must hold images; its shape is \(0, 3, 5\)"),
        (IMAGES[:, :0], LABELS, "must hold images"),
    ],
)
def test_a_pair_that_does_not_match(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray, says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read_idx_pair(*write_pair(tmp_path, images, labels), classes=10, fix=FIX)
    assert str(caught.value).endswith(FIX)
