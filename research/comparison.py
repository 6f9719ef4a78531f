"""How optimizers are compared: equal searches, one winner each, fresh seeds that all share.

An entrant is an optimizer with a learning-rate schedule. A study is one entrant on one workload at
one length of training: a search of so many points, drawn for this study alone, all trained with
one seed; then the winner, trained again with seeds that no search used. These seeds are the same
for all entrants: with one study each, scores can be compared in pairs. With several, each has its
points, its seed of the search and its share of the final seeds, and the studies are what is
repeated.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from research import optimizers
from research.errors import ConfigError
from research.optimizers import Range
from research.sweep import Training
from research.sweep.training import Task

# Seeds of final runs lie below, seeds of searches from here on: they never meet.
FIRST_SEARCH_SEED = 2**30


class Entrant(NamedTuple):
    """An optimizer with a learning-rate schedule."""

    optimizer: str
    schedule: str


class Study(NamedTuple):
    """A search on one task; those of one task differ in their number alone.

    Of a comparison with S studies of each entrant, numbers 0 to S - 1 are compared with other
    entrants; the reference has further sets of S, which are compared with its first.
    """

    task: Task
    number: int = 0


def entrant(text: str, schedule: str) -> Entrant:
    """The entrant of a name such as ``adam`` or ``adam@constant``.

    Args:
        text: an optimizer, and perhaps a schedule after ``@``.
        schedule: where the text names none.

    Raises:
        ConfigError: no optimizer or no schedule of that name.

    Example:
        >>> entrant("adam@constant", "cosine")
        Entrant(optimizer='adam', schedule='constant')
    """
    optimizer, at, own = text.partition("@")
    if at and not own:
        raise ConfigError(f"a schedule must follow the @; received {text!r}, try {optimizer!r}.")
    optimizers.find(optimizer)
    optimizers.find_schedule(own or schedule)
    return Entrant(optimizer, own or schedule)


def search(
    study: Study, *, trials: int, seed: int, space: Mapping[str, Range] | None = None
) -> list[Training]:
    """The search of a study: points of the optimizer's space, each trained once.

    Points are a scrambled Halton sequence of the study's own. The seed of initialisation and of
    the order of the data is one for all studies of a number.

    Args:
        study: what is searched.
        trials: points.
        seed: of the whole comparison.
        space: instead of the one that the registry has for the optimizer.

    Example:
        >>> study = Study(Task("digits_mlp", "ab", "sgd", 2, "cosine", 100, 10))
        >>> [training.trial for training in search(study, trials=2, seed=0)]
        [0, 1]
    """
    task = study.task
    space = space or optimizers.find(task.optimizer, task.space_version).space
    points = optimizers.draw_trials(space, trials, seed=_hash(seed, study.number, task))
    data_seed = FIRST_SEARCH_SEED + _hash(seed, study.number) % FIRST_SEARCH_SEED
    return [
        Training(task, "search", study.number, trial, data_seed, point)
        for trial, point in enumerate(points)
    ]


def winner(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The row of a search with the lowest validation score at the end; None if all diverged.

    Equal scores are decided by the validation loss, and equal losses by the trial's number.

    Example:
        >>> def row(trial, status, score):
        ...     result = {"validation_score": [score], "validation_loss": [0.0]}
        ...     return {"status": status, "settings": {"trial": trial}, "result": result}
        >>> winner([row(0, "finished", 0.2), row(1, "finished", 0.1), row(2, "diverged", None)])[
        ...     "settings"
        ... ]
        {'trial': 1}
    """

    def rank(row: Mapping[str, Any]) -> tuple[float, float, int]:
        result = row["result"]
        loss = result["validation_loss"][-1]
        known = loss if loss is not None else math.inf
        return result["validation_score"][-1], known, row["settings"]["trial"]

    return min((row for row in rows if row["status"] == "finished"), key=rank, default=None)


def final(study: Study, searched: Sequence[Mapping[str, Any]], seeds: Sequence[int]):
    """The winner of a search again, once for each seed; nothing if the whole search diverged.

    Args:
        study: whose search it was.
        searched: rows of the search, all of them.
        seeds: below ``FIRST_SEARCH_SEED``.

    Returns:
        The trainings.

    Raises:
        ValueError: a seed that a search could have used.
    """
    if any(not 0 <= seed < FIRST_SEARCH_SEED for seed in seeds):
        raise ValueError(
            f"seeds of final runs must lie in 0 to {FIRST_SEARCH_SEED - 1}; received {seeds}."
        )
    best = winner(searched)
    if best is None:
        return []
    settings = best["settings"]
    return [
        Training(
            study.task,
            "final",
            study.number,
            settings["trial"],
            seed,
            settings["hyperparameters"],
        )
        for seed in seeds
    ]


def _hash(*parts: Any) -> int:
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:4], "big")
