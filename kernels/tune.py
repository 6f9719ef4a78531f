"""Find the fastest correct configuration of each kernel on the GPU at hand, and write it down.

    python -m kernels.tune                                   every family, bfloat16, your own table
    python -m kernels.tune depthwise_conv1d --shapes causal_w4 conformer_w31 --dtype float32
    python -m kernels.tune convolution --out tree --budget 1200

For each shape, the value and then the gradients are computed with every candidate configuration of
every kernel that they launch, one kernel at a time, the others as the heuristic has them. A
candidate is dropped when it does not compile, spills registers or has too much shared memory, and
when its result breaks the error rule of the tests. Each one is timed in turns with the heuristic's
configuration; the best three are timed again, longer, and the fastest is kept only if it beats the
heuristic's beyond the noise. The table is written after each kernel, so that what was finished
stays when a run is stopped. kernels/configurations.py says who reads it.
"""

import argparse
import dataclasses
import importlib.metadata
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kernels import configurations, launch, problems
from kernels.configurations import Device
from kernels.tuning_search import (
    Finding,
    Inspect,
    Measure,
    inspect,
    measure_on_device,
    summary,
    tune,
)

DTYPES = ("bfloat16", "float16", "float32")


def made_with() -> str:
    """Versions that a configuration's speed depends on."""
    versions = []
    for name in ("jax", "jax-triton", "triton"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    runtime = jax.local_devices()[0].client.platform_version.split("\n")[-1]
    return ", ".join((*versions, runtime))


def table_path(out: str, device: Device) -> Path:
    """The file that ``--out`` names.

    Raises:
        ValueError: it would not be a JSON file.
    """
    folders = {"cache": configurations.user_folder(), "tree": configurations.TREE}
    path = folders[out] / f"{device.slug}.json" if out in folders else Path(out)
    if path.suffix != ".json":
        raise ValueError(f"--out must be tree, cache or a file that ends in .json; received {out}.")
    return path


def selected(
    names: Sequence[str], shapes: Sequence[str], dtypes: Sequence[str]
) -> list[tuple[str, str, str]]:
    """The (operation, shape, dtype) that a command line names; all that there are if it is empty.

    Raises:
        ValueError: a family, operation or shape is not there.
    """
    operations = []
    for name in names or problems.FAMILIES:
        operations += problems.FAMILIES.get(name, (name,))
    families = {operation: problems.load(operation) for operation in dict.fromkeys(operations)}
    # A family without Triton kernels has nothing to tune.
    known = {name: f.SHAPES for name, f in families.items() if getattr(f, "TUNABLES", ())}
    if not known:
        raise ValueError(f"what is tuned must have Triton kernels; received {[*families]}.")
    missing = [shape for shape in shapes if not any(shape in have for have in known.values())]
    if missing:
        raise ValueError(
            f"--shapes must be among {sorted(set().union(*known.values()))}; received {missing}."
        )
    return [
        (operation, shape, dtype)
        for operation, have in known.items()
        for shape in have
        if not shapes or shape in shapes
        for dtype in dtypes
    ]


def show(findings: Sequence[Finding], device: Device, console: Console) -> None:
    """Print what was found, and why candidates were dropped."""
    table = Table(title=f"Tuned on {device.name}", title_justify="left")
    for column in ("kernel", "bucket", "heuristic", "µs", "fastest", "µs", "ratio", "tried",
                   "dropped", "wrong"):  # fmt: skip
        table.add_column(column, justify="left" if column.isalpha() else "right")
    for finding in findings:
        kept = finding.best is None
        fastest = finding.fault or ("no better one" if kept else _short(finding.best))
        ratio = "–" if kept else f"{finding.heuristic_seconds / finding.seconds:.2f}"
        counts = (finding.tried, len(finding.dropped), len(finding.wrong))
        table.add_row(
            *map(Text, (finding.tunable.name, finding.key, _short(finding.heuristic))),
            _microseconds(finding.heuristic_seconds),
            Text(fastest, style="red" if finding.fault else ""),
            "–" if kept else _microseconds(finding.seconds),
            ratio,
            *map(str, counts),
        )
    console.print(table)
    for finding in findings:
        for kind, reasons in (("dropped", finding.dropped), ("wrong", finding.wrong)):
            for reason in reasons:
                console.print(Text(f"{kind}: {finding.tunable.name} {finding.key}: {reason}"))


def _counts(finding: Finding, path: Path) -> bool:
    """Whether it may change the table: a search cut short does not outdo an earlier one."""
    known = finding.key in configurations.entries(path, finding.tunable)
    return not finding.fault and (finding.finished or not known)


def _short(config: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(config).items())


def _microseconds(seconds: float) -> str:
    return "–" if np.isnan(seconds) else f"{seconds * 1e6:.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.tune",
        description="Find the fastest correct configuration of each kernel on the GPU at hand. "
        "Ends with 1 if a heuristic's own result is wrong or a shape cannot be tuned, with 2 "
        "without a GPU.",
    )
    parser.add_argument("names", metavar="FAMILY_OR_OPERATION", nargs="*", help="default: all")
    parser.add_argument("--shapes", nargs="+", default=[], metavar="SHAPE", help="default: all")
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["bfloat16"])
    parser.add_argument(
        "--out", default="cache", metavar="tree|cache|FILE",
        help="the table in this package, your own (the default), or a JSON file",
    )  # fmt: skip
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="stop then; what was tried counts"
    )
    return parser


def main(
    arguments: Sequence[str] | None = None,
    measure: Measure = measure_on_device,
    inspect: Inspect = inspect,
) -> int:
    """Exit status: 0; 1 where something could not be tuned; 2 where nothing can; 130 on Ctrl-C."""
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    console, findings, failures, left = Console(), [], [], []
    written, interrupted = 0, False
    try:
        device = configurations.device()
        if device is None:
            raise ValueError(
                "tuning needs an NVIDIA GPU that JAX computes on (pip install 'trellis-lab[cuda12]'"
                f" or [cuda13]; JAX_PLATFORMS unset or cuda,cpu); JAX has {jax.default_backend()}. "
                "Until a GPU is tuned, kernels run on it as their heuristics say."
            )
        platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
        if reason := launch.unavailable(platform):
            raise ValueError(f"no kernel can be tuned: {reason}.")
        problems.reference_device()
        wanted = selected(options.names, options.shapes, options.dtype)
        path = table_path(options.out, device)
        configurations.check_device(path, device)
        for operation, *_ in wanted:
            for tunable in problems.load(operation).TUNABLES:
                configurations.entries(path, tunable)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    def is_late() -> bool:
        return options.budget is not None and time.monotonic() - started > options.budget

    try:
        with Console(stderr=True).status("") as status:
            for operation, shape, dtype in wanted:
                if is_late():
                    left.append(f"{shape}/{dtype}")
                    continue
                status.update(f"Tuning {operation} {shape}/{dtype}")
                family = problems.load(operation)
                done = {(f.tunable.name, f.key) for f in findings}
                try:
                    problem = family.problem(operation, shape, family.SHAPES[shape], dtype)
                    for finding in tune(
                        problem, device, measure, done=done, inspect=inspect, is_late=is_late
                    ):
                        findings.append(finding)
                        if _counts(finding, path):
                            entry = finding.entry(made_with())
                            configurations.write(path, device, finding.tunable, finding.key, entry)
                            written += entry is not None
                except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
                    failures.append(f"{operation} {shape}/{dtype}: {summary(error)}")
    except KeyboardInterrupt:
        interrupted = True
    finally:
        show(findings, device, console if console.is_terminal else Console(width=200))
    for failure in failures:
        print(f"not tuned: {failure}", file=sys.stderr)
    if left:
        print(f"not begun: {', '.join(left)}", file=sys.stderr)
    print(f"{written} entries written to {path}")
    if interrupted:
        print("interrupted; what was finished is kept", file=sys.stderr)
        return 130
    return 1 if failures or any(finding.fault for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
