"""Downloads that meet a full disk, a signal or a person: nothing half-written, clear messages."""

import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from download_server import FILES, Server, sha256, tree

from research.data.__main__ import main
from research.data.downloads import Download, downloads
from research.data.fetch import Progress, fetch
from research.errors import ConfigError, DataError


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
    with pytest.raises(ConfigError, match=r"'fashion-mnist'\. Did you mean 'fashion_mnist'\?"):
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
    assert "Did you mean 'mnist'?" in capsys.readouterr().err
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
    for name in ("cifar10", "dev-clean", "test-clean", "train-clean-100"):
        assert re.fullmatch("[0-9a-f]{64}", downloads()[name].archive_sha256 or "")


@pytest.mark.data
def test_the_published_recordings_have_the_committed_checksums() -> None:
    folder = Path(os.environ["TRELLIS_DATA"]) / "fsdd" / "recordings"
    checksums = downloads()["fsdd"].files
    present = [path for path in folder.iterdir() if path.name in checksums]
    assert len(present) >= 2500
    assert all(sha256(path.read_bytes()) == checksums[path.name] for path in present)
