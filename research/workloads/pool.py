"""Set the targets of workloads by a pool of trainings that no comparison may repeat.

    python -m research.workloads.pool digits_mlp char_lm
    python -m research.workloads.pool --table

Each optimizer of the pool is tuned on a scrambled Halton sequence of its search space, and its best
point is trained again from fresh seeds. The target is the median over the optimizers, the lower of
the two in the middle: half of the tuned baselines get there, so that a comparison sees it neither
always nor never. (The mean of the two could lie where none does: between an optimizer that stays on
a plateau and one that leaves it.) Points and seeds come from ``POOL_SEED``, which comparisons
refuse.

Source: targets from tuned baselines, Dahl et al., "Benchmarking Neural Network Training
Algorithms", 2023.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import optimizers
from research.data.sampler import batch_indices
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


class Trained(NamedTuple):
    """What one training came to; the score is infinite where it diverged."""

    score: float
    cpu_seconds: float


def make_training(workload: Workload, optimizer: str) -> Callable[..., Trained]:
    """A function (hyperparameters, seed) -> Trained: one compiled program for all trials."""
    entry = optimizers.find(optimizer, version=SPACE_VERSION)
    train, validation = (
        jax.tree.map(jnp.asarray, dict(part)) for part in (workload.train, workload.validation)
    )

    @jax.jit
    def program(hyperparameters, key, train, order):
        transformation = optimizers.build_scheduled(
            entry, hyperparameters, SCHEDULE, workload.steps
        )
        init_key, train_key = jax.random.split(key)
        params = workload.init(init_key)

        def step(carry, numbered):
            params, state = carry
            number, rows = numbered
            batch = {name: array[rows] for name, array in train.items()}
            step_key = jax.random.fold_in(train_key, number)
            value, gradients = jax.value_and_grad(workload.loss)(params, batch, step_key)
            updates, state = transformation.update(gradients, state, params)
            return (optax.apply_updates(params, updates), state), value

        numbers = jnp.arange(workload.steps)
        start = (params, transformation.init(params))
        (params, state), losses = jax.lax.scan(step, start, (numbers, order))
        return entry.evaluated(state, params), jnp.isfinite(losses).all()

    @jax.jit
    def score(params, validation):
        return jnp.mean(workload.measure(params, validation)["score"])

    def training(hyperparameters: Mapping[str, float], seed: int) -> Trained:
        size = len(next(iter(workload.train.values())))
        order = np.stack(
            [batch_indices(seed, step, size, workload.batch_size) for step in range(workload.steps)]
        )
        traced = {name: jnp.float32(value) for name, value in hyperparameters.items()}
        started = time.process_time()
        params, finite = jax.block_until_ready(
            program(traced, jax.random.key(seed), train, jnp.asarray(order))
        )
        seconds = time.process_time() - started
        found = float(score(params, validation)) if finite else math.inf
        return Trained(found if math.isfinite(found) else math.inf, seconds)

    return training


def run_optimizer(
    workload: Workload, optimizer: str, *, trials: int, reruns: int
) -> dict[str, Any]:
    """Tune an optimizer and train its best point again.

    Returns:
        As plain values: "score" (infinite where every rerun diverged), the "scores" of the reruns,
        the "searched" score that chose the point, its "hyperparameters", "diverged" trials, and the
        "cpu_seconds" of a training: the median over all but the first, which compiles.
    """
    entry = optimizers.find(optimizer, version=SPACE_VERSION)
    training = make_training(workload, optimizer)
    points = optimizers.draw_trials(entry.space, trials, seed=POOL_SEED)
    searched = [training(point, POOL_SEED) for point in points]
    best = min(range(trials), key=lambda trial: searched[trial].score)
    again = [training(points[best], POOL_SEED + 1 + rerun) for rerun in range(reruns)]
    return {
        "score": statistics.median(each.score for each in again),
        "scores": [each.score for each in again],
        "searched": searched[best].score,
        "hyperparameters": points[best],
        "diverged": sum(math.isinf(each.score) for each in searched),
        "cpu_seconds": statistics.median(each.cpu_seconds for each in (*searched, *again)[1:]),
    }


def set_target(
    workload: Workload, names: Sequence[str], *, trials: int, reruns: int
) -> dict[str, Any]:
    """The record of a workload for ``targets.json``.

    Args:
        workload: without a target.
        names: the optimizers of the pool.
        trials: points of each search.
        reruns: fresh seeds of the best point.
    """
    found = {name: run_optimizer(workload, name, trials=trials, reruns=reruns) for name in names}
    params = jax.eval_shape(workload.init, jax.random.key(0))
    return {
        "workload": workload.name,
        "target": _rounded_up(statistics.median_low(each["score"] for each in found.values())),
        "data": data_name(workload),
        "source": workload.source,
        "sha256": workload.sha256,
        "steps": workload.steps,
        "batch_size": workload.batch_size,
        "parameters": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)),
        "cpu_seconds": _rounded(statistics.median(each["cpu_seconds"] for each in found.values())),
        "pool": {
            "optimizers": {name: _rounded(each) for name, each in found.items()},
            "space_version": SPACE_VERSION,
            "schedule": SCHEDULE,
            "trials": trials,
            "search_seed": POOL_SEED,
            "rerun_seeds": [POOL_SEED + 1 + rerun for rerun in range(reruns)],
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("jax", "flax", "optax", "numpy")},
        },
    }


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Set the targets that are asked for, one after the other."""
    parser = argparse.ArgumentParser(
        prog="python -m research.workloads.pool",
        description="Set the targets of workloads by a pool of tuned trainings.",
    )
    parser.add_argument("names", nargs="*", help="workloads; default: all")
    parser.add_argument("--optimizers", nargs="+", default=OPTIMIZERS, help="default: %(default)s")
    parser.add_argument("--trials", type=int, default=16, help="of each; default: %(default)s")
    parser.add_argument("--reruns", type=int, default=3, help="of the best; default: %(default)s")
    parser.add_argument("--data-dir", help="where data lie")
    parser.add_argument("--table", action="store_true", help="print the targets, train nothing")
    options = parser.parse_args(arguments)
    if min(options.trials, options.reruns) < 1:
        parser.error(f"--trials and --reruns must be at least 1; received {options}")
    if options.table:
        print(*table(), sep="\n")
        return
    for name in options.names or NAMES:
        workload = build(name, options.data_dir)
        record = set_target(
            workload, options.optimizers, trials=options.trials, reruns=options.reruns
        )
        if not math.isfinite(record["target"]):
            parser.exit(1, f"{name}: half of the pool diverged, so there is no target\n")
        keep(record)
        scores = {
            optimizer: each["score"] for optimizer, each in record["pool"]["optimizers"].items()
        }
        print(name, record["target"], scores, f"{record['cpu_seconds']} s each", flush=True)


if __name__ == "__main__":
    main()
