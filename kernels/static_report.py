"""What compilation alone says about every tuned kernel, without a GPU.

    python -m kernels.static_report                          every family, every architecture
    python -m kernels.static_report convolution --arch sm_90
    python -m kernels.static_report --out kernels/results/static_report.json
    python -m kernels.static_report --check kernels/results/static_report.json

compiles each variant that `compiled_variants` of the families' kernel.py lists, and shows
registers, spills, shared memory, matrix and float64 instructions, widths of loads and stores,
occupancy and the roofline bound. The rates behind the bound are published ones
(kernels/architectures.py): it is a limit, never a measurement.
"""

import argparse
import difflib
import importlib
import importlib.util
import json
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

import kernels
from kernels.architectures import ARCHITECTURES, find_architecture
from kernels.compiled import (
    ReportError,
    Row,
    Variant,
    compile_variant,
    disassembler,
    read_compiled,
    require_triton,
)


def families() -> list[str]:
    """Names of the families that have Triton kernels.

    Example:
        >>> all(name.isidentifier() for name in families())
        True
    """
    packages = [module.name for module in pkgutil.iter_modules(kernels.__path__) if module.ispkg]
    return [name for name in packages if importlib.util.find_spec(f"kernels.{name}.kernel")]


def variants(family: str, arch: str) -> Iterable[Variant]:
    """The variants of a family for an architecture.

    Args:
        family: folder under kernels/.
        arch: "sm_90".

    Returns:
        What its `compiled_variants` lists.

    Raises:
        ReportError: it has no kernels, or does not list them, or two have one name.
    """
    require_triton()
    if family not in families():
        raise ReportError(
            f"a family must be one of {families()}, the folders with a kernel.py, got {family!r}"
        )
    module = importlib.import_module(f"kernels.{family}.kernel")
    if not hasattr(module, "compiled_variants"):
        raise ReportError(f"{module.__name__} must define compiled_variants(arch)")
    found = list(module.compiled_variants(arch))
    strays = [entry for entry in found if not isinstance(entry, Variant)]
    if strays:
        raise ReportError(
            f"{module.__name__}.compiled_variants must yield kernels.compiled.Variant, got "
            f"{strays[0]!r}"
        )
    names = [variant.name for variant in found]
    if len(set(names)) < len(names):
        raise ReportError(f"variants of {family} must have names of their own, got {names}")
    return found


def _submit(pool: Executor, names: Sequence[str], archs: Sequence[str]) -> Iterator["Future[Row]"]:
    for family in names:
        for arch in archs:
            architecture = find_architecture(arch)
            for variant in variants(family, arch):
                try:
                    compiled = compile_variant(variant, architecture)
                except ReportError as error:
                    raise ReportError(f"family {family}: {error}") from error
                yield pool.submit(read_compiled, variant, compiled, architecture, family=family)


def make_report(names: Sequence[str] = (), archs: Sequence[str] = ()) -> list[Row]:
    """Examine every variant.

    Args:
        names: families; all if empty.
        archs: architectures; all if empty.

    Returns:
        A row for each variant and architecture, in the order of the families.

    Raises:
        ReportError: triton is missing, there is nothing to compile, or something does not compile.
    """
    require_triton()
    # Triton compiles one kernel at a time; the disassembler is a program of its own.
    with ThreadPoolExecutor() as pool:
        rows = list(_submit(pool, names or families(), archs or list(ARCHITECTURES)))
        rows = [row.result() for row in rows]
    if not rows:
        raise ReportError(
            f"nothing to compile: no variants in the families {list(names) or families()}"
        )
    return rows


def make_header() -> dict[str, str]:
    """What a report was made with, and where its rates are from."""
    tool = disassembler()
    return {
        "triton": require_triton().__version__,
        "instructions": f"counted in SASS by {tool.name}" if tool else "counted in PTX",
        "rates": "published, not measured: "
        + "; ".join(
            f"{a.name} as {a.device}, {a.bandwidth / 1e12:g} TB/s, "
            f"{a.matrix_half / 1e12:g} TFLOP/s half, {a.matrix_tf32 / 1e12:g} TF32, "
            f"{a.float32 / 1e12:g} float32"
            for a in ARCHITECTURES.values()
        ),
    }


def to_json(rows: Sequence[Row], header: Mapping[str, str]) -> str:
    """The report as JSON, a row a line, so that a comparison shows the rows that changed.

    Args:
        rows: the findings.
        header: what they were made with.

    Returns:
        The text, with a newline at the end.
    """
    lines = ",\n".join(f"  {json.dumps(asdict(row))}" for row in rows)
    fields = "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in header.items())
    return f'{{\n{fields}"kernels": [\n{lines}\n]\n}}\n'


COLUMNS = (
    "kernel",
    "warps",
    "stages",
    "registers",
    "spills",
    "shared",
    "matrix",
    "float64",
    "loads, bits × count",
    "stores",
    "atomics",
    "blocks/SM",
    "occupancy",
    "bound",
    "findings",
)


def cells(row: Row) -> tuple[str, ...]:
    """The findings of a row as text, one for each of `COLUMNS`."""
    name = f"{row.family} {row.variant}".strip()
    return (
        name,
        str(row.warps),
        str(row.stages),
        str(row.registers),
        f"{row.stack_bytes} B" if row.stack_bytes or row.spills else "–",
        f"{row.shared_bytes / 1024:.1f} KiB",
        _counts(row.matrix),
        str(row.double or "–"),
        _counts(row.loads),
        _counts(row.stores),
        str(row.atomics or "–"),
        f"{row.blocks_per_sm} ({row.limit})",
        f"{row.occupancy:.0%}",
        f"{row.bound_microseconds:g} µs ({row.bound})",
        "; ".join((*(f"FAULT: {fault}" for fault in row.faults), *row.notes)) or "–",
    )


def _counts(counts: Mapping[str, int] | Mapping[int, int]) -> str:
    return ", ".join(f"{key} × {count}" for key, count in counts.items()) or "–"


def _by_arch(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.arch, []).append(row)
    return groups


def to_markdown(rows: Sequence[Row], header: Mapping[str, str]) -> str:
    """The report as Markdown, a table for each architecture.

    Args:
        rows: the findings.
        header: what they were made with.

    Returns:
        The text, with a newline at the end.
    """
    lines = ["# Kernels as compiled", ""]
    lines += [f"- {key}: {value}" for key, value in header.items()]
    for arch, group in _by_arch(rows).items():
        lines += ["", f"## {arch}", "", f"| {' | '.join(COLUMNS)} |"]
        lines += [f"|{'---|' * len(COLUMNS)}"]
        lines += [f"| {' | '.join(cells(row))} |" for row in group]
    return "\n".join(lines) + "\n"


def show(rows: Sequence[Row], header: Mapping[str, str], console: Console) -> None:
    """Print the report, what must not be shipped in red.

    Args:
        rows: the findings.
        header: what they were made with.
        console: where.
    """
    for arch, group in _by_arch(rows).items():
        table = Table(title=f"{arch} ({ARCHITECTURES[arch].device})", title_justify="left")
        for i, column in enumerate(COLUMNS):
            text = i in (0, len(COLUMNS) - 1)
            table.add_column(column, justify="left" if text else "right", no_wrap=i == 0)
        for row in group:
            style = "red" if row.faults else "yellow" if row.notes else ""
            table.add_row(*map(Text, cells(row)), style=style)
        console.print(table)
    for key, value in header.items():
        console.print(Text(f"{key}: {value}", style="dim"))


def differences(
    rows: Sequence[Row],
    header: Mapping[str, str],
    path: Path,
    names: Sequence[str] = (),
    archs: Sequence[str] = (),
) -> list[str]:
    """Compare new findings with a file of earlier ones.

    Args:
        rows: the new findings.
        header: what they were made with.
        path: the file, from `to_json`.
        names: families to compare; all if empty.
        archs: architectures to compare; all if empty.

    Returns:
        The lines of a unified difference, none where they are equal.

    Raises:
        ReportError: there is no such report, or another triton made it.
    """
    if not path.is_file():
        raise ReportError(f"{path} must be a report to compare with: write it with --out {path}")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        made_with = {key: report[key] for key in ("triton", "instructions")}
        old = [
            json.dumps(row)
            for row in report["kernels"]
            if (not names or row["family"] in names) and (not archs or row["arch"] in archs)
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{path} must be a report as --out FILE.json writes it") from error
    for key, value in made_with.items():
        if value != header[key]:
            raise ReportError(
                f"{path} cannot be compared: {key} was {value}, here it is {header[key]}. Install "
                f"triton=={made_with['triton']}, or write the file again with --out"
            )
    new = [json.dumps(asdict(row)) for row in rows]
    return list(difflib.unified_diff(old, new, str(path), "this tree", lineterm="", n=0))


def _write(path: Path, rows: Sequence[Row], header: Mapping[str, str]) -> None:
    formats = {".json": to_json, ".md": to_markdown}
    if path.suffix not in formats:
        raise ReportError(f"--out must end in .json or .md, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(formats[path.suffix](rows, header), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 for a fault or a difference from --check; 2 where no report can be made."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels.static_report",
        description="Compile every tuned kernel and show what it needs, without a GPU. Ends with 1 "
        "on a spill, float64 or too much shared memory, and on a difference from --check.",
    )
    parser.add_argument("families", metavar="FAMILY", nargs="*", help="all, if none is named")
    parser.add_argument(
        "--arch", action="append", choices=list(ARCHITECTURES), help="repeatable; default: all"
    )
    parser.add_argument(
        "--out", action="append", type=Path, default=[], metavar="FILE", help=".json or .md"
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="an earlier --out FILE.json; of it only what is compiled now is compared",
    )
    options = parser.parse_args(arguments)
    try:
        with Console(stderr=True).status("Compiling"):
            rows = make_report(options.families, options.arch or ())
        header = make_header()
        # Wide enough for its columns where the output is no terminal but a log.
        console = Console()
        show(rows, header, console if console.is_terminal else Console(width=300))
        for path in options.out:
            _write(path, rows, header)
        changed = (
            differences(rows, header, options.check, options.families, options.arch or ())
            if options.check
            else []
        )
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if changed:
        print(f"{options.check} is not what this tree compiles to:", *changed, sep="\n")
    for row in rows:
        for fault in row.faults:
            print(f"fault: {row.family} {row.variant} {row.arch}: {fault}", file=sys.stderr)
    return 1 if changed or any(row.faults for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
