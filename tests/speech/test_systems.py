"""Systems of the CTC comparison: who is in which part, and what every name builds."""

from typing import Any

import jax
import numpy as np
import pytest

from research.data.digit_recordings import make_recordings
from research.data.digit_strings import StringConfig, digit_strings
from research.errors import ConfigError
from research.models.bilstm_encoder import BiLSTMEncoder
from research.models.encoders import ENCODERS
from research.objectives.registry import OBJECTIVES
from research.speech import material, systems
from research.speech.material import digit_material, fingerprint
from research.speech.systems import System, build, load, make_encoder, parse


def tones(name, lowest, speakers):
    """A tone for each digit and speaker, lower for real voices than for synthetic ones."""
    time = np.arange(800) / 8000
    which = [(speaker, digit) for speaker in range(len(speakers)) for digit in range(10)]
    return make_recordings(
        name=name,
        clips=[np.sin(2 * np.pi * (lowest + 40 * d + 7 * s) * time) for s, d in which],
        digits=[digit for _, digit in which],
        speakers=[speakers[speaker] for speaker, _ in which],
        takes=[5 * (digit % 2) for _, digit in which],
        source=name,
    )


VOICES = {
    "fsdd": tones("fsdd", 300, ("ann", "bob", "cid")),
    "espeak": tones("synthetic", 2000, ("robot", "android")),
}


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(material, "_recordings", lambda name, data_dir: VOICES[name])
        patch.setattr(material, "SIZES", {"train": 12, "validation": 3, "test": 5})
        patch.setattr(material, "SECONDS", 0.6)
        strings = StringConfig(1, 2, gap_seconds=(0.0, 0.05), edge_seconds=(0.0, 0.05))
        patch.setattr(material, "STRINGS", strings)
        material._digit_material.cache_clear()
        yield
    material._digit_material.cache_clear()


def test_every_second_training_string_is_synthetic_and_no_other_is():
    real = digit_material("fsdd", "cid", None, None)
    both = digit_material("fsdd+espeak", "cid", None, None)
    for part in ("validation", "test"):
        for name, array in getattr(real, part).items():
            np.testing.assert_array_equal(array, getattr(both, part)[name])
    features = both.train["features"]
    np.testing.assert_array_equal(features[:6], real.train["features"][:6])
    assert digit_material("fsdd", "cid", None, None).description in both.description
    assert len(features) == len(real.train["features"]) == 12
    strings = material._strings(VOICES["espeak"], np.arange(20), material._SEED + 3, 6, True)
    synthetic = material._features(strings, both.front_end, 6)
    np.testing.assert_array_equal(features[6:], synthetic["features"])
    np.testing.assert_array_equal(both.train["labels"][6:], synthetic["labels"])


def test_only_training_strings_are_by_several_speakers(monkeypatch):
    asked = []

    def strings(recordings, indices, config, *, across_speakers, **options):
        asked.append((recordings.name, len(indices), across_speakers))
        return digit_strings(
            recordings, indices, config, across_speakers=across_speakers, **options
        )

    monkeypatch.setattr(material, "digit_strings", strings)
    material._digit_material.cache_clear()
    digit_material("fsdd+espeak", "cid", "ann", None)
    material._digit_material.cache_clear()
    assert [(name, across) for name, _, across in asked] == [
        ("fsdd", True), ("fsdd", False), ("fsdd", False), ("synthetic", True),
    ]  # fmt: skip


def test_a_fingerprint_is_that_of_the_material_and_of_nothing_else():
    made = digit_material("fsdd", "cid", "ann", None)
    assert made.sha256 == fingerprint("fsdd", "cid", "ann", None)
    found = {
        fingerprint("fsdd", "cid", None, None),
        fingerprint("fsdd", "bob", "cid", None),
        fingerprint("fsdd+espeak", "cid", "ann", None),
    }
    assert len(found) == 3
    assert made.sha256 not in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lj", "cid", None), "corpus must be one of fsdd"),
        (("fsdd", "dora", None), "must be one of ann, bob, cid; received 'dora'"),
        (("fsdd", "cid", "bob"), "must be validated on ann; received 'bob'"),
    ],
)
def test_a_part_that_does_not_exist_is_refused(arguments, message):
    corpus, test, validated_on = arguments
    with pytest.raises(ConfigError, match=message):
        digit_material(corpus, test, validated_on, None)


@pytest.mark.parametrize("name", ["fsdd/bilstm/ctc", "fsdd/bilsm/ctc/ann", "fsdd/bilstm/cct/ann"])
def test_a_name_of_no_system_is_refused(name):
    with pytest.raises(ConfigError):
        parse(name)


def test_names_say_all_of_a_system():
    for system in (System("fsdd", "bilstm", "ctc", "ann"), System("a", "bilstm", "ctc", "b", "c")):
        assert parse(system.name) == system


def shapes(workload):
    params = jax.eval_shape(workload.init, jax.random.key(0))
    batch = {name: array[:4] for name, array in workload.train.items()}
    return params, batch


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_gives_logits_as_often(encoder):
    workload = load(f"fsdd/{encoder}/ctc/cid")
    params, batch = shapes(workload)
    measured = jax.eval_shape(workload.measure, params, batch)
    assert {name: value.shape for name, value in measured.items()} == {"loss": (4,), "score": (4,)}
    examine: Any = workload.examine
    recognise, *_ = examine.args
    logits, lengths = jax.eval_shape(recognise, params, batch)
    frames = batch["features"].shape[1]
    assert logits.shape == (4, -(-frames // 4), 11)
    assert lengths.shape == (4,)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_trains_what_it_asks_for(objective):
    made = digit_material("fsdd", "cid", None, None)
    workload = build(System("fsdd", "separable_conv", objective, "cid"), made)
    params, batch = shapes(workload)
    loss, slopes = jax.eval_shape(
        jax.value_and_grad(workload.loss), params, batch, jax.random.key(0)
    )
    assert loss.shape == ()
    assert jax.tree.structure(slopes) == jax.tree.structure(params)
    conditioned = any("projection" in str(path) for path, _ in jax.tree.leaves_with_path(params))
    assert conditioned == OBJECTIVES[objective].self_conditioned


def test_an_utterance_passes_the_encoder_as_often_as_the_objective_says(monkeypatch):
    masked = []

    def keep(key, features, frames, policy):
        masked.append(features.shape)
        return features

    monkeypatch.setattr(systems, "spec_augment", keep)
    made = digit_material("fsdd", "cid", None, None)
    for objective, expected in (("ctc", []), ("consistency_ctc", [(8, *batch_shape(made))])):
        workload = build(System("fsdd", "separable_conv", objective, "cid"), made)
        jax.eval_shape(workload.loss, *shapes(workload), jax.random.key(0))
        assert masked == expected


def batch_shape(made):
    return made.train["features"].shape[1:]


def test_a_prediction_between_layers_needs_layers(monkeypatch):
    one = {"bilstm": lambda classes: BiLSTMEncoder(classes, layers=1)}
    monkeypatch.setattr(systems, "ENCODERS", one)
    with pytest.raises(ConfigError, match="two layers or more; bilstm has 1"):
        make_encoder("bilstm", "intermediate_ctc", 11)
    assert make_encoder("bilstm", "ctc", 11).layers == 1
