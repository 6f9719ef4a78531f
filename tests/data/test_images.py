import gzip
import os
import struct
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from research.data import data_dir
from research.data.images import ImageDataset, ImageSplit, load_images
from research.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


def encode_idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, train: ImageSplit, test: ImageSplit) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, part in (("train", train), ("t10k", test)):
        images = gzip.compress(encode_idx(part.images[..., 0]))
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(images)
        labels = gzip.compress(encode_idx(part.labels))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(labels)


def write_cifar(path: Path, part: ImageSplit) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = part.images.transpose(0, 3, 1, 2).reshape(len(part.labels), -1)
    path.write_bytes(np.concatenate([part.labels[:, None], planes], axis=1).astype("u1").tobytes())


def make_split(per_class: int, side: int = 28, channels: int = 1) -> ImageSplit:
    labels = np.tile(np.arange(10), per_class)
    shape = (len(labels), side, side, channels)
    return ImageSplit(RNG.integers(0, 256, shape, dtype=np.uint8), labels.astype(np.int32))


def contents(split: ImageSplit) -> set[bytes]:
    return {image.tobytes() for image in split.images}


def parts(dataset: ImageDataset) -> tuple[ImageSplit, ImageSplit, ImageSplit]:
    return dataset.train, dataset.validation, dataset.test


def assert_well_formed(dataset: ImageDataset) -> None:
    train, validation, test = parts(dataset)
    for part in parts(dataset):
        assert part.images.dtype == np.uint8
        assert part.images.ndim == 4
        assert part.labels.dtype == np.int32
        assert len(part.images) == len(part.labels)
        assert set(part.labels.tolist()) == set(range(len(dataset.classes)))
    assert not contents(train) & contents(validation)
    assert not contents(train) & contents(test)
    assert not contents(validation) & contents(test)
    pixels = train.images.reshape(-1, train.images.shape[-1]).astype(np.float64)
    np.testing.assert_allclose(dataset.mean, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(dataset.std, pixels.std(0), rtol=1e-6)
    assert dataset.mean.dtype == dataset.std.dtype == np.float32


def test_digits() -> None:
    digits = load_images("digits")
    assert_well_formed(digits)
    assert [len(part.labels) for part in parts(digits)] == [1079, 359, 359]
    assert digits.train.images.shape[1:] == (8, 8, 1)
    assert digits.classes == tuple("0123456789")
    assert "1,797" in digits.source
    for part, share in zip(parts(digits), (0.6, 0.2, 0.2), strict=True):
        assert np.abs(np.bincount(part.labels) - share * 179.7).max() < 4


def test_digits_keep_every_level_of_grey() -> None:
    from sklearn.datasets import load_digits

    pixels, _ = load_digits(return_X_y=True)
    images = np.concatenate([part.images for part in parts(load_images("digits"))])
    assert images.min() == 0
    assert images.max() == 255
    restored = np.round(images.reshape(len(images), -1) * (16 / 255))
    assert sorted(map(tuple, restored.tolist())) == sorted(map(tuple, pixels.tolist()))


def test_the_same_data_gives_the_same_splits() -> None:
    first, second = load_images("digits"), load_images("digits")
    assert first.sha256 == second.sha256
    assert np.array_equal(first.validation.images, second.validation.images)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_datasets(tmp_path: Path, name: str) -> None:
    train, test = make_split(20), make_split(3)
    write_idx(tmp_path / name, train, test)
    dataset = load_images(name, tmp_path)
    assert_well_formed(dataset)
    assert np.array_equal(dataset.test.images, test.images)
    assert np.array_equal(dataset.test.labels, test.labels)
    assert np.bincount(dataset.validation.labels).tolist() == [2] * 10
    assert contents(dataset.train) | contents(dataset.validation) == contents(train)
    assert "subset: 200 training and 30 test images" in dataset.source


def test_an_image_keeps_its_label(tmp_path: Path) -> None:
    train, test = make_split(20), make_split(3)
    write_idx(tmp_path / "mnist", train, test)
    label_of = {
        image.tobytes(): label for image, label in zip(train.images, train.labels, strict=True)
    }
    dataset = load_images("mnist", tmp_path)
    for part in (dataset.train, dataset.validation):
        assert [label_of[image.tobytes()] for image in part.images] == part.labels.tolist()


def test_plain_idx_files(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist", make_split(4), make_split(1))
    compressed = load_images("mnist", tmp_path)
    for path in (tmp_path / "mnist").iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert load_images("mnist", tmp_path).sha256 == compressed.sha256


def test_copies_of_an_image_never_part(tmp_path: Path) -> None:
    one, other = make_split(10), make_split(2)
    # Every training image three times, once under the wrong label; the test images in there too.
    images = np.concatenate([one.images, one.images, one.images, other.images])
    labels = np.concatenate([one.labels, one.labels, (one.labels + 1) % 10, other.labels])
    write_idx(tmp_path / "mnist", ImageSplit(images, labels), other)
    dataset = load_images("mnist", tmp_path)
    assert_well_formed(dataset)
    assert len(dataset.train.labels) + len(dataset.validation.labels) == 300
    assert len(dataset.validation.labels) == 30
    assert "less 20 training images identical to a test image" in dataset.source


def test_cifar10(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    train, test = make_split(10, 32, 3), make_split(2, 32, 3)
    write_cifar(folder / "data_batch_1.bin", ImageSplit(train.images[:50], train.labels[:50]))
    write_cifar(folder / "data_batch_3.bin", ImageSplit(train.images[50:], train.labels[50:]))
    write_cifar(folder / "test_batch.bin", test)
    dataset = load_images("cifar10", tmp_path)
    assert_well_formed(dataset)
    assert dataset.train.images.shape[1:] == (32, 32, 3)
    assert np.array_equal(dataset.test.images, test.images)
    assert contents(dataset.train) | contents(dataset.validation) == contents(train)
    assert "CIFAR-10 (subset: 100 training and 20 test images)" in dataset.source


def test_the_fingerprint_follows_pixels_and_labels(tmp_path: Path) -> None:
    train, test = make_split(4), make_split(1)
    write_idx(tmp_path / "mnist", train, test)
    before = load_images("mnist", tmp_path).sha256
    test.images[0, 0, 0, 0] ^= 1
    write_idx(tmp_path / "mnist", train, test)
    pixel = load_images("mnist", tmp_path).sha256
    test.labels[0] = 5
    write_idx(tmp_path / "mnist", train, test)
    assert len({before, pixel, load_images("mnist", tmp_path).sha256}) == 3


def test_normalise() -> None:
    digits = load_images("digits")
    scaled = digits.normalise(digits.train.images)
    assert isinstance(scaled, np.ndarray)
    assert scaled.dtype == np.float32
    assert scaled.shape == digits.train.images.shape
    np.testing.assert_allclose([scaled.mean(), scaled.std()], [0, 1], atol=1e-5)
    on_device = digits.normalise(jnp.asarray(digits.train.images[:3]))
    assert isinstance(on_device, jnp.ndarray)
    np.testing.assert_allclose(on_device, scaled[:3], rtol=1e-6)


def test_normalise_channels_apart_and_a_constant_channel_to_zero(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    train, test = make_split(4, 32, 3), make_split(1, 32, 3)
    train.images[..., 0] //= 4
    train.images[..., 2] = 77
    write_cifar(folder / "data_batch_1.bin", train)
    write_cifar(folder / "test_batch.bin", test)
    dataset = load_images("cifar10", tmp_path)
    scaled = dataset.normalise(dataset.train.images)
    np.testing.assert_allclose(scaled.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std((0, 1, 2)), [1, 1, 0], atol=1e-4)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"'fashion-mnist'\. Did you mean 'fashion_mnist'\?"):
        load_images("fashion-mnist")
    with pytest.raises(ConfigError, match="must be one of digits, fashion_mnist, mnist, cifar10"):
        load_images("zzz")


def test_missing_files_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=f"fetch mnist --data-dir {tmp_path}$"):
        load_images("mnist", tmp_path)
    with pytest.raises(DataError, match=r"data_batch_1\.bin.*fetch cifar10"):
        load_images("cifar10", tmp_path)
    monkeypatch.setenv("TRELLIS_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"fetch fashion_mnist$"):
        load_images("fashion_mnist")


def test_missing_cifar_test_file(tmp_path: Path) -> None:
    write_cifar(
        tmp_path / "cifar10" / "cifar-10-batches-bin" / "data_batch_1.bin", make_split(2, 32, 3)
    )
    with pytest.raises(DataError, match=r"test_batch\.bin must be a readable file"):
        load_images("cifar10", tmp_path)


def test_images_of_another_size(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist", make_split(2, side=20), make_split(1))
    with pytest.raises(DataError, match="must hold images of 28 x 28; they are 20 x 20"):
        load_images("mnist", tmp_path)


def test_a_truncated_and_a_corrupt_file(tmp_path: Path) -> None:
    write_idx(tmp_path / "mnist", make_split(2), make_split(1))
    path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match=r"truncated.*fetch mnist"):
        load_images("mnist", tmp_path)
    path.write_bytes(good[:-8] + bytes(8))
    with pytest.raises(DataError, match=r"corrupt.*fetch mnist"):
        load_images("mnist", tmp_path)


def test_too_few_images_to_split(tmp_path: Path) -> None:
    train = make_split(1)
    write_idx(tmp_path / "mnist", train, make_split(1))
    with pytest.raises(DataError, match="leaves 10 to train on and 0 for validation"):
        load_images("mnist", tmp_path)
    write_idx(tmp_path / "mnist", train, train)
    with pytest.raises(DataError, match="leaves 0 to train on"):
        load_images("mnist", tmp_path)


def test_data_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("TRELLIS_DATA", "~/corpora")
    assert data_dir() == Path("/home/someone/corpora")
    assert data_dir("elsewhere") == Path("elsewhere")
    assert data_dir(Path("~/x")) == Path("/home/someone/x")
    monkeypatch.setenv("TRELLIS_DATA", "")
    assert data_dir() == Path("/home/someone/.cache/trellis")
    monkeypatch.delenv("TRELLIS_DATA")
    assert data_dir() == Path("/home/someone/.cache/trellis")


def test_loading_does_not_import_jax() -> None:
    code = (
        "import sys; from research.data.images import load_images; import research.data.fetch, "
        "research.data.sampler; load_images('digits'); sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shape", "test_images"),
    [("fashion_mnist", (28, 28, 1), 10_000), ("cifar10", (32, 32, 3), None)],
)
def test_published_data(name: str, shape: tuple[int, ...], test_images: int | None) -> None:
    dataset = load_images(name)
    assert_well_formed(dataset)
    assert dataset.train.images.shape[1:] == shape
    counts = [np.bincount(part.labels) for part in parts(dataset)]
    np.testing.assert_allclose(counts[1] / (counts[0] + counts[1]), 0.1, atol=0.001)
    if test_images:
        assert np.array_equal(counts[0] + counts[1], np.full(10, 6000))
        assert np.array_equal(counts[2], np.full(10, 1000))
        assert dataset.source == "Fashion-MNIST (60,000 training and 10,000 test images)"


@pytest.mark.data
def test_published_mnist() -> None:
    if not (Path(os.environ["TRELLIS_DATA"]) / "mnist").is_dir():
        pytest.skip("MNIST is not under TRELLIS_DATA")
    dataset = load_images("mnist")
    assert_well_formed(dataset)
    assert len(dataset.test.labels) == 10_000
