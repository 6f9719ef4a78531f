"""How many training steps a processor second buys here, beside an eager loop in torch.

    python -m experiments.bench_sweep
    python -m experiments.bench_sweep mlp_32 --rounds 9 --out FILE.jsonl

Both train the same models on the same batches of 8x8 digits with AdamW, evaluate as often, and must
reach the same losses. They take turns, each with one thread; what counts is processor time, so that
neither gains by the other's cores. Compilation is stated by itself. Then every way in which the
planner could run the trainings takes its turn, and its choice is compared with the best of them.

About 5 minutes on 2 cores. Needs torch, which is no dependency of Trellis.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

from experiments import torch_loop
from kernels.machine import describe_machine, seconds_of_others
from kernels.timing import Ratio, Samples, order, paired_ratio, spread
from research.errors import RunError, TrellisError
from research.models.lenet import LeNet
from research.models.mlp import MLP
from research.objectives.classification import cross_entropy
from research.sweep import Task, Training, store_of
from research.sweep.backends import ChunkFailed, ask, request_for, start_worker
from research.sweep.chunks import Chunk, Plan
from research.sweep.engine import worker_environment
from research.sweep.planner import candidates
from research.sweep.store import append_line
from research.workloads.workload import Workload

FORMAT = 1
LOADER = "experiments.bench_sweep:load"
BATCH = 64
WINDOW = 50  # steps between evaluations
HYPERPARAMETERS = {"b1": 0.9, "b2": 0.999, "weight_decay": 1e-2}
WORK = 1_000_000  # trial steps that the planner plans for: a long search
AGREEMENT = 1e-3  # of the mean losses of the first window


class Case(NamedTuple):
    """A model, what the comparison should come to, and how long each sample is."""

    model: Callable[[], Any]
    goal: float  # times torch
    steps: int  # of each training


CASES: Mapping[str, Case] = {
    "mlp_16": Case(lambda: MLP(10, widths=(16, 16)), 20.0, 1000),
    "mlp_32": Case(lambda: MLP(10, widths=(32, 32)), 20.0, 1000),
    "mlp_128": Case(lambda: MLP(10, widths=(128, 128)), 3.0, 500),
    "lenet": Case(lambda: LeNet(10), 1.7, 100),
}


def load(name: str, data_dir: str | None = None) -> Workload:
    """The digits of scikit-learn with the model of a case."""
    del data_dir
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x = (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    y = labels.astype(np.int32)
    parts = {"train": slice(0, 1280), "validation": slice(1280, 1536), "test": slice(1536, None)}
    splits = {part: {"x": x[rows], "y": y[rows]} for part, rows in parts.items()}
    model = CASES[name].model()

    def init(key):
        return model.init(key, x[:1])["params"]

    def loss(params, batch, key):
        del key
        return cross_entropy(model.apply({"params": params}, batch["x"]), batch["y"])

    def measure(params, batch):
        logits = model.apply({"params": params}, batch["x"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return {"loss": losses, "score": logits.argmax(-1) != batch["y"]}

    return Workload(
        name=name,
        description=f"{name} on 8x8 digits",
        metric="error rate",
        target=0.05,
        steps=CASES[name].steps,
        batch_size=BATCH,
        source="scikit-learn",
        sha256="",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        init=init,
        loss=loss,
        measure=measure,
    )


def trainings(name: str, number: int) -> tuple[Training, ...]:
    """Trainings of a case, with rising learning rates and a seed each."""
    task = Task(name, "", "adamw", 1, "constant", CASES[name].steps, WINDOW)
    return tuple(
        Training(task, "search", 0, i, i, {**HYPERPARAMETERS, "learning_rate": 1e-3 * (1 + i / 8)})
        for i in range(number)
    )


class Engine:
    """Ours: a worker process, as the local backend has them."""

    def __init__(self, log: Path):
        self._log = log.open("w")
        self._worker: subprocess.Popen[str] = start_worker(worker_environment(), self._log.fileno())

    def plan(self, which: tuple[Training, ...]) -> dict[str, Any]:
        """What the planner chooses for them, with its measurements."""
        return self._ask(Chunk(which[0].task, None, which, WORK, LOADER), self._log.name)["plan"]

    def train(self, plan: Plan, which: tuple[Training, ...]) -> tuple[dict[str, Any], float]:
        """The line for timings.jsonl, and the mean loss in the first window of the first."""
        with tempfile.TemporaryDirectory(prefix="trellis-bench-") as folder:
            line = self._ask(Chunk(which[0].task, plan, which, 0, LOADER), folder)
            row = store_of(Path(folder)).read(which[0].key())
        return line, row["result"]["train_loss"][0]

    def _ask(self, chunk: Chunk, run_path: str) -> dict[str, Any]:
        return ask(self._worker, request_for(chunk, Path(run_path), None))

    def close(self) -> None:
        """End the process."""
        self._worker.kill()
        self._worker.communicate()
        self._log.close()


def measure_modes(
    engine: Engine, which: tuple[Training, ...], rounds: int
) -> dict[Plan, dict[str, Any]]:
    """Processor seconds of a trial step in every mode, the modes taking turns.

    Each first has a turn in which it compiles, if the planner has not tried it before.
    """
    plans = candidates(len(which))
    found: dict[Plan, dict[str, Any]] = {}
    for plan in plans:
        engine.train(plan, which)
        found[plan] = {"cpu_seconds": []}
    for turn in range(rounds):
        for i in order([str(i) for i in range(len(plans))], turn):
            line, _ = engine.train(plans[int(i)], which)
            assert line["compile_seconds"] == 0, "the worker forgot a program"
            found[plans[int(i)]]["cpu_seconds"].append(line["cpu_seconds"] / line["steps"])
    return found


def measure_case(name: str, number: int, rounds: int, log: Path) -> dict[str, Any]:
    """All of a case: the comparison with torch, and the modes beside the planner's choice."""
    torch = torch_loop.import_torch()
    workload, which, case = load(name), trainings(name, number), CASES[name]
    initial = jax.jit(lambda seed: workload.init(jax.random.split(jax.random.key(seed))[0]))
    params = jax.device_get(initial(np.uint32(which[0].seed)))
    engine = Engine(log)
    try:
        chosen = engine.plan(which)
        plan = Plan(chosen["mode"], chosen["chunk"], chosen["group"])
        _, our_loss = engine.train(plan, which)
        module = torch_loop.build(torch, params)
        (their_loss,) = torch_loop.train(torch, module, workload, which[0], 1)
        if not abs(our_loss / their_loss - 1) < AGREEMENT:
            raise RunError(
                f"both sides of {name} must train the same model; the mean losses of the first "
                f"{WINDOW} steps are {our_loss:.6f} and {their_loss:.6f}. Nothing was timed."
            )
        ours: list[float | None] = []
        theirs: list[float | None] = []
        for turn in range(rounds):
            for side in order(("ours", "theirs"), turn):
                if side == "ours":
                    line, _ = engine.train(plan, which)
                    ours.append(line["cpu_seconds"] / line["steps"])
                else:
                    windows = case.steps // WINDOW
                    module = torch_loop.build(torch, params)
                    began = time.process_time()
                    torch_loop.train(torch, module, workload, which[0], windows)
                    theirs.append((time.process_time() - began) / (windows * WINDOW))
        modes = measure_modes(engine, which, rounds)
    finally:
        engine.close()
    ratio = paired_ratio(Samples(theirs, 1), Samples(ours, 1))
    assert ratio is not None  # both take part in every round
    return {
        "case": name,
        "batch": BATCH,
        "trainings": number,
        "steps": case.steps,
        "evaluate_every": WINDOW,
        "goal": case.goal,
        "first_losses": [our_loss, their_loss],
        "ours_cpu_seconds_per_step": ours,
        "torch_cpu_seconds_per_step": theirs,
        "ratio": ratio._asdict(),
        "chosen": plan._asdict(),
        "planned": chosen,
        "modes": [{**mode._asdict(), **found} for mode, found in modes.items()],
    }


def choice_over_best(record: Mapping[str, Any]) -> float:
    """Processor seconds of a step in the mode that was chosen, over those in the best.

    Example:
        >>> modes = [{"mode": "scan", "chunk": 1, "group": 1, "cpu_seconds": [2.0, 2.2, 9.0]}]
        >>> modes += [{"mode": "vmap", "chunk": 8, "group": 8, "cpu_seconds": [2.0, 2.0, 2.0]}]
        >>> chosen = {"mode": "scan", "chunk": 1, "group": 1}
        >>> round(choice_over_best({"modes": modes, "chosen": chosen}), 3)
        1.1
    """
    totals = {
        (entry["mode"], entry["group"]): statistics.median(entry["cpu_seconds"])
        for entry in record["modes"]
    }
    return totals[record["chosen"]["mode"], record["chosen"]["group"]] / min(totals.values())


def show(records: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Two tables: the comparison with torch, and the modes."""
    table = Table(title="Training steps of a processor second, evaluation included; AdamW")
    for column in ("", "plan", "ours", "torch", "ours, × torch", "interval", "rounds", "goal"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for record in records:
        ratio = Ratio(**record["ratio"])
        rates = [
            f"{1 / spread(record[side]).median:,.0f}"
            for side in ("ours_cpu_seconds_per_step", "torch_cpu_seconds_per_step")
        ]
        table.add_row(
            record["case"],
            _name(record["chosen"]),
            *rates,
            f"{ratio.median:.2f}",
            f"{ratio.low:.2f} to {ratio.high:.2f} ({ratio.level:.0%})",
            str(ratio.pairs),
            f"{record['goal']:g}",
        )
    console.print(table)
    for record in records:
        table = Table(title=f"{record['case']}: what the planner chooses from")
        for column in ("", "µs a step", "quartiles", ""):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        for entry in record["modes"]:
            taken = spread([1e6 * value for value in entry["cpu_seconds"]])
            table.add_row(
                _name(entry),
                f"{taken.median:.3g}",
                f"{taken.low:.3g} to {taken.high:.3g}",
                "chosen" if _name(entry) == _name(record["chosen"]) else "",
            )
        console.print(table)
        console.print(
            f"With the choice a step takes {choice_over_best(record):.3f} times what it takes with "
            "the best.",
            highlight=False,
        )


def _name(plan: Mapping[str, Any]) -> str:
    sizes = {"map": f" {plan['chunk']}", "vmap": f" {plan['chunk']}"}
    sizes["chunked"] = f" {plan['chunk']} by {plan['group']}"
    return plan["mode"] + sizes.get(plan["mode"], "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and keep the records where asked."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench_sweep",
        description="Training steps of a processor second: the sweep engine beside eager torch.",
    )
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--trainings", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="a file of JSON lines to add the records to")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.cases if name not in CASES]:
        parser.error(f"cases must be among {', '.join(CASES)}; received {' '.join(unknown)}")
    for option in ("rounds", "trainings"):
        if (number := getattr(options, option)) < 1:
            parser.error(f"--{option} must be at least 1; received {number}")
    _check_out(options.out, parser)
    console = Console()
    console.width = max(console.width, 110)
    left, records, failure = list(options.cases or CASES), [], ""
    try:
        torch_loop.import_torch()
        with tempfile.TemporaryDirectory(prefix="trellis-bench-") as folder:
            while left:
                began, busy = time.perf_counter(), seconds_of_others()
                log = Path(folder) / "worker.log"
                record = measure_case(left[0], options.trainings, options.rounds, log)
                records.append({**_common(began, busy), **record})
                if options.out is not None:
                    append_line(options.out, records[-1])
                left.pop(0)
    except (TrellisError, OSError) as error:
        failure = str(error)
    except ChunkFailed as error:
        failure = f"a worker must answer with measurements; received: {error.details}"
    if records:
        show(records, console)
    if failure:
        again = f"python -m {LOADER.partition(':')[0]} {' '.join(left)}"
        parser.exit(2, f"error: {failure}\nWhat is left once that is mended: {again}\n")


def _check_out(path: Path | None, parser: argparse.ArgumentParser) -> None:
    """Refuse a file that records cannot be added to, before they are measured."""
    if path is None:
        return
    if path.is_dir():
        parser.error(f"--out must be a file of JSON lines; received {path}, which is a folder")
    if not path.parent.is_dir():
        parser.error(f"--out must lie in a folder that exists; received {path}: make {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        parser.error(f"--out must be writable; received {path}, which you may not write to")


def _common(began: float, busy: float | None) -> dict[str, Any]:
    """What a record says of the machine, with the share of its cores that were busy meanwhile."""
    now, machine = seconds_of_others(), describe_machine()
    seconds = (time.perf_counter() - began) * machine["cpus"]
    share = None if busy is None or now is None else round((now - busy) / seconds, 3)
    return {"format": FORMAT, **machine, "busy": share}


if __name__ == "__main__":
    main()
