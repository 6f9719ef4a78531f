"""Progress lines: right percentages, and an estimate that compilation and skipping leave alone."""

import io

import pytest
from rich.console import Console

from research import progress
from research.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_the_estimate_is_steps_left_times_the_time_of_a_step(clock):
    output = io.StringIO()
    job = Progress(Console(file=output), None, "Training", total=100)
    job.skip(40)  # finished by an earlier session
    job.start("adam/seed-1", steps=20)
    clock.now += 60  # compilation
    job.step(1)
    for done in range(2, 21):
        clock.now += 2
        job.step(done)
    lines = output.getvalue().splitlines()
    assert lines[0] == "Training: 41 % (adam/seed-1, step 1 of 20)"
    assert lines[-1] == "Training: 57 %, about 1:26 min left (adam/seed-1, step 17 of 20)"
    assert len(lines) == 3  # one line in fifteen seconds, not one a step


def test_a_trial_cut_short_counts_as_whole_and_a_resumed_one_from_where_it_was(clock):
    output = io.StringIO()
    job = Progress(Console(file=output), None, "Training", total=40)
    job.start("sgd/seed-1", steps=10)
    job.step(3)
    job.finish()  # diverged
    job.start("sgd/seed-2", steps=30)
    job.start("sgd/seed-2", steps=30, done=20)  # restored from a checkpoint
    clock.now += 20
    job.step(21)
    assert output.getvalue() == "Training: 78 % (sgd/seed-2, step 21 of 30)\n"


def test_on_a_terminal_there_are_bars_for_the_job_and_the_trial(monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "Console", lambda file: console)
    with progress.show_progress("Training", total_steps=4) as job:
        job.start("adam/seed-1", steps=4)
        for done in range(1, 5):
            job.step(done)
        job.finish()
    assert "Training" in screen.getvalue()
    assert "adam/seed-1" in screen.getvalue()
    assert "4/4" in screen.getvalue()
