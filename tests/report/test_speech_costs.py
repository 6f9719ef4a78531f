"""What a step costs in the CTC study: of final trainings, of steps alone, damaged lines aside."""

import dataclasses
from typing import NamedTuple

import pytest
from speech_rows import Study, timings_of, write_study

from research.report.speech.costs import read_costs
from research.report.speech.design import Design, System, read_design
from research.runlog import Records, read_run

STUDY = Study()


class Found(NamedTuple):
    """A run, and what it planned."""

    records: Records
    design: Design


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = write_study(tmp_path_factory.mktemp("run") / "quick", STUDY, examples={})
    records = read_run(path)
    return Found(records, read_design(records))


def test_a_step_costs_what_it_took_in_final_trainings(found):
    """Not the loading of the data, not the validations of a search."""
    (one, *_) = (line for line in timings_of(STUDY) if "task" in line)
    task = one["task"] | {"workload": "fsdd/bilstm/ctc/theo", "optimizer": "adamw", "steps": 100}
    final = one | {"task": task, "seconds": 900.0, "compile_seconds": 5.0, "steps": 100}
    search = final | {"task": task | {"steps": 50, "workload": "fsdd/bilstm/ctc/theo.ann"}}
    cases = {
        8.95: [final],
        0.5: [final | {"step_seconds": 50.0}],
        0.25: [search | {"step_seconds": 50.0}, final | {"step_seconds": 25.0}, search],
    }
    for expected, lines in cases.items():
        records = dataclasses.replace(found.records, timings=lines)
        costs = read_costs(records, found.design)
        assert costs[System("bilstm", "ctc", "adamw")].seconds_per_step == pytest.approx(expected)


@pytest.mark.parametrize("line", [
    {"task": 3}, {"recognition": {"workload": "ctc", "seconds": 1.0, "audio_seconds": 2.0}},
    {"recognition": {"workload": "a/b/c/d", "seconds": "fast"}}, {"seconds": 1.0},
])  # fmt: skip
def test_a_damaged_timing_is_passed_over(found, line):
    records = dataclasses.replace(found.records, timings=[*timings_of(STUDY), line])
    assert read_costs(records, found.design) == read_costs(found.records, found.design)
