"""Downloads from a server on the loopback interface; nothing here reaches a network."""

import gzip
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from download_server import (
    FILES,
    FSDD_TREE,
    RECORDINGS,
    ROOT,
    Server,
    add,
    mnist_tree,
    pack,
    sha256,
    tree,
)

from research.data.downloads import Download, downloads
from research.data.fetch import RECORD_NAME, Fetched, Progress, fetch
from research.errors import DataError


def test_files(tmp_path: Path, server: Server, file_set: Download) -> None:
    assert fetch("mnist", tmp_path) == Fetched(tmp_path / "mnist", kept=0, new=3)
    assert tree(tmp_path) == mnist_tree()
    assert {path.name for path in tmp_path.iterdir()} == {"mnist"}
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "mnist").iterdir())
    # A server that compressed once more on the way would have to be undone, and some are not.
    assert set(server.encodings) == {"identity"}
    server.requests.clear()
    assert fetch("mnist", tmp_path) == Fetched(tmp_path / "mnist", kept=3, new=0)
    assert server.requests == []


def test_only_missing_and_damaged_files_are_downloaded(
    tmp_path: Path, server: Server, file_set: Download
) -> None:
    fetch("mnist", tmp_path)
    server.requests.clear()
    (tmp_path / "mnist" / "a-ubyte.gz").unlink()
    (tmp_path / "mnist" / "c-ubyte.gz").write_bytes(b"damaged")
    kept = (tmp_path / "mnist" / "b-ubyte.gz").stat().st_ino
    assert fetch("mnist", tmp_path) == Fetched(tmp_path / "mnist", kept=1, new=2)
    assert server.requests == ["/mnist/a-ubyte.gz", "/mnist/c-ubyte.gz"]
    assert tree(tmp_path) == mnist_tree()
    assert (tmp_path / "mnist" / "b-ubyte.gz").stat().st_ino == kept


def test_another_address(tmp_path: Path, server: Server, file_set: Download) -> None:
    server.contents = {f"/copy/{name}": content for name, content in FILES.items()}
    fetch("mnist", tmp_path, url=f"{server.url}/copy/")
    assert tree(tmp_path) == mnist_tree()
    assert all(path.startswith("/copy/") for path in server.requests)


def test_the_second_address_is_tried_when_the_first_fails(
    tmp_path: Path, server: Server, file_set: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = replace(file_set, addresses=(f"{server.url}/gone", *file_set.addresses))
    monkeypatch.setitem(downloads(), "mnist", two)
    fetch("mnist", tmp_path, retries=0)
    assert tree(tmp_path) == mnist_tree()


def test_an_address_is_tried_again(
    tmp_path: Path, server: Server, file_set: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    server.failures["/mnist/b-ubyte.gz"] = 2
    fetch("mnist", tmp_path, retries=2)
    assert tree(tmp_path) == mnist_tree()


def test_a_wrong_checksum(tmp_path: Path, server: Server, file_set: Download) -> None:
    server.contents["/mnist/b-ubyte.gz"] = b"something else"
    with pytest.raises(DataError, match=r"b-ubyte\.gz.*could not be") as caught:
        fetch("mnist", tmp_path, retries=0)
    message = str(caught.value)
    assert f"{server.url}/mnist/b-ubyte.gz: wrong checksum" in message
    assert sha256(FILES["b-ubyte.gz"]) in message
    assert sha256(b"something else") in message
    assert "--url" in message
    assert tree(tmp_path) == mnist_tree("a-ubyte.gz")
    assert {path.name for path in tmp_path.iterdir()} == {"mnist"}


def test_a_bad_download_leaves_what_was_there(
    tmp_path: Path, server: Server, file_set: Download
) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "a-ubyte.gz").write_bytes(b"my own copy")
    server.contents["/mnist/a-ubyte.gz"] = b"something else"
    with pytest.raises(DataError, match="wrong checksum"):
        fetch("mnist", tmp_path, retries=0)
    assert tree(tmp_path) == {"mnist/a-ubyte.gz": b"my own copy"}


@pytest.mark.parametrize("with_length", [True, False])
def test_a_server_that_closes_in_the_middle(
    tmp_path: Path, server: Server, file_set: Download, with_length: bool
) -> None:
    server.send_half.add("/mnist/b-ubyte.gz")
    if not with_length:
        server.without_length.add("/mnist/b-ubyte.gz")
    with pytest.raises(DataError, match="closed before the end" if with_length else "checksum"):
        fetch("mnist", tmp_path, retries=0)
    assert tree(tmp_path) == mnist_tree("a-ubyte.gz")
    server.send_half.clear()
    assert fetch("mnist", tmp_path, retries=0) == Fetched(tmp_path / "mnist", kept=1, new=2)


def test_no_such_file_and_no_server(tmp_path: Path, server: Server, file_set: Download) -> None:
    with pytest.raises(DataError, match="the server answered 404 Not Found"):
        fetch("mnist", tmp_path, url=f"{server.url}/absent", retries=0)
    with pytest.raises(DataError, match=r"no connection .*refused"):
        fetch("mnist", tmp_path, url="http://127.0.0.1:1", retries=0)
    assert tree(tmp_path) == {}


def test_an_archive(tmp_path: Path, server: Server, recordings: Download) -> None:
    folder = tmp_path / "fsdd" / "recordings"
    assert fetch("fsdd", tmp_path) == Fetched(folder, kept=0, new=5)
    assert tree(tmp_path) == FSDD_TREE
    assert {path.name for path in tmp_path.iterdir()} == {"fsdd"}
    server.requests.clear()
    assert fetch("fsdd", tmp_path) == Fetched(folder, kept=5, new=0)
    assert server.requests == []


def test_an_archive_mends_a_folder_and_keeps_what_is_good(
    tmp_path: Path, server: Server, recordings: Download
) -> None:
    folder = tmp_path / "fsdd" / "recordings"
    fetch("fsdd", tmp_path)
    (folder / "1_theo_0.wav").write_bytes(b"damaged")
    (folder / "3_theo_0.wav").unlink()
    (folder / "0_me_0.wav").write_bytes(b"my own")
    kept = (folder / "2_theo_0.wav").stat().st_ino
    assert fetch("fsdd", tmp_path) == Fetched(folder, kept=3, new=2)
    assert tree(tmp_path) == FSDD_TREE | {"fsdd/recordings/0_me_0.wav": b"my own"}
    assert (folder / "2_theo_0.wav").stat().st_ino == kept


def test_a_folder_that_another_process_makes_meanwhile(
    tmp_path: Path, recordings: Download
) -> None:
    folder = tmp_path / "fsdd" / "recordings"

    def interfere(progress: Progress) -> None:
        if progress.stage == "unpacking" and not folder.exists():
            folder.mkdir(parents=True)
            (folder / "0_theo_0.wav").write_bytes(RECORDINGS["0_theo_0.wav"])

    fetch("fsdd", tmp_path, report=interfere)
    assert tree(tmp_path) == FSDD_TREE


@pytest.mark.parametrize(
    ("name", "content", "kind", "says"),
    [
        (f"{ROOT}/recordings/0_theo_0.wav", b"/etc/passwd", tarfile.SYMTYPE, "is a link"),
        (f"{ROOT}/link", b"README.md", tarfile.SYMTYPE, "is a link"),
        (f"{ROOT}/hard", f"{ROOT}/README.md".encode(), tarfile.LNKTYPE, "is a link"),
        (f"{ROOT}/pipe", b"", tarfile.FIFOTYPE, "neither a file nor a directory"),
        (f"{ROOT}/disk", b"", tarfile.BLKTYPE, "neither a file nor a directory"),
        ("../outside.wav", b"x", tarfile.REGTYPE, "leads outside"),
        (f"{ROOT}/recordings/../../../recordings/0_theo_0.wav", b"x", tarfile.REGTYPE, "outside"),
        ("/recordings/0_theo_0.wav", b"x", tarfile.REGTYPE, "leads outside"),
    ],
)
def test_an_unsafe_archive(
    tmp_path: Path, server: Server, recordings: Download, name: str, content, kind, says: str
) -> None:
    server.contents["/fsdd.tar.gz"] = pack(RECORDINGS, lambda tar: add(tar, name, content, kind))
    data = tmp_path / "deep" / "data"
    with pytest.raises(DataError, match=says) as caught:
        fetch("fsdd", data)
    assert repr(name) in str(caught.value)
    assert tree(tmp_path) == {}


ARCHIVE = pack(RECORDINGS)
HALF_A_TAR = gzip.decompress(ARCHIVE)[:4000]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "truncated or corrupt"),
        (b"<html>not an archive</html>", "truncated or corrupt"),
        (gzip.compress(b"not a tar file" * 100), "truncated or corrupt"),
        (ARCHIVE[: len(ARCHIVE) // 2], "truncated or corrupt"),
        (gzip.compress(HALF_A_TAR), "truncated or corrupt"),
        (gzip.compress(HALF_A_TAR) + b"garbage", "truncated or corrupt"),
        (ARCHIVE[:200] + b"\xff" * 8 + ARCHIVE[208:], "truncated or corrupt"),
        (pack(dict(list(RECORDINGS.items())[1:])), r"1 are not there, such as 0_theo_0\.wav"),
        (pack(RECORDINGS, folder=f"{ROOT}/elsewhere"), "5 are not there"),
        (
            pack(RECORDINGS | {"2_theo_0.wav": b"changed"}),
            rf"1 of 5 have another, such as 2_theo_0\.wav.*{sha256(b'changed')}",
        ),
    ],
)
def test_a_bad_archive(
    tmp_path: Path, server: Server, recordings: Download, content: bytes, says: str
) -> None:
    folder = tmp_path / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    (folder / "0_theo_0.wav").write_bytes(b"damaged before")
    server.contents["/fsdd.tar.gz"] = content
    with pytest.raises(DataError, match=says):
        fetch("fsdd", tmp_path)
    assert tree(tmp_path) == {"fsdd/recordings/0_theo_0.wav": b"damaged before"}
    assert {path.name for path in tmp_path.iterdir()} == {"fsdd"}


def test_an_archive_cut_short_without_a_length(
    tmp_path: Path, server: Server, recordings: Download
) -> None:
    server.send_half.add("/fsdd.tar.gz")
    server.without_length.add("/fsdd.tar.gz")
    with pytest.raises(DataError, match="truncated or corrupt"):
        fetch("fsdd", tmp_path, retries=0)
    assert tree(tmp_path) == {}


def test_an_archive_without_checksums_of_its_files(
    tmp_path: Path, server: Server, cifar: dict[str, bytes]
) -> None:
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "test_batch.bin").write_bytes(b"of unknown origin")
    assert fetch("cifar10", tmp_path) == Fetched(folder, kept=0, new=7)
    recorded = "".join(f"{sha256(content)}  {name}\n" for name, content in cifar.items())
    assert tree(folder) == cifar | {RECORD_NAME: recorded.encode()}
    server.requests.clear()
    assert fetch("cifar10", tmp_path) == Fetched(folder, kept=7, new=0)
    assert server.requests == []
    (folder / "data_batch_2.bin").write_bytes(b"damaged")
    assert fetch("cifar10", tmp_path) == Fetched(folder, kept=6, new=1)
    assert tree(folder) == cifar | {RECORD_NAME: recorded.encode()}


def test_a_wrong_checksum_of_an_archive(
    tmp_path: Path, server: Server, cifar: dict[str, bytes]
) -> None:
    server.contents["/cifar.tar.gz"] += b"\0"
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz.*could not be.*") as caught:
        fetch("cifar10", tmp_path, retries=0)
    assert "wrong checksum" in str(caught.value)
    assert tree(tmp_path) == {}


CHAPTER = {
    "84/1/84-1.trans.txt": b"84-1-0000 GO\n",
    "84/1/84-1-0000.flac": b"sound",
    "174/2/174-2.trans.txt": b"174-2-0000 DO\n",
    "174/2/174-2-0000.flac": b"other sound",
}


@pytest.fixture
def part(server: Server, monkeypatch: pytest.MonkeyPatch) -> Download:
    """`dev-clean`, made of two chapters, beside which the archive has another part."""

    def other_part(tar: tarfile.TarFile) -> None:
        add(tar, "LibriSpeech/test-clean/1/1/1-1.trans.txt", b"1-1-0000 NO")
        add(tar, "LibriSpeech/SPEAKERS.TXT", b"not wanted")

    archive = pack(CHAPTER, other_part, folder="LibriSpeech/dev-clean")
    tiny = replace(
        downloads()["dev-clean"],
        addresses=(f"{server.url}/dev-clean.tar.gz",),
        archive_sha256=sha256(archive),
    )
    monkeypatch.setitem(downloads(), "dev-clean", tiny)
    server.contents["/dev-clean.tar.gz"] = archive
    return tiny


def test_a_tree_of_files_is_unpacked_as_it_is(tmp_path: Path, server: Server, part: Download):
    folder = tmp_path / part.folder
    expected = {**CHAPTER, "notes.txt": b"not wanted"}
    assert fetch("dev-clean", tmp_path) == Fetched(folder, kept=0, new=5)
    record = tree(folder).pop(RECORD_NAME).decode()
    assert {*record.splitlines()} == {f"{sha256(x)}  {name}" for name, x in expected.items()}
    assert {k: v for k, v in tree(folder).items() if k != RECORD_NAME} == expected
    assert {path.name for path in (tmp_path / "LibriSpeech").iterdir()} == {"dev-clean"}
    server.requests.clear()
    assert fetch("dev-clean", tmp_path) == Fetched(folder, kept=5, new=0)
    assert server.requests == []


def test_a_tree_is_mended(tmp_path: Path, server: Server, part: Download):
    folder = tmp_path / part.folder
    fetch("dev-clean", tmp_path)
    before = tree(folder)
    (folder / "84/1/84-1-0000.flac").write_bytes(b"damaged")
    (folder / "174/2/174-2.trans.txt").unlink()
    (folder / "174/2/174-2-0000.flac").unlink()
    (folder / "174/2").rmdir()
    assert fetch("dev-clean", tmp_path) == Fetched(folder, kept=2, new=3)
    assert tree(folder) == before


def test_a_tree_of_another_part_is_refused(tmp_path: Path, server: Server, part: Download):
    del part
    archive = pack(CHAPTER, folder="LibriSpeech/dev-other")
    wrong = replace(downloads()["dev-clean"], archive_sha256=sha256(archive))
    downloads()["dev-clean"] = wrong
    server.contents["/dev-clean.tar.gz"] = archive
    with pytest.raises(DataError, match="in a folder named LibriSpeech/dev-clean; there are none"):
        fetch("dev-clean", tmp_path)
    assert tree(tmp_path) == {}
