"""Reports of runs, made from their records alone: `python -m research.report RUN`."""

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from research.errors import RunError
from research.report import optimizers, speech, training
from research.report.common import need
from research.report.page import Report, document
from research.runlog import Records, read_run

_RENDERERS: dict[str, Callable[[Records], Report]] = {
    "compare_optimizers": optimizers.render,
    "compare_ctc": speech.render,
    "train_ctc": training.render,
}

__all__ = ["Report", "build_report", "render", "table_csv"]


def build_report(run: str | os.PathLike[str]) -> Path:
    """Write report.html, figures/*.png and tables into a run directory.

    The tables are CSV files, the main one JSON as well: table.csv for train_ctc; for the others
    results.csv, and studies.csv, trials.csv, tests.csv, costs.csv and known_truths.csv of
    compare_optimizers; trainings.csv, searches.csv and costs.csv of compare_ctc.

    The same records give the same bytes. Every file is replaced in one step, so an interrupted call
    leaves the earlier ones whole.

    Args:
        run: a run directory, of a run that has ended or is still going on.

    Returns:
        The path of report.html.

    Raises:
        RunError: not a run directory, damaged records, or a directory that cannot be written.
    """
    path = Path(run)
    try:
        records = read_run(path)
    except (AttributeError, TypeError, UnicodeDecodeError) as error:
        raise RunError(f"the records in {path} are damaged: {error}") from error
    report = render(records)
    files = {f"figures/{figure.name}.png": figure.png for figure in report.figures}
    files |= {f"{name}.csv": table_csv(rows).encode() for name, rows in report.tables.items()}
    main, rows = next(iter(report.tables.items()))
    files[f"{main}.json"] = (json.dumps(rows, indent=1, allow_nan=False) + "\n").encode()
    files["report.html"] = document(report.title, report.body).encode()
    try:
        for name, content in files.items():
            _replace(path / name, content)
    except OSError as error:
        raise RunError(f"the run directory {path} must be writable: {error}") from error
    return path / "report.html"


def render(records: Records) -> Report:
    """The report of the records, in memory.

    Raises:
        RunError: an experiment without a report, or records that are damaged.
    """
    need(vars(records), "experiment", str, str(records.path))
    need(vars(records), "recipe", str, str(records.path))
    if records.experiment not in _RENDERERS:
        raise RunError(
            f"a report needs a run of one of {', '.join(sorted(_RENDERERS))}, got one of "
            f"{records.experiment!r}"
        )
    return _RENDERERS[records.experiment](records)


def table_csv(rows: Sequence[dict[str, Any]]) -> str:
    r"""Rows as CSV: an empty field for None, JSON for a dictionary.

    Example:
        >>> table_csv([{"a": 0.1, "b": None, "c": {"x": 1}}])
        'a,b,c\n0.1,,"{""x"": 1}"\n'
    """
    buffer = io.StringIO()
    if rows:
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()}
            )
    return buffer.getvalue()


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
