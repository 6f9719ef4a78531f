"""Targets of the workloads: what ``research.workloads.pool`` found, kept in ``targets.json``."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from research.errors import DataError
from research.workloads.workload import Workload

PATH = Path(__file__).parent / "targets.json"

_log = logging.getLogger(__name__)


def read_records() -> list[dict[str, Any]]:
    """One record for each workload and data set."""
    return json.loads(PATH.read_text())["records"] if PATH.exists() else []


def data_name(workload: Workload) -> str:
    """Which data a workload is on, whatever their version or size: the source up to its numbers.

    Example:
        >>> from research.workloads import build
        >>> data_name(build("quadratic_1e2"))
        'computed'
    """
    return workload.source.split(":")[0].split("(")[0].strip()


def find_target(workload: Workload, records: Sequence[Mapping[str, Any]] | None = None) -> float:
    """The target that was set on the workload's data.

    Data of the same kind that differ in their bytes, such as the help texts of another version of
    Python, get the target of those that are on record, with a warning in the log.

    Args:
        workload: with or without a target.
        records: by default those of ``targets.json``.

    Raises:
        DataError: no target was set on data of this kind.
    """
    records = read_records() if records is None else records
    named = [record for record in records if record["workload"] == workload.name]
    for record in named:
        if record["sha256"] == workload.sha256:
            return record["target"]
    command = f"python -m research.workloads.pool {workload.name}"
    for record in named:
        if record["data"] == data_name(workload):
            _log.warning(
                "the target of %s was set on %s; the data here differ (%s). To set it again: %s",
                workload.name,
                record["source"],
                workload.source,
                command,
            )
            return record["target"]
    recorded = ", ".join(record["source"] for record in named) or "none"
    raise DataError(
        f"No target is recorded for workload {workload.name!r} (data: {workload.source}); recorded "
        f"for it are those on: {recorded}. Set one: {command}"
    )
