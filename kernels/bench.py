"""How fast every operation is here, beside what others offer for the same.

    python -m kernels.bench                                  everything, a long run
    python -m kernels.bench depthwise_conv1d --shapes conformer_w31 --dtype float32 --pass both
    python -m kernels.bench conv2d --within alone loop models
    python -m kernels.bench convolution --out kernels/results/DEVICE.jsonl
    python -m kernels.bench --from kernels/results/DEVICE.jsonl --figure roofline.png
    python -m kernels.bench --list

In one run, ours in each implementation and the peers of ``kernels/peers.py`` are first compared
with the definition in float64. Who is wrong is not timed; a peer may be less precise than ours must
be, and then its error is shown. They take turns, in an order that changes every round. Times are
the wall's on a CPU and the device's own on a GPU. DEVICE in the names of files becomes the name of
the device.
"""

import argparse
import dataclasses
import datetime
import itertools
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from kernels import contestants, peers, problems
from kernels.arguments import meant
from kernels.bench_report import (
    FORMAT,
    Record,
    RecordError,
    append_records,
    read_records,
    show,
    to_markdown,
)
from kernels.contestants import Absent, Contestant, Truth
from kernels.machine import describe_machine, device_slug, measure_ceilings, seconds_of_others
from kernels.problems import Cost, NoReference, Problem
from kernels.timing import (
    Budget,
    Call,
    Clock,
    ClockError,
    Samples,
    clock_for,
    interleave,
    paired_ratio,
    spread,
)

DTYPES = ("float32", "bfloat16", "float16")


class RequestError(ValueError):
    """What was asked for does not exist."""


@dataclass(frozen=True)
class Setting:
    """What all measurements of a run have in common.

    Attributes:
        clock: takes the times.
        budget: how long.
        ceilings: from ``measure_ceilings``.
        longest: a contestant whose first call took more seconds than this is not timed.
        common: fields of every record.
        seed: of the order of the contestants.
    """

    clock: Clock
    budget: Budget
    ceilings: Mapping[str, float]
    longest: float
    common: Mapping[str, Any]
    seed: int = 0


def select(names: Sequence[str], shapes: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    """The problems asked for: (operation, name of the shape, shape).

    Args:
        names: operations or families; all if empty.
        shapes: names; all if empty.

    Raises:
        RequestError: one of them is unknown.
    """
    families = problems.FAMILIES
    operations = {op: (op,) for family in families.values() for op in family}
    known = {**operations, **families}
    chosen = [op for name in names or families for op in known[_known(name, known, "operation")]]
    found = {op: problems.load(op).SHAPES for op in dict.fromkeys(chosen)}
    every = [name for offered in found.values() for name in offered]
    wanted = [_known(name, every, "shape") for name in shapes] or every
    for operation, offered in found.items():
        for name, shape in offered.items():
            if name in wanted:
                yield operation, name, shape


def _known(name: str, known: Iterable[str], kind: str) -> str:
    known = list(dict.fromkeys(known))
    if name in known:
        return name
    raise RequestError(
        f"{kind} must be one of {', '.join(known)}; received {name!r}.{meant(name, known)}"
    )


def measure(
    problem: Problem,
    gradient: bool,
    truth: Truth,
    setting: Setting,
    entrants: Sequence[Any] | None = None,
) -> list[Record]:
    """Check everyone, time those who are right, in turns.

    Args:
        problem: what to compute.
        gradient: the value and every gradient, instead of the value alone.
        truth: of the problem.
        setting: of the run.
        entrants: who takes part; ``contestants.enter`` by default.

    Returns:
        A record for each.
    """
    entrants = contestants.enter(problem, gradient) if entrants is None else entrants
    reference = contestants.preferred(problem, gradient)
    outcomes: dict[str, dict[str, Any]] = {}
    calls: dict[str, Call] = {}
    known: dict[str, float] = {}
    for entrant in entrants:
        outcomes[entrant.name] = outcome = _checked(entrant, gradient, truth)
        took = outcome.pop("took", 0.0)
        if outcome["status"] != "timed" or not isinstance(entrant, Contestant):
            continue
        known[entrant.name] = took
        if took > setting.longest:
            outcome["status"] = "not timed"
            outcome["note"] = (
                f"its first call took {took:.0f} s, over --longest {setting.longest:g}"
            )
        else:
            calls[entrant.name] = entrant.call
    taken = {}
    if calls:
        others = seconds_of_others if setting.clock.name == "wall" else None
        budget, seed = setting.budget, setting.seed
        taken = interleave(calls, setting.clock, budget, known=known, others=others, seed=seed)
    cost = problem.forward
    if gradient:
        cost = Cost(cost.bytes + problem.backward.bytes, cost.flops + problem.backward.flops)
    if problem.within != "alone":
        cost = Cost(cost.bytes * problems.COPIES, cost.flops * problems.COPIES)
    fixed = {
        "pass": ("gradient" if gradient else "forward")
        + (f", {problem.within}" if problem.within != "alone" else ""),
        "operation": problem.operation,
        "shape": problem.name,
        "dtype": problem.dtype,
        "bytes": cost.bytes,
        "flops": cost.flops,
        "copy_ceiling": setting.ceilings["copy"],
        "matmul_ceiling": setting.ceilings[problem.dtype],
        "clock": setting.clock.name,
        "relative_to": reference,
        "allowed": dict(zip(truth.names, truth.allowed, strict=True)),
    }
    return [
        {"format": FORMAT, **setting.common, **fixed}
        | {"contestant": entrant.name, "ours": entrant.ours}
        | outcomes[entrant.name]
        | (_numbers(entrant.name, taken, reference, cost) if entrant.name in taken else {})
        for entrant in entrants
    ]


def _checked(entrant: Contestant | Absent, gradient: bool, truth: Truth) -> dict[str, Any]:
    """Whether a contestant may be timed, and what is known of it without."""
    nothing = dict.fromkeys(("errors", "compile_seconds", "temporary_bytes", "peak_bytes"))
    if isinstance(entrant, Absent):
        status = "failed" if entrant.failed else "not timed"
        return {"status": status, "note": entrant.reason} | nothing
    try:
        start = time.perf_counter()
        results = entrant.call()
        took = time.perf_counter() - start
        errors = truth.errors(entrant.read(results), gradient)
    except Exception as error:  # it may run out of memory: the others can still be measured
        return {"status": "failed", "note": f"{type(error).__name__}: {error}"[:300]} | nothing
    return {
        "status": "wrong" if truth.wrong(errors, ours=entrant.ours) else "timed",
        "took": took,
        "note": entrant.note,
        "errors": {name: e if math.isfinite(e) else None for name, e in errors.items()},
        "compile_seconds": entrant.compile_seconds,
        "temporary_bytes": entrant.temporary_bytes,
        "peak_bytes": entrant.peak_bytes,
    }


def _numbers(
    name: str, taken: Mapping[str, Samples], reference: str, cost: Cost
) -> dict[str, float | int | None]:
    mine = taken[name]
    seconds = spread(mine.taken)
    ratio = paired_ratio(mine, taken[reference]) if reference in taken else None
    return {
        "seconds": seconds.median,
        "seconds_low": seconds.low,
        "seconds_high": seconds.high,
        "samples": len(mine.taken),
        "retaken": mine.retaken,
        "others": mine.others,
        "repeats": mine.repeats,
        "ratio": ratio and ratio.median,
        "ratio_low": ratio and ratio.low,
        "ratio_high": ratio and ratio.high,
        "ratio_level": ratio and ratio.level,
        "ratio_pairs": ratio and ratio.pairs,
        "bytes_per_second": cost.bytes / seconds.median,
        "flops_per_second": cost.flops / seconds.median,
    }


def run(
    requests: Sequence[tuple[str, str, Any]],
    dtypes: Sequence[str],
    passes: Sequence[str],
    within: Sequence[str],
    budget: Budget,
    longest: float,
    console: Console,
) -> Iterator[list[Record]]:
    """Measure problem after problem.

    Args:
        requests: (operation, name of the shape, shape).
        dtypes: of the operands.
        passes: "forward", "gradient".
        within: of ``problems.WITHIN``.
        budget: how long for each contestant.
        longest: a contestant whose first call took more seconds than this is not timed.
        console: says what is being done.

    Yields:
        The records of each problem and pass.
    """
    clock = clock_for(jax.default_backend())
    common = describe_machine()
    common["run"] = datetime.datetime.now(datetime.UTC).isoformat()
    with console.status("Ceilings of the device"):
        ceilings = measure_ceilings(dtypes, clock)
    for operation, name, shape in requests:
        for dtype in dtypes:
            problem = problems.load(operation).problem(operation, name, shape, dtype)
            label = f"{operation} {name} {dtype}"
            with console.status(f"{label}: the definition in float64"):
                truth = contestants.find_truth(problem)
            sizes = {"sizes": dict(shape._asdict())}
            setting = Setting(clock, budget, ceilings, longest, {**common, **sizes})
            for which, where in itertools.product(passes, within):
                there = dataclasses.replace(problem, within=where)
                right = truth if where == "alone" else truth.of_copies()
                with console.status(f"{label}: {which}, {where}"):
                    yield measure(there, which == "gradient", right, setting)


def show_list(requests: Iterable[tuple[str, str, Any]], console: Console) -> None:
    """Print the operations that were named with their shapes and peers."""
    for operation, found in itertools.groupby(requests, lambda request: request[0]):
        shapes = {name: shape for _, name, shape in found}
        others = ", ".join(peers.peers(operation)) or "none"
        table = Table(title=f"{operation} (peers: {others})", title_justify="left")
        for column in ("shape", *next(iter(shapes.values()))._fields):
            table.add_column(column)
        for name, sizes in shapes.items():
            table.add_row(name, *map(str, sizes))
        console.print(table, getattr(problems.load(operation), "LEGEND", ""))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m kernels.bench",
        description="Time operations beside their peers, in one run, after checking the results. "
        "Ends with 1 if ours is wrong or fails.",
    )
    add = parser.add_argument
    add("names", metavar="OPERATION|FAMILY", nargs="*", help="all, if none is named")
    add("--shapes", metavar="NAME", nargs="+", default=[], help="default: all; see --list")
    add("--dtype", metavar="DTYPE", nargs="+", default=["float32"], help=", ".join(DTYPES))
    add(
        "--pass",
        dest="which",
        choices=("forward", "gradient", "both"),
        default="both",
        help="gradient is the value and every gradient (default: both)",
    )
    add(
        "--within",
        choices=problems.WITHIN,
        nargs="+",
        default=["alone"],
        help=f"{problems.COPIES} calls in a loop, or under vmap as of models (default: alone)",
    )
    add("--rounds", type=_positive(int), default=3, help="at least so many (default: 3)")
    add(
        "--seconds",
        type=_positive(float),
        default=2.0,
        metavar="SECONDS",
        help="after so many a contestant joins no further round (default: 2)",
    )
    add(
        "--longest",
        type=_positive(float),
        default=30.0,
        metavar="SECONDS",
        help="a contestant whose first call takes longer is not timed (default: 30)",
    )
    add("--out", type=Path, metavar="FILE.jsonl", help="add the records to this file")
    add("--figure", type=Path, metavar="FILE.png", help="draw the roofline")
    add("--markdown", type=Path, metavar="FILE.md", help="write the times and ratios as a table")
    add("--from", dest="source", type=Path, metavar="FILE.jsonl", help="measure nothing, show this")
    add("--list", action="store_true", help="show shapes and peers, measure nothing")
    return parser.parse_args(arguments)


def _positive(kind: type) -> Any:
    def number(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"must be above 0, received {text}")
        return value

    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 if ours is wrong or fails; 2 for a request that cannot be met."""
    options = parse(arguments)
    console = Console()
    console = console if console.is_terminal else Console(width=220)  # all columns, in a log
    try:
        if options.list:
            show_list(select(options.names, options.shapes), console)
            return 0
        records = read_records(options.source) if options.source else _measured(options)
        show(records, console)
        if options.figure:
            from kernels.bench_figure import write_figure

            write_figure(records, _named(options.figure, records[0]["device"]))
        if options.markdown:
            path = _named(options.markdown, records[0]["device"])
            path.write_text(to_markdown(records), encoding="utf-8")
    except (RequestError, RecordError, ClockError, NoReference) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    faults = [r for r in records if r["ours"] and r["status"] in ("wrong", "failed")]
    for r in () if options.source else faults:
        where = f"{r['operation']} {r['shape']} {r['dtype']} {r['pass']}"
        print(f"fault: {where}: {r['contestant']} is {r['status']}", file=sys.stderr)
    return 1 if faults and not options.source else 0


def _measured(options: argparse.Namespace) -> list[Record]:
    requests = list(select(options.names, options.shapes))
    dtypes = [_known(dtype, DTYPES, "dtype") for dtype in dict.fromkeys(options.dtype)]
    passes = ("forward", "gradient") if options.which == "both" else (options.which,)
    budget = Budget(options.seconds, options.rounds, max(100, options.rounds))
    out = options.out and _named(options.out, describe_machine()["device"])
    records: list[Record] = []
    problems.reference_device()  # before minutes are spent that no result comes of
    within, console = list(dict.fromkeys(options.within)), Console(stderr=True)
    for found in run(requests, dtypes, passes, within, budget, options.longest, console):
        records += found
        if out:  # at once, so that a run that is stopped leaves what it measured
            append_records(out, found)
    return records


def _named(path: Path, device: str) -> Path:
    return path.with_name(path.name.replace("DEVICE", device_slug(device)))


if __name__ == "__main__":
    sys.exit(main())
