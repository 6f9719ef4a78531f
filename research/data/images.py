"""Image classification datasets, each with training, validation and test images that share none.

Which image goes where follows from its content: images are ordered by a hash of their pixels, so
copies of an image stay together, and the split depends on no random generator and no version of a
library.
"""

import hashlib
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Shaped, UInt8

from research.data import cifar, idx
from research.data import data_dir as resolve_data_dir
from research.errors import DataError
from research.names import look_up

_SPLIT_SALT = b"trellis image split 1"
_HELD_OUT = 0.2  # of digits, for validation and again for test
_VALIDATION = 0.1  # of the published training images
_DIGIT_NAMES = tuple("0123456789")


class ImageSplit(NamedTuple):
    """Images and the index of the class of each."""

    images: UInt8[np.ndarray, "N H W C"]
    labels: Int32[np.ndarray, " N"]


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """A dataset in memory.

    Attributes:
        name: As given to `load_images`.
        source: One line for a report: what it is, whence, and how many images.
        classes: Name of the class of each label.
        train: Images to train on.
        validation: Images to choose hyperparameters by.
        test: Images to report on.
        mean: Of each channel over the training images, on the scale 0..255.
        std: Standard deviation, likewise.
        sha256: Fingerprint of all images and labels, hexadecimal.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit
    mean: Float32[np.ndarray, " C"]
    std: Float32[np.ndarray, " C"]
    sha256: str

    def normalise(self, images: Shaped[Any, "... C"]) -> Any:
        """Scale pixels to zero mean and unit deviation over the training images: (x - mean) / std.

        Args:
            images: Pixels on the scale 0..255, (..., C), of any type; a NumPy or a JAX array.

        Returns:
            float32, in the same shape and the same kind of array.
        """
        shape = (1,) * (images.ndim - 1) + (-1,)
        return (images.astype(np.float32) - self.mean.reshape(shape)) / self.std.reshape(shape)


class _Arrays(NamedTuple):
    """What a reader returns; without a published test part, `test` is None."""

    source: str
    train: ImageSplit
    test: ImageSplit | None


def load_images(name: str, data_dir: str | os.PathLike[str] | None = None) -> ImageDataset:
    """Load an image dataset and split it.

    No image of one split is in another, by content. `digits` has no published test part: 60 % of
    each class are for training, 20 % for validation, 20 % for test. The others keep their published
    test images; a training image identical to one of them is left out, and a tenth of each class of
    the remaining ones is for validation.

    Args:
        name: `digits` (embedded in scikit-learn), `fashion_mnist`, `mnist` or `cifar10`.
        data_dir: Where the files are; see `research.data.data_dir`.

    Returns:
        The dataset, in memory.

    Raises:
        ConfigError: There is no dataset of that name.
        DataError: A file is missing, truncated, corrupt or of another layout.

    Example:
        >>> digits = load_images("digits")
        >>> digits.train.images.shape[1:], len(digits.classes)
        ((8, 8, 1), 10)
        >>> sum(len(part.labels) for part in (digits.train, digits.validation, digits.test))
        1797
    """
    read, classes = look_up(READERS, name, "image dataset")
    source, train, test = read(name, resolve_data_dir(data_dir))
    if test is None:
        train, validation, test = _split_whole(train)
    else:
        kept, chosen = _split_published(train, test)
        dropped = len(train.labels) - int(kept.sum()) - int(chosen.sum())
        if dropped:
            source += f", less {dropped:,} training images identical to a test image"
        train, validation = _select(train, kept), _select(train, chosen)
    if not (len(train.labels) and len(validation.labels)):
        raise DataError(
            "A dataset must have two or more different images in some class, one to train on and "
            f"one for validation; {name} ({source}) leaves {len(train.labels)} to train on and "
            f"{len(validation.labels)} for validation. {_fix(name, resolve_data_dir(data_dir))}"
        )
    mean, std = _channel_statistics(train.images)
    parts = (train, validation, test)
    return ImageDataset(name, source, classes, *parts, mean, std, _fingerprint(parts))


def _read_digits(name: str, root: Path) -> _Arrays:
    from sklearn.datasets import load_digits  # slow to import, and the others do not need it

    pixels, labels = load_digits(return_X_y=True)
    # 0..16 to 0..255 in steps of 15.94: every level stays distinct.
    images = np.round(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    source = f"Digits (UCI optical digits, embedded in scikit-learn: {len(labels):,} images)"
    return _Arrays(source, ImageSplit(images, labels.astype(np.int32)), None)


def _read_idx(name: str, root: Path) -> _Arrays:
    folder, fix = root / name, _fix(name, root)
    parts = []
    for prefix in ("train", "t10k"):
        images = idx.find_idx(folder, f"{prefix}-images-idx3-ubyte", fix=fix)
        labels = idx.find_idx(folder, f"{prefix}-labels-idx1-ubyte", fix=fix)
        pair = idx.read_idx_pair(images, labels, classes=10, fix=fix)
        if pair.images.shape[1:] != (28, 28):
            found = " x ".join(map(str, pair.images.shape[1:]))
            raise DataError(f"{images} must hold images of 28 x 28; they are {found}. {fix}")
        parts.append(ImageSplit(pair.images[..., None], pair.labels))
    title = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}[name]
    return _Arrays(_count(title, parts[0], parts[1], 60_000), *parts)


def _read_cifar10(name: str, root: Path) -> _Arrays:
    folder, fix = root / name / "cifar-10-batches-bin", _fix(name, root)
    train = ImageSplit(*cifar.read_cifar_files(folder, cifar.TRAINING_FILES, fix=fix))
    test = ImageSplit(*cifar.read_cifar(folder / cifar.TEST_FILE, fix=fix))
    return _Arrays(_count("CIFAR-10", train, test, 50_000), train, test)


READERS: dict[str, tuple[Callable[[str, Path], _Arrays], tuple[str, ...]]] = {
    "digits": (_read_digits, _DIGIT_NAMES),
    "fashion_mnist": (
        _read_idx,
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
    "mnist": (_read_idx, _DIGIT_NAMES),
    "cifar10": (
        _read_cifar10,
        (
            "airplane",
            "automobile",
            "bird",
            "cat",
            "deer",
            "dog",
            "frog",
            "horse",
            "ship",
            "truck",
        ),
    ),
}
"""Name of a dataset -> its reader and its classes. Add a dataset by adding an entry."""


def _fix(name: str, root: Path) -> str:
    option = "" if root == resolve_data_dir() else f" --data-dir {shlex.quote(str(root))}"
    return f"To download a good copy: python -m research.data fetch {name}{option}"


def _count(title: str, train: ImageSplit, test: ImageSplit, published: int) -> str:
    """`title` with its numbers of images, and a word where they are not the published ones."""
    numbers = f"{len(train.labels):,} training and {len(test.labels):,} test images"
    whole = (len(train.labels), len(test.labels)) == (published, 10_000)
    return f"{title} ({'' if whole else 'subset: '}{numbers})"


def _select(split: ImageSplit, chosen: Bool[np.ndarray, " N"]) -> ImageSplit:
    return ImageSplit(split.images[chosen], split.labels[chosen])


def _content_keys(images: UInt8[np.ndarray, "N H W C"]) -> Shaped[np.ndarray, " N"]:
    """A key for each image, equal where the pixels are: a salted hash, so its order is random."""
    keys = [hashlib.sha256(_SPLIT_SALT + image.tobytes()).hexdigest() for image in images]
    return np.array(keys, dtype="S64")


def _split_whole(split: ImageSplit) -> tuple[ImageSplit, ImageSplit, ImageSplit]:
    """Into train, validation and test, stratified."""
    keys = _content_keys(split.images)
    test = _take_part(keys, split.labels, np.full(len(keys), True), _HELD_OUT)
    validation = _take_part(keys, split.labels, ~test, _HELD_OUT / (1 - _HELD_OUT))
    train = ~test & ~validation
    return _select(split, train), _select(split, validation), _select(split, test)


def _split_published(
    train: ImageSplit, test: ImageSplit
) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """Which of the published training images to train on, and which are for validation."""
    keys = _content_keys(train.images)
    allowed = ~np.isin(keys, _content_keys(test.images))
    validation = _take_part(keys, train.labels, allowed, _VALIDATION)
    return allowed & ~validation, validation


def _take_part(
    keys: Shaped[np.ndarray, " N"],
    labels: Int32[np.ndarray, " N"],
    allowed: Bool[np.ndarray, " N"],
    fraction: float,
) -> Bool[np.ndarray, " N"]:
    """Choose a fraction of the allowed images of each class; copies of an image go together.

    A class of two or more different images gives at least one and keeps at least one.
    """
    chosen = np.full(len(keys), False)
    indices = np.flatnonzero(allowed)
    _, first, group, sizes = np.unique(
        keys[indices], return_index=True, return_inverse=True, return_counts=True
    )
    # Groups come in the order of their hashes. Copies that differ in label count as the first.
    group_labels = labels[indices[first]]
    for label in np.unique(group_labels):
        members = np.flatnonzero(group_labels == label)
        if len(members) < 2:
            continue
        wanted = round(fraction * int(sizes[members].sum()))
        count = int(np.searchsorted(np.cumsum(sizes[members]), wanted, side="right"))
        taken = members[: min(max(count, 1), len(members) - 1)]
        chosen[indices[np.isin(group, taken)]] = True
    return chosen


def _channel_statistics(
    images: UInt8[np.ndarray, "N H W C"],
) -> tuple[Float32[np.ndarray, " C"], Float32[np.ndarray, " C"]]:
    """Mean and standard deviation of each channel, exact: from the counts of the 256 levels."""
    levels = np.arange(256, dtype=np.float64)
    means, deviations = [], []
    for channel in range(images.shape[-1]):
        weights = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = np.average(levels, weights=weights)
        means.append(mean)
        deviations.append(np.sqrt(np.average((levels - mean) ** 2, weights=weights)))
    std = np.array(deviations, dtype=np.float32)
    # A channel of one level carries nothing; dividing by 1 leaves it at zero.
    return np.array(means, dtype=np.float32), np.where(std > 0, std, np.float32(1))


def _fingerprint(parts: tuple[ImageSplit, ...]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for array in part:
            digest.update(f"{array.dtype.str} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
