"""A server on the loopback interface that can misbehave, and small files to serve."""

import gzip
import hashlib
import io
import tarfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


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


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


FILES = {f"{part}-ubyte.gz": gzip.compress(part.encode() * 50, mtime=0) for part in "abc"}
RECORDINGS = {f"{digit}_theo_0.wav": f"sound of {digit} ".encode() * 40 for digit in range(5)}


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
