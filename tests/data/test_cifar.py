from pathlib import Path

import numpy as np
import pytest

from research.data.cifar import RECORD_BYTES, TRAINING_FILES, read_cifar, read_cifar_files
from research.errors import DataError

FIX = "To repair it: do this."
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([9, 0, 4])


def encode(images: np.ndarray, labels: np.ndarray) -> bytes:
    """Byte by byte, as the publisher describes the layout."""
    content = b""
    for image, label in zip(images, labels, strict=True):
        planes = [image[:, :, channel].tobytes() for channel in range(3)]
        content += bytes([label]) + b"".join(planes)
    return content


GOOD = encode(IMAGES, LABELS)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "test_batch.bin"
    path.write_bytes(GOOD)
    assert len(GOOD) == 3 * RECORD_BYTES == 3 * 3073
    images, labels = read_cifar(path, fix=FIX)
    assert np.array_equal(images, IMAGES)
    assert labels.dtype == np.int32
    assert labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it has 0 bytes"),
        (GOOD[:-1], "it has 9218 bytes, 2 records and 3072 bytes more: it is truncated"),
        (GOOD + b"\0", "3 records and 1 bytes more"),
        (encode(IMAGES, np.array([9, 10, 255])), "2 are not, the first is 10 in record 1"),
    ],
)
def test_a_bad_file(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_cifar(path, fix=FIX)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(FIX)


def test_a_missing_file_and_a_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "test_batch.bin", tmp_path):
        with pytest.raises(DataError, match="must be a readable file"):
            read_cifar(path, fix=FIX)


def test_files_are_joined_in_their_order_and_may_be_a_subset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must contain data_batch_1\.bin or .*; it has none"):
        read_cifar_files(tmp_path, TRAINING_FILES, fix=FIX)
    (tmp_path / "data_batch_4.bin").write_bytes(encode(IMAGES[:1], LABELS[:1]))
    (tmp_path / "data_batch_2.bin").write_bytes(encode(IMAGES[1:], LABELS[1:]))
    images, labels = read_cifar_files(tmp_path, TRAINING_FILES, fix=FIX)
    assert labels.tolist() == [0, 4, 9]
    assert np.array_equal(images, IMAGES[[1, 2, 0]])


def test_one_bad_file_among_good_ones_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1.bin").write_bytes(GOOD)
    (tmp_path / "data_batch_2.bin").write_bytes(GOOD[:100])
    with pytest.raises(DataError, match="data_batch_2"):
        read_cifar_files(tmp_path, TRAINING_FILES, fix=FIX)
