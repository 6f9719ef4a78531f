"""Rows of an optimizer comparison whose truth is known, and the run directory that holds them.

A score falls from 1 as floor + (1 - floor) · exp(-speed · step / scale) times a seed's effect that
all entrants share, so an entrant of twice the speed needs half the steps. The speed of a trial is
the entrant's at its best learning rate, 1, and falls off to both sides; too high a rate diverges.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.sweep.training import Task, Training


class Truth(NamedTuple):
    """What an entrant is like on every workload."""

    speed: float = 1.0
    floor: float = 0.05
    diverges_above: float = 20.0  # of the learning rate; 0 for always
    final_diverges: tuple[int, ...] = ()  # seeds
    evaluations: int = 1
    seconds_per_step: float = 1e-3
    state_bytes: float = 8.0  # per parameter


TRUTHS: Mapping[str, Truth] = {
    "adamw": Truth(),
    "muon": Truth(speed=2.0, floor=0.04, seconds_per_step=3e-3, state_bytes=4.0),
    "sgd": Truth(speed=0.4, state_bytes=0.0, seconds_per_step=5e-4),
    "adam@constant": Truth(floor=0.3, evaluations=2),  # never reaches the target of 0.1
    "rprop": Truth(diverges_above=0.0),
    "lion": Truth(final_diverges=(1001,)),
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is compared; the fields are those of the experiment's configuration."""

    truths: Mapping[str, Truth] = dataclasses.field(default_factory=lambda: dict(TRUTHS))
    workloads: Sequence[str] = ("digits_mlp", "gru")
    horizons: Sequence[int] = (100, 200)
    trials: int = 16
    seeds: Sequence[int] = tuple(range(1000, 1008))
    studies: int = 1
    reference: str | None = "adamw"
    aa_studies: int = 1
    held_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    noise: float = 0.02

    def config(self) -> dict[str, Any]:
        """As config.json has it."""
        space = {"learning_rate": {"low": 0.01, "high": 100.0, "below_one": False}}
        return {
            "workloads": list(self.workloads),
            "targets": {workload: 0.1 for workload in self.workloads},
            "metrics": {workload: "error rate" for workload in self.workloads},
            "descriptions": {workload: f"a model of {workload}" for workload in self.workloads},
            "held_out": dict(self.held_out),
            "optimizers": list(self.truths),
            "schedule": "cosine",
            "horizons": {workload: list(self.horizons) for workload in self.workloads},
            "trials": self.trials,
            "seeds": list(self.seeds),
            "studies": self.studies,
            "search_seed": 0,
            "reference": self.reference,
            "aa_studies": self.aa_studies,
            "search_spaces": {entrant.partition("@")[0]: space for entrant in self.truths},
            "papers": {},
        }


def rows_of(compared: Comparison) -> list[dict[str, Any]]:
    """All rows, by key."""
    rows = []
    for workload in compared.workloads:
        for horizon in compared.horizons:
            for entrant in compared.truths:
                sets = 1 + (compared.aa_studies if entrant == compared.reference else 0)
                for study in range(sets * compared.studies):
                    rows += _cell(compared, workload, horizon, entrant, study)
    return sorted(rows, key=lambda row: row["key"])


def timings_of(compared: Comparison) -> list[dict[str, Any]]:
    """A line per task."""
    return [
        {
            "task": _task(workload, entrant, horizon)._asdict(),
            "plan": {"mode": "scan", "chunk": 1},
            "rows": [],
            "seconds": truth.seconds_per_step * horizon * compared.trials + 2.0,
            "cpu_seconds": truth.seconds_per_step * horizon * compared.trials + 2.0,
            "compile_seconds": 2.0,
            "steps": horizon * compared.trials,
            "state_bytes": int(truth.state_bytes * 1000),
            "parameters": 1000,
        }
        for workload in compared.workloads
        for entrant, truth in compared.truths.items()
        for horizon in compared.horizons
    ]


def write_comparison(
    path: Path,
    compared: Comparison | None = None,
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    config: Mapping[str, Any] | None = None,
    timings: Sequence[Mapping[str, Any]] | None = None,
) -> Path:
    """Write the run directory of a comparison, or of other rows, and return its path."""
    compared = compared or Comparison()
    (path / "rows").mkdir(parents=True)
    head = {
        "format": 1, "trellis": "0.1.0", "experiment": "compare_optimizers", "recipe": "quick",
        "config": compared.config() if config is None else config,
        "data": {"name": "several", "source": "synthetic curves", "sha256": "ab"},
    }  # fmt: skip
    (path / "config.json").write_text(json.dumps(head))
    session = {
        "started": "2025-01-01T10:00:00Z", "command": "compare --recipe quick",
        "commit": "0123456789abcdef", "versions": {"jax": "0.0.1"}, "device": "1 x cpu: cpu",
        "platform": "Linux x86_64", "cpus": 2,
    }  # fmt: skip
    (path / "environment.json").write_text(json.dumps({"sessions": [session], "seeds": []}))
    lines = timings_of(compared) if timings is None else timings
    (path / "timings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for row in rows_of(compared) if rows is None else rows:
        (path / "rows" / f"{row['key']}.json").write_text(json.dumps(row, allow_nan=False))
    return path


def _task(workload: str, entrant: str, horizon: int) -> Task:
    optimizer, _, schedule = entrant.partition("@")
    return Task(workload, "ab", optimizer, 2, schedule or "cosine", horizon, 5)


def _cell(
    compared: Comparison, workload: str, horizon: int, entrant: str, study: int
) -> list[dict[str, Any]]:
    truth, task = compared.truths[entrant], _task(workload, entrant, horizon)
    generator = np.random.default_rng([study, horizon, *entrant.encode(), *workload.encode()])
    rates = 10 ** generator.uniform(-2, 2, compared.trials)
    searches = [
        _row(compared, truth, Training(task, "search", study, i, 0, {"learning_rate": rate}))
        for i, rate in enumerate(rates.tolist())
    ]
    ended = [row for row in searches if row["status"] == "finished"]
    if not ended:
        return searches
    best = min(ended, key=lambda row: row["result"]["validation_score"][-1])["settings"]
    finals = [
        Training(task, "final", study, best["trial"], seed, best["hyperparameters"])
        for seed in compared.seeds[study % compared.studies :: compared.studies]
    ]
    return searches + [_row(compared, truth, training) for training in finals]


def _row(compared: Comparison, truth: Truth, training: Training) -> dict[str, Any]:
    task, rate = training.task, training.hyperparameters["learning_rate"]
    key = training.key()
    own = np.random.default_rng(int(key, 16))
    shared = np.random.default_rng([training.seed, *task.workload.encode()])
    effect = math.exp(compared.noise * (shared.normal() + 0.3 * own.normal()))
    speed = truth.speed * effect * math.exp(-(math.log10(rate) ** 2) / 2)
    steps = list(range(task.evaluate_every, task.steps + 1, task.evaluate_every))
    curve = [
        truth.floor + (1 - truth.floor) * math.exp(-4.5 * speed * step / 100) for step in steps
    ]
    lost = training.phase == "final" and training.seed in truth.final_diverges
    diverged_at = 12 if lost or rate > truth.diverges_above else None
    kept = diverged_at or math.inf
    curve = [score if step < kept else None for step, score in zip(steps, curve, strict=True)]
    result = {
        "steps": steps, "train_loss": curve, "validation_loss": curve, "validation_score": curve,
        "diverged_at": diverged_at, "test_loss": None, "test_score": None,
        "gradient_evaluations": truth.evaluations,
    }  # fmt: skip
    if training.phase == "final" and curve[-1] is not None:
        result |= {"test_loss": curve[-1], "test_score": curve[-1] * 1.02}
    status = "diverged" if diverged_at else "finished"
    return {"key": key, "status": status, "settings": training.settings(), "result": result}
