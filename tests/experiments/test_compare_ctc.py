"""The comparison of CTC systems, small: nobody who is tested is heard, pairs are pairs."""

import dataclasses
import json

import numpy as np
import pytest
from compilation import compiled_in_haste
from in_process import InThisProcess

from experiments import compare_ctc
from experiments.command_line import SweepOptions
from experiments.compare_ctc import Config, make_design
from research.data.digit_strings import StringConfig
from research.errors import ConfigError, DataError
from research.runlog import read_run
from research.speech import material
from research.speech.systems import parse

TINY = Config(
    corpus="fsdd",
    encoders=("separable_conv",),
    objectives=("ctc", "consistency_ctc"),
    test_speakers=("bert", "carl"),
    seeds=(1, 2, 3),
    steps=8,
    search_steps=4,
    trials=2,
    evaluations=2,
)


@pytest.fixture(scope="module", autouse=True)
def small():
    """Strings and trainings of seconds, in this process."""
    with pytest.MonkeyPatch.context() as patch, compiled_in_haste():
        patch.setattr(compare_ctc, "open_backend", InThisProcess)
        patch.setattr(material, "SIZES", {"train": 24, "validation": 5, "test": 7})
        patch.setattr(material, "SECONDS", 0.8)
        strings = StringConfig(1, 3, gap_seconds=(0.0, 0.05), edge_seconds=(0.0, 0.05))
        patch.setattr(material, "STRINGS", strings)
        yield


def run(out, data_dir, config=TINY, **options):
    chosen = SweepOptions(out=out, data_dir=data_dir, **options)
    return compare_ctc.run("quick", config, chosen).parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tone_digits, small):
    return run(tmp_path_factory.mktemp("runs"), tone_digits)


def of_phase(records, phase):
    return [row for row in records.rows if row["settings"]["phase"] == phase]


def test_every_objective_gets_the_same_pairs_of_speaker_and_seed(finished):
    found = {}
    for row in of_phase(read_run(finished), "final"):
        system = parse(row["settings"]["workload"])
        found.setdefault(system.objective, set()).add((system.fold, row["settings"]["seed"]))
    pairs = {("bert", 1), ("carl", 2), ("bert", 3)}
    assert found == {"ctc": pairs, "consistency_ctc": pairs}


def test_a_search_never_hears_the_test_speaker_nor_trains_on_the_validator(finished, tone_digits):
    searches = of_phase(read_run(finished), "search")
    systems = {row["settings"]["workload"]: parse(row["settings"]["workload"]) for row in searches}
    assert sorted(systems) == [
        "fsdd/separable_conv/ctc/bert.carl",
        "fsdd/separable_conv/ctc/carl.anna",
    ]
    recordings = material.digit_recordings("fsdd", tone_digits)
    for system in systems.values():
        split = material._split(recordings, system.fold, system.validator)
        speakers = [{recordings.speakers[i] for i in part} for part in split]
        everyone = {"anna", "bert", "carl"}
        rest = everyone - {system.fold, system.validator}
        assert speakers == [rest, {system.validator}, {system.fold}]
    assert all("details" not in row["result"] for row in searches)
    assert all(row["result"]["test_score"] is None for row in searches)


def test_the_winner_of_the_search_is_what_all_objectives_are_trained_with(finished):
    records = read_run(finished)
    for fold in ("bert", "carl"):
        searched = [
            row
            for row in of_phase(records, "search")
            if parse(row["settings"]["workload"]).fold == fold
        ]
        assert len(searched) == TINY.trials
        best = min(
            searched,
            key=lambda row: (
                row["result"]["validation_score"][-1],
                row["result"]["validation_loss"][-1],
            ),
        )
        points = [
            row["settings"]["hyperparameters"]
            for row in of_phase(records, "final")
            if parse(row["settings"]["workload"]).fold == fold
        ]
        assert points
        assert all(point == best["settings"]["hyperparameters"] for point in points)


def test_the_run_records_with_which_objective_it_tuned(finished, tone_digits):
    assert read_run(finished).config["tuned_with"] == "ctc"
    config = dataclasses.replace(TINY, tuning="each")
    assert make_design(config, tone_digits).described()["tuned_with"] is None


def test_objectives_of_two_views_get_half_the_steps_when_compute_is_matched(finished, tone_digits):
    steps = {
        parse(row["settings"]["workload"]).objective: row["settings"]["steps"]
        for row in of_phase(read_run(finished), "final")
    }
    assert steps == {"ctc": 8, "consistency_ctc": 4}
    unmatched = make_design(dataclasses.replace(TINY, match="steps"), tone_digits)
    assert unmatched.steps_of("consistency_ctc") == 8
    assert read_run(finished).config["steps_of"] == steps


def test_the_test_strings_of_a_speaker_are_the_same_for_all_systems(finished):
    labels = {}
    for row in of_phase(read_run(finished), "final"):
        fold = parse(row["settings"]["workload"]).fold
        counts = row["result"]["details"]["decoders"]["greedy"]["labels"]
        labels.setdefault(fold, set()).add(tuple(counts))
    assert sorted(labels) == ["bert", "carl"]
    assert all(len(different) == 1 for different in labels.values())


def test_details_agree_with_the_score_and_with_each_other(finished):
    for row in of_phase(read_run(finished), "final"):
        result, details = row["result"], row["result"]["details"]
        greedy = {name: np.array(v) for name, v in details["decoders"]["greedy"].items()}
        edits = greedy["substitutions"] + greedy["deletions"] + greedy["insertions"]
        assert result["test_score"] == pytest.approx(np.mean(edits / greedy["labels"]))
        confusion = np.array(details["confusion"])
        assert confusion[:-1].sum() == greedy["labels"].sum()
        assert confusion[:-1, -1].sum() == greedy["deletions"].sum()
        assert confusion[-1].sum() == greedy["insertions"].sum()
        assert details["frame_seconds"] == pytest.approx(0.04)
        assert 0 <= details["blank_fraction"] <= 1
        assert details["boundary_error_milliseconds"] > 0


def test_examples_fit_together(finished):
    records = read_run(finished)
    key = of_phase(records, "final")[0]["key"]
    with np.load(finished / "examples" / f"{key}.npz", allow_pickle=False) as arrays:
        seconds = len(arrays["waveform_0"]) / arrays["sample_rate"]
        assert len(arrays["log_mel_0"]) * arrays["hop_seconds"] == pytest.approx(seconds, abs=0.05)
        posteriors = arrays["log_posteriors_0"]
        assert len(posteriors) * arrays["frame_seconds"] == pytest.approx(seconds, abs=0.08)
        np.testing.assert_allclose(np.exp(posteriors).sum(axis=1), 1.0, rtol=1e-5)
        path, labels = arrays["alignment_0"], arrays["labels_0"].tolist()
        assert [k for k, old in zip(path, (-1, *path), strict=False) if k not in (old, 0)] == labels
        assert arrays["boundaries_0"].shape == (len(labels), 2)
        assert np.all(np.diff(arrays["boundaries_0"].ravel()) >= 0)
        assert arrays["boundaries_0"].max() <= seconds


def test_what_is_finished_is_not_run_again(finished, tone_digits, tmp_path, monkeypatch):
    before = {path.name: path.read_bytes() for path in (finished / "rows").iterdir()}
    monkeypatch.setattr(InThisProcess, "asked", [])
    (finished / "rows" / f"{of_phase(read_run(finished), 'final')[0]['key']}.json").unlink()
    again = run(finished.parent.parent, tone_digits)
    assert again == finished
    assert len(InThisProcess.asked) == 1
    assert {path.name: path.read_bytes() for path in (finished / "rows").iterdir()} == before


def test_a_search_that_diverges_as_a_whole_leaves_blanks(tone_digits, monkeypatch):
    design = make_design(TINY, tone_digits)
    cell = design.cells()[0]
    rows = [
        {"status": "diverged", "settings": training.settings(), "result": {}}
        for training in cell.trainings
    ]
    assert cell.then(rows) == []


def test_the_steps_that_are_announced_are_those_that_are_run(finished, tone_digits):
    rows = read_run(finished).rows
    assert make_design(TINY, tone_digits).steps() == sum(row["settings"]["steps"] for row in rows)


@pytest.mark.parametrize("recipe", compare_ctc.RECIPES.values(), ids=lambda r: r.config.corpus)
def test_every_recipe_can_be_planned_and_says_what_it_costs(recipe, tone_digits):
    config = dataclasses.replace(recipe.config, corpus="fsdd")
    design = make_design(config, tone_digits)
    assert len({cell.trainings[0].key() for cell in design.cells()}) == len(design.cells())
    assert json.dumps(design.described())
    assert "2 cores" in recipe.description


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ("cct",)}, "Did you mean 'ctc'"),
        ({"encoders": ("separable",)}, "encoder must be one of"),
        ({"optimizers": ("adamv",)}, "Did you mean"),
        ({"optimizers": ("adamw@cosin",)}, "Did you mean 'cosine'"),
        ({"reference": "focal_ctc"}, "reference must be one of the objectives"),
        ({"seeds": (1, 1)}, "none twice"),
        ({"seeds": (2**30,)}, "seeds must be below"),
        ({"steps": 3}, "at least twice the evaluations, 4; received 3"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"test_speakers": ("each", "anna")}, "stand alone"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **changes)


def test_a_speaker_who_is_not_there_is_refused(tone_digits):
    config = dataclasses.replace(TINY, test_speakers=("dora",))
    with pytest.raises(ConfigError, match=r"among anna, bert, carl.*received dora"):
        make_design(config, tone_digits)


def test_recordings_that_are_missing_are_said_with_where_to_get_them(tmp_path):
    with pytest.raises(DataError, match="fsdd"):
        make_design(TINY, tmp_path)
