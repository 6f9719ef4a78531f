"""The optimizer comparison, small: equal budgets, honest selection, resumable, loud about NaN."""

import contextlib
import csv
import dataclasses
import json

import pytest
from in_process import InThisProcess

from experiments import compare_optimizers
from experiments.compare_optimizers import RECIPES, Config, SweepOptions
from research import comparison, workloads
from research.errors import ConfigError, DataError
from research.optimizers import Range, find, registry
from research.runlog import read_run
from research.sweep import engine

TINY = Config(
    workloads=("quadratic_1e2",),
    optimizers=("sgd", "sgd@constant", "momentum"),
    horizons=(0.02, 0.04),
    studies=1,
    trials=3,
    seeds=(1, 2),
    evaluations=2,
    reference="momentum",
)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(compare_optimizers, "open_backend", InThisProcess)


def run(out, config=TINY, **options):
    return compare_optimizers.run("quick", config, SweepOptions(out=out, **options)).parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_optimizers, "open_backend", InThisProcess)
        return run(tmp_path_factory.mktemp("runs"))


def cells(rows):
    """Rows by phase of each study."""
    found = {}
    for row in rows:
        settings = row["settings"]
        names = ("workload", "optimizer", "schedule", "steps", "study")
        cell = found.setdefault(tuple(settings[name] for name in names), {})
        cell.setdefault(settings["phase"], []).append(row)
    return found


def test_every_entrant_gets_the_same_trials_and_the_same_fresh_seeds(finished):
    found = cells(read_run(finished).rows)
    entrants = [("sgd", "cosine", 0), ("sgd", "constant", 0), ("momentum", "cosine", 0)]
    entrants.append(("momentum", "cosine", 1))  # the reference once more, against itself
    assert sorted(found) == sorted(
        ("quadratic_1e2", name, schedule, steps, study)
        for name, schedule, study in entrants
        for steps in (4, 8)
    )
    for cell in found.values():
        assert sorted(row["settings"]["trial"] for row in cell["search"]) == [0, 1, 2]
        assert sorted(row["settings"]["seed"] for row in cell["final"]) == [1, 2]
        assert all(row["settings"]["seed"] > 2 for row in cell["search"])


def test_the_best_by_validation_is_run_again_and_only_that_sees_the_test_set(finished):
    for cell in cells(read_run(finished).rows).values():
        best = comparison.winner(cell["search"])
        assert best is not None
        for row in cell["final"]:
            assert row["settings"]["hyperparameters"] == best["settings"]["hyperparameters"]
            assert row["result"]["test_score"] is not None
        assert all(row["result"]["test_score"] is None for row in cell["search"])


def test_each_study_has_its_own_search_winner_and_share_of_the_seeds(tmp_path):
    config = dataclasses.replace(
        TINY, horizons=(0.04,), optimizers=("sgd", "momentum"), studies=2, trials=2,
        seeds=(1, 2, 3),
    )  # fmt: skip
    path = run(tmp_path, config)
    found = cells(read_run(path).rows)
    studies = {"sgd": (0, 1), "momentum": (0, 1, 2, 3)}  # the reference once more, against itself
    assert sorted(found) == sorted(
        ("quadratic_1e2", name, "cosine", 8, study) for name in studies for study in studies[name]
    )
    points, search_seeds = set(), {}
    for (_, name, _, _, study), cell in found.items():
        assert len(cell["search"]) == 2
        best = comparison.winner(cell["search"])
        assert best is not None
        assert {row["settings"]["trial"] for row in cell["final"]} == {best["settings"]["trial"]}
        seeds = sorted(row["settings"]["seed"] for row in cell["final"])
        assert seeds == [[1, 3], [2]][study % 2]
        own = [row["settings"]["hyperparameters"]["learning_rate"] for row in cell["search"]]
        assert len(points | {(name, rate) for rate in own}) == len(points) + 2
        points |= {(name, rate) for rate in own}
        search_seeds.setdefault(study, set()).update(r["settings"]["seed"] for r in cell["search"])
    assert sorted(map(len, search_seeds.values())) == [1] * 4  # one for all entrants of a number
    assert len(set.union(*search_seeds.values())) == 4
    with (path / "results.csv").open() as file:
        rows = {row["entrant"]: row for row in csv.DictReader(file)}
    assert (rows["sgd"]["unit"], rows["sgd"]["units"], rows["sgd"]["pairs"]) == ("study", "2", "4")


def test_run_again_it_trains_nothing_and_ends_with_the_same_tables(finished, monkeypatch):
    before = {path.name: path.read_bytes() for path in finished.glob("*.csv")}
    monkeypatch.setattr(engine, "execute", lambda *_: pytest.fail("a chunk was run again"))
    assert run(finished.parent.parent) == finished
    assert {path.name: path.read_bytes() for path in finished.glob("*.csv")} == before


def test_interrupted_and_resumed_it_ends_with_the_same_rows(finished, tmp_path, monkeypatch):
    original, calls = engine.execute, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(engine, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    cut = read_run(tmp_path / finished.relative_to(finished.parents[1])).rows
    rows = read_run(finished).rows
    assert 0 < len(cut) < len(rows)
    assert [row["key"] for row in read_run(run(tmp_path)).rows] == [row["key"] for row in rows]


def test_a_search_that_diverges_is_a_failure_and_the_comparison_goes_on(tmp_path, monkeypatch):
    bad = find("sgd")._replace(space={"learning_rate": Range(1e30, 1e35)})
    newest = registry.VERSIONS[registry.LATEST]
    monkeypatch.setitem(registry.VERSIONS, registry.LATEST, {**newest, "sgd": bad})
    config = dataclasses.replace(TINY, horizons=(0.04,), aa_studies=0)
    path = run(tmp_path, config)
    found = cells(read_run(path).rows)
    lost = found["quadratic_1e2", "sgd", "cosine", 8, 0]
    assert {row["status"] for row in lost["search"]} == {"diverged"}
    assert "final" not in lost
    assert len(found["quadratic_1e2", "momentum", "cosine", 8, 0]["final"]) == 2
    with (path / "results.csv").open() as file:
        rows = {row["entrant"]: row for row in csv.DictReader(file)}
    assert rows["sgd"]["search_diverged"] == "3"
    assert rows["momentum"]["search_diverged"] == "0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"studies": 0}, "studies must be at least 1; received 0"),
        ({"studies": 3}, r"at least as many as studies, 3, .* received \(1, 2\)"),
        ({"trials": 0}, "trials must be at least 1; received 0"),
        ({"aa_studies": -1}, "aa_studies must be at least 0"),
        ({"optimizers": ("adm",)}, "Did you mean 'adam'"),
        ({"optimizers": ("adam@cosin",)}, "Did you mean 'cosine'"),
        ({"optimizers": ("momentum", "momentum@cosine")}, "none twice"),
        ({"workloads": ("digit_mlp",)}, "Did you mean 'digits_mlp'"),
        ({"seeds": ()}, "at least one"),
        ({"seeds": (1, 2**30)}, "seeds must be below"),
        ({"seeds": (workloads.POOL_SEED,)}, "set the targets"),
        ({"horizons": (0.0,)}, "horizons must be numbers above zero"),
        ({"horizons": (1.0, float("inf"))}, "horizons must be numbers above zero, and finite"),
        ({"horizons": (float("nan"),)}, "horizons must be numbers above zero, and finite"),
        ({"reference": "adamw"}, "reference must be one of the optimizers"),
        ({"space_version": 9}, "version of search spaces"),
    ],
)
def test_configurations_that_cannot_run_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizons": (1.0,), "evaluations": 1000}, "received 1000, and horizon 1 .* 200 steps"),
        ({"horizons": (0.001,), "evaluations": 20}, "received 20, and horizon 0.001 .* 0.2 steps"),
        ({"horizons": (0.16,), "evaluations": 20}, "is 32 steps, and the nearest is 40"),
        ({"horizons": (0.1, 0.101)}, "0.1 and 0.101 of quadratic_1e2 both become 20"),
    ],
)
def test_lengths_that_would_not_be_as_asked_are_refused(tmp_path, change, message):
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, dataclasses.replace(TINY, **change))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_train_about_as_long_as_they_ask(recipe):
    config = RECIPES[recipe].config
    for name in config.workloads:
        with contextlib.suppress(DataError):  # of those whose data are not here
            workload = workloads.load(name)
            lengths = [length for length, _ in compare_optimizers.horizons(config, workload)]
            asked = [multiple * workload.steps for multiple in config.horizons]
            assert lengths == pytest.approx(asked, rel=0.1)


def test_the_run_records_what_a_report_must_know(finished):
    config = json.loads((finished / "config.json").read_text())["config"]
    assert config["search_spaces"]["sgd"]["learning_rate"]["high"] > 0
    assert config["horizons"] == {"quadratic_1e2": [4, 8]}
    assert config["held_out"] == {}
    assert config["targets"] == {"quadratic_1e2": workloads.load("quadratic_1e2").target}


def test_a_held_out_workload_is_recorded_with_the_one_that_it_varies():
    config = dataclasses.replace(TINY, workloads=("quadratic_1e2", "quadratic_1e3"))
    loaded = {name: workloads.load(name) for name in config.workloads}
    recorded = compare_optimizers.described(config, loaded)
    assert recorded["held_out"] == {"quadratic_1e3": "quadratic_1e2"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_compare_studies_and_run_every_winner_equally_often(recipe):
    config = RECIPES[recipe].config
    assert config.studies >= 3
    assert len(config.seeds) % config.studies == 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_name_no_seed_of_the_pool_that_set_the_targets(recipe):
    seeds = {RECIPES[recipe].config.search_seed, *RECIPES[recipe].config.seeds}
    assert workloads.POOL_SEED not in seeds
