"""Reports of merged runs: what won the search counts, what another machine took for it is named."""

import copy
import dataclasses

import pytest
import speech_rows
from comparison_rows import Comparison, Truth, rows_of, write_comparison
from speech_rows import Study, write_study

from research.report import build_report
from research.report.optimizers.cells import read_cells
from research.report.optimizers.design import read_design
from research.report.rows import split_finals
from research.report.speech import design as speech_design
from research.report.speech.trained import planned_trainings, read_trained
from research.runlog import read_run
from research.sweep.training import key_of

pytestmark = pytest.mark.usefixtures("unpainted")

COMPARED = Comparison(truths={"adamw": Truth(), "muon": Truth(speed=2.0)}, workloads=("gru",),
                      horizons=(60,), trials=4, seeds=(1, 2, 3), aa_studies=0)  # fmt: skip
STUDY = Study(truths={"ctc": speech_rows.Truth(), "prior_ctc": speech_rows.Truth(error=0.2)},
              encoders={"bilstm": 0.0}, folds=("george", "jackson"), seeds=(1, 2), trials=3,
              strings=8)  # fmt: skip


def elsewhere(rows, **which):
    """Final trainings as another machine has them, where another trial won the search."""
    made = []
    for row in rows:
        settings = row["settings"]
        if settings["phase"] == "final" and which.items() <= settings.items():
            other = copy.deepcopy(row)
            other["settings"]["trial"] = settings["trial"] + 1
            other["settings"]["hyperparameters"] = {"learning_rate": 0.0123}
            made.append(other | {"key": key_of(other["settings"])})
    assert made
    return made


def test_final_runs_of_another_setting_than_the_winners_are_named_and_do_not_count(tmp_path):
    rows = rows_of(COMPARED)
    others = elsewhere(rows, optimizer="muon")
    for row in others:  # behind those of the winner, and far too good
        row["result"]["validation_score"][-1] = row["result"]["test_score"] = 1e-9
    path = write_comparison(tmp_path / "merged", COMPARED, rows=[*rows, *others])
    page = build_report(path).read_text()
    trial = others[0]["settings"]["trial"]
    assert "Left out: 3 final trainings of a setting that did not win its search" in page
    assert f"Muon on GRU, 60 steps: trial {trial} (learning rate 0.0123), 3 trainings." in page
    assert "Run in progress" not in page
    alone = write_comparison(tmp_path / "alone", COMPARED)
    assert "Left out: 3 final" not in build_report(alone).read_text()
    for name in ("results.csv", "trials.csv"):
        assert (path / name).read_bytes() == (alone / name).read_bytes()


def test_those_left_out_do_not_stand_for_trainings_that_are_to_come(tmp_path):
    rows = rows_of(COMPARED)
    others = elsewhere(rows, optimizer="muon")
    kept = [r for r in rows if (r["settings"]["optimizer"], r["settings"]["seed"]) != ("muon", 1)]
    path = write_comparison(tmp_path / "merged", COMPARED, rows=[*kept, *others])
    assert "Run in progress: 13 of 14 trainings" in build_report(path).read_text()
    records = read_run(path)
    cell = read_cells(records, read_design(records))["gru", "muon", 60, 0]
    assert (cell.state, sorted(cell.scores("test"))) == ("finals", [2, 3])


def test_finals_count_where_the_winner_may_be_among_what_the_search_lacks():
    rows = [row for row in rows_of(COMPARED) if row["settings"]["optimizer"] == "muon"]
    finals = [row for row in rows if row["settings"]["phase"] == "final"]
    searches = [row for row in rows if row["settings"]["phase"] == "search"]
    won = finals[0]["settings"]["trial"]
    less = [row for row in searches if row["settings"]["trial"] != won]
    assert split_finals(less, finals, 4) == (finals, [])
    assert split_finals(less, finals, 3) == ([], finals)
    assert split_finals([], finals, None) == (finals, [])
    lost = [row | {"status": "diverged"} for row in searches]
    assert split_finals(lost, finals, 4) == ([], finals)


def test_speech_counts_the_trainings_of_the_winner_too(tmp_path):
    rows = speech_rows.rows_of(STUDY)
    others = elsewhere(rows, workload="fsdd/bilstm/prior_ctc/george")
    path = write_study(tmp_path / "merged", STUDY, rows=[*rows, *others], examples={})
    page = build_report(path).read_text()
    trial = others[0]["settings"]["trial"]
    assert "Left out: 1 final training of a setting that did not win its search" in page
    assert (
        f"Bidirectional LSTM with label priors, george unheard: trial {trial} "
        "(learning rate 0.0123), 1 training."
    ) in page
    assert "Run in progress" not in page
    alone = write_study(tmp_path / "alone", STUDY, examples={})
    build_report(alone)
    for name in ("results.csv", "trainings.csv"):
        assert (path / name).read_bytes() == (alone / name).read_bytes()


@pytest.mark.parametrize("says", [{"tuned_with": "ctc"}, {}])
@pytest.mark.parametrize("compared", [("ctc", "prior_ctc"), ("prior_ctc", "focal_ctc")])
def test_shared_searches_are_credited_to_plain_ctc_whatever_the_reference(tmp_path, compared, says):
    truths = {name: speech_rows.Truth() for name in compared}
    study = dataclasses.replace(STUDY, truths=truths, reference="prior_ctc")

    class Recorded(Study):
        def config(self):
            config = super().config()
            del config["tuned_with"]
            return config | says

    recorded = Recorded(**{f.name: getattr(study, f.name) for f in dataclasses.fields(study)})
    path = write_study(tmp_path / "run", recorded)
    page = build_report(path).read_text()
    assert "Run in progress" not in page
    assert "all objectives use what CTC found" in page
    records = read_run(path)
    design = speech_design.read_design(records)
    assert design.objectives == list(compared)
    trained, searches = read_trained(records, design)
    assert {system.objective for system, _ in searches} == {"ctc"}
    assert all(search.winner for search in searches.values())
    assert planned_trainings(design, trained, searches) == len(records.rows)


def test_a_reference_without_measured_seconds_leaves_blanks(tmp_path):
    truths = {"adamw": Truth(seconds_per_step=0.0), "muon": Truth(speed=2.0)}
    path = write_comparison(tmp_path / "a", dataclasses.replace(COMPARED, truths=truths))
    build_report(path)
    lines = (path / "costs.csv").read_text().splitlines()
    column = lines[0].split(",").index("relative_to_reference")
    assert [line.split(",")[column] for line in lines[1:]] == ["", ""]
    objectives = {"ctc": speech_rows.Truth(seconds_per_step=0.0), "prior_ctc": speech_rows.Truth()}
    path = write_study(tmp_path / "b", dataclasses.replace(STUDY, truths=objectives), examples={})
    build_report(path)
    lines = (path / "costs.csv").read_text().splitlines()
    column = lines[0].split(",").index("relative_to_reference")
    assert [line.split(",")[column] for line in lines[1:]] == ["", ""]


def test_a_line_of_timings_that_is_no_object_is_no_reason_to_have_no_report(tmp_path):
    for path in (write_comparison(tmp_path / "a", COMPARED), write_study(tmp_path / "b", STUDY)):
        before = (build_report(path).parent / "costs.csv").read_text()
        with (path / "timings.jsonl").open("a") as file:
            file.write("5\n[]\n")
        assert (build_report(path).parent / "costs.csv").read_text() == before
