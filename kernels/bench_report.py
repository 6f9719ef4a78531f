"""The benchmark's records as JSON lines, and as tables made from them alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kernels.timing import DISTURBED

FORMAT = 1
Record = Mapping[str, Any]

# What must agree for numbers to stand side by side: above all the device and the clock.
GROUP = ("operation", "dtype", "pass", "device", "clock")
_WITHIN = {"": "", ", loop": " in a loop", ", models": " of models at once"}
PASSES = {
    which + where: what + how
    for where, how in _WITHIN.items()
    for which, what in (("forward", "value"), ("gradient", "value and every gradient"))
}
COLUMNS = (
    "shape",
    "contestant",
    "median",
    "quartiles",
    "samples",
    "× ours",
    "GB/s",
    "of copy",
    "FLOP/s",
    "of matmul",
    "compile",
    "temporary",
    "peak",
    "error",
)


class RecordError(ValueError):
    """A file of records cannot be read."""


def append_records(path: Path, records: Iterable[Record]) -> None:
    """Add records to a file, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)


def read_records(path: Path) -> list[Record]:
    """Records of a file, in order.

    Raises:
        RecordError: there is none, or a line is not one.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"records must come from a readable file: {error}") from error
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise RecordError(
                f"{path} must have one JSON object a line; line {number}: {error}. Was the file "
                "cut off? Remove the line."
            ) from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise RecordError(
                f"{path}: line {number} must be a record of format {FORMAT} of kernels.bench; "
                f"received {line[:80]!r}."
            )
        records.append(record)
    if not records:
        raise RecordError(f"{path} must hold records; it holds none. Make some with --out {path}.")
    return records


def latest(records: Sequence[Record]) -> list[Record]:
    """Of each problem, device and clock only the last run: its contestants ran interleaved."""

    def problem(record: Record) -> tuple:
        return (*(record[key] for key in GROUP), record["shape"])

    last = {problem(record): record["run"] for record in records}
    return [record for record in records if record["run"] == last[problem(record)]]


def groups(records: Sequence[Record]) -> dict[tuple, list[Record]]:
    """The records that a table or a panel of the figure may show together."""
    found: dict[tuple, list[Record]] = {}
    for record in latest(records):
        found.setdefault(tuple(record[key] for key in GROUP), []).append(record)
    return found


def title(group: tuple) -> str:
    """What a table or a panel shows."""
    operation, dtype, which, device, clock = group
    return f"{operation}, {dtype}, {PASSES[which]} — {device}, {clock} clock"


def duration(seconds: float) -> str:
    """Seconds with a unit that fits.

    Example:
        >>> duration(0.00123), duration(2.5), duration(4.2e-06)
        ('1.23 ms', '2.5 s', '4.2 µs')
    """
    scale, unit = (1, "s") if seconds >= 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    return f"{digits(seconds * scale)} {unit}"


def digits(value: float) -> str:
    """Three significant digits, without an exponent where they can do without.

    Example:
        >>> digits(1234.6), digits(0.01234), digits(12.0)
        ('1235', '0.0123', '12')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def size(count: float) -> str:
    """Bytes in MiB or KiB.

    Example:
        >>> size(3 * 2**20), size(512)
        ('3 MiB', '0.5 KiB')
    """
    return f"{digits(count / 2**20)} MiB" if count >= 2**20 else f"{digits(count / 2**10)} KiB"


def operations_unit(records: Iterable[Record]) -> tuple[float, str]:
    """What operations a second are counted in, the same all over a table or a panel."""
    largest = max((record.get("flops_per_second", 0.0) for record in records), default=0.0)
    return (1e12, "TFLOP/s") if largest >= 1e12 else (1e9, "GFLOP/s")


def cells(record: Record, unit: float = 1e12) -> tuple[str, ...]:
    """A record as text, one for each of ``COLUMNS``; operations in this unit."""
    status = record["status"]
    name = f"{record['shape']}", record["contestant"]
    if status != "timed":
        worst = _worst(record)
        shown = f"{worst:.1e}" if worst is not None else "–"
        return (*name, status.upper(), *["–"] * (len(COLUMNS) - 4), shown)
    ratio = record["ratio"]
    compile_seconds, memory = record["compile_seconds"], ("temporary_bytes", "peak_bytes")
    return (
        *name,
        duration(record["seconds"]),
        f"{duration(record['seconds_low'])} – {duration(record['seconds_high'])}",
        f"{record['samples']} × {record['repeats']}",
        "–" if ratio is None else _ratio(record),
        digits(record["bytes_per_second"] / 1e9),
        f"{record['bytes_per_second'] / record['copy_ceiling']:.0%}",
        digits(record["flops_per_second"] / unit),
        f"{record['flops_per_second'] / record['matmul_ceiling']:.0%}",
        "–" if compile_seconds is None else duration(compile_seconds),
        *("–" if record.get(key) is None else size(record[key]) for key in memory),
        f"{_worst(record):.1e}",
    )


def _ratio(record: Record) -> str:
    if record["contestant"] == record["relative_to"]:
        return "1"
    interval = f"[{digits(record['ratio_low'])}, {digits(record['ratio_high'])}]"
    return f"{digits(record['ratio'])} {interval}"


def _worst(record: Record) -> float | None:
    """The largest error; infinite ones are kept as null, JSON having no word for them."""
    errors = [float("inf") if e is None else e for e in (record["errors"] or {}).values()]
    return max(errors, default=None)


def notes(records: Sequence[Record]) -> list[str]:
    """What a reader must know beside the numbers, each remark once, with the shapes it is about."""
    shapes: dict[str, list[str]] = {}
    every = dict.fromkeys(record["shape"] for record in records)
    for record in records:
        if record["status"] == "wrong":
            remark = _wrong(record)
        elif record["status"] == "timed":
            remark = "; ".join(filter(None, (record["note"], _inexact(record))))
        else:
            remark = f"{record['contestant']} {record['status']}: {record['note']}"
        if remark:
            shapes.setdefault(remark, []).append(record["shape"])
    return [
        remark if set(where) == set(every) else f"{remark} ({', '.join(dict.fromkeys(where))})"
        for remark, where in shapes.items()
    ]


def _wrong(record: Record) -> str:
    return f"{record['contestant']} is WRONG, so it has no number: error of {_excess(record)}"


def _inexact(record: Record) -> str:
    return f"INEXACT, error of {excess}" if (excess := _excess(record)) else ""


def _excess(record: Record) -> str:
    """The errors that are larger than ours may be."""
    return ", ".join(
        f"{name} {'not finite' if error is None else format(error, '.1e')} "
        f"(ours may have {record['allowed'][name]:.1e})"
        for name, error in record["errors"].items()
        if error is None or error > record["allowed"][name]
    )


def disturbances(records: Sequence[Record]) -> list[str]:
    """Where others were at work on the cores that a wall clock was read on."""
    if records[0]["clock"] != "wall":
        return []
    shares: dict[str, float] = {}
    for record in records:
        share = record.get("others") or 0.0
        if share > DISTURBED:
            shares[record["shape"]] = max(share, shares.get(record["shape"], 0.0))
    listed = ", ".join(f"{shape} {share:.0%}" for shape, share in shares.items())
    marked = f"DISTURBED: others used a share of the cores meanwhile ({listed}): run again"
    retaken = sum(r.get("retaken") or 0 for r in records)
    every = retaken + sum(r.get("samples") or 0 for r in records)
    again = f"{retaken} of {every} samples, disturbed by others on the cores, were taken again"
    return [marked] * bool(shares) + [again] * bool(retaken)


def header(records: Sequence[Record]) -> list[str]:
    """What the numbers of a group were measured with, from the records."""
    lines = []
    for run in dict.fromkeys(record["run"] for record in records):
        record = next(record for record in records if record["run"] == run)
        versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items() if v)
        driver = f", driver {record['driver']}" if record["driver"] else ""
        lines.append(
            f"{record['time']}, commit {record['commit'] or 'unknown'}, {record['cpus']} cores at "
            f"load {record['load']}{driver}, {versions}"
        )
        lines.append(
            f"ceilings in that run: copy {digits(record['copy_ceiling'] / 1e9)} GB/s, "
            f"{record['dtype']} matmul {digits(record['matmul_ceiling'] / 1e9)} GFLOP/s"
        )
    return lines


def to_markdown(records: Sequence[Record]) -> str:
    """A table for each operation: times of ours, and how many times as long peers took.

    Returns:
        Markdown, with a newline at the end.
    """
    tables = [
        _table([record for record in records if record["operation"] == operation])
        for operation in dict.fromkeys(record["operation"] for record in records)
    ]
    devices = dict.fromkeys(f"{r['device']}, {r['clock']} clock" for r in records)
    return "\n\n".join(["\n".join(devices), *tables]) + "\n"


def _table(records: Sequence[Record]) -> str:
    """Of one operation; peers of which nothing is known but that they are not here are left out."""
    rows: dict[tuple, dict[str, Record]] = {}
    for group, members in groups(records).items():
        for record in members:
            rows.setdefault((*group, record["shape"]), {})[record["contestant"]] = record
    there = (r for r in records if not r["ours"] and r["status"] != "not timed")
    peers = list(dict.fromkeys(record["contestant"] for record in there))
    columns = ["operation, shape", "dtype", "pass", "ours", *(f"{peer}, × ours" for peer in peers)]
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for (operation, dtype, which, _, _, shape), found in rows.items():
        ours = next((r for r in found.values() if r["contestant"] == r.get("relative_to")), None)
        texts = [f"{operation}, {shape}", dtype, PASSES[which], _time(ours)]
        texts += [_times_ours(found.get(peer)) for peer in peers]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)


def _time(record: Record | None) -> str:
    timed = record is not None and record["status"] == "timed"
    return f"{record['contestant']} {duration(record['seconds'])}" if record and timed else "–"


def _times_ours(record: Record | None) -> str:
    if record is None or record["status"] != "timed" or record["ratio"] is None:
        return "–" if record is None else record["status"]
    return _ratio(record) + (f", error {_worst(record):.0e}" if _excess(record) else "")


def show(records: Sequence[Record], console: Console) -> None:
    """Print a table for each operation, dtype, pass, device and clock."""
    for group, members in groups(records).items():
        table = Table(title=title(group), title_justify="left")
        unit, unit_name = operations_unit(members)
        for i, column in enumerate(COLUMNS):
            column = unit_name if column == "FLOP/s" else column
            table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
        before = None
        for record in members:
            if record["status"] not in ("timed", "wrong", "failed"):
                continue
            if before not in (None, record["shape"]):
                table.add_section()
            row = cells(record, unit)
            shown = (row[0] if record["shape"] != before else "", *row[1:])
            style = "red" if record["status"] != "timed" else "bold" if record["ours"] else ""
            table.add_row(*map(Text, shown), style=style)
            before = record["shape"]
        console.print(table)
        explained = (
            "samples: rounds × calls in each. × ours: time over ours, round by round, with an "
            "interval of 95 %, of less below 6 rounds",
            "of copy, of matmul: shares of the ceilings; data in a cache may exceed the first",
        )
        for line in disturbances(members):
            console.print(Text(line, style="yellow"))
        for line in (*header(members), *explained, *notes(members)):
            console.print(Text(line, style="dim"))
        console.print()
