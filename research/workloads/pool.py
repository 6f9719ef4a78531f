"""Set the targets of workloads by a pool of trainings that no comparison may repeat.

    python -m research.workloads.pool digits_mlp char_lm
    python -m research.workloads.pool --table

Each optimizer of the pool is tuned on a scrambled Halton sequence of its search space, and its best
point is trained again from fresh seeds. The target is the median over the optimizers, the lower of
the two in the middle: half of the tuned baselines get there, so that a comparison sees it neither
always nor never. (The mean of the two could lie where none does: between an optimizer that stays on
a plateau and one that leaves it.) Points and seeds come from ``POOL_SEED``, which comparisons
refuse.

Trainings are rows of a run directory, computed as those of a comparison (``research.sweep``): a
pool that was interrupted goes on where it stopped.

Source: targets from tuned baselines, Dahl et al., "Benchmarking Neural Network Training
Algorithms", 2023.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from research import comparison, optimizers
from research.errors import TrellisError
from research.names import look_up
from research.progress import show_progress
from research.runlog import open_run, read_run
from research.sweep import Cell, Row, Task, Training, open_backend, run_cells
from research.workloads import NAMES, POOL_SEED, build
from research.workloads.targets import PATH, data_name, read_records
from research.workloads.workload import Workload

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")
SCHEDULE = "cosine"
SPACE_VERSION = 2
RULE = (
    "Each optimizer is tuned by the final validation score of its trials; its best point is "
    "trained again from fresh seeds, and the median of their scores is the optimizer's. The target "
    "is the lower median over the optimizers: half of them reach it."
)

_LOADER = "research.workloads:build"  # targets are what is to be found
_MOST_EVALUATIONS = 10  # of a training: one that diverges ends there


def cell_of(workload: Workload, optimizer: str, *, trials: int, reruns: int) -> Cell:
    """The search of an optimizer, and then its best point from fresh seeds.

    Args:
        workload: whose target is to be set.
        optimizer: of the pool.
        trials: points of the search.
        reruns: fresh seeds.
    """
    task = Task(
        workload=workload.name,
        sha256=workload.sha256,
        optimizer=optimizer,
        space_version=SPACE_VERSION,
        schedule=SCHEDULE,
        steps=workload.steps,
        evaluate_every=workload.steps // math.gcd(workload.steps, _MOST_EVALUATIONS),
    )
    space = optimizers.find(optimizer, version=SPACE_VERSION).space
    points = optimizers.draw_trials(space, trials, seed=POOL_SEED)
    search = tuple(
        Training(task, "search", 0, trial, POOL_SEED, point) for trial, point in enumerate(points)
    )

    def then(rows: list[Row]) -> list[Cell]:
        best = comparison.winner(rows)
        if best is None:
            return []
        again = search[best["settings"]["trial"]]
        # Not "final": those are measured on the test set.
        seeds = rerun_seeds(reruns)
        return [Cell(tuple(dataclasses.replace(again, seed=seed) for seed in seeds))]

    return Cell(search, then)


def rerun_seeds(reruns: int) -> list[int]:
    """The seeds of the best point.

    Example:
        >>> rerun_seeds(2)
        [20061113, 20061114]
    """
    return [POOL_SEED + 1 + rerun for rerun in range(reruns)]


def outcome(rows: Sequence[Row]) -> dict[str, Any]:
    """What the trainings of one optimizer came to.

    Args:
        rows: of its cell, in any order.

    Returns:
        As plain values: "score" (infinite where the whole search, or half of the reruns, diverged),
        the "scores" of the reruns by seed, the "searched" score that chose the point, its
        "hyperparameters", and "diverged" trials.
    """
    searched = [row for row in rows if row["settings"]["seed"] == POOL_SEED]
    again = [row for row in rows if row["settings"]["seed"] != POOL_SEED]
    scores = [_score(row) for row in sorted(again, key=lambda row: row["settings"]["seed"])]
    best = comparison.winner(searched)
    return {
        "score": statistics.median(scores) if scores else math.inf,
        "scores": scores,
        "searched": math.inf if best is None else _score(best),
        "hyperparameters": {} if best is None else best["settings"]["hyperparameters"],
        "diverged": sum(row["status"] == "diverged" for row in searched),
    }


def _score(row: Mapping[str, Any]) -> float:
    """Of the validation at the end."""
    return row["result"]["validation_score"][-1] if row["status"] == "finished" else math.inf


def record_of(
    workload: Workload, rows: Sequence[Row], timings: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The record of a workload for ``targets.json``.

    Args:
        workload: without a target.
        rows: of its pool's cells.
        timings: what workers wrote while they computed them.
    """
    by_optimizer: dict[str, list[Row]] = {}
    for row in rows:
        by_optimizer.setdefault(row["settings"]["optimizer"], []).append(row)
    found = {name: outcome(of_one) for name, of_one in by_optimizer.items()}
    params = jax.eval_shape(workload.init, jax.random.key(0))
    seeds = {row["settings"]["seed"] for row in rows}
    trials = {row["settings"]["trial"] for row in rows}
    return {
        "workload": workload.name,
        "target": _rounded_up(statistics.median_low(each["score"] for each in found.values())),
        "data": data_name(workload),
        "source": workload.source,
        "sha256": workload.sha256,
        "steps": workload.steps,
        "batch_size": workload.batch_size,
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        "cpu_seconds": _rounded(_cpu_seconds(workload, timings)),
        "pool": {
            "optimizers": {name: _rounded(each) for name, each in found.items()},
            "space_version": SPACE_VERSION,
            "schedule": SCHEDULE,
            "trials": len(trials),
            "search_seed": POOL_SEED,
            "rerun_seeds": sorted(seeds - {POOL_SEED}),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "flax", "optax", "numpy")},
        },
    }


def _cpu_seconds(workload: Workload, timings: Sequence[Mapping[str, Any]]) -> float:
    """Of a training of the usual length, without the compiler, over all trainings."""
    own = [line for line in timings if line["task"]["workload"] == workload.name]
    steps = sum(line["steps"] for line in own)
    spent = sum(max(0.0, line["cpu_seconds"] - line["compile_seconds"]) for line in own)
    return workload.steps * spent / steps if steps else math.nan


def _rounded_up(score: float) -> float:
    """To four decimals, so that who sets the target also reaches it."""
    return math.ceil(score * 1e4) / 1e4 if math.isfinite(score) else score


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def keep(record: Mapping[str, Any]) -> None:
    """Put a record into ``targets.json`` in the place of the one on the same workload and data."""

    def place(each: Mapping[str, Any]) -> tuple[int, str]:
        return NAMES.index(each["workload"]), each["data"]

    others = [each for each in read_records() if place(each) != place(record)]
    content = {"rule": RULE, "records": sorted([*others, record], key=place)}
    partial = PATH.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, PATH)


def table() -> list[str]:
    """The rows of the table in the README, from ``targets.json``."""
    return [
        f"| `{each['workload']}` | {each['data']} | {each['parameters']:,} | {each['steps']:,} "
        f"| {each['batch_size']} | {each['target']:.4g} | {each['cpu_seconds']:.2g} "
        f"| {len(each['pool']['optimizers'])} × {each['pool']['trials']} |"
        for each in read_records()
    ]


def set_targets(
    loaded: Mapping[str, Workload],
    names: Sequence[str],
    *,
    trials: int,
    reruns: int,
    out: Path,
    data_dir: str | None = None,
    workers: int | None = None,
) -> list[dict[str, Any]]:
    """Run the pools of workloads, or what an earlier call left of them.

    Args:
        loaded: the workloads by name, without targets.
        names: the optimizers of the pool.
        trials: points of each search.
        reruns: fresh seeds of each best point.
        out: folder of all runs.
        data_dir: where data lie.
        workers: processes; None for as many as there are cores.

    Returns:
        The records, in the order of the workloads.

    Raises:
        TrellisError: trainings that failed, or a directory that cannot be used.
    """
    asked = {"optimizers": [*names], "trials": trials, "reruns": reruns}
    cells = [
        cell_of(workload, optimizer, trials=trials, reruns=reruns)
        for workload in loaded.values()
        for optimizer in names
    ]
    steps = sum(cell.trainings[0].task.steps * (trials + reruns) for cell in cells)
    with open_run(
        out,
        experiment="targets",
        recipe="pool",
        config={**asked, "workloads": [*loaded], "rule": RULE, "schedule": SCHEDULE},
        data={name: workload.sha256 for name, workload in loaded.items()},
        seeds=[POOL_SEED, *rerun_seeds(reruns)],
    ) as run:
        with (
            show_progress("Setting targets", steps) as progress,
            contextlib.closing(open_backend("local", run.path, data_dir, workers)) as backend,
        ):
            rows = run_cells(
                run.path, cells, backend, progress, expected_steps=steps, loader=_LOADER
            )
        timings = [line for line in read_run(run.path).timings if "task" in line]
    return [
        record_of(workload, [row for row in rows if row["settings"]["workload"] == name], timings)
        for name, workload in loaded.items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Set the targets that are asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m research.workloads.pool",
        description="Set the targets of workloads by a pool of tuned trainings.",
    )
    parser.add_argument("names", nargs="*", metavar="workload", help="default: all")
    parser.add_argument("--optimizers", nargs="+", default=OPTIMIZERS, help="default: %(default)s")
    parser.add_argument("--trials", type=int, default=16, help="of each; default: %(default)s")
    parser.add_argument("--reruns", type=int, default=3, help="of the best; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="default: %(default)s")
    parser.add_argument("--data-dir", help="where data lie")
    parser.add_argument("--workers", type=int, help="processes; default: as many as cores")
    parser.add_argument("--table", action="store_true", help="print the targets, train nothing")
    options = parser.parse_args(arguments)
    if min(options.trials, options.reruns) < 1:
        parser.error(
            "--trials and --reruns must be at least 1; received "
            f"{options.trials} and {options.reruns}."
        )
    if options.table:
        print(*table(), sep="\n")
        return
    try:
        for name in options.optimizers:
            optimizers.find(name, version=SPACE_VERSION)
        names = dict.fromkeys(options.names or NAMES)
        for name in names:
            look_up(dict.fromkeys(NAMES), name, "workload")
        records = set_targets(
            {name: build(name, options.data_dir) for name in names},
            [*dict.fromkeys(options.optimizers)],
            trials=options.trials,
            reruns=options.reruns,
            out=options.out,
            data_dir=options.data_dir,
            workers=options.workers,
        )
    except TrellisError as error:
        parser.exit(2, f"error: {error}\n")
    without = [record["workload"] for record in records if not math.isfinite(record["target"])]
    for record in records:
        if record["workload"] not in without:
            keep(record)
            found = record["pool"]["optimizers"].items()
            scores = {optimizer: each["score"] for optimizer, each in found}
            print(record["workload"], record["target"], scores)
    if without:
        parser.exit(1, f"half of the pool diverged, so there is no target: {', '.join(without)}\n")


if __name__ == "__main__":
    main()
