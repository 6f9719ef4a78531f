"""The command line of the datasets: `python -m research.data list` and `... fetch NAME`."""

import argparse
import logging
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pooch
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.table import Table

from research.data import data_dir
from research.data.downloads import Download, downloads
from research.data.fetch import RECORD_NAME, Progress, Report, fetch
from research.errors import TrellisError

_DESCRIPTION = "Datasets that the experiments can use beside the embedded ones."
_EXAMPLES = """\
examples:
  python -m research.data list
  python -m research.data fetch fsdd
  python -m research.data fetch mnist --data-dir /big/disk
  python -m research.data fetch mnist --url http://mirror.example/mnist
"""
_FETCH = """\
Download a dataset, or what is missing of it, and check every file against a committed checksum.
Files that are there and good are kept; what is interrupted leaves nothing half-written and can be
started again.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What follows `python -m research.data`; None takes that of the process.

    Returns:
        The exit status: 0, 2 after an error, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    root = data_dir(options.data_dir)
    console = Console(stderr=True)
    try:
        if options.command == "list":
            _list(root)
        else:
            _fetch(options.name, root, options.url, console)
    except TrellisError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("Interrupted. Nothing half-written was left; start again to go on.")
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m research.data",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=plain,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data-dir",
        metavar="D",
        type=Path,
        help="where the datasets are (default: $TRELLIS_DATA, else ~/.cache/trellis)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", parents=[common], help="what there is, and what is downloaded")
    download = commands.add_parser(
        "fetch", parents=[common], help="download a dataset", description=_FETCH
    )
    download.add_argument("name", metavar="NAME", help=f"one of {', '.join(downloads())}")
    download.add_argument(
        "--url",
        metavar="U",
        help="take it from this address: of the folder with the files, or of the archive "
        "(fsdd, cifar10, LibriSpeech); the checksums stay the same",
    )
    return parser


def _list(root: Path) -> None:
    table = Table("name", "what", "licence", "download", "here", box=None, pad_edge=False)
    table.add_row("digits", "1,797 images of handwritten digits", "CC BY 4.0", "embedded", "yes")
    for name, download in downloads().items():
        size = f"{download.megabytes} MB"
        table.add_row(name, download.title, download.licence, size, _state(download, root))
    # A pipe has no width: rows stay on one line there.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(f"\nData directory: {root}", soft_wrap=True, markup=False, highlight=False)


def _state(download: Download, root: Path) -> str:
    if not download.files:
        return "yes" if (root / download.folder / RECORD_NAME).is_file() else "no"
    there = sum((root / download.folder / name).is_file() for name in download.files)
    return {0: "no", len(download.files): "yes"}.get(there, f"{there} of {len(download.files)}")


def _fetch(name: str, root: Path, url: str | None, console: Console) -> None:
    if name == "digits":
        print("digits is embedded in scikit-learn: there is nothing to download.")
        return
    with _progress(console) as report:
        done = fetch(name, root, url=url, report=report)
    print(f"{name}: {done.new:,} files new, {done.kept:,} kept, in {done.folder}")


@contextmanager
def _progress(console: Console) -> Iterator[Report]:
    """Bars on a terminal, else a line when something begins."""
    pooch.get_logger().setLevel(logging.WARNING)  # its messages would tear the bars
    if not console.is_terminal:
        seen: set[str] = set()

        def print_once(progress: Progress) -> None:
            if progress.stage not in seen:
                seen.add(progress.stage)
                console.print(progress.stage, markup=False, highlight=False)

        yield print_once
        return
    bars = ProgressBars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(),
        console=console,
    )
    tasks = {}

    def draw(progress: Progress) -> None:
        stage, done, total, unit = progress
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total, amount="")
        show = decimal if unit == "bytes" else str
        amount = f"{show(done)} of {show(total)}" if total else show(done)
        bars.update(tasks[stage], completed=done, total=total, amount=amount)

    with bars:
        yield draw


if __name__ == "__main__":
    # As with Ctrl-C, what is half-written is removed on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.exit(main())
