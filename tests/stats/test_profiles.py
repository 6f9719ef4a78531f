"""Performance profiles by hand, by the exact integral, and AlgoPerf's published scores."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from research import stats

INF = float("inf")


def exact_score(ratios):
    return np.where(np.isfinite(ratios), (4 - np.minimum(ratios, 4)) / 3, 0.0).mean(axis=1)


def test_two_methods_by_hand():
    times = np.array([[10.0, 90.0, INF], [20.0, 30.0, INF]])
    ratios = stats.time_ratios(times)
    assert ratios.tolist() == [[1.0, 3.0, INF], [2.0, 1.0, INF]]
    profile = stats.performance_profile(ratios, np.array([1.0, 1.9, 2.0, 4.0]))
    assert profile * 3 == pytest.approx(np.array([[1, 1, 1, 2], [1, 1, 2, 2]]))
    # (1 + 1/3) / 3 and (1 + 2/3) / 3, but for the hundred points of the rule.
    assert stats.profile_scores(ratios) == pytest.approx([4 / 9, 5 / 9], abs=0.002)


def test_the_score_is_the_integral_but_for_the_rule():
    times = np.random.default_rng(0).lognormal(size=(9, 12))
    ratios = stats.time_ratios(times)
    assert stats.profile_scores(ratios) == pytest.approx(exact_score(ratios), abs=0.005)
    assert stats.profile_scores(ratios) != pytest.approx(exact_score(ratios), abs=1e-9)


def test_units_do_not_matter_and_nobody_beats_himself():
    times = np.random.default_rng(1).lognormal(size=(5, 6))
    units = np.array([1.0, 60.0, 3600.0, 0.1, 7.0, 2.0])
    assert stats.profile_scores(stats.time_ratios(times)) == pytest.approx(
        stats.profile_scores(stats.time_ratios(times * units))
    )
    assert stats.profile_scores(stats.time_ratios(times[:1])).tolist() == [1.0]


def test_beyond_four_times_the_fastest_is_as_bad_as_never():
    assert stats.time_ratios(np.array([[1.0], [4.0], [4.1], [np.nan]])).T.tolist() == [
        [1.0, 4.0, INF, INF]
    ]


def test_failing_a_variant_loses_the_base():
    base = np.array([[10.0, 10.0], [20.0, 20.0], [30.0, INF]])
    variant = np.array([[99.0], [10.0], [12.0]])
    kept = stats.within_reach(base, variant, [0])
    # The first took more than four times the fastest on the variant; the others keep their times.
    assert kept.tolist() == [[INF, 10.0], [20.0, 20.0], [30.0, INF]]


def test_a_variant_does_not_count_where_the_base_was_not_reached():
    base, variant = np.array([[INF], [20.0]]), np.array([[1.0], [10.0]])
    # Else the first would set the unit of the variant, and the second be ten times slower than it.
    assert stats.within_reach(base, variant, [0]).tolist() == [[INF], [20.0]]


def test_too_slow_is_measured_against_all_who_reached_the_base():
    base, variant = np.array([[10.0], [50.0], [30.0]]), np.array([[INF], [9.0], [9.0]])
    # The first loses the base by its variant, yet the second was five times slower than it.
    assert stats.within_reach(base, variant, [0]).tolist() == [[INF], [INF], [30.0]]


BASES = (
    "criteo1tb", "fastmri", "imagenet_resnet", "imagenet_vit", "librispeech_conformer",
    "librispeech_deepspeech", "ogbg", "wmt",
)  # fmt: skip
VARIANTS = {
    "criteo1tb_embed_init": "criteo1tb", "fastmri_tanh": "fastmri",
    "imagenet_resnet_large_bn_init": "imagenet_resnet",
    "librispeech_conformer_layernorm": "librispeech_conformer",
    "ogbg_model_size": "ogbg", "wmt_glu_tanh": "wmt",
}  # fmt: skip
# The leaderboards of AlgoPerf 0.5, as github.com/mlcommons/submissions_algorithms publishes them.
PUBLISHED = {
    "external_tuning": {
        "shampoo_submission": 0.7784, "schedule_free_adamw": 0.7077, "generalized_adam": 0.6383,
        "cyclic_lr": 0.6301, "nadamp": 0.5909, "baseline": 0.5707, "amos": 0.4918,
        "caspr_adaptive": 0.4722, "lawa_queue": 0.3699, "lawa_ema": 0.3384,
        "schedule_free_prodigy": 0.0,
    },
    "self_tuning": {
        "schedule_free_adamw": 0.8542, "baseline": 0.8194, "nadamw_sequential": 0.3308,
        "sinv6_75": 0.1420, "sinv6": 0.0903, "adamg": 0.0,
    },
}  # fmt: skip


# The times are a table of 1142 lines (ruleset, submission, workload, study, seconds) taken from the
# logs that AlgoPerf publishes beside these leaderboards: for each study the training seconds at the
# first evaluation that reaches the validation target, in the trial that does so at the lowest
# evaluation number; empty where none does. It is kept with the data sets, not in the repository.
@pytest.mark.data
@pytest.mark.parametrize("ruleset", PUBLISHED)
def test_algoperfs_published_scores_are_reproduced(ruleset):
    path = Path(os.environ["TRELLIS_DATA"]) / "algoperf" / "times_v05.csv"
    if not path.is_file():
        pytest.skip(f"needs {path.name}: seconds to the target of every study of AlgoPerf 0.5")
    studies: dict[tuple[str, str], list[float]] = {}
    with path.open() as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            if row["ruleset"] == ruleset:
                seconds = float(row["seconds"] or "inf")
                studies.setdefault((row["submission"], row["workload"]), []).append(seconds)

    def medians(workloads):
        return np.array(
            [
                [np.median(studies.get((submission, workload), [INF])) for workload in workloads]
                for submission in PUBLISHED[ruleset]
            ]
        )

    base_of = [BASES.index(base) for base in VARIANTS.values()]
    times = stats.within_reach(medians(BASES), medians(VARIANTS), base_of)
    scores = stats.profile_scores(stats.time_ratios(times))
    assert [f"{score:.4f}" for score in scores] == [
        f"{score:.4f}" for score in PUBLISHED[ruleset].values()
    ]
