"""The optimizer comparison: known truths are found, blanks stay blank, nothing is overclaimed."""

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from comparison_rows import TRUTHS, Comparison, Truth, rows_of, timings_of, write_comparison

from research import stats
from research.errors import RunError
from research.optimizers import NAMES
from research.report import build_report, render
from research.report.common import name
from research.report.optimizers import exports
from research.report.optimizers.cells import edges, planned_trainings, read_cells
from research.report.optimizers.costs import read_costs
from research.report.optimizers.design import read_design
from research.report.optimizers.outcomes import false_positives, read_outcomes, self_comparisons
from research.report.optimizers.studies import read_studies
from research.report.optimizers.summaries import agreements, block, profile, ranks
from research.report.optimizers.verdict import workload_verdict
from research.report.rows import winner
from research.runlog import read_run
from research.sweep.training import key_of

COMPARED = Comparison()


class Analysis:
    """The numbers of a run, without its page."""

    def __init__(self, path):
        self.records = read_run(path)
        self.design = read_design(self.records)
        self.cells = read_cells(self.records, self.design)
        self.studies = read_studies(self.design, self.cells)
        self.outcomes = read_outcomes(self.design, self.studies)

    def rows(self):
        return {
            (row["workload"], row["entrant"], row["horizon"]): row
            for row in exports.results(self.design, self.outcomes)
        }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return Analysis(write_comparison(tmp_path_factory.mktemp("run") / "quick-0a1b2c3d", COMPARED))


@pytest.fixture(scope="module")
def rows(found):
    return found.rows()


def finals(workload, entrant, horizon, study=0):
    return {
        row["settings"]["seed"]: row
        for row in rows_of(COMPARED)
        if row["settings"]["phase"] == "final"
        and (row["settings"]["workload"], row["settings"]["steps"]) == (workload, horizon)
        and (row["settings"]["optimizer"], row["settings"]["study"]) == (entrant, study)
    }


def test_a_row_is_what_one_computes_from_the_trainings(found, rows):
    row = rows["gru", "sgd", 200]
    own, other = (finals("gru", entrant, 200) for entrant in ("sgd", "adamw"))
    scores = np.array([own[seed]["result"]["test_score"] for seed in COMPARED.seeds])
    theirs = np.array([other[seed]["result"]["test_score"] for seed in COMPARED.seeds])
    assert row["test_mean"] == pytest.approx(scores.mean())
    assert row["test_deviation"] == pytest.approx(scores.std(ddof=1))
    assert row["difference"] == pytest.approx((scores - theirs).mean())
    assert (row["wins"], row["pairs"], row["state"]) == (0, 8, "complete")
    assert row["p_value"] == stats.compare(scores, theirs).t_test
    study = next(
        row for row in exports.studies(found.design, found.cells)
        if (row["workload"], row["entrant"], row["horizon"]) == ("gru", "sgd", 200)
    )  # fmt: skip
    assert study["hyperparameters"] == own[1000]["settings"]["hyperparameters"]
    # The first evaluated step at or below the target, by the curve itself.
    steps = [
        next(s for s, v in zip(r["result"]["steps"], r["result"]["validation_score"], strict=True)
             if v <= 0.1)
        for r in own.values()
    ]  # fmt: skip
    assert row["target_reached"] == 8
    assert row["steps_to_target_restricted_mean"] == pytest.approx(np.mean(steps))


def test_an_entrant_of_twice_the_speed_takes_half_the_steps(rows):
    row = rows["gru", "muon", 200]
    assert row["steps_ratio_low"] <= 0.5 <= row["steps_ratio_high"]
    assert row["steps_ratio_high"] < 0.6
    assert row["steps_ratio_bound"] is None
    assert row["p_holm"] < 0.001
    assert row["difference"] < 0


def test_one_that_never_reaches_the_target_is_bounded_and_not_dropped(rows):
    row = rows["gru", "adam@constant", 200]
    assert (row["target_reached"], row["steps_ratio_bound"]) == (0, ">")
    assert row["steps_to_target_median"] is None
    assert row["steps_to_target_restricted_mean"] == 200
    assert row["gradient_evaluations_ratio"] == pytest.approx(2 * row["steps_ratio"])


def test_one_that_always_diverges_is_a_failure_everywhere(found, rows):
    row = rows["gru", "rprop", 200]
    assert (row["state"], row["search_diverged"], row["final_runs"]) == ("failed", 16, 0)
    assert row["search_diverged_low"] == pytest.approx(0.025 ** (1 / 16))
    assert row["test_mean"] is None
    assert row["p_value"] is None
    whole = block(found.design, found.outcomes, found.design.workloads)
    place = ranks(whole)
    assert place is not None
    assert place.mean[whole.entrants.index("rprop")] == place.mean.max()
    shape = profile(found.design, found.outcomes, found.design.workloads)
    assert shape is not None
    scores = dict(zip(shape.entrants, shape.scores, strict=True))
    assert scores["rprop"] == scores["adam@constant"] == 0
    assert scores["muon"] == 1
    assert 0.6 < scores["adamw"] < 0.7


def test_a_final_run_that_diverged_has_no_mean_and_loses_its_pair(rows):
    row = rows["gru", "lion", 200]
    assert (row["final_runs"], row["final_diverged"]) == (8, 1)
    assert row["test_mean"] is None
    assert row["difference"] is None
    assert row["target_reached"] == 7
    own, other = (finals("gru", entrant, 200) for entrant in ("lion", "adamw"))
    lower = [
        (own[seed]["result"]["test_score"] or math.inf) < other[seed]["result"]["test_score"]
        for seed in COMPARED.seeds
    ]
    assert row["wins"] == sum(lower)
    assert 2 / 256 <= row["p_value"] <= 1


def test_holm_is_over_all_comparisons_of_the_page(rows):
    p_values = [row["p_value"] for row in rows.values() if row["p_value"] is not None]
    adjusted = [row["p_holm"] for row in rows.values() if row["p_value"] is not None]
    assert len(p_values) == 2 * 2 * 4
    assert adjusted == pytest.approx(stats.holm(p_values))


def test_a_study_of_the_reference_is_compared_with_the_next(found):
    same = self_comparisons(found.design, found.studies)
    assert [(item.workload, item.horizon) for item in same] == [
        (w, h) for w in COMPARED.workloads for h in COMPARED.horizons
    ]
    one, two = finals("gru", "adamw", 100, 0), finals("gru", "adamw", 100, 1)
    scores = [[run[seed]["result"]["test_score"] for seed in COMPARED.seeds] for run in (two, one)]
    gru = next(item for item in same if (item.workload, item.horizon) == ("gru", 100))
    assert gru.comparison == stats.compare(*scores)
    rejected, known, interval = false_positives(same)
    assert known == 4
    assert rejected == sum(item.comparison.p_value <= 0.05 for item in same)
    assert interval == stats.proportion_interval(rejected, 4)


def test_searches_that_find_the_same_settings_reject_at_the_nominal_rate(tmp_path):
    truths = {"adamw": Truth(diverges_above=math.inf)}
    compared = Comparison(truths=truths, workloads=[f"w{i}" for i in range(60)], horizons=(100,),
                          trials=4, aa_studies=1)  # fmt: skip
    rows = [row for row in rows_of(compared) if row["settings"]["phase"] == "search"]
    generator = np.random.default_rng(0)
    template = next(row for row in rows_of(compared) if row["settings"]["phase"] == "final")
    searches = list(rows)
    for workload in compared.workloads:
        best = {}
        for study in (0, 1):
            of = {"workload": workload, "study": study}
            won = winner(row for row in searches if of.items() <= row["settings"].items())
            assert won is not None
            best[study] = won["settings"]
        for seed in compared.seeds:
            common = generator.normal()
            for study in (0, 1):
                own = {"workload": workload, "seed": seed, "phase": "final"}
                settings = best[study] | own
                result = template["result"] | {"test_score": common + generator.normal()}
                changed = {"key": key_of(settings), "settings": settings, "result": result}
                rows.append(template | changed)
    found = Analysis(write_comparison(tmp_path / "run", compared, rows=rows, timings=[]))
    rejected, known, (low, high) = false_positives(self_comparisons(found.design, found.studies))
    assert known == 60
    assert low < 0.05 < high
    assert rejected < 9


def test_agreement_is_found_between_workloads_and_horizons(found):
    taus = {item.kind: item for item in agreements(found.design, found.outcomes)}
    assert taus["workloads"].tau > 0.7
    assert taus["workloads"].entrants == 6
    assert set(taus) == {"workloads", "horizons"}


def test_held_out_workloads_agree_with_the_others(tmp_path):
    compared = dataclasses.replace(COMPARED, held_out={"gru": ""}, horizons=(100,))
    found = Analysis(write_comparison(tmp_path / "run", compared))
    kinds = {item.kind: item.tau for item in agreements(found.design, found.outcomes)}
    assert kinds["held out"] > 0.7


def test_seconds_are_steps_times_the_seconds_of_a_step(found):
    costs = read_costs(found.records, found.design)
    assert costs["gru", "muon"].seconds_per_step == pytest.approx(3e-3)
    assert costs["gru", "muon"].bytes_per_parameter == 4
    table = {(row["workload"], row["entrant"]): row
             for row in exports.costs(found.design, found.outcomes, costs)}  # fmt: skip
    row = table["gru", "muon"]
    assert row["relative_to_reference"] == pytest.approx(3)
    ratio = found.outcomes["gru", "muon", 200].ratio
    assert row["seconds_ratio"] == pytest.approx(3 * ratio)


def test_every_training_is_in_the_table_of_trials(found):
    rows = exports.trials(found.cells)
    assert sorted(row["key"] for row in rows) == [row["key"] for row in rows_of(COMPARED)]
    lost = [row for row in rows if row["status"] == "diverged"]
    assert len(lost) > 64
    assert all(row["validation_score"] is None and row["diverged_at"] == 12 for row in lost)


def test_a_winner_at_the_end_of_its_space_is_marked(found):
    cell = found.cells["gru", "sgd", 200, 0]
    best = cell.hyperparameters["learning_rate"]
    for low, high, mark in [(best / 1.01, 1e3, "lowest"), (1e-3, best * 1.01, "highest")]:
        space = {"sgd": {"learning_rate": {"low": low, "high": high, "below_one": False}}}
        design = dataclasses.replace(found.design, search_spaces=space)
        assert edges(cell, design) == {"learning_rate": mark}
    assert edges(cell, found.design) == {}
    space = {"sgd": {"learning_rate": {"low": 0.5, "high": 1 - 1e-9, "below_one": True}}}
    assert set(edges(cell, dataclasses.replace(found.design, search_spaces=space))) <= {
        "learning_rate"
    }


def test_the_verdict_names_what_the_tests_say(found):
    said = workload_verdict(found.design, found.outcomes, "gru")
    assert "Muon has the lowest mean test score" in said
    assert "Muon is better" in said
    assert "Every search trial of Rprop diverged." in said
    assert "Lion 1 of 8" in said


@pytest.mark.usefixtures("unpainted")
def test_a_ranking_says_who_is_left_out(tmp_path):
    compared = dataclasses.replace(COMPARED, horizons=(100,), aa_studies=0)
    keep = [
        row for row in rows_of(compared)
        if (row["settings"]["workload"], row["settings"]["optimizer"]) != ("gru", "sgd")
    ]  # fmt: skip
    page = page_of(tmp_path, compared, rows=keep)
    assert "best mean rank of final scores, 1.0 among 5 entrants" in page
    assert "Left out, for want of an outcome on each of these: SGD." in page


def without(rows, **settings):
    return [
        row for row in rows if any(row["settings"][key] != value for key, value in settings.items())
    ]


def page_of(tmp_path, compared, **changes):
    return build_report(
        write_comparison(tmp_path / "quick-0a1b2c3d", compared, **changes)
    ).read_text()


FEW = dataclasses.replace(
    COMPARED, truths={key: TRUTHS[key] for key in ("adamw", "muon")}, workloads=("gru",),
    horizons=(60,), trials=5, seeds=(1, 2, 3), aa_studies=0,
)  # fmt: skip


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "Muon has the lowest mean test score"),
        ({"seeds": (1,)}, "of one seed, so no winner can be named"),
        ({"trials": 1}, "search of 1 trial at"),
        ({"truths": {"adamw": Truth(diverges_above=0.0), "sgd": Truth(diverges_above=0.0)}},
         "no final run has finished, so nothing can be said"),
        ({"truths": {"adamw": Truth()}}, "there is nothing to compare it with"),
        ({"reference": None}, "without final runs of the reference there are no tests"),
        ({"reference": "soap"}, "without final runs of the reference there are no tests"),
        ({"truths": {"adamw": Truth(final_diverges=(1, 2, 3)), "muon": Truth()}},
         "Final runs that diverged: AdamW 3 of 3"),
    ],
)  # fmt: skip
def test_thin_comparisons_are_pages_that_say_so(tmp_path, changes, says):
    page = page_of(tmp_path, dataclasses.replace(FEW, **changes))
    assert says in page
    assert "nan" not in page.split("<style>")[0]
    assert ">nan" not in page
    assert "inf<" not in page


@pytest.mark.usefixtures("unpainted")
def test_what_was_not_run_is_blank(tmp_path):
    compared = dataclasses.replace(FEW, workloads=("gru", "vit"), aa_studies=1)
    rows = [row for row in rows_of(compared) if row["settings"]["workload"] == "gru"]
    rows = without(rows, optimizer="muon", phase="final")
    path = write_comparison(tmp_path / "quick-0a1b2c3d", compared, rows=rows, timings=[])
    page = build_report(path).read_text()
    assert f"{len(rows)} of {3 * 2 * (5 + 3)} trainings are recorded" in page
    assert "Nothing of ViT has been run." in page
    assert "ViT: nothing has been run at 60 steps." in page
    found = Analysis(path)
    assert planned_trainings(found.design, found.cells) == 48
    table = found.rows()
    assert table["vit", "muon", 60]["state"] == "not run"
    assert table["gru", "muon", 60]["state"] == "searching"
    assert table["gru", "muon", 60]["test_mean"] is None
    blank = {key: value for key, value in table["vit", "muon", 60].items() if value}
    assert blank == {"workload": "vit", "entrant": "muon", "horizon": 60, "state": "not run",
                     "unit": "seed", "target": 0.1}  # fmt: skip
    assert block(found.design, found.outcomes, found.design.workloads).entrants == ["adamw"]


@pytest.mark.usefixtures("unpainted")
def test_scores_may_be_negative_and_a_test_score_absent(tmp_path):
    rows = rows_of(FEW)
    for row in rows:
        scores = row["result"]["validation_score"]
        row["result"]["validation_score"] = [None if v is None else v - 2 for v in scores]
        row["result"]["test_score"] = None
    config = FEW.config() | {"targets": {}, "horizons": None}
    page = page_of(tmp_path, FEW, rows=rows, config=config)
    assert re.search(r"lowest mean validation score, −1\.\d", page)
    assert "Performance profiles" not in page
    assert "Learning curves" in page


@pytest.mark.usefixtures("unpainted")
def test_a_configuration_that_says_nothing_still_gives_a_page(tmp_path):
    page = page_of(tmp_path, FEW, config={}, timings=[{"task": 3}, {"seconds": "x"}])
    assert "Two optimizers compared on 1 workload" in page


def test_figures_are_painted_where_everything_diverged(tmp_path):
    truths = {"adamw": Truth(diverges_above=0.0), "muon": Truth(final_diverges=(1, 2, 3))}
    page_of(tmp_path, dataclasses.replace(FEW, truths=truths))
    figures = {file.stem: file.stat().st_size for file in tmp_path.rglob("*.png")}
    assert set(figures) == {
        "outcome_gru", "time_to_target", "performance_profile", "learning_curves", "best_of_k",
        "learning_rate_gru", "ranks",
    }  # fmt: skip
    assert min(figures.values()) > 4000


@pytest.mark.parametrize(
    "damage",
    [
        {"status": "lost"},
        {"settings": {}},
        {"result": {"steps": [1], "validation_loss": [], "validation_score": [0.1]}},
        {"result": {"steps": [1], "validation_loss": [0.1], "validation_score": ["x"]}},
        {"result": {"steps": [], "validation_loss": [], "validation_score": []}},
    ],
)
def test_a_damaged_row_is_named(tmp_path, damage):
    rows = rows_of(FEW)
    rows[0] = rows[0] | {"status": "finished"} | damage
    path = write_comparison(tmp_path / "run", FEW, rows=rows)
    with pytest.raises(RunError, match=rows[0]["key"]):
        render(read_run(path))


def test_every_optimizer_of_the_registry_has_a_name():
    assert len(NAMES) >= 45
    for optimizer in NAMES:
        assert name(optimizer) != optimizer.replace("_", " ")


def test_the_generator_is_deterministic_and_its_files_are_rows():
    assert json.dumps(rows_of(FEW)) == json.dumps(rows_of(FEW))
    assert len(timings_of(FEW)) == 2
