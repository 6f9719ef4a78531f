"""What a worker does with a chunk; every backend runs this one function.

Execution is at least once: a chunk that was cut short is given out again. Results are exactly once:
rows that are there are kept, and a group of trainings that share a call is run whole or not at all.
"""

import functools
import importlib
import os
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.errors import DataError
from research.sweep.chunks import Chunk, Plan, chunk_of, groups_of
from research.sweep.meter import metered
from research.sweep.planner import choose
from research.sweep.program import Prepared, Program, make_program, prepare, sizes, train
from research.sweep.store import EXAMPLES, Row, append_line, store_of
from research.sweep.training import Task
from research.workloads.workload import Examination, Workload


def execute(
    chunk: Chunk | Mapping[str, Any], run_path: Path | str, data_dir: Path | str | None
) -> dict[str, Any]:
    """Run the trainings of a chunk that have no row yet, or choose a plan where it has none.

    Args:
        chunk: or what its ``to_json`` gave.
        run_path: the run directory, which gets the rows and a line in timings.jsonl.
        data_dir: where workloads find their data.

    Returns:
        {"plan": ...} of a chunk without one, else the line for timings.jsonl.

    Raises:
        DataError: the workload's data are not those that the task names.
    """
    if not isinstance(chunk, Chunk):
        chunk = chunk_of(dict(chunk))
    place = None if data_dir is None else str(data_dir)
    return _plan(chunk, place) if chunk.plan is None else _train(chunk, Path(run_path), place)


def _plan(chunk: Chunk, data_dir: str | None) -> dict[str, Any]:
    prepared = _load(chunk.loader, chunk.task, data_dir)
    choice = choose(prepared, chunk.task, chunk.trainings, chunk.trial_steps)
    _keep(_program_key(chunk, choice.plan, data_dir), choice.program)
    return {"plan": choice.record(chunk.trial_steps, len(chunk.trainings))}


def _train(chunk: Chunk, run_path: Path, data_dir: str | None) -> dict[str, Any]:
    plan, store = chunk.plan, store_of(run_path)
    assert plan is not None
    with metered() as spent:
        prepared = _load(chunk.loader, chunk.task, data_dir)
        program = _program(chunk, plan, prepared, data_dir)
        committed, steps, stepping = [], 0, 0.0
        for group in groups_of(plan, chunk.trainings):
            if not store.missing(training.key() for training in group):
                continue
            ended, taken, took = train(program, prepared, plan, group)
            for row, found in ended:
                if found is not None:
                    _keep_examination(run_path, row, found)
                if store.commit(row):
                    committed.append(row["key"])
            steps += taken
            stepping += took.running
    record = {
        "task": chunk.task._asdict(),
        "plan": plan._asdict(),
        "rows": committed,
        "seconds": round(spent.seconds, 4),
        "cpu_seconds": round(spent.cpu_seconds, 4),
        "compile_seconds": round(spent.compile_seconds, 4),
        "steps": steps,
        # Without loading the data, compiling, testing: what a step costs.
        "step_seconds": round(stepping, 4),
        **sizes(program, prepared, chunk.trainings[0]),
    }
    if steps:
        append_line(run_path / "timings.jsonl", record)
    return record


def _keep_examination(run_path: Path, row: Row, found: Examination) -> None:
    """Arrays before the row, so that a row that is there has them; times as they come."""
    if found.arrays:
        folder = run_path / EXAMPLES
        folder.mkdir(exist_ok=True)
        temporary = folder / f".{row['key']}.{uuid.uuid4().hex}.npz"
        np.savez_compressed(temporary, allow_pickle=False, **found.arrays)
        os.replace(temporary, folder / f"{row['key']}.npz")
    if found.timings:
        named = {"workload": row["settings"]["workload"], "key": row["key"], **found.timings}
        append_line(run_path / "timings.jsonl", {"recognition": named})


@functools.lru_cache(maxsize=2)
def _loaded(loader: str, name: str, data_dir: str | None) -> Prepared:
    module, _, function = loader.partition(":")
    load: Callable[..., Workload] = getattr(importlib.import_module(module), function)
    return prepare(load(name, data_dir))


def _load(loader: str, task: Task, data_dir: str | None) -> Prepared:
    prepared = _loaded(loader, task.workload, data_dir)
    if prepared.workload.sha256 != task.sha256:
        raise DataError(
            f"the data of {task.workload} must have the sha256 {task.sha256}, as when the run was "
            f"begun; they have {prepared.workload.sha256}. Give the same data directory "
            "as then, or start anew with --fresh."
        )
    return prepared


# Compiled programs are kept by the process that compiled them: the final runs follow their search.
_PROGRAMS: dict[tuple[Any, ...], Program] = {}
_MOST_PROGRAMS = 8


def _program_key(chunk: Chunk, plan: Plan, data_dir: str | None) -> tuple[Any, ...]:
    return chunk.loader, chunk.task, plan, data_dir


def _program(chunk: Chunk, plan: Plan, prepared: Prepared, data_dir: str | None) -> Program:
    key = _program_key(chunk, plan, data_dir)
    program = _PROGRAMS.get(key)
    if program is None:
        program = make_program(prepared.workload, chunk.task, plan)
    return _keep(key, program)


def _keep(key: tuple[Any, ...], program: Program) -> Program:
    """Remember it as the last used, and forget the one used longest ago."""
    _PROGRAMS.pop(key, None)
    _PROGRAMS[key] = program
    while len(_PROGRAMS) > _MOST_PROGRAMS:
        del _PROGRAMS[next(iter(_PROGRAMS))]
    return program


def worker_environment() -> dict[str, str]:
    """What a worker needs in its environment before Python and JAX start there.

    It imports from where this process does, and computes on the platform that this one was
    told to use. On a CPU, in one thread: as many workers as cores use all of them, without waiting
    for each other, and the bits of a row do not depend on the number of cores.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        flags = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    platforms = getattr(jax.config, "jax_platforms")  # noqa: B009 (unknown to type checkers)
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
    return {
        **dict.fromkeys(threads, "1"),
        **({"JAX_PLATFORMS": platforms} if platforms else {}),
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path),
        "XLA_FLAGS": flags,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # of a GPU: the parent process uses it too
    }
