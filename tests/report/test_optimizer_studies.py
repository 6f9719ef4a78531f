"""Reports of several studies: what is compared are whole searches, and none is dropped."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from comparison_rows import Comparison, Truth, rows_of, write_comparison

from research import stats
from research.report import build_report
from research.report.optimizers import exports
from research.report.optimizers.cells import planned_trainings, read_cells
from research.report.optimizers.design import read_design
from research.report.optimizers.outcomes import false_positives, read_outcomes, self_comparisons
from research.report.optimizers.studies import read_studies
from research.report.optimizers.summaries import agreements, block, profile, ranks
from research.report.optimizers.verdict import overall, workload_verdict
from research.runlog import Records

COMPARED = Comparison(
    truths={
        "adamw": Truth(),
        "muon": Truth(speed=2.5),
        "lion": Truth(final_diverges=(3,)),
        "rprop": Truth(diverges_above=0.0),
        "sgd": Truth(speed=0.3),
    },
    workloads=("digits_mlp", "gru"), horizons=(200,), trials=4, seeds=tuple(range(10)), studies=5,
)  # fmt: skip


class Analysis:
    """The numbers of rows, without files and a page."""

    def __init__(self, compared, rows=None):
        rows = rows_of(compared) if rows is None else rows
        self.records = Records(
            Path("run"), "compare_optimizers", "quick", compared.config(), {}, {}, [], [], [], rows,
        )  # fmt: skip
        self.design = read_design(self.records)
        self.cells = read_cells(self.records, self.design)
        self.studies = read_studies(self.design, self.cells)
        self.outcomes = read_outcomes(self.design, self.studies)
        self.results = {
            (row["workload"], row["entrant"]): row
            for row in exports.results(self.design, self.outcomes)
        }


@pytest.fixture(scope="module")
def found():
    return Analysis(COMPARED)


def scores(workload, entrant, study):
    """Test scores of the final runs of a study, by seed."""
    return {
        row["settings"]["seed"]: row["result"]["test_score"]
        for row in rows_of(dataclasses.replace(COMPARED, workloads=(workload,)))
        if row["settings"]["phase"] == "final" and row["settings"]["optimizer"] == entrant
        and row["settings"]["study"] == study
    }  # fmt: skip


def test_every_study_has_its_share_of_the_seeds():
    for study in range(10):  # those of the further set are dealt like those of the first
        assert sorted(scores("gru", "adamw", study)) == [study % 5, study % 5 + 5]


def test_an_outcome_is_welchs_test_of_the_means_of_studies(found):
    means = [
        [np.mean(list(scores("gru", entrant, study).values())) for study in range(5)]
        for entrant in ("muon", "adamw")
    ]
    row = found.results["gru", "muon"]
    assert (row["unit"], row["units"], row["units_failed"]) == ("study", 5, 0)
    assert row["test_mean"] == pytest.approx(np.mean(means[0]))
    assert row["test_deviation"] == pytest.approx(np.std(means[0], ddof=1))
    made = stats.compare_independent(*means)
    assert row["p_value"] == pytest.approx(made.t_test)
    assert (row["difference_low"], row["difference_high"]) == pytest.approx(made.interval)
    assert row["pairs"] == 25
    assert (row["search_trials"], row["final_runs"]) == (20, 10)
    # The luck of a search is more than that of a seed here, and the interval knows it.
    assert row["test_seed_deviation"] < row["test_deviation"]


def test_holm_is_over_all_comparisons_of_studies(found):
    rows = [row for row in found.results.values() if row["p_value"] is not None]
    assert len(rows) == 2 * 4
    assert [row["p_holm"] for row in rows] == pytest.approx(
        stats.holm([row["p_value"] for row in rows])
    )


def test_a_study_with_a_run_that_diverged_failed_and_stays(found):
    row = found.results["gru", "lion"]  # seed 3 is of study 3
    assert (row["units"], row["units_failed"], row["final_diverged"]) == (5, 1, 1)
    assert row["test_mean"] is row["difference"] is None
    outcome = found.outcomes["gru", "lion", 200]
    assert np.isinf(outcome.scores).tolist() == [False, False, False, True, False]
    assert outcome.mean == math.inf
    assert row["p_value"] == outcome.comparison.rank_test


def test_an_entrant_of_which_every_search_diverged_is_compared_and_last(found):
    row = found.results["gru", "rprop"]
    assert (row["state"], row["units_failed"], row["wins"]) == ("failed", 5, 0)
    assert row["p_value"] == pytest.approx(2 / 252)
    assert found.outcomes["gru", "rprop", 200].times.reached.sum() == 0
    compared = block(found.design, found.outcomes, found.design.workloads)
    places = ranks(compared)
    assert places is not None
    assert places.mean[compared.entrants.index("rprop")] == 5
    assert places.mean[compared.entrants.index("muon")] == 1


def test_one_search_that_diverged_among_five_is_one_failure_and_one_blank_is_none():
    rows = [row for row in rows_of(COMPARED) if row["settings"]["optimizer"] in ("adamw", "muon")]
    mine = [
        row for row in rows
        if (row["settings"]["optimizer"], row["settings"]["study"]) == ("muon", 2)
        and row["settings"]["workload"] == "gru"
    ]  # fmt: skip
    others = [row for row in rows if row not in mine]
    blank = Analysis(COMPARED, others)
    assert len(blank.outcomes["gru", "muon", 200].scores) == 4
    assert blank.outcomes["gru", "muon", 200].studies.state == "finals"
    assert "muon" not in block(blank.design, blank.outcomes, ["digits_mlp", "gru"]).entrants
    searched = [row for row in mine if row["settings"]["phase"] == "search"]
    nothing = [None] * len(searched[0]["result"]["steps"])
    for row in searched:
        row["status"] = "diverged"
        row["result"] |= {"validation_score": nothing, "validation_loss": nothing}
    lost = Analysis(COMPARED, others + searched)
    outcome = lost.outcomes["gru", "muon", 200]
    assert outcome.studies.state == "complete"
    assert outcome.studies.failed == np.isinf(outcome.scores).sum() == 1
    assert "Searches of which every trial diverged: Muon 1 of 5." in workload_verdict(
        lost.design, lost.outcomes, "gru"
    )
    expected = len(others) + len(searched) + 3 * 2 * 5 * 6
    assert planned_trainings(lost.design, lost.cells) == expected


def test_time_to_the_target_is_the_median_over_studies(found):
    outcome = found.outcomes["gru", "muon", 200]
    times = []
    for study in range(5):
        cell = found.cells["gru", "muon", 200, study]
        steps = [step if there else math.inf for step, there in cell.times(0.1).values()]
        times.append(np.median(steps))
    row = found.results["gru", "muon"]
    assert row["target_reached_units"] == np.isfinite(times).sum() == outcome.times.reached.sum()
    assert row["steps_to_target_median"] == sorted(times)[2]
    other = found.outcomes["gru", "adamw", 200]
    own, theirs = (np.log(np.minimum(o.times.steps, 200)) for o in (outcome, other))
    assert row["steps_ratio"] == pytest.approx(np.exp(own.mean() - theirs.mean()))
    assert row["steps_ratio_low"] < row["steps_ratio"] < row["steps_ratio_high"]


def test_a_study_reaches_the_target_where_more_than_half_of_its_runs_do(found):
    studies = found.studies["gru", "lion", 200, 0]
    assert studies.times(0.1)[3] == (200.0, False)  # one of its two runs diverged
    assert studies.runs_reached(1.0) == 9


def luck(compared, search, seed, gain=0.0):
    """Rows whose final scores are luck of the search and of the seed, ahead by the gain."""
    generator = np.random.default_rng(7)
    template = rows_of(dataclasses.replace(compared, workloads=("gru",), trials=1))
    shapes = {phase: next(r for r in template if r["settings"]["phase"] == phase)
              for phase in ("search", "final")}  # fmt: skip
    won = {key: shapes["search"]["settings"][key] for key in ("trial", "hyperparameters")}
    sets = {e: 1 + (compared.aa_studies if e == compared.reference else 0) for e in compared.truths}
    rows = []
    for workload in compared.workloads:
        for entrant, number in sets.items():
            for study in range(number * compared.studies):
                found = generator.normal(0, search) - (gain if entrant != compared.reference else 0)
                seeds = compared.seeds[study % compared.studies :: compared.studies]
                for phase, own in (("search", [99]), ("final", seeds)):
                    for s in own:
                        settings = shapes[phase]["settings"] | {
                            "workload": workload, "optimizer": entrant, "study": study, "seed": s,
                            **won,
                        }  # fmt: skip
                        result = dict(shapes[phase]["result"])
                        if phase == "final":
                            result["test_score"] = found + generator.normal(0, seed)
                        rows.append(shapes[phase] | {"settings": settings, "result": result})
    return rows


def test_the_reference_differs_from_itself_at_the_nominal_rate_by_studies_and_not_by_seeds():
    base = Comparison(truths={"adamw": Truth()}, workloads=[f"w{i}" for i in range(120)],
                      horizons=(50,), trials=1, seeds=tuple(range(10)))  # fmt: skip
    found = {}
    for studies in (1, 5):
        compared = dataclasses.replace(base, studies=studies)
        analysis = Analysis(compared, luck(compared, search=1.0, seed=0.2))
        found[studies] = false_positives(self_comparisons(analysis.design, analysis.studies))
        said = overall(analysis.design, {}, None, None, block(analysis.design, {}, []),
                       self_comparisons(analysis.design, analysis.studies))  # fmt: skip
        assert ("not that of the search" in said[-1]) == (studies == 1)
    rejected, known, (low, high) = found[5]
    assert known == 120
    assert low < 0.05 < high
    assert rejected <= 10
    by_seed, known, (low, _) = found[1]
    assert known == 120
    assert low > 0.7
    assert by_seed > 10 * rejected


def test_a_difference_beyond_the_luck_of_searches_is_found_after_holms_correction():
    compared = Comparison(truths={"adamw": Truth(), "muon": Truth()}, horizons=(50,), trials=1,
                          workloads=[f"w{i}" for i in range(10)], seeds=tuple(range(10)), studies=5,
                          aa_studies=0)  # fmt: skip
    for gain, least, most in ((6.0, 9, 10), (0.0, 0, 1)):
        analysis = Analysis(compared, luck(compared, search=1.0, seed=0.2, gain=gain))
        better = [o.verdict == "better" for o in analysis.outcomes.values()]
        assert least <= sum(better) <= most


def test_further_sets_of_the_reference_are_compared_in_disjoint_pairs():
    compared = dataclasses.replace(COMPARED, aa_studies=3, workloads=("gru",))
    analysis = Analysis(compared)
    same = self_comparisons(analysis.design, analysis.studies)
    assert [item.sets for item in same] == [(0, 1), (2, 3)]
    means = [list(analysis.studies["gru", "adamw", 200, number].values("test").values())
             for number in (1, 0)]  # fmt: skip
    assert same[0].comparison == stats.compare_independent(*means)


def test_rankings_by_one_search_each_are_held_against_each_other(found):
    taus = {item.between[0]: item for item in agreements(found.design, found.outcomes)
            if item.kind == "studies"}  # fmt: skip
    assert taus["GRU"].between[1] == "mean of 10 pairs"
    assert 0 < taus["GRU"].tau < 1


def test_the_winner_of_every_study_is_in_its_table(found):
    rows = exports.studies(found.design, found.cells)
    assert len(rows) == 2 * (5 * 5 + 5)
    mine = [row for row in rows if (row["workload"], row["entrant"]) == ("gru", "muon")]
    assert len({row["hyperparameters"]["learning_rate"] for row in mine}) == 5
    assert {row["set"] for row in rows if row["entrant"] == "adamw"} == {0, 1}
    assert {row["state"] for row in rows if row["entrant"] == "rprop"} == {"failed"}


def test_who_fails_a_held_out_variant_loses_the_workload_that_it_varies():
    compared = Comparison(
        truths={"adamw": Truth(), "muon": Truth(speed=2.0)}, horizons=(200,), aa_studies=0,
        workloads=("digits_mlp", "digits_mlp_tanh", "gru"),
        held_out={"digits_mlp_tanh": "digits_mlp"},
    )  # fmt: skip
    rows = rows_of(compared)
    whole = Analysis(compared, rows)
    shape = profile(whole.design, whole.outcomes, whole.design.workloads)
    assert shape is not None
    assert (shape.workloads, shape.variants) == (["digits_mlp", "gru"], ["digits_mlp_tanh"])
    assert shape.scores[1] == 1.0
    for row in rows:
        settings = row["settings"]
        if settings["workload"] == "digits_mlp_tanh" and settings["optimizer"] == "muon":
            row["result"]["validation_score"] = [1.0] * len(row["result"]["steps"])
    lost = Analysis(compared, rows)
    shape = profile(lost.design, lost.outcomes, lost.design.workloads)
    assert shape is not None
    assert np.isinf(shape.ratios[1]).tolist() == [True, False]
    assert shape.scores[1] == 0.5
    alone = profile(lost.design, lost.outcomes, ["digits_mlp_tanh", "gru"])
    assert alone is not None
    assert (alone.workloads, alone.variants) == (["digits_mlp_tanh", "gru"], [])


def page_of(path, compared, **changes):
    return build_report(write_comparison(path / "quick-0a1b2c3d", compared, **changes)).read_text()


@pytest.mark.usefixtures("unpainted")
def test_the_page_speaks_of_studies(tmp_path):
    page = page_of(tmp_path, COMPARED)
    for said in (
        "5 independent studies, each a search of 4 trials",
        "The 10 fresh seeds are dealt to the studies in turn",
        "over 5 studies.",
        "Welch's t test, as searches have nothing in common",
        "1 of 5 studies failed",
        "between two such sets of 5 studies",
        "A dot is a study",
        "a ring the chosen one of a study",
        "those made in all studies",
        "resamplings of studies and workloads",
        "Between studies of one workload",
    ):
        assert said.replace(" %", "&nbsp;%").replace("'", "&#x27;") in page, said
    for wrong in ("shared seed", "on the same seeds", "one search found", ">nan", "inf<"):
        assert wrong not in page.split("<style>")[-1].split("</style>")[-1], wrong


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize(
    ("keep", "says"),
    [
        (lambda s: s["phase"] == "search", "no final run has finished"),
        (lambda s: s["study"] == 0, "but of one study, so no winner can be named"),
        (lambda s: s["study"] < 2, "over 2 studies"),
        (lambda s: s["optimizer"] != "adamw", "without final runs of the reference"),
        (lambda s: s["workload"] == "gru", "nothing has been run at 200 steps"),
    ],
)
def test_unfinished_studies_are_pages_that_say_so(tmp_path, keep, says):
    truths = {key: COMPARED.truths[key] for key in ("adamw", "muon")}
    compared = dataclasses.replace(COMPARED, truths=truths)
    rows = [row for row in rows_of(compared) if keep(row["settings"])]
    page = page_of(tmp_path, compared, rows=rows)
    assert says in page
    assert ">nan" not in page
