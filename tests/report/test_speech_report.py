"""The CTC study: known truths are found, blanks stay blank, nothing diverged is dropped."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from speech_rows import ONE, Study, Truth, changed, rows_of, write_study

from research import stats
from research.report import render
from research.report.speech import exports, tables
from research.report.speech.costs import read_costs
from research.report.speech.design import System, read_design
from research.report.speech.outcomes import read_outcomes
from research.report.speech.trained import planned_trainings, read_trained
from research.report.speech.verdict import verdict
from research.runlog import read_run

STUDY = Study()

pytestmark = pytest.mark.usefixtures("unpainted")


class Analysis:
    """The numbers of a run, without its page."""

    def __init__(self, path):
        self.records = read_run(path)
        self.design = read_design(self.records)
        self.trained, self.searches = read_trained(self.records, self.design)
        baselines = {system: self.design.baseline(system) for system in self.trained}
        self.outcomes = read_outcomes(self.trained, baselines)

    def rows(self):
        made = exports.results(self.design, list(self.outcomes.values()))
        return {System(row["encoder"], row["objective"], row["entrant"]): row for row in made}

    @functools.cached_property
    def verdict(self):
        return " ".join(verdict(self.design, list(self.outcomes.values())))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return Analysis(write_study(tmp_path_factory.mktemp("run") / "quick", STUDY, examples={}))


@pytest.fixture(scope="module")
def rows(found):
    return found.rows()


@pytest.fixture
def analyse(tmp_path):
    def made(study, rows=None):
        return Analysis(write_study(tmp_path / "quick", study, rows=rows, examples={}))

    return made


def system(objective, encoder="separable_conv", entrant="adamw"):
    return System(encoder, objective, entrant)


def finals(study, objective, encoder="separable_conv"):
    """Final rows by fold and seed."""
    made = {}
    for row in rows_of(study):
        _, own, other, fold = row["settings"]["workload"].split("/")
        if row["settings"]["phase"] == "final" and (own, other) == (encoder, objective):
            made[fold, row["settings"]["seed"]] = row
    return made


def rate(row, decoder="greedy"):
    counts = row["result"]["details"]["decoders"][decoder]
    edits = sum(sum(counts[kind]) for kind in ("substitutions", "deletions", "insertions"))
    return edits / sum(counts["labels"])


def without(study, gone):
    return [row for row in rows_of(study) if not gone(row["settings"])]


def test_a_row_is_what_one_computes_from_the_trainings(rows):
    row, own = rows[system("prior_ctc")], finals(STUDY, "prior_ctc")
    other = finals(STUDY, "ctc")
    rates = np.array([rate(own[pair]) for pair in sorted(own)])
    theirs = np.array([rate(other[pair]) for pair in sorted(own)])
    assert row["error_rate"] == pytest.approx(rates.mean())
    assert row["beam_error_rate"] == pytest.approx(
        np.mean([rate(own[pair], "beam") for pair in own])
    )
    assert row["beam_ngram_error_rate"] is None
    shares = [row[f"{kind}_rate"] for kind in ("substitution", "deletion", "insertion")]
    assert sum(shares) == pytest.approx(row["error_rate"])
    counts = own["theo", 1003]["result"]["details"]["decoders"]["greedy"]
    assert row["labels"] > row["substitutions"] > sum(counts["substitutions"])
    assert row["difference"] == pytest.approx((rates - theirs).mean())
    students = stats.mean_interval(rates - theirs)
    assert (row["difference_t_low"], row["difference_t_high"]) == pytest.approx(students)
    assert (row["speakers"], row["trainings"], row["planned"]) == (5, 5, 5)
    assert (row["state"], row["diverged"], row["pairs"]) == ("complete", 0, 5)
    assert (row["steps"], row["views"], row["parameters"]) == (200, 1, 387_000)


def test_intervals_lie_as_their_questions_do(rows):
    row = rows[system("ctc")]
    assert row["trainings_low"] < row["strings_low"] < row["error_rate"]
    assert row["error_rate"] < row["strings_high"] < row["trainings_high"]
    assert row["seeds_low"] is None  # every seed went with another speaker
    # Speakers differ much, but for both systems alike.
    own = rows[system("prior_ctc")]
    assert own["trainings_low"] < row["trainings_high"]
    assert 0 < own["difference_low"] < own["difference"] < own["difference_high"]


def test_better_and_worse_and_no_different_are_told(found, rows):
    told = {
        key.objective: outcome.difference.verdict
        for key, outcome in found.outcomes.items()
        if key.encoder == "separable_conv" and outcome.difference
    }
    assert told == {"label_smoothed_ctc": "open", "prior_ctc": "worse", "consistency_ctc": "better",
                    "focal_ctc": "open"}  # fmt: skip
    said = found.verdict
    assert said.startswith("Separable convolutions with consistency CTC makes the fewest errors")
    assert "cannot be told from Bidirectional LSTM with consistency CTC" in said
    assert "with label priors make more errors" in said
    p_values = [row["p_value"] for row in rows.values() if row["p_value"] is not None]
    adjusted = [row["p_holm"] for row in rows.values() if row["p_value"] is not None]
    assert len(p_values) == 2 * 4
    assert adjusted == pytest.approx(stats.holm(p_values))


def test_a_training_that_diverged_leaves_no_average_and_loses_its_pair(found, rows):
    row = rows[system("focal_ctc")]
    assert (row["trainings"], row["diverged"], row["speakers"]) == (5, 1, 4)
    assert row["error_rate"] is row["difference"] is row["strings_low"] is None
    own, other = finals(STUDY, "focal_ctc"), finals(STUDY, "ctc")
    wins = sum(
        row["status"] == "finished" and rate(row) < rate(other[pair]) for pair, row in own.items()
    )
    assert (row["wins"], row["pairs"]) == (wins, 5)
    assert row["p_value"] is not None  # of the signed-rank test
    assert "focal CTC diverged in 1 of 5 final trainings" in found.verdict
    kept = [
        r for r in exports.trainings(list(found.outcomes.values())) if r["status"] != "finished"
    ]
    assert [(r["objective"], r["fold"], r["diverged_at"]) for r in kept] == [
        ("focal_ctc", "george", 100)
    ] * 2
    assert kept[0]["greedy_error_rate"] is None


def test_speakers_weigh_the_same_whatever_their_seeds_and_strings(analyse):
    study = dataclasses.replace(ONE, folds=("a", "b"), seeds=(1, 2, 3), speaker_deviation=0.1)
    item = analyse(study)
    own = finals(study, "ctc", "bilstm")
    assert sorted(own) == [("a", 1), ("a", 3), ("b", 2)]
    on = {fold: np.mean([rate(r) for (f, _), r in own.items() if f == fold]) for fold in "ab"}
    row = item.rows()[system("ctc", "bilstm")]
    assert row["error_rate"] == pytest.approx((on["a"] + on["b"]) / 2)
    assert row["error_rate"] != pytest.approx(np.mean([rate(r) for r in own.values()]), rel=1e-3)
    assert row["beam_error_rate"] == pytest.approx(
        np.mean([np.mean([rate(r, "beam") for (f, _), r in own.items() if f == g]) for g in "ab"])
    )
    shares = [row[f"{kind}_rate"] for kind in ("substitution", "deletion", "insertion")]
    assert sum(shares) == pytest.approx(row["error_rate"])
    assert "Seed 3" in render(item.records).body


def test_pairs_are_those_of_speaker_and_seed(analyse):
    # Shifted by a seed, all pairs would be lost; taken in another order, the difference changes.
    def shift(row):
        if "/prior_ctc/" in row["settings"]["workload"]:
            row["settings"]["seed"] += 1

    assert analyse(ONE, changed(ONE, shift)).rows()[system("prior_ctc", "bilstm")]["pairs"] is None


def test_crossed_seeds_have_an_interval_of_their_own(analyse):
    study = dataclasses.replace(ONE, crossed=True, folds=("a", "b"), seeds=(1, 2, 3))
    item = analyse(study)
    row = item.rows()[system("ctc", "bilstm")]
    assert (row["planned"], row["trainings"], row["speakers"]) == (6, 6, 2)
    assert row["trainings_low"] <= row["seeds_low"] < row["error_rate"] < row["seeds_high"]
    body = render(item.records).body
    assert "Other seeds" in body
    assert "Deviation over seeds" in body


def test_one_of_two_seeds_that_diverged_leaves_no_average(analyse):
    study = dataclasses.replace(ONE, crossed=True, folds=("a", "b"), seeds=(1, 2))
    lost = finals(study, "ctc", "bilstm")["b", 2]["key"]

    def diverge(row):
        if row["key"] == lost:
            row["status"] = "diverged"

    row = analyse(study, changed(study, diverge)).rows()[system("ctc", "bilstm")]
    assert (row["speakers"], row["diverged"], row["error_rate"]) == (2, 1, None)


def test_one_test_set_is_resampled_by_seeds(analyse):
    study = dataclasses.replace(ONE, folds=("test",), seeds=(1, 2, 3, 4))
    item = analyse(study)
    row = item.rows()[system("prior_ctc", "bilstm")]
    units = []
    for own in finals(study, "prior_ctc", "bilstm").values():
        counts = own["result"]["details"]["decoders"]["greedy"]
        kinds = [counts[kind] for kind in ("substitutions", "deletions", "insertions")]
        units.append([stats.utterance_errors(np.sum(kinds, axis=0), counts["labels"])])
    strings_too = stats.trainings_interval(units, shared=True)
    assert (row["seeds_low"], row["seeds_high"]) == pytest.approx(strings_too, abs=2e-3)
    assert row["trainings_low"] is None
    assert row["seeds_low"] < row["error_rate"] < row["seeds_high"]
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert "on test." in item.verdict


def test_blanks_are_what_was_not_run(analyse):
    three = {"ctc": Truth(), "prior_ctc": Truth(), "consistency_ctc": Truth(error=0.04)}
    study = dataclasses.replace(ONE, truths=three)
    rows = without(
        study,
        lambda s: (
            s["phase"] == "final"
            and ("/prior_ctc/" in s["workload"] or s["workload"].endswith("ctc/theo"))
        ),
    )
    item = analyse(study, rows)
    made = {key.objective: row for key, row in item.rows().items()}
    assert [made[o]["state"] for o in ("ctc", "prior_ctc")] == ["begun", "not run"]
    assert made["ctc"]["error_rate"] is None  # four speakers are not five
    assert made["consistency_ctc"]["pairs"] == 4
    report = render(item.records)
    assert f"Run in progress: {len(rows)} of 30 trainings" in report.body
    assert "Of 3 systems, 1 have not been run and 2 are not finished" in item.verdict


def only_searches(settings):
    return settings["phase"] == "final"


def nothing_at_all(settings):
    return True


def only_finals(settings):
    return settings["phase"] == "search"


@pytest.mark.parametrize("gone", [only_searches, nothing_at_all, only_finals])
def test_a_part_of_a_run_has_a_report(analyse, gone):
    item = analyse(ONE, without(ONE, gone))
    report = render(item.records)
    assert json.dumps(report.tables, allow_nan=False)
    assert ("nothing can be said" in report.body) == (gone is not only_finals)
    names = {figure.name for figure in report.figures}
    assert ("learning_rate_bilstm_adamw" in names) == (gone is only_searches)
    assert ("error_rates" in names) == (gone is only_finals)


@pytest.mark.parametrize("tuning", ["shared", "each"])
def test_a_search_that_diverged_altogether_is_a_failure(analyse, tuning):
    truths = {"ctc": Truth(diverges_above=0.0), "prior_ctc": Truth()}
    item = analyse(dataclasses.replace(ONE, truths=truths, tuning=tuning))
    rows = item.rows()
    lost = ["ctc", "prior_ctc"] if tuning == "shared" else ["ctc"]
    assert [k.objective for k, row in rows.items() if row["state"] == "failed"] == lost
    planned = planned_trainings(item.design, item.trained, item.searches)
    assert planned == len(item.records.rows)
    body = render(item.records).body
    assert "Run in progress" not in body
    assert "diverged altogether for george, jackson, nicolas, theo and yweweler" in body


def test_all_final_trainings_diverged(analyse):
    lost = Truth(final_diverges=tuple(ONE.folds))
    item = analyse(dataclasses.replace(ONE, truths={"ctc": lost, "prior_ctc": lost}))
    assert "No system has finished all its trainings" in item.verdict
    assert {row["diverged"] for row in item.rows().values()} == {5}
    assert "5 of 5 final trainings" in render(item.records).body


def test_searches_show_their_winner_and_where_it_lies(found):
    made = exports.searches(found.design, found.searches)
    assert len(made) == 2 * 5 * 6  # one search per encoder and speaker: tuning is shared
    assert {(row["objective"], row["fold"] == row["validator"]) for row in made} == {("ctc", False)}
    own = [row for row in made if (row["encoder"], row["fold"]) == ("bilstm", "theo")]
    (best,) = [row for row in own if row["chosen"]]
    assert best["validation_score"] == min(
        row["validation_score"] for row in own if row["status"] == "finished"
    )
    rate = best["hyperparameters"]["learning_rate"]
    for low, high, mark in ((rate / 1.01, 1e6, "lowest"), (1e-6, rate * 1.01, "highest")):
        space = {"adamw": {"learning_rate": {"low": low, "high": high, "log": True}}}
        design = dataclasses.replace(found.design, search_spaces=space)
        search = found.searches[system("ctc", "bilstm"), "theo"]
        assert search.edges(design) == {"learning_rate": mark}
    assert sum(row["status"] == "diverged" for row in made) == sum(
        row["status"] == "diverged" and row["settings"]["phase"] == "search"
        for row in rows_of(STUDY)
    )


def test_compute_is_stated_as_it_was_spent(found, rows):
    made = exports.costs(found.design, read_costs(found.records, found.design))
    costs = {System(*list(row.values())[:3]): row for row in made}
    twice = costs[system("consistency_ctc")]
    assert rows[system("consistency_ctc")]["encoder_passes"] == 200
    assert twice["seconds_per_step"] == pytest.approx(0.2)
    assert twice["relative_to_reference"] == pytest.approx(2.0)
    assert twice["seconds_per_training"] == pytest.approx(20.0)
    assert twice["recognition_seconds_per_hour_of_audio"] == pytest.approx(18.0)
    made = tables.compute_table(found.design, read_costs(found.records, found.design))
    assert "Compute-matched" in made
    assert "<td>100</td><td>2</td><td>200</td><td>200</td><td>20</td><td>2.00</td>" in made


def test_diagnostics_tell_objectives_apart(rows):
    peaky, broad = rows[system("ctc")], rows[system("prior_ctc")]
    assert peaky["peak"] == pytest.approx(0.95, abs=0.01)
    assert broad["peak"] == pytest.approx(0.6, abs=0.01)
    assert broad["boundary_error_milliseconds"] == pytest.approx(25, abs=3)
    assert broad["calibration_error"] == pytest.approx(0.04)
    assert (peaky["width"], broad["width"]) == (1.5, 4.0)


def test_words_and_a_corpus_without_boundaries_or_confusions(analyse):
    study = dataclasses.replace(
        ONE, words=True, truths={"ctc": Truth(boundary=0.0), "prior_ctc": Truth(boundary=0.0)}
    )

    def large_alphabet(row):
        row["result"]["details"]["confusion"] = None

    item = analyse(study, changed(study, large_alphabet))
    row = item.rows()[system("ctc", "bilstm")]
    assert row["greedy_error_rate"] < row["greedy_word_error_rate"] <= 1
    assert row["beam_word_error_rate"] < row["greedy_word_error_rate"]
    assert row["boundary_error_milliseconds"] is None
    report = render(item.records)
    assert "confusion" not in {figure.name for figure in report.figures}
    assert "word errors" in report.body
    assert "Boundary error" not in report.body


def test_nothing_learned_is_no_victory(analyse):
    truths = {"ctc": Truth(error=2.0), "prior_ctc": Truth(error=2.0)}
    said = analyse(dataclasses.replace(ONE, truths=truths)).verdict
    assert said.startswith("No system has learned to recognise anything")
    assert "fewest" not in said


def test_one_training_each_says_so(analyse):
    study = dataclasses.replace(ONE, folds=("theo",), seeds=(1,))
    item = analyse(study)
    assert "Each was trained once" in item.verdict
    row = item.rows()[system("prior_ctc", "bilstm")]
    assert row["strings_low"] < row["error_rate"]
    assert row["difference"] is not None
    assert row["p_value"] is row["difference_low"] is None
    assert "Nothing is known of how far" in item.verdict


def test_optimizers_are_systems_of_their_own(analyse):
    item = analyse(dataclasses.replace(ONE, optimizers=("adamw", "adam@constant")))
    assert len(item.rows()) == 4
    made = item.outcomes[system("prior_ctc", "bilstm", "adam@constant")]
    assert item.design.baseline(made.system) == system("ctc", "bilstm", "adam@constant")
    assert "by Adam (constant)" in item.verdict


def test_the_figures_are_there(tmp_path):
    report = render(read_run(write_study(tmp_path / "quick", ONE)))
    assert {figure.name for figure in report.figures} == {
        "error_rates", "differences", "diagnostics", "reliability", "example_bilstm_ctc_adamw",
        "posteriors_by_objective", "error_by_length", "confusion", "learning_rate_bilstm_adamw",
        "learning_curves",
    }  # fmt: skip
    assert report.title == "Two CTC objectives and one encoder compared: Free Spoken Digit Dataset"
    assert all(figure.shows and figure.cannot for figure in report.figures)
