"""One training as plain values: what is run, and the name its result is kept under."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Phase = Literal["search", "final"]


class Task(NamedTuple):
    """What the trainings of one compiled program share."""

    workload: str
    sha256: str  # of the workload's data
    optimizer: str
    space_version: int
    schedule: str
    steps: int
    evaluate_every: int


@dataclasses.dataclass(frozen=True)
class Training:
    """A training of one task: a point of the search space and a seed.

    A study is one search with its final runs; an optimizer has several where it is compared with
    itself. ``trial`` counts the points of a search; final runs have that of the point they repeat.
    """

    task: Task
    phase: Phase
    study: int
    trial: int
    seed: int
    hyperparameters: Mapping[str, float]

    def settings(self) -> dict[str, Any]:
        """All of it as plain values, the task's among them.

        Example:
            >>> task = Task("digits_mlp", "ab", "sgd", 2, "cosine", 100, 10)
            >>> training = Training(task, "search", 0, 3, 7, {"learning_rate": 0.1})
            >>> training.settings()["optimizer"], training.settings()["trial"]
            ('sgd', 3)
        """
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)[1:]}
        return {**self.task._asdict(), **own, "hyperparameters": dict(self.hyperparameters)}

    def key(self) -> str:
        """Sixteen hexadecimal digits of the hash of the settings: where the row is kept.

        Example:
            >>> task = Task("digits_mlp", "ab", "sgd", 2, "cosine", 100, 10)
            >>> one = Training(task, "search", 0, 3, 7, {"learning_rate": 0.1})
            >>> other = dataclasses.replace(one, seed=8)
            >>> len(one.key()), one.key() == other.key()
            (16, False)
        """
        return key_of(self.settings())


def key_of(settings: Mapping[str, Any]) -> str:
    """The key of a training with these settings, in whatever order they come.

    Example:
        >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
        True
    """
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def training_of(settings: Mapping[str, Any]) -> Training:
    """The training that has these settings.

    Example:
        >>> task = Task("digits_mlp", "ab", "sgd", 2, "cosine", 100, 10)
        >>> training = Training(task, "search", 0, 3, 7, {"learning_rate": 0.1})
        >>> training_of(training.settings()) == training
        True
    """
    own = {name: value for name, value in settings.items() if name not in Task._fields}
    return Training(Task(**{name: settings[name] for name in Task._fields}), **own)
