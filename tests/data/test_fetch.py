"""Downloads from a server on the loopback interface; nothing here reaches a network."""

import gzip
import hashlib
import io
import os
import platform
import re
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from research.data.__main__ import main
from research.data.downloads import Download, downloads
from research.data.fetch import RECORD_NAME, Fetched, Progress, fetch
from research.errors import ConfigError, DataError


class Server(ThreadingHTTPServer):
    """Serves `contents` by path, and can misbehave."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.contents: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.encodings: list[str | None] = []
        self.failures: dict[str, int] = {}  # path -> how many requests still get a 503
        self.send_half: set[str] = set()  # closed in the middle
        self.without_length: set[str] = set()
        self.stall: set[str] = set()  # half is sent, then nothing until `release`
        self.half_sent, self.release = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        server, path = self.server, self.path
        server.requests.append(path)
        server.encodings.append(self.headers["Accept-Encoding"])
        if server.failures.get(path, 0):
            server.failures[path] -= 1
            self.send_error(503)
            return
        if path not in server.contents:
            self.send_error(404)
            return
        content = server.contents[path]
        self.send_response(200)
        if path not in server.without_length:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if path in server.stall:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            server.half_sent.set()
            server.release.wait(30)
        elif path in server.send_half:
            self.wfile.write(content[: len(content) // 2])
        else:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.release.set()
        running.shutdown()
        thread.join()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


FILES = {f"{part}-ubyte.gz": gzip.compress(part.encode() * 50, mtime=0) for part in "abc"}
RECORDINGS = {f"{digit}_theo_0.wav": f"sound of {digit} ".encode() * 40 for digit in range(5)}


@pytest.fixture
def file_set(server: Server, monkeypatch: pytest.MonkeyPatch) -> Download:
    """`mnist`, made of three small files."""
    checksums = {name: sha256(content) for name, content in FILES.items()}
    tiny = replace(downloads()["mnist"], files=checksums, addresses=(f"{server.url}/mnist",))
    monkeypatch.setitem(downloads(), "mnist", tiny)
    server.contents.update({f"/mnist/{name}": content for name, content in FILES.items()})
    return tiny


@pytest.fixture
def recordings(server: Server, monkeypatch: pytest.MonkeyPatch) -> Download:
    """`fsdd`, made of five small recordings."""
    checksums = {name: sha256(content) for name, content in RECORDINGS.items()}
    tiny = replace(downloads()["fsdd"], files=checksums, addresses=(f"{server.url}/fsdd.tar.gz",))
    monkeypatch.setitem(downloads(), "fsdd", tiny)
    server.contents["/fsdd.tar.gz"] = pack(RECORDINGS)
    return tiny


ROOT = "free-spoken-digit-dataset-1.0.10"


def pack(
    files: dict[str, bytes],
    extra: Callable[[tarfile.TarFile], None] = lambda tar: None,
    folder: str = f"{ROOT}/recordings",
) -> bytes:
    """An archive as GitHub makes it: a root folder, and files beside the ones that are wanted."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", pax_headers={"comment": "d6938f9"}) as tar:
        add(tar, f"{ROOT}/README.md", b"read me")
        add(tar, f"{ROOT}/utils/0_theo_0.wav", b"of the same name, elsewhere")
        for name, content in files.items():
            add(tar, f"{folder}/{name}", content)
        add(tar, f"{folder}/notes.txt", b"not wanted")
        extra(tar)
    return stream.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes, kind: bytes = tarfile.REGTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, len(content)
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        member.size, member.linkname = 0, content.decode()
    tar.addfile(member, io.BytesIO(content))


def tree(root: Path) -> dict[str, bytes]:
    """Every file under a directory, hidden ones too."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def mnist_tree(*names: str) -> dict[str, bytes]:
    return {f"mnist/{name}": FILES[name] for name in names or FILES}


FSDD_TREE = {f"fsdd/recordings/{name}": content for name, content in RECORDINGS.items()}


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


@pytest.fixture
def cifar(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """`cifar10`, of which only the archive has a published checksum; returns its files."""
    original = downloads()["cifar10"]
    files = {name: name.encode() * 30 for name in original.files}
    archive = pack(files, folder="cifar-10-batches-bin")
    address = f"{server.url}/cifar.tar.gz"
    tiny = replace(original, archive_sha256=sha256(archive), addresses=(address,))
    monkeypatch.setitem(downloads(), "cifar10", tiny)
    server.contents["/cifar.tar.gz"] = archive
    return files


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


def test_a_data_directory_that_is_a_file(tmp_path: Path, file_set: Download) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    for root in (path, path / "below"):
        with pytest.raises(DataError, match=r"must be readable and writable.*TRELLIS_DATA"):
            fetch("mnist", root)
    assert path.read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_data_directory_without_permission(tmp_path: Path, file_set: Download) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="Permission denied"):
        fetch("mnist", tmp_path)
    tmp_path.chmod(0o700)


def test_a_full_disk(tmp_path: Path, file_set: Download, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: str, target: str) -> None:
        raise OSError(28, "No space left on device", target)

    monkeypatch.setattr("pooch.core.shutil.move", fail)
    with pytest.raises(DataError, match=r"No space left on device.*--data-dir"):
        fetch("mnist", tmp_path)
    assert tree(tmp_path) == {}


def test_good_files_in_a_read_only_directory_need_no_writing(
    tmp_path: Path, file_set: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch("mnist", tmp_path)

    def refuse(path: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert fetch("mnist", tmp_path).kept == 3


@pytest.mark.parametrize("stage", ["downloading", "unpacking"])
def test_an_interruption_leaves_nothing(tmp_path: Path, recordings: Download, stage: str) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.stage.startswith(stage) and progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("fsdd", tmp_path, report=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_mid_transfer_leaves_nothing(
    tmp_path: Path, server: Server, number: signal.Signals, status: int
) -> None:
    name = next(iter(downloads()["mnist"].files))
    server.contents[f"/{name}"] = bytes(2**20)
    server.stall.add(f"/{name}")
    command = [sys.executable, "-m", "research.data", "fetch", "mnist"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(tmp_path), "--url", server.url],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.half_sent.wait(60)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == status
    # A half-read response may complain of being closed ("Exception ignored"); that is all.
    assert not re.search(r"^(KeyboardInterrupt|SystemExit)", errors, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_a_running_one_is_let_be(
    tmp_path: Path, file_set: Download
) -> None:
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    stale = tmp_path / f".fetch-mnist-{platform.node()}-{finished.pid}"
    running = tmp_path / f".fetch-mnist-{platform.node()}-{os.getppid()}"
    elsewhere = tmp_path / ".fetch-mnist-another-machine-1"
    for folder in (stale, running, elsewhere):
        folder.mkdir()
        (folder / "part").write_bytes(b"half")
    kept = {"mnist", running.name, elsewhere.name}
    fetch("mnist", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept
    stale.mkdir()
    fetch("mnist", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_unknown_names_and_addresses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'fashion-mnist'\. Did you mean fashion_mnist\?"):
        fetch("fashion-mnist", tmp_path)
    with pytest.raises(ConfigError, match="must be one of fsdd, mnist, fashion_mnist, cifar10"):
        fetch("zzz", tmp_path)
    with pytest.raises(ConfigError, match="must begin with http"):
        fetch("mnist", tmp_path, url="/some/file")


def test_progress(tmp_path: Path, recordings: Download) -> None:
    seen: list[Progress] = []
    fetch("fsdd", tmp_path, report=seen.append)
    fetch("fsdd", tmp_path, report=seen.append)
    stages = [f"downloading {recordings.archive}", "unpacking", "checking the files that are there"]
    assert list(dict.fromkeys(progress.stage for progress in seen)) == stages
    for stage in stages:
        steps = [progress for progress in seen if progress.stage == stage]
        assert steps[-1].done == steps[-1].total


def test_command_line(
    tmp_path: Path, file_set: Download, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fetch", "mnist", "--data-dir", str(tmp_path)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out == f"mnist: 3 files new, 0 kept, in {tmp_path / 'mnist'}\n"
    assert captured.err.splitlines() == [f"downloading {name}" for name in FILES]
    assert main(arguments) == 0
    assert "0 files new, 3 kept" in capsys.readouterr().out


def test_bars_on_a_terminal(
    tmp_path: Path,
    file_set: Download,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    assert main(["fetch", "mnist", "--data-dir", str(tmp_path)]) == 0
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    for name, content in FILES.items():
        assert re.search(
            rf"downloading {name} .*{len(content)} bytes of {len(content)} bytes", shown
        )


def test_errors_on_the_command_line(
    tmp_path: Path,
    server: Server,
    file_set: Download,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    assert main(["fetch", "minst", "--data-dir", str(tmp_path)]) == 2
    assert "Did you mean mnist?" in capsys.readouterr().err
    address = f"{server.url}/absent"
    assert main(["fetch", "mnist", "--data-dir", str(tmp_path), "--url", address]) == 2
    errors = capsys.readouterr().err
    assert "404" in errors
    assert "Traceback" not in errors


def test_ctrl_c_on_the_command_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("research.data.__main__.fetch", interrupt)
    assert main(["fetch", "mnist"]) == 130
    assert "start again to go on" in capsys.readouterr().err


def test_list(tmp_path: Path, file_set: Download, capsys: pytest.CaptureFixture[str]) -> None:
    fetch("mnist", tmp_path)
    (tmp_path / "mnist" / "b-ubyte.gz").unlink()
    assert main(["list", "--data-dir", str(tmp_path)]) == 0
    rows = {line.split()[0]: line.rstrip() for line in capsys.readouterr().out.splitlines() if line}
    assert {"digits", *downloads()} <= rows.keys()
    assert rows["mnist"].endswith("2 of 3")
    assert rows["fsdd"].endswith("no")
    assert rows["digits"].endswith("yes")
    assert str(tmp_path) in rows["Data"]


def test_embedded_data_needs_no_download(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "digits"]) == 0
    assert "nothing to download" in capsys.readouterr().out


def test_committed_checksums_name_every_published_file() -> None:
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    assert set(downloads()["fsdd"].files) == {
        f"{digit}_{speaker}_{take}.wav"
        for digit in range(10)
        for speaker in speakers
        for take in range(50)
    }
    idx = {
        f"{part}-{kind}-ubyte.gz"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    }
    assert set(downloads()["mnist"].files) == set(downloads()["fashion_mnist"].files) == idx
    for name in ("fsdd", "mnist", "fashion_mnist"):
        checksums = list(downloads()[name].files.values())
        assert all(re.fullmatch("[0-9a-f]{64}", checksum or "") for checksum in checksums)
        assert len(set(checksums)) == len(checksums)
    assert re.fullmatch("[0-9a-f]{64}", downloads()["cifar10"].archive_sha256 or "")


@pytest.mark.data
def test_the_published_recordings_have_the_committed_checksums() -> None:
    folder = Path(os.environ["TRELLIS_DATA"]) / "fsdd" / "recordings"
    checksums = downloads()["fsdd"].files
    present = [path for path in folder.iterdir() if path.name in checksums]
    assert len(present) >= 2500
    assert all(sha256(path.read_bytes()) == checksums[path.name] for path in present)
