"""What the full-size recipe refuses before it trains, and what it says that it would cost."""

import dataclasses
import math

import pytest

from experiments import train_ctc
from experiments.train_ctc import RECIPES, TrainOptions
from research.errors import ConfigError

FULL = RECIPES["librispeech_100"].config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 30, "heads": 4}, "multiple of heads"),
        ({"taps": 4}, "taps must be odd"),
        ({"seconds": (3.0, 2.0)}, "shortest and a longest"),
        ({"objective": "intermediate_ctc"}, "--intermediate 8"),
        ({"intermediate": (16,)}, "blocks in 1 to 15"),
        ({"objective": "consistency_ctc", "policy": "LD"}, "--policy AlgoPerf"),
        ({"optimizer": "adamx"}, "Did you mean"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"dropout": math.nan}, "dropout must be"),
        ({"b2": 2.0}, r"b2 must be at least 0 and below 1; received 2\.0"),
        ({"b2": math.nan}, "b2 must be"),
        ({"weight_decay": -1.0}, r"weight_decay must be at least 0 and finite; received -1\.0"),
        ({"weight_decay": math.inf}, "weight_decay must be"),
        ({"ngram_weights": (0.2, math.nan)}, r"ngram_weights must be .* received \(0\.2, nan\)"),
        ({"ngram_weights": (-0.2,)}, "ngram_weights must be"),
        ({"ngram_bonuses": (math.inf,)}, "ngram_bonuses must be finite"),
        ({"seconds": (0.5, math.inf)}, "seconds must be"),
        ({"seconds": (math.nan, 2.0)}, "seconds must be"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"clip_norm": -1.0}, "clip_norm must be"),
        ({"batch_seconds": math.inf}, "batch_seconds must be"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(FULL, **changes)


def test_the_plan_states_the_cost_without_data(capsys, tmp_path):
    missing = tmp_path / "nothing"
    config = dataclasses.replace(FULL, layers=2)
    options = TrainOptions(data_dir=missing, plan=True, peak_teraflops=100.0, utilisation=0.5)
    assert train_ctc.run("librispeech_100", config, options) is None
    text = capsys.readouterr().out
    assert "100.6 h" in text
    assert "an estimate, not a measurement" in text
    assert "No GPU has been measured" in text
    assert "100 TFLOP/s of which 50 %" in text
    assert not missing.exists()
    with pytest.raises(ConfigError, match="a utilisation in 0 to 1"):
        train_ctc.plan("librispeech_100", config, dataclasses.replace(options, utilisation=5.0))


def test_a_plan_is_of_parts_that_are_published():
    options = TrainOptions(plan=True)
    config = dataclasses.replace(FULL, layers=1, train_parts=("train-clean-10",))
    with pytest.raises(ConfigError, match=r"--train-parts must be .*Did you mean 'train-clean-1"):
        train_ctc.run("librispeech_100", config, options)
    # Only LibriSpeech has parts to choose.
    elsewhere = dataclasses.replace(config, corpus="prompts")
    assert train_ctc.run("prompts", elsewhere, options) is None


def test_a_peak_without_end_plans_nothing():
    with pytest.raises(ConfigError, match="a finite peak above zero"):
        train_ctc.plan("librispeech_100", FULL, TrainOptions(peak_teraflops=math.inf))
