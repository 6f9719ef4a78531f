"""Data sets made of small files, served on the loopback interface."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from download_server import FILES, RECORDINGS, Server, pack, sha256

from research.data.downloads import Download, downloads


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
