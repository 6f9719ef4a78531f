"""Run directories in the documented layout, written by hand: what a report has to read."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import speech_rows
from comparison_rows import Comparison, Truth, write_comparison
from speech_rows import Study, write_study

SMALL = Comparison(
    truths={"adamw": Truth(), "muon": Truth(speed=2.0), "rprop": Truth(diverges_above=0.0)},
    workloads=("digits_mlp",), horizons=(50, 100), trials=8, seeds=(7, 8, 9), aa_studies=1,
)  # fmt: skip

SMALL_STUDY = Study(
    truths={"ctc": speech_rows.Truth(), "prior_ctc": speech_rows.Truth(error=0.2, width=4.0)},
    encoders={"bilstm": 0.0}, folds=("george", "jackson", "theo"), seeds=(7, 8, 9), trials=3,
    strings=12,
)  # fmt: skip


@pytest.fixture
def optimizer_run(tmp_path: Path) -> Callable[..., Path]:
    """Builds a run of compare_optimizers; keyword arguments replace fields of the comparison."""

    def write(*, rows: Sequence[dict] | None = None, **changes: Any) -> Path:
        compared = dataclasses.replace(SMALL, **changes)
        return write_comparison(tmp_path / "quick-0a1b2c3d", compared, rows=rows)

    return write


@pytest.fixture
def speech_run(tmp_path: Path) -> Callable[..., Path]:
    """Builds a run of compare_ctc; keyword arguments replace fields of the study."""

    def write(*, rows: Sequence[dict] | None = None, examples: Any = None, **changes: Any) -> Path:
        study = dataclasses.replace(SMALL_STUDY, **changes)
        return write_study(tmp_path / "quick-4e5f6a7b", study, rows=rows, examples=examples)

    return write


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn but not painted, which is what takes the time, for tests of the text."""
    monkeypatch.setattr("research.plots.to_png", lambda figure: b"png")


@pytest.fixture(scope="module", params=["optimizers", "speech"])
def complete_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of each kind, complete, for the tests of a module to share."""
    path = tmp_path_factory.mktemp("runs") / "quick-0a1b2c3d"
    if request.param == "speech":
        return write_study(path, SMALL_STUDY)
    return write_comparison(path, SMALL)
