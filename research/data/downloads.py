"""The published datasets that can be downloaded: where they are, and what each file must be.

The checksums are in `checksums/`, in the format of `sha256sum`. Those of the Free Spoken Digit
Dataset are of the recordings in tag v1.0.10 (commit d6938f9), as the bytes of an archive that
GitHub makes may change. Those of LibriSpeech are those that torchaudio publishes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

from research.data import cifar


@dataclass(frozen=True)
class Download:
    """What to download and what it must be.

    Attributes:
        title: Name for a person.
        licence: Terms, or who to cite where there are none.
        megabytes: Size of the download.
        folder: Where its files belong, under the data directory.
        addresses: Tried in order. Of the folder that holds the files; of the archive, if it is one.
        files: Name of each file -> SHA-256, or None where only the archive's is known. Empty where
            everything in `folder` of the archive is wanted, at any depth.
        archive: Name of the archive (.tar.gz) that holds the files, or None.
        archive_sha256: Of the archive, or None.
    """

    title: str
    licence: str
    megabytes: int
    folder: str
    addresses: tuple[str, ...]
    files: Mapping[str, str | None]
    archive: str | None = None
    archive_sha256: str | None = None


@cache
def downloads() -> dict[str, Download]:
    """Every dataset that can be downloaded, by name.

    Example:
        >>> sorted(downloads())
        ['cifar10', 'dev-clean', 'fashion_mnist', 'fsdd', 'mnist', 'test-clean', 'train-clean-100']
        >>> len(downloads()["fsdd"].files)
        3000
    """
    return {
        "fsdd": Download(
            title="Free Spoken Digit Dataset v1.0.10, 3,000 recordings of 6 speakers",
            licence="CC BY-SA 4.0",
            megabytes=16,
            folder="fsdd/recordings",
            addresses=(
                "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/"
                "v1.0.10.tar.gz",
            ),
            files=_committed_checksums("fsdd"),
            archive="v1.0.10.tar.gz",
        ),
        "mnist": Download(
            title="MNIST, 70,000 images of handwritten digits",
            licence="LeCun, Cortes and Burges 1998",
            megabytes=12,
            folder="mnist",
            # Mirrors: the publisher's server, yann.lecun.com, answers 403 (pytorch/vision#8568).
            addresses=(
                "https://ossci-datasets.s3.amazonaws.com/mnist",
                "https://storage.googleapis.com/cvdf-datasets/mnist",
            ),
            files=_committed_checksums("mnist"),
        ),
        "fashion_mnist": Download(
            title="Fashion-MNIST, 70,000 images of clothes",
            licence="MIT",
            megabytes=31,
            folder="fashion_mnist",
            addresses=(
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
            ),
            files=_committed_checksums("fashion_mnist"),
        ),
        "cifar10": Download(
            title="CIFAR-10 (binary version), 60,000 colour images",
            licence="Krizhevsky 2009",
            megabytes=170,
            folder="cifar10/cifar-10-batches-bin",
            addresses=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
            files=dict.fromkeys((*cifar.TRAINING_FILES, cifar.TEST_FILE, "batches.meta.txt")),
            archive="cifar-10-binary.tar.gz",
            archive_sha256=_committed_checksums("cifar10")["cifar-10-binary.tar.gz"],
        ),
        "dev-clean": _librispeech("dev-clean", 338, "5 h of 40 speakers"),
        "test-clean": _librispeech("test-clean", 347, "5 h of 40 speakers"),
        "train-clean-100": _librispeech("train-clean-100", 6387, "100 h of 251 speakers"),
    }


def _librispeech(part: str, megabytes: int, content: str) -> Download:
    archive = f"{part}.tar.gz"
    return Download(
        title=f"LibriSpeech {part}, {content}",
        licence="CC BY 4.0",
        megabytes=megabytes,
        folder=f"LibriSpeech/{part}",
        addresses=(
            f"https://www.openslr.org/resources/12/{archive}",
            f"https://us.openslr.org/resources/12/{archive}",
        ),
        files={},
        archive=archive,
        archive_sha256=_committed_checksums("librispeech")[archive],
    )


def _committed_checksums(name: str) -> dict[str, str]:
    path = resources.files("research.data") / "checksums" / f"{name}.sha256"
    return parse_checksums(path.read_text("utf-8"))


def parse_checksums(text: str) -> dict[str, str]:
    r"""Lines of `sha256sum` as a mapping from name to checksum; other lines are skipped.

    Example:
        >>> parse_checksums("00ff  a.wav\nnonsense\n")
        {'a.wav': '00ff'}
    """
    pairs = (line.split("  ", 1) for line in text.splitlines())
    return {pair[1]: pair[0] for pair in pairs if len(pair) == 2}
