"""Many cells of trainings from start to end: plan, cut, submit, wait, try again, read.

A cell is a search and what follows from it. Cells do not wait for each other, so that no worker is
idle while there is work, and what is planned or finished already is not done again.
"""

import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import ConfigError, RunError
from research.progress import Progress
from research.runlog import write_json
from research.sweep.backends import Backend, ChunkFailed
from research.sweep.chunks import DEFAULT_LOADER, Chunk, Plan, cut
from research.sweep.store import Row, store_of
from research.sweep.training import Task, Training

_SECONDS_BETWEEN_LOOKS = 1.0
_ATTEMPTS = 2


def _nothing_more(rows: list[Row]) -> Sequence["Cell"]:
    del rows
    return ()


class Cell(NamedTuple):
    """Trainings of one task, and the cells to run when all their rows are there.

    ``then(rows)`` gets the rows in the order of the trainings; what it returns must depend on them
    alone, because a run that is resumed calls it again. With a ``plan`` none is measured, and each
    call of the program is a chunk of its own: for trainings of minutes.
    """

    trainings: tuple[Training, ...]
    then: Callable[[list[Row]], Sequence["Cell"]] = _nothing_more
    plan: Plan | None = None


def plan_id(task: Task) -> str:
    """What shares a plan: the length of a training does not change which way is fastest.

    Example:
        >>> plan_id(Task("digits_mlp", "ab", "sgd", 2, "cosine", 100, 10))
        'digits_mlp/sgd/cosine'
    """
    return f"{task.workload}/{task.optimizer}/{task.schedule}"


def run_cells(
    run_path: Path,
    cells: Sequence[Cell],
    backend: Backend,
    progress: Progress,
    *,
    expected_steps: int = 0,
    loader: str = DEFAULT_LOADER,
) -> list[Row]:
    """Run all trainings of all cells and what follows from them.

    The plan of each workload and optimizer is measured by a worker before its first training,
    written to plan.json, and used by every later session.

    Args:
        run_path: an open run directory; rows, plan.json and timings.jsonl are in it.
        cells: what to run.
        backend: where; the caller closes it.
        progress: where steps are counted.
        expected_steps: of all trainings, with those that are to follow.
        loader: "module:function" that gives a workload by (name, data directory).

    Returns:
        All rows that the cells came to, each cell's together.

    Raises:
        RunError: chunks failed, each at least twice. All others were run and are kept; the message
            says where the errors lie.
        ConfigError: a cell with trainings of several tasks, or with one training twice.
    """
    return _Running(Path(run_path), backend, progress, expected_steps, loader).run(cells)


# Rows of a cell, then a list of this kind for each cell that follows it: in whatever order cells
# end, theirs is that of the cells.
_Rows = list[Any]


class _Attempt(NamedTuple):
    chunk: Chunk
    then: Callable[[Mapping[str, Any]], None]
    number: int  # since something was last committed
    missing: int  # rows, when it was submitted


class _Running:
    """The state of ``run_cells``."""

    def __init__(self, path: Path, backend: Backend, progress: Progress, steps: int, loader: str):
        self._path = path
        self._backend = backend
        self._progress = progress
        self._expected_steps = steps
        self._loader = loader
        self._store = store_of(path)
        self._plans = _read_plans(path / "plan.json")
        self._waiting: dict[str, list[tuple[Cell, _Rows]]] = {}  # for a plan, by its name
        self._attempts: dict[Future[dict[str, Any]], _Attempt] = {}
        self._failures: list[tuple[str, Path]] = []
        self._steps_of: dict[str, int] = {}  # of every training seen so far, by key
        self._parts = 1  # into which a cell is cut, so that the last ones keep all workers busy

    def run(self, cells: Sequence[Cell]) -> list[Row]:
        cells = [cell for cell in cells if cell.trainings]
        self._parts = math.ceil(2 * self._backend.slots / max(1, len(cells)))
        rows: list[_Rows] = [[] for _ in cells]
        for cell in cells:
            self._count(cell)
        for key in self._store.keys() & self._steps_of.keys():
            self._store.read(key)  # a damaged row is said now, not after hours
        self._expected_steps = max(self._expected_steps, sum(self._steps_of.values()))
        self._progress.start("trainings", self._expected_steps, self._done())
        self._begin(list(zip(cells, rows, strict=True)))
        while self._attempts:
            ended, _ = wait(self._attempts, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
            for future in ended:
                self._take(future)
            self._progress.step(self._done())
        if self._failures:
            raise RunError(_say_failures(self._failures))
        self._progress.finish()
        return [row for of_cell in rows for row in _flat(of_cell)]

    def _count(self, cell: Cell) -> None:
        keys = {training.key(): training.task.steps for training in cell.trainings}
        tasks = {training.task for training in cell.trainings}
        if len(tasks) != 1 or len(keys) != len(cell.trainings):
            raise ConfigError(
                "a cell must hold trainings of one task, none of them twice; received "
                f"{len(cell.trainings)} trainings, {len(keys)} different, of {len(tasks)} tasks."
            )
        self._steps_of |= keys

    def _missing(self, trainings: Sequence[Training]) -> list[str]:
        return self._store.missing(training.key() for training in trainings)

    def _done(self) -> int:
        there = self._store.keys()
        return sum(steps for key, steps in self._steps_of.items() if key in there)

    def _begin(self, cells: Sequence[tuple[Cell, _Rows]]) -> None:
        """Start the cells that have a plan or need none; have plans measured for the others."""
        unplanned: dict[str, list[tuple[Cell, _Rows]]] = {}
        for cell, into in cells:
            name = plan_id(cell.trainings[0].task)
            if cell.plan or name in self._plans or not self._missing(cell.trainings):
                self._start(cell, into)
            elif name in self._waiting:
                self._waiting[name].append((cell, into))
            else:
                unplanned.setdefault(name, []).append((cell, into))
        for name, waiting in unplanned.items():
            self._waiting[name] = waiting
            self._plan(name, waiting)

    def _plan(self, name: str, waiting: list[tuple[Cell, _Rows]]) -> None:
        """Have a plan measured, then start the cells that wait for it."""
        largest = max((cell for cell, _ in waiting), key=lambda cell: len(cell.trainings))
        steps = sum(training.task.steps for cell, _ in waiting for training in cell.trainings)
        to_follow = self._expected_steps / sum(self._steps_of.values())
        task, trainings = largest.trainings[0].task, largest.trainings
        chunk = Chunk(task, None, trainings, round(steps * to_follow), self._loader)

        def then(result: Mapping[str, Any]) -> None:
            self._plans[name] = dict(result["plan"])
            write_json(self._path / "plan.json", dict(sorted(self._plans.items())))
            self._progress.say(f"{name}: {describe_plan(self._plans[name])}")
            for cell, into in self._waiting.pop(name):
                self._start(cell, into)

        self._submit(_Attempt(chunk, then, 1, len(trainings)))

    def _start(self, cell: Cell, into: _Rows) -> None:
        """Submit what a cell lacks; once it is there, what follows."""
        task = cell.trainings[0].task
        missing = self._missing(cell.trainings)
        if not missing:
            self._end(cell, into)
            return
        if cell.plan:
            plan, parts = cell.plan.checked(), len(missing)
        else:
            record = self._plans[plan_id(task)]
            plan = Plan(record["mode"], record["chunk"], record["group"]).checked()
            parts = self._parts_worth(record, task.steps * len(missing))
        done = self._store.keys()
        chunks = cut(plan, cell.trainings, done, parts=parts, loader=self._loader)
        left = {chunk.id for chunk in chunks}

        def finished(chunk: Chunk, result: Mapping[str, Any]) -> None:
            del result
            left.discard(chunk.id)
            if not left:
                self._end(cell, into)

        for chunk in chunks:
            then = functools.partial(finished, chunk)
            self._submit(_Attempt(chunk, then, 1, len(self._missing(chunk.trainings))))

    def _parts_worth(self, record: Mapping[str, Any], steps: int) -> int:
        """Into how many chunks to cut so many steps of single trainings."""
        seconds = record["seconds_per_trial_step"] * steps
        # A part may cost another compilation; it should be worth that.
        worth = int(seconds / max(record["compile_seconds"], 1e-3))
        return max(min(self._parts, worth), math.ceil(seconds / self._backend.chunk_seconds))

    def _end(self, cell: Cell, into: _Rows) -> None:
        rows = [self._store.read(training.key()) for training in cell.trainings]
        into.extend(rows)
        following = [next_cell for next_cell in cell.then(rows) if next_cell.trainings]
        for next_cell in following:
            self._count(next_cell)
        parts: list[_Rows] = [[] for _ in following]
        into.extend(parts)
        self._begin(list(zip(following, parts, strict=True)))

    def _submit(self, attempt: _Attempt) -> None:
        self._attempts[self._backend.submit(attempt.chunk)] = attempt

    def _take(self, future: Future[dict[str, Any]]) -> None:
        attempt = self._attempts.pop(future)
        try:
            result = future.result()
        except ChunkFailed as failure:
            self._try_again(attempt, failure)
        else:
            attempt.then(result)

    def _try_again(self, attempt: _Attempt, failure: ChunkFailed) -> None:
        """A second attempt; and more, as long as each commits something."""
        name = f"{plan_id(attempt.chunk.task)}, chunk {attempt.chunk.id}"
        missing = len(self._missing(attempt.chunk.trainings))
        number = 1 if missing < attempt.missing else attempt.number + 1
        if number <= _ATTEMPTS:
            self._progress.say(f"{name} is tried again: {failure}")
            self._submit(attempt._replace(number=number, missing=missing))
            return
        path = self._path / "failures" / f"{attempt.chunk.id}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{name}\n{failure.details}\n")
        self._failures.append((f"{name}: {failure}", path))


def _flat(rows: _Rows) -> Iterator[Row]:
    for row in rows:
        if isinstance(row, list):
            yield from _flat(row)
        else:
            yield row


def describe_plan(record: Mapping[str, Any]) -> str:
    """One line: what was chosen, and what was measured of each.

    Example:
        >>> scan = {"mode": "scan", "chunk": 1, "group": 1, "seconds_per_trial_step": 2e-4}
        >>> why = [scan, {"mode": "step", "chunk": 1, "group": 1, "not_tried": "too slow"}]
        >>> describe_plan({**scan, "why": why})
        'chose scan (200 µs a step of one training); did not try: step'
    """

    def microseconds(entry: Mapping[str, Any]) -> str:
        return f"{1e6 * entry['seconds_per_trial_step']:.3g} µs"

    chosen = _way(record)
    untried = [_way(entry) for entry in record["why"] if "not_tried" in entry]
    others = [
        f"{_way(entry)} {microseconds(entry)}"
        for entry in record["why"]
        if "not_tried" not in entry and _way(entry) != chosen
    ]
    took = f"{microseconds(record)} a step of one training"
    than = f"; {', '.join(others)}" if others else ""
    rest = f"; did not try: {', '.join(untried)}" if untried else ""
    return f"chose {chosen} ({took}{than}){rest}"


def _way(entry: Mapping[str, Any]) -> str:
    sizes = {"map": f" {entry['chunk']}", "vmap": f" {entry['chunk']}"}
    sizes["chunked"] = f" {entry['chunk']} by {entry['group']}"
    return entry["mode"] + sizes.get(entry["mode"], "")


def _read_plans(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    try:
        plans = json.loads(path.read_text())
        for record in plans.values():
            Plan(record["mode"], record["chunk"], record["group"]).checked()
            _ = [float(record[name]) for name in ("seconds_per_trial_step", "compile_seconds")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} must hold a plan for each workload and optimizer; reading it gave "
            f"{type(error).__name__}: {error}. Start anew with --fresh: with other plans the "
            "remaining trainings would differ in their last bits from an uninterrupted run."
        ) from error
    return plans


def _say_failures(failures: Sequence[tuple[str, Path]]) -> str:
    lines = [f"  {what}\n    {path}" for what, path in failures]
    return (
        f"{len(failures)} chunk(s) of trainings must be run again, as they failed twice; all "
        "others are finished and kept. The same command tries them again; each file has the error "
        "in full:\n" + "\n".join(lines)
    )
