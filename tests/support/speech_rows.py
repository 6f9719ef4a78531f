"""Rows of a CTC study whose truth is known, and the run directory that holds them.

Every label is misrecognised with the probability of its system, plus what the speaker and the seed
do to all systems alike; most of the chance is shared, so that systems make errors on the same
labels and differ in pairs.
"""

import copy
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from research.speech.error_rates import confusion_counts, count_errors
from research.sweep.training import Task, Training

ENVIRONMENT = {
    "sessions": [
        {
            "started": "2025-01-01T10:00:00Z",
            "command": "compare --recipe quick",
            "commit": "0123456789abcdef",
            "versions": {"jax": "0.0.1", "numpy": "2.0.0"},
            "device": "1 x cpu: cpu",
            "platform": "Linux x86_64",
            "cpus": 2,
        }
    ],
    "seeds": [0, 1, 2],
}


class Truth(NamedTuple):
    """What an objective is like with every encoder."""

    error: float = 0.10  # of a label
    peak: float = 0.95
    width: float = 1.5
    boundary: float = 60.0  # milliseconds; 0 for a corpus without boundaries
    views: int = 1
    seconds_per_step: float = 0.1
    diverges_above: float = 20.0  # of the learning rate; 0 for always
    final_diverges: tuple[str, ...] = ()  # folds


TRUTHS: Mapping[str, Truth] = {
    "ctc": Truth(),
    "label_smoothed_ctc": Truth(),  # no different
    "prior_ctc": Truth(error=0.16, peak=0.6, width=4.0, boundary=25.0),
    "consistency_ctc": Truth(error=0.04, peak=0.8, width=2.0, views=2, seconds_per_step=0.2),
    "focal_ctc": Truth(final_diverges=("george",)),
}


@dataclasses.dataclass(frozen=True)
class Study:
    """What is compared; the fields are those of the experiment's configuration."""

    truths: Mapping[str, Truth] = dataclasses.field(default_factory=lambda: dict(TRUTHS))
    encoders: Mapping[str, float] = dataclasses.field(
        default_factory=lambda: {"bilstm": 0.02, "separable_conv": 0.0}  # more errors
    )
    optimizers: Sequence[str] = ("adamw",)
    folds: Sequence[str] = ("george", "jackson", "nicolas", "theo", "yweweler")
    seeds: Sequence[int] = (1000, 1001, 1002, 1003, 1004)
    crossed: bool = False
    tuning: str = "shared"
    tuned_with: str = "ctc"
    reference: str = "ctc"
    trials: int = 6
    steps: int = 200
    strings: int = 60
    words: bool = False
    speaker_deviation: float = 0.03
    seed_deviation: float = 0.005

    def steps_of(self, objective: str) -> int:
        """Compute-matched."""
        return self.steps // self.truths[objective].views

    def pairs(self) -> list[tuple[str, int]]:
        """Fold and seed of every training of a system."""
        if self.crossed:
            return [(fold, seed) for fold in self.folds for seed in self.seeds]
        count = max(len(self.folds), len(self.seeds))
        return [
            (self.folds[i % len(self.folds)], self.seeds[i % len(self.seeds)]) for i in range(count)
        ]

    def config(self) -> dict[str, Any]:
        """As config.json has it."""
        space = {"learning_rate": {"low": 0.01, "high": 100.0, "log": True}}
        return {
            "corpus": "fsdd", "source": "Free Spoken Digit Dataset",
            "encoders": list(self.encoders), "objectives": list(self.truths),
            "optimizers": list(self.optimizers), "schedule": "cosine", "folds": list(self.folds),
            "crossed": self.crossed, "seeds": list(self.seeds), "steps": self.steps,
            "trials": self.trials, "search_steps": self.steps // 2, "tuning": self.tuning,
            "tuned_with": self.tuned_with, "match": "compute", "reference": self.reference,
            "batch_size": 32, "evaluations": 4,
            "steps_of": {objective: self.steps_of(objective) for objective in self.truths},
            "views": {objective: truth.views for objective, truth in self.truths.items()},
            "labels": {"ctc": "CTC", "prior_ctc": "label priors"},
            "sources": {"ctc": "Graves et al., ICML 2006"},
            "search_spaces": {name.partition("@")[0]: space for name in self.optimizers},
            "metric": "label error rate",
        }  # fmt: skip


def rows_of(study: Study) -> list[dict[str, Any]]:
    """All rows, by key."""
    rows = []
    for encoder in study.encoders:
        for optimizer in study.optimizers:
            searched = {
                (objective, fold): _search(study, encoder, objective, optimizer, fold)
                for objective in (study.truths if study.tuning == "each" else [study.tuned_with])
                for fold in study.folds
            }
            rows += [row for group in searched.values() for row in group]
            for objective in study.truths:
                source = objective if study.tuning == "each" else study.tuned_with
                for fold, seed in study.pairs():
                    ended = [r for r in searched[source, fold] if r["status"] == "finished"]
                    if ended:
                        best = min(ended, key=lambda row: row["result"]["validation_score"][-1])
                        system = encoder, objective, optimizer
                        rows.append(_final(study, system, fold, seed, best["settings"]))
    return sorted(rows, key=lambda row: row["key"])


def timings_of(study: Study) -> list[dict[str, Any]]:
    """A line per final task, and one for each recognition of its test strings."""
    lines: list[dict[str, Any]] = []
    for row in rows_of(study):
        settings = row["settings"]
        if settings["phase"] != "final":
            continue
        objective = settings["workload"].split("/")[2]
        seconds = study.truths[objective].seconds_per_step * settings["steps"]
        task = {field: settings[field] for field in Task._fields}
        lines.append(
            {"task": task, "plan": {"mode": "scan", "chunk": 1}, "rows": [row["key"]],
             "seconds": seconds + 2.0, "cpu_seconds": seconds + 2.0, "compile_seconds": 2.0,
             "steps": settings["steps"], "state_bytes": 8000, "parameters": 1000}
        )  # fmt: skip
        if row["status"] == "finished":
            recognition = {"workload": settings["workload"], "key": row["key"], "seconds": 0.5,
                           "audio_seconds": 100.0}  # fmt: skip
            lines.append({"recognition": recognition})
    return lines


def write_study(
    path: Path,
    study: Study,
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    examples: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Path:
    """Write a run directory and return its path; its examples are those of the first finals."""
    rows = rows_of(study) if rows is None else rows
    path.mkdir(parents=True)
    head = {"format": 1, "trellis": "0.1.0", "experiment": "compare_ctc", "recipe": "quick",
            "config": study.config(),
            "data": {"name": "fsdd", "source": "Free Spoken Digit Dataset",
                     "sha256": "cd"}}  # fmt: skip
    (path / "config.json").write_text(json.dumps(head))
    (path / "environment.json").write_text(json.dumps(ENVIRONMENT))
    (path / "timings.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in timings_of(study))
    )
    for folder in ("rows", "examples"):
        (path / folder).mkdir()
    for row in rows:
        (path / "rows" / f"{row['key']}.json").write_text(json.dumps(row))
    for key, arrays in (first_examples(study, rows) if examples is None else examples).items():
        np.savez(path / "examples" / f"{key}.npz", allow_pickle=False, **arrays)
    return path


def first_examples(
    study: Study, rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, np.ndarray]]:
    """Examples of each system's first fold and seed, by key."""
    made = {}
    for row in rows:
        settings = row["settings"]
        _, _, objective, fold = settings["workload"].split("/")
        first = (fold, settings["seed"]) == study.pairs()[0]
        if settings["phase"] == "final" and row["status"] == "finished" and first:
            strings = [([2, 5, 5], [2, 5, 6]), ([9, 1, 4, 3], [9, 7, 4]), ([6, 3, 8], [6, 3, 8])]
            made[row["key"]] = example_arrays(strings, width=study.truths[objective].width)
    return made


def example_arrays(
    strings: Sequence[tuple[Sequence[int], Sequence[int]]], *, width: float = 2.0, seed: int = 0
) -> dict[str, np.ndarray]:
    """Arrays of test strings (labels, hypothesis): bursts in the spectrogram, peaks after them."""
    generator = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {
        "sample_rate": np.array(8000),
        "frame_seconds": np.array(0.02),
        "hop_seconds": np.array(0.01),
    }
    for i, (labels, hypothesis) in enumerate(strings):
        frames = 40 + 55 * len(labels)
        bins, outputs = np.arange(40), np.arange(frames // 2)
        log_mel = generator.normal(-8.0, 0.7, (frames, 40))
        waveform = generator.normal(0, 0.01, frames * 80)
        alignment = np.zeros(frames // 2, int)
        logits = generator.normal(0, 0.5, (frames // 2, 11))
        logits[:, 0] += 6
        spans = []
        for k, label in enumerate(labels):
            start, stop = 25 + 55 * k, 60 + 55 * k
            spans.append((start * 0.01, stop * 0.01))
            time = np.linspace(0, 1, stop - start)[:, None]
            for formant in (6 + label, 15 + 2 * label % 9, 30):
                centre = formant + 4 * (time - 0.5)
                log_mel[start:stop] += (
                    6 * np.sin(np.pi * time) * np.exp(-((bins[None, :] - centre) ** 2) / 8)
                )
            loud = np.sin(np.pi * np.linspace(0, 1, (stop - start) * 80))
            waveform[start * 80 : stop * 80] += generator.normal(0, 0.2, loud.shape) * loud
            alignment[stop // 2 - 6 : stop // 2 - 4] = label
            if k < len(hypothesis):
                heard = hypothesis[k]
                bump = np.exp(-(((outputs - stop // 2 + 5) / width) ** 2))
                logits[:, heard] += (10 if heard == label else 8) * bump
        log_posteriors = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        arrays |= {
            f"waveform_{i}": waveform.astype(np.float32),
            f"log_mel_{i}": log_mel.astype(np.float32),
            f"log_posteriors_{i}": log_posteriors.astype(np.float32),
            f"labels_{i}": np.array(labels, np.int32),
            f"hypothesis_{i}": np.array(hypothesis, np.int32),
            f"alignment_{i}": alignment,
            f"boundaries_{i}": np.array(spans),
        }
    return arrays


def _task(study: Study, workload: str, optimizer: str, steps: int) -> Task:
    name, _, schedule = optimizer.partition("@")
    return Task(workload, "ab", name, 2, schedule or "cosine", steps, steps // 4)


def _search(
    study: Study, encoder: str, objective: str, optimizer: str, fold: str
) -> list[dict[str, Any]]:
    truth = study.truths.get(objective, Truth())
    validator = study.folds[(study.folds.index(fold) + 1) % len(study.folds)]
    workload = f"fsdd/{encoder}/{objective}/{fold}.{validator}"
    task = _task(study, workload, optimizer, study.steps // 2)
    generator = np.random.default_rng([*workload.encode(), *optimizer.encode()])
    rates = 10 ** generator.uniform(-2, 2, study.trials)
    rows = []
    for trial, rate in enumerate(rates.tolist()):
        training = Training(task, "search", 0, trial, 2**30, {"learning_rate": rate})
        score = min(1.0, truth.error + 0.2 * np.log10(rate) ** 2 + 0.002 * generator.random())
        rows.append(_row(training, score, rate > truth.diverges_above))
    return rows


def _final(
    study: Study, system: tuple[str, str, str], fold: str, seed: int, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    encoder, objective, optimizer = system
    truth, rates = study.truths[objective], chosen["hyperparameters"]
    task = _task(study, f"fsdd/{encoder}/{objective}/{fold}", optimizer, study.steps_of(objective))
    training = Training(task, "final", 0, chosen["trial"], seed, rates)
    if fold in truth.final_diverges:
        return _row(training, 0.5, True)
    speaker = np.random.default_rng([1, *fold.encode()])
    both = np.random.default_rng([2, seed, *fold.encode()])
    own = np.random.default_rng([3, seed, *task.workload.encode(), *optimizer.encode()])
    rate = truth.error + study.encoders[encoder] + study.speaker_deviation * speaker.normal()
    rate += study.seed_deviation * both.normal()
    said = [speaker.integers(1, 11, speaker.integers(3, 8)).tolist() for _ in range(study.strings)]
    heard = [_misheard(labels, max(0.005, rate), both, own) for labels in said]
    better = [s if own.random() < 0.2 else h for s, h in zip(said, heard, strict=True)]
    decoders: dict[str, Any] = {"greedy": _counted(said, heard), "beam": _counted(said, better)}
    if study.words:
        decoders["words"] = {
            "greedy": _counted([[tuple(s)] for s in said], [[tuple(h)] for h in heard]),
            "beam": _counted([[tuple(s)] for s in said], [[tuple(h)] for h in better]),
        }
    counts = np.array(list(decoders["greedy"].values()))
    row = _row(training, float(np.mean(counts[:3].sum(axis=0) / counts[3])), False)
    confidence = np.linspace(0.05, 0.95, 10)
    row["result"]["details"] = {
        "parameters": 387_000, "frame_seconds": 0.04, "audio_seconds": 100.0,
        "symbols": [str(digit) for digit in range(10)], "decoders": decoders,
        "confusion": confusion_counts(said, heard, range(1, 11)).tolist(),
        "blank_fraction": 0.9 - 0.05 * truth.width, "peak": truth.peak + 0.002 * own.normal(),
        "width": truth.width, "entropy": 1 - truth.peak,
        "reliability": {
            "counts": [0, *range(10, 100, 10)], "confidence": [None, *confidence[1:].tolist()],
            "accuracy": [None, *(confidence[1:] * truth.peak).tolist()],
            "calibration_error": 0.1 * (1 - truth.peak),
        },
        "boundary_error_milliseconds": truth.boundary + own.normal() if truth.boundary else None,
    }  # fmt: skip
    return row


def _misheard(
    labels: Sequence[int], rate: float, both: np.random.Generator, own: np.random.Generator
) -> list[int]:
    heard = []
    for label in labels:
        shared, alone = both.random(), own.random()
        wrong = (shared if own.random() < 0.7 else alone) < rate
        kind = own.choice(3, p=[0.6, 0.25, 0.15]) if wrong else None
        other = 1 + (label + 2) % 10
        heard += {None: [label], 0: [other], 1: [], 2: [label, other]}[kind]
    return heard


def _counted(said: Sequence, heard: Sequence) -> dict[str, list[int]]:
    counts = count_errors(said, heard)
    names = ("substitutions", "deletions", "insertions", "labels")
    return {name: [count[i] for count in counts] for i, name in enumerate(names)}


def _row(training: Training, score: float, diverged: bool) -> dict[str, Any]:
    task = training.task
    steps = list(range(task.evaluate_every, task.steps + 1, task.evaluate_every))
    curve: list[float | None] = [score + (1 - score) * 0.2 ** (4 * s / task.steps) for s in steps]
    curve[-1] = score
    if diverged:
        curve = [value if i < 1 else None for i, value in enumerate(curve)]
    result = {
        "steps": steps, "train_loss": curve, "validation_loss": curve, "validation_score": curve,
        "diverged_at": steps[1] if diverged else None, "test_loss": None, "test_score": None,
        "gradient_evaluations": 1,
    }  # fmt: skip
    if training.phase == "final" and not diverged:
        result |= {"test_loss": score, "test_score": score}
    status = "diverged" if diverged else "finished"
    return {"key": training.key(), "status": status, "settings": training.settings(),
            "result": result}  # fmt: skip


# Small: one encoder, two objectives.
ONE = Study(truths={"ctc": Truth(), "prior_ctc": Truth(error=0.2)}, encoders={"bilstm": 0.0},
            strings=20, trials=3)  # fmt: skip


def changed(study, change):
    """The rows of a study, each final one changed in place."""
    made = copy.deepcopy(rows_of(study))
    for row in made:
        if row["settings"]["phase"] == "final":
            change(row)
    return made
