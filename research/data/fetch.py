"""Downloads of the published datasets, each file checked against a committed checksum.

A file appears under its name only when it is whole and its checksum is right; until then it is in
a hidden folder of the data directory, which is removed however the download ends. Good files that
are already there are kept.
"""

import hashlib
import os
import platform
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import urlsplit

import pooch
import requests

from research.data import data_dir as resolve_data_dir
from research.data.downloads import Download, downloads, parse_checksums
from research.errors import ConfigError, DataError
from research.names import look_up

RECORD_NAME = "SHA256SUMS"
"""Where an archive has a checksum but its files have none, theirs are kept beside them."""


class Progress(NamedTuple):
    """What is going on, how much of it is done, and how much there is (None: unknown)."""

    stage: str
    done: int
    total: int | None
    unit: Literal["bytes", "files"]


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Fetched:
    """What `fetch` did: the folder, and how many of its files were kept and how many are new."""

    folder: Path
    kept: int
    new: int


def fetch(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    retries: int = 2,
    report: Report = lambda progress: None,
) -> Fetched:
    """Download a dataset into the data directory, or what is missing of it.

    Args:
        name: One of `downloads()`.
        data_dir: Where to; see `research.data.data_dir`.
        url: Instead of the published address: that of the folder with the files, or of the archive.
        retries: How often to try an address again.
        report: Called with the progress, often.

    Returns:
        Where the files are, and how many were kept and how many are new.

    Raises:
        ConfigError: There is no dataset of that name, or `url` is not an HTTP address.
        DataError: The data directory cannot be written, no address could be reached, a download
            broke off, a checksum is wrong, or the archive is corrupt, incomplete or unsafe. Nothing
            of what was being downloaded is left.
    """
    download = look_up(downloads(), name, "dataset to download")
    if url is not None and urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(f"The address must begin with http:// or https://; received {url!r}.")
    root = resolve_data_dir(data_dir)
    folder = root / download.folder
    try:
        _remove_leftovers(root, name)
        missing = find_missing(download, folder, report)
        if missing:
            with _staging_folder(root, name) as stage:
                source = _Source(download, (url,) if url else download.addresses, retries, report)
                if download.archive:
                    _fetch_archive(source, missing, stage, folder)
                else:
                    _fetch_files(source, missing, stage, folder)
    except OSError as error:
        raise DataError(
            f"The data directory must be readable and writable; {root} is not "
            f"({error.strerror or error}: {error.filename or root}). Give another with --data-dir "
            "or in the environment variable TRELLIS_DATA."
        ) from error
    if not download.files and missing == [RECORD_NAME]:  # a tree that was not here
        missing = list(_recorded(download, folder))
    total = len(download.files or _recorded(download, folder))
    return Fetched(folder, total - len(missing), len(missing))


def find_missing(download: Download, folder: Path, report: Report) -> list[str]:
    """The names of the files that are not in the folder, or not with the right checksum.

    Args:
        download: What should be there.
        folder: Where it should be.
        report: Called with the progress.

    Returns:
        Names in the order of `download.files`, or of the record where these are not known before;
        the name of the record if that is missing too.
    """
    recorded = _recorded(download, folder)
    if not download.files and not recorded:
        return [RECORD_NAME]
    files = download.files or recorded
    missing, total = [], len(files)
    for number, (name, checksum) in enumerate(files.items()):
        path, expected = folder / name, checksum or recorded.get(name)
        if not path.is_file() or expected is None:
            missing.append(name)
            continue
        if _hash_file(path) != expected:
            missing.append(name)
        report(Progress("checking the files that are there", number + 1, total, "files"))
    return missing


def _recorded(download: Download, folder: Path) -> dict[str, str]:
    """The checksums that were recorded when the archive was unpacked."""
    record = folder / RECORD_NAME
    if not download.archive_sha256 or not record.is_file():
        return {}
    return parse_checksums(record.read_text("utf-8", errors="replace"))


@dataclass(frozen=True)
class _Source:
    """What to download, and how."""

    download: Download
    addresses: tuple[str, ...]
    retries: int
    report: Report


def _fetch_files(source: _Source, missing: list[str], stage: Path, folder: Path) -> None:
    """Download each file and put it in its place at once: an interruption loses only the last."""
    for name in missing:
        addresses = [f"{address.rstrip('/')}/{name}" for address in source.addresses]
        path = _fetch_file(source, addresses, name, source.download.files[name], stage)
        path.chmod(0o644)  # pooch makes files that only their owner can read
        folder.mkdir(parents=True, exist_ok=True)
        os.replace(path, folder / name)


def _fetch_archive(source: _Source, missing: list[str], stage: Path, folder: Path) -> None:
    """Download the archive, check all of it, then put the missing files in their place."""
    download, name = source.download, source.download.archive
    assert name is not None
    path = _fetch_file(source, list(source.addresses), name, download.archive_sha256, stage)
    unpacked = stage / "unpacked"
    unpacked.mkdir()
    origin = f"{name} from {source.addresses[0]}"
    found = _unpack(path, origin, download, unpacked, source.report)
    if not download.files and not found:
        raise DataError(
            f"{origin} must contain files in a folder named {download.folder}; there are none. "
            "Nothing was changed; is this the address of the right archive?"
        )
    absent = [file for file in download.files if file not in found]
    if absent:
        raise DataError(
            f"{origin} must contain {len(download.files)} files in a folder named "
            f"{PurePosixPath(download.folder).name}; {len(absent)} are not there, such as "
            f"{absent[0]}. Nothing was changed; is this the address of the right archive?"
        )
    wrong = [file for file, sha in download.files.items() if sha not in (None, found[file])]
    if wrong:
        raise DataError(
            f"Every file in {origin} must have the checksum that is known of it; {len(wrong)} of "
            f"{len(download.files)} have another, such as {wrong[0]}: SHA-256 must be "
            f"{download.files[wrong[0]]}, found {found[wrong[0]]}. Nothing was changed; try again, "
            "or another address."
        )
    if download.archive_sha256:
        lines = "".join(f"{found[file]}  {file}\n" for file in download.files or sorted(found))
        (unpacked / RECORD_NAME).write_text(lines, "utf-8")
        missing = [*(missing if download.files else found), RECORD_NAME]
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        try:
            os.replace(unpacked, folder)
            return
        except OSError:
            if not folder.is_dir():  # else another process has just made it
                raise
    for file in missing:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(unpacked / file, folder / file)


def _fetch_file(
    source: _Source, addresses: list[str], name: str, sha256: str | None, stage: Path
) -> Path:
    """Download one file into `stage` from the first address that gives the right one."""
    failures = []
    for address in addresses:
        # pooch takes any object as a progress bar and its own downloader; its annotations do not.
        downloader: Any = pooch.HTTPDownloader(
            progressbar=cast(Any, _PoochProgress(f"downloading {name}", source.report)),
            chunk_size=2**16,
            timeout=30,
            # Some servers would compress, or decompress, a file that is compressed already.
            headers={"Accept-Encoding": "identity"},
        )
        client = pooch.create(
            stage,
            base_url="",
            registry={name: sha256},
            urls={name: address},
            retry_if_failed=source.retries,
        )
        try:
            return Path(client.fetch(name, downloader=downloader))
        except (requests.RequestException, ValueError) as error:
            failures.append(f"  {address}: {_reason(error)}")
    tries = "\n".join(failures)
    raise DataError(
        f"{name} must be downloaded, and could not be:\n{tries}\n"
        "Nothing half-written was left. Check the network and try again, give the address of a "
        f"copy with --url, or put the files into the folder {source.download.folder} of the data "
        "directory yourself."
    )


def _reason(error: Exception) -> str:
    """One line that a person can act on, from what requests or pooch raised."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was closed before the end of the file"
    if isinstance(error, requests.ConnectionError):
        cause = error.args[0] if error.args else error
        return f"no connection ({str(getattr(cause, 'reason', cause)).split(': ', 1)[-1]})"
    if isinstance(error, requests.RequestException):
        return str(error)
    # pooch: "SHA256 hash of downloaded file (x) does not match the known hash: expected a but ..."
    return f"wrong checksum, {str(error).split(': ', 1)[-1].split('. ')[0]}"


class _PoochProgress:
    """The four things that pooch asks of a progress bar."""

    def __init__(self, stage: str, report: Report):
        self.total, self._done, self._stage, self._report = 0, 0, stage, report
        self.update(0)

    def update(self, amount: int) -> None:
        self._done = min(self._done + amount, self.total) if self.total else self._done + amount
        self._report(Progress(self._stage, self._done, self.total or None, "bytes"))

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        pass


def _unpack(
    archive: Path, origin: str, download: Download, into: Path, report: Report
) -> dict[str, str]:
    """Write the files that are wanted, and nothing else, from an archive; return their checksums.

    Members are written under the names of `download.files` or, where there are none, under their
    path below `download.folder`; an archive with a link, a device or a path that leads outside is
    refused.
    """
    folder, found = PurePosixPath(download.folder), {}
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                _refuse_unsafe(member, origin)
                path = PurePosixPath(member.name)
                if download.files:
                    name, wanted = path.name, path.name in download.files
                    wanted = wanted and path.parent.name == folder.name
                else:
                    wanted = member.isfile() and path.is_relative_to(folder)
                    name = path.relative_to(folder).as_posix() if wanted else ""
                if not wanted:
                    continue
                content = tar.extractfile(member)
                if content is None:
                    continue  # a directory that is named like a file
                (into / name).parent.mkdir(parents=True, exist_ok=True)
                with content, open(into / name, "wb") as file:
                    shutil.copyfileobj(content, file)
                found[name] = _hash_file(into / name)
                report(Progress("unpacking", len(found), len(download.files) or None, "files"))
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise _corrupt(origin, error) from error
    except OSError as error:
        if error.errno is not None:
            raise  # of the disk; gzip raises an OSError without a number for bad data
        raise _corrupt(origin, error) from error
    return found


def _corrupt(origin: str, error: Exception) -> DataError:
    return DataError(
        f"{origin} must be a complete .tar.gz archive; it is truncated or corrupt ({error}). "
        "Nothing was changed; try again, or another address with --url."
    )


def _refuse_unsafe(member: tarfile.TarInfo, origin: str) -> None:
    path = PurePosixPath(member.name)
    if member.issym() or member.islnk():
        problem = "is a link"
    elif not (member.isfile() or member.isdir()):
        problem = "is neither a file nor a directory"
    elif path.is_absolute() or ".." in path.parts:
        problem = "leads outside the archive"
    else:
        return
    raise DataError(
        f"{origin} must contain only files and directories below its root; {member.name!r} "
        f"{problem}. It was refused and nothing was changed; do not trust that address."
    )


@contextmanager
def _staging_folder(root: Path, name: str) -> Iterator[Path]:
    """A folder for what is not complete, on the file system of the data directory.

    Two processes may download the same dataset, hence the process in its name.
    """
    stage = root / f"{_staging_prefix(name)}{os.getpid()}"
    stage.mkdir(parents=True)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _staging_prefix(name: str) -> str:
    return f".fetch-{name}-{platform.node()}-"


def _remove_leftovers(root: Path, name: str) -> None:
    """Remove what processes on this machine left behind when they were killed."""
    prefix = _staging_prefix(name)
    for path in root.iterdir() if root.is_dir() else ():
        if path.name.startswith(prefix) and not _is_running(path.name.removeprefix(prefix)):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: str) -> bool:
    """Whether another process of that number is alive; this one is not downloading yet."""
    if not process.isdecimal() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is someone else's
        return True
    return True


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
