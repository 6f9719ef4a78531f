"""Many trials, each run once: skip what is finished, record what diverged, commit the rest."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from research.progress import Progress
from research.runlog import Run
from research.train import Diverged


class Trial(NamedTuple):
    """One training to run: its name within the run, its settings, its length."""

    name: str
    settings: Mapping[str, Any]
    steps: int


Execute = Callable[[Trial], Mapping[str, Any]]


def run_trials(
    run: Run, trials: Iterable[Trial], execute: Execute, progress: Progress
) -> list[dict[str, Any]]:
    """Run the trials in order and return their records.

    A trial with a record in the run directory is not run again. One that diverges is recorded as
    such, with the step, and the next one starts.

    Args:
        run: the open run directory.
        trials: what to run; names are unique within the run.
        execute: trains and measures one trial and returns its result as plain values; it reports
            steps to ``progress`` itself, between ``start`` and ``finish``.
        progress: where finished trials are counted.

    Returns:
        The record of each trial: name, status ("finished" or "diverged"), settings, result.
    """
    records = []
    for trial in trials:
        record = run.finished(trial.name)
        if record is not None:
            progress.skip(trial.steps)
        else:
            record = _run_one(run, trial, execute, progress)
        records.append(record)
    return records


def _run_one(run: Run, trial: Trial, execute: Execute, progress: Progress) -> dict[str, Any]:
    started = time.perf_counter()
    progress.start(trial.name, trial.steps)
    try:
        result, status = execute(trial), "finished"
    except Diverged as divergence:
        result = {"diverged_at": divergence.step, "steps": trial.steps}
        status = "diverged"
    finally:
        seconds = time.perf_counter() - started
        run.log_time(trial.name, seconds=seconds, steps=progress.steps_of_trial)
    record = run.finish(trial.name, settings=trial.settings, status=status, result=result)
    progress.finish()
    return record
