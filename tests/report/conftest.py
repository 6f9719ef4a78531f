"""Run directories in the documented layout, written by hand: what a report has to read."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparison_rows import Comparison, Truth, write_comparison

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


def write_run(
    path: Path,
    *,
    experiment: str,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    trials: Sequence[Mapping[str, Any]],
    metrics: Sequence[Mapping[str, Any]] = (),
    timings: Sequence[Mapping[str, Any]] = (),
    examples: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Path:
    """Write a run directory and return its path."""
    path.mkdir(parents=True)
    head = {"format": 1, "trellis": "0.1.0", "experiment": experiment, "recipe": "quick",
            "config": config, "data": data}  # fmt: skip
    (path / "config.json").write_text(json.dumps(head))
    (path / "environment.json").write_text(json.dumps(ENVIRONMENT))
    for name, lines in (("metrics", metrics), ("timings", timings)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (path / f"{name}.jsonl").write_text(text)
    for trial in trials:
        file = path / "trials" / f"{trial['trial']}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(trial))
    for trial, arrays in (examples or {}).items():
        file = path / "examples" / f"{trial}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, allow_pickle=False, **arrays)
    return path


def speech_trial(
    encoder: str,
    utterances: Sequence[Sequence[int]],
    *,
    speaker: str = "theo",
    seed: int = 0,
    validation: float = 0.02,
    diverged: bool = False,
    confusion: np.ndarray | None = None,
) -> dict[str, Any]:
    """A record of one training run, its error rate computed from its utterances."""
    counts = np.array(utterances)
    result: dict[str, Any] = {"diverged_at": 20, "steps": 100}
    if not diverged:
        result = {
            "label_error_rate": float(counts[:, :3].sum() / counts[:, 3].sum()),
            "validation_label_error_rate": validation,
            "utterance_errors": counts.tolist(),
            "steps": 100,
        }
        if confusion is not None:
            symbols = [str(k) for k in range(10)]
            result["confusion"] = {"symbols": symbols, "counts": confusion.tolist()}
    return {
        "trial": f"{encoder}/{speaker}/seed-{seed}",
        "status": "diverged" if diverged else "finished",
        "settings": {"encoder": encoder, "test_speaker": speaker, "seed": seed,
                     "parameters": 387_000},
        "result": result,
    }  # fmt: skip


def example_arrays(
    strings: Sequence[tuple[Sequence[int], Sequence[int]]], seed: int = 0
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
        bins = np.arange(40)
        log_mel = generator.normal(-8.0, 0.7, (frames, 40))
        alignment = np.zeros(frames // 2, int)
        logits = generator.normal(0, 0.5, (frames // 2, 11))
        logits[:, 0] += 6
        for k, label in enumerate(labels):
            start, stop = 25 + 55 * k, 60 + 55 * k
            time = np.linspace(0, 1, stop - start)[:, None]
            for formant in (6 + label, 15 + 2 * label % 9, 30):
                centre = formant + 4 * (time - 0.5)
                log_mel[start:stop] += (
                    6 * np.sin(np.pi * time) * np.exp(-((bins[None, :] - centre) ** 2) / 8)
                )
            alignment[stop // 2 - 6 : stop // 2 - 4] = label
            if k < len(hypothesis):
                heard = hypothesis[k]
                logits[stop // 2 - 6 : stop // 2 - 4, heard] += 9 if heard == label else 7
        log_posteriors = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        arrays |= {
            f"waveform_{i}": generator.normal(0, 0.1, frames * 80).astype(np.float32),
            f"log_mel_{i}": log_mel.astype(np.float32),
            f"log_posteriors_{i}": log_posteriors.astype(np.float32),
            f"labels_{i}": np.array(labels, np.int32),
            f"hypothesis_{i}": np.array(hypothesis, np.int32),
            f"alignment_{i}": alignment,
        }
    return arrays


SMALL = Comparison(
    truths={"adamw": Truth(), "muon": Truth(speed=2.0), "rprop": Truth(diverges_above=0.0)},
    workloads=("digits_mlp",), horizons=(50, 100), trials=8, seeds=(7, 8, 9), aa_studies=1,
)  # fmt: skip


def small_speech_run(path: Path, **changes: Any) -> Path:
    """Two encoders on one speaker, four strings each, with examples of one encoder."""
    confusion = np.diag([3] * 10 + [0])
    confusion[4, 8] = confusion[2, 10] = confusion[10, 1] = 1
    trials = [
        speech_trial("bilstm", [[1, 0, 0, 3], [0, 0, 0, 4], [0, 1, 0, 5], [0, 0, 0, 4]],
                     confusion=confusion),
        speech_trial("conv_attention", [[1, 1, 0, 3], [0, 0, 1, 4], [1, 1, 0, 5], [2, 0, 0, 4]],
                     confusion=confusion),
    ]  # fmt: skip
    metrics = [
        {"trial": trial["trial"], "step": step, "train_loss": 100 / step, "learning_rate": 0.001,
         "validation_loss": 1.0, "validation_label_error_rate": 20 / step}
        for trial in trials for step in (50, 100)
    ]  # fmt: skip
    content: dict[str, Any] = {
        "experiment": "compare_ctc",
        "config": {"encoders": ["bilstm", "conv_attention"], "test_speakers": ["theo"],
                   "seeds": [0], "steps": 100},
        "data": {"name": "fsdd", "source": "Free Spoken Digit Dataset", "sha256": "cd"},
        "trials": trials,
        "metrics": metrics,
        "timings": [{"trial": trial["trial"], "seconds": 30.0, "steps": 100} for trial in trials],
        "examples": {"bilstm/theo/seed-0": example_arrays(
            [([2, 5, 5], [2, 5, 5]), ([9, 1, 4, 3], [9, 7, 4]), ([6], [6])])},
    }  # fmt: skip
    return write_run(path, **(content | changes))


@pytest.fixture
def optimizer_run(tmp_path: Path) -> Callable[..., Path]:
    """Builds a run of compare_optimizers; keyword arguments replace fields of the comparison."""

    def write(*, rows: Sequence[dict] | None = None, **changes: Any) -> Path:
        compared = dataclasses.replace(SMALL, **changes)
        return write_comparison(tmp_path / "quick-0a1b2c3d", compared, rows=rows)

    return write


@pytest.fixture
def speech_run(tmp_path: Path) -> Callable[..., Path]:
    """Builds a run of compare_ctc; keyword arguments replace parts of it."""
    return lambda **changes: small_speech_run(tmp_path / "quick-4e5f6a7b", **changes)


@pytest.fixture
def make_speech_trial() -> Callable[..., dict[str, Any]]:
    """The record of one speech run."""
    return speech_trial


@pytest.fixture
def make_examples() -> Callable[..., dict[str, np.ndarray]]:
    """The arrays of example strings."""
    return example_arrays


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn but not painted, which is what takes the time, for tests of the text."""
    monkeypatch.setattr("research.plots.to_png", lambda figure: b"png")


@pytest.fixture(scope="module", params=["optimizers", "speech"])
def complete_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of each kind, complete, for the tests of a module to share."""
    path = tmp_path_factory.mktemp("runs") / "quick-0a1b2c3d"
    if request.param == "speech":
        return small_speech_run(path)
    return write_comparison(path, SMALL)
