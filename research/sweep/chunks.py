"""What is handed to a worker, as plain values: a task, a plan, trainings."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from research.sweep.training import Task, Training, training_of

Mode = Literal["step", "scan", "map", "vmap", "chunked"]

DEFAULT_LOADER = "research.workloads:load"


class Plan(NamedTuple):
    """How the trainings of a task are run.

    ``chunk`` trainings go into one call of the program. In modes ``step`` and ``scan`` that is one;
    ``map`` takes several one after another, ``vmap`` all as rows of the same operations, and
    ``chunked`` groups of ``group`` rows one after another.
    """

    mode: Mode = "scan"
    chunk: int = 1
    group: int = 1

    def checked(self) -> "Plan":
        """Itself.

        Raises:
            ValueError: numbers that do not go with the mode.

        Example:
            >>> Plan("chunked", 8, 4).checked()
            Plan(mode='chunked', chunk=8, group=4)
        """
        wanted = {
            "step": self.chunk == self.group == 1,
            "scan": self.chunk == self.group == 1,
            "map": self.chunk > 1 and self.group == 1,
            "vmap": self.group == self.chunk > 1,
            "chunked": self.chunk > self.group > 1 and self.chunk % self.group == 0,
        }
        if not wanted.get(self.mode, False):
            raise ValueError(
                f"a plan must be one of {', '.join(wanted)} with chunk = group = 1 for step and "
                "scan, group = 1 < chunk for map, 1 < group = chunk for vmap, and group a proper "
                f"divisor of chunk for chunked; received {self}."
            )
        return self


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Trainings of one task for one worker; with no plan, the measurements for one are the work.

    ``trial_steps`` is the work that the plan is made for, in steps of one training.
    """

    task: Task
    plan: Plan | None
    trainings: tuple[Training, ...]
    trial_steps: int = 0
    loader: str = DEFAULT_LOADER

    @property
    def id(self) -> str:
        """Names the chunk in messages and file names."""
        text = json.dumps([self.plan is None, *(training.key() for training in self.trainings)])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """As plain values.

        Example:
            >>> task = Task("digits_mlp", "ab", "sgd", 2, "cosine", 100, 10)
            >>> training = Training(task, "search", 0, 3, 7, {"learning_rate": 0.1})
            >>> chunk = Chunk(task, Plan("map", 4), (training,))
            >>> chunk_of(json.loads(json.dumps(chunk.to_json()))) == chunk
            True
        """
        return {
            "task": self.task._asdict(),
            "plan": None if self.plan is None else self.plan._asdict(),
            "trainings": [training.settings() for training in self.trainings],
            "trial_steps": self.trial_steps,
            "loader": self.loader,
        }


def chunk_of(record: dict[str, Any]) -> Chunk:
    """The chunk that ``to_json`` gave."""
    plan = record["plan"]
    return Chunk(
        Task(**record["task"]),
        None if plan is None else Plan(**plan),
        tuple(training_of(settings) for settings in record["trainings"]),
        record["trial_steps"],
        record["loader"],
    )


def groups_of(plan: Plan, trainings: Sequence[Training]) -> list[tuple[Training, ...]]:
    """The trainings in the groups that one call of the program takes; the last may be smaller.

    Where a training lies decides the last bits of its row, so a list is always cut in the same way,
    whatever of it is done already.

    Example:
        >>> [len(group) for group in groups_of(Plan("vmap", 4, 4), list(range(10)))]
        [4, 4, 2]
    """
    return [
        tuple(trainings[start : start + plan.chunk])
        for start in range(0, len(trainings), plan.chunk)
    ]


def cut(
    plan: Plan,
    trainings: Sequence[Training],
    done: Iterable[str],
    *,
    parts: int,
    loader: str = DEFAULT_LOADER,
) -> list[Chunk]:
    """Chunks for the trainings of one task, as even as groups allow.

    Args:
        plan: of the task.
        trainings: all of them, done or not, in a fixed order.
        done: keys of those that have a row. A group with all rows is left out.
        parts: into how many chunks, at most.
        loader: of the workload.
    """
    done = set(done)
    groups = [
        group
        for group in groups_of(plan, trainings)
        if any(training.key() not in done for training in group)
    ]
    size = max(1, math.ceil(len(groups) / max(1, parts)))
    return [
        Chunk(
            groups[start][0].task,
            plan,
            tuple(training for group in groups[start : start + size] for training in group),
            loader=loader,
        )
        for start in range(0, len(groups), size)
    ]
