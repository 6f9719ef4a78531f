"""The full-size recipe, on files in its layout: first steps, stopping, resuming, bad input."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste
from tone_corpus import (
    COMMON_VOICE_PARTS,
    PARTS,
    write_common_voice,
    write_librispeech,
    write_part,
)

from experiments import train_ctc
from experiments.ctc_recogniser import Config, load_parts, make_training
from experiments.train_ctc import RECIPES, TrainOptions
from research import checkpoint, mesh
from research.data.digit_strings import StringBatch
from research.errors import ConfigError, DataError, RunError
from research.objectives.registry import OBJECTIVES
from research.report import render
from research.runlog import read_run

FULL = RECIPES["librispeech_100"].config
# The recipe itself but for its size: two blocks, a few labels, seconds instead of minutes.
SMALL: dict[str, Any] = {
    "tokeniser": "characters",
    "width": 16,
    "layers": 2,
    "heads": 2,
    "taps": 3,
    "precision": "float32",
    "seconds": (0.5, 1.1),
    "batch_seconds": 4.0,
    "buckets": 1,
    "steps": 4,
    "evaluate_every": 2,
    "beam_width": 4,
    "ngram_weights": (0.4,),
    "ngram_bonuses": (),
}
TINY = dataclasses.replace(FULL, **SMALL)


@pytest.fixture(scope="module", autouse=True)
def in_haste():
    with compiled_in_haste():
        yield


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    return write_librispeech(tmp_path_factory.mktemp("data"))


def run(
    out: Path, data_dir: Path, config: Config = TINY, recipe: str = "librispeech_100", **options
) -> Path:
    chosen = TrainOptions(out=out, data_dir=data_dir, readers=1, **options)
    report = train_ctc.run(recipe, config, chosen)
    assert report is not None
    return report.parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory, speech):
    return run(tmp_path_factory.mktemp("runs"), speech)


def test_the_recipe_trains_and_tests_on_librispeechs_layout(finished):
    records = read_run(finished)
    (trial,) = records.trials
    assert trial["status"] == "finished"
    assert [m["step"] for m in records.metrics] == [2, 4]
    assert {"dev-clean_word_error_rate", "dev-other_character_error_rate"} <= {*records.metrics[0]}
    assert {*trial["result"]["parts"]} == {"test-clean", "test-other"}
    for part, measured in trial["result"]["parts"].items():
        assert {*measured["errors"]} == {"greedy", "beam", "beam_ngram"}
        for units in measured["errors"].values():
            # Every utterance once, two words in each; letters and the space between.
            assert units["words"]["labels"] == [2] * PARTS[part]
            said = [len(entry["said"]) for entry in measured["transcripts"]]
            assert units["characters"]["labels"] == said
    assert trial["settings"]["parameters"] > 1000
    assert (finished / "report.html").is_file()
    assert len(list((finished / "checkpoints" / "conformer").glob("sha256-*.json"))) == 2


def test_the_recipe_of_common_voice_trains_and_tests_on_its_layout(tmp_path):
    data_dir = write_common_voice(tmp_path / "data", "eo")
    config = dataclasses.replace(RECIPES["common_voice"].config, **SMALL, language="eo")
    records = read_run(run(tmp_path / "runs", data_dir, config, "common_voice"))
    (trial,) = records.trials
    assert trial["status"] == "finished"
    assert "dev_word_error_rate" in records.metrics[0]
    measured = trial["result"]["parts"]["test"]
    assert measured["errors"]["greedy"]["words"]["labels"] == [2] * COMMON_VOICE_PARTS["test"]
    # Published with capitals and points, at 32 kHz; said here without, at the front end's rate.
    said = [entry["said"] for entry in measured["transcripts"]]
    assert all({*text} <= {*"abcd "} for text in said)


def test_stopped_and_started_again_it_ends_with_the_same_bits(
    finished, tmp_path, speech, monkeypatch
):
    original, saves = checkpoint.save, []

    def interrupted(*args):
        original(*args)
        saves.append(int(args[1].step))
        if len(saves) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, speech)
    again = run(tmp_path, speech)
    assert saves == [2, 4]
    assert again.name == finished.name
    assert read_run(again).metrics == read_run(finished).metrics
    assert read_run(again).trials == read_run(finished).trials
    sums = [
        json.loads((path / "checkpoints/conformer/sha256-4.json").read_text())["arrays"]
        for path in (again, finished)
    ]
    assert sums[0] == sums[1]
    for one, other in zip(*map(parameters, (again, finished)), strict=True):
        np.testing.assert_array_equal(one, other)


def parameters(path: Path) -> list[np.ndarray]:
    """Of the last checkpoint."""
    batch = StringBatch(
        np.zeros((1, 8000), np.float32),
        np.array([8000], np.int32),
        np.array([[1]], np.int32),
        np.zeros((1, 1), np.float32),
    )
    recogniser, *_ = make_training(TINY, 7)
    like = recogniser.init(jax.random.key(0), batch)
    found = checkpoint.restore_latest(path / "checkpoints/conformer", like, jax.random.key(0))
    assert found is not None
    assert int(found[0].step) == TINY.steps
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found[0].params)]


def test_a_tokeniser_that_is_not_the_checkpoints_is_refused(finished, tmp_path, speech):
    shutil.copytree(finished.parent, tmp_path / "train_ctc")
    copy = tmp_path / "train_ctc" / finished.name
    (copy / "trials" / "conformer.json").unlink()
    saved = json.loads((copy / "tokeniser.json").read_text())
    saved["characters"] = saved["characters"][::-1]
    (copy / "tokeniser.json").write_text(json.dumps(saved))
    with pytest.raises(RunError, match=r"tokeniser\.json must be the tokeniser .* has 7 ids"):
        run(tmp_path, speech)
    (copy / "tokeniser.json").unlink()
    with pytest.raises(RunError, match="it is gone"):
        run(tmp_path, speech)


def test_a_part_that_is_not_there_is_named(tmp_path, speech):
    shutil.copytree(speech, tmp_path / "data")
    shutil.rmtree(tmp_path / "data/LibriSpeech/dev-other")
    with pytest.raises(DataError, match=r"dev-other must lie in .*fetch it with"):
        run(tmp_path, tmp_path / "data")


def test_an_empty_transcript_is_named(tmp_path, speech):
    shutil.copytree(speech, tmp_path / "data")
    path = tmp_path / "data/LibriSpeech/train-clean-100/10/1/10-1.trans.txt"
    path.write_text(path.read_text().replace("10-1-0003 ", "10-1-0003 \n10-1-0003 ", 1))
    with pytest.raises(DataError, match="10-1-0003"):
        run(tmp_path, tmp_path / "data")


def test_another_rate_is_refused_unless_asked_for(tmp_path, speech):
    shutil.copytree(speech, tmp_path / "data")
    shutil.rmtree(tmp_path / "data/LibriSpeech/test-other")
    write_part(tmp_path / "data/LibriSpeech/test-other", 3, 99, rate=8000)
    message = r"sampled at 16000 Hz, but 3 of the 3 files of test-other .* 8000 Hz.*--resample"
    with pytest.raises(DataError, match=message):
        load_parts(TINY, tmp_path / "data")
    anyway = dataclasses.replace(TINY, resample=True)
    assert len(load_parts(anyway, tmp_path / "data").test["test-other"]) == 3


def test_only_training_utterances_of_the_length_asked_for_are_kept(speech):
    parts = load_parts(dataclasses.replace(TINY, seconds=(0.5, 0.8)), speech)
    assert 0 < len(parts.train) < PARTS["train-clean-100"]
    assert parts.train.seconds.max() <= 0.8
    assert f"trained on {len(parts.train)} of 0.5 to 0.8 s" in parts.train.source
    assert {name: len(part) for name, part in parts.test.items()} == {
        "test-clean": PARTS["test-clean"],
        "test-other": PARTS["test-other"],
    }
    with pytest.raises(DataError, match="must hold an utterance of 50 to 60 s"):
        load_parts(dataclasses.replace(TINY, seconds=(50.0, 60.0)), speech)


def test_no_readers_are_refused_before_anything_is_written(tmp_path, speech):
    options = TrainOptions(out=tmp_path / "runs", data_dir=speech, readers=0)
    with pytest.raises(ConfigError, match="--readers must be at least 1; received 0"):
        train_ctc.run("librispeech_100", TINY, options)
    assert not (tmp_path / "runs").exists()


def batch_of(rows: int, seconds: float, labels: int):
    samples = round(16_000 * seconds)
    shapes = (rows, samples), (rows,), (rows, labels), (rows, labels)
    kinds: Any = map(jax.ShapeDtypeStruct, shapes, ("f4", "i4", "i4", "f4"))
    return StringBatch(*kinds)


def test_a_step_of_full_size_has_the_right_shapes():
    recogniser, *_ = make_training(FULL, 257)
    batch, key = batch_of(35, 17.0, 90), jax.random.key(0)
    state = jax.eval_shape(recogniser.init, key, batch)
    after, metrics = jax.eval_shape(recogniser.step, state, batch, key)
    same = jax.tree.map(lambda one, other: one.shape == other.shape, state, after)
    assert all(jax.tree.leaves(same))
    assert {leaf.dtype for leaf in jax.tree.leaves(after.params)} == {jnp.dtype("float32")}
    assert metrics["loss"].shape == ()
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert 26e6 < size < 31e6  # Conformer (M) has 30.7 million, those of its decoder among them


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_has_a_step(objective):
    between = (1,) if OBJECTIVES[objective].intermediate else ()
    config = dataclasses.replace(
        TINY, objective=objective, intermediate=between, precision="bfloat16"
    )
    recogniser, *_ = make_training(config, 7)
    batch, key = batch_of(2, 1.0, 8), jax.random.key(0)
    state = jax.eval_shape(recogniser.init, key, batch)
    _, metrics = jax.eval_shape(recogniser.step, state, batch, key)
    assert metrics["loss"].shape == ()


def test_a_diverged_training_is_recorded(tmp_path, speech, monkeypatch):
    original = train_ctc.fit

    def spoilt(step, state, batches, **options):
        nan = jax.tree.map(lambda leaf: leaf * np.nan, state.params)
        return original(step, state._replace(params=nan), batches, **options)

    monkeypatch.setattr(train_ctc, "fit", spoilt)
    records = read_run(run(tmp_path, speech))
    (trial,) = records.trials
    assert (trial["status"], trial["result"]["diverged_at"]) == ("diverged", 1)
    assert "diverged at step 1" in render(records).body


@pytest.mark.parametrize("fitting", [0, 2])
def test_texts_that_fit_no_audio_are_counted_and_give_no_loss(
    tmp_path, speech, monkeypatch, fitting
):
    original = train_ctc.hear

    def misheard(*args):
        for batch in original(*args):
            few = np.where(batch.indices < fitting, 1.5, np.inf)
            losses = np.pad(few, (0, len(batch.losses) - len(few)), mode="edge")
            yield batch._replace(losses=losses)

    monkeypatch.setattr(train_ctc, "hear", misheard)
    path = run(tmp_path, speech, dataclasses.replace(TINY, steps=2))
    (evaluation,) = read_run(path).metrics
    assert evaluation["validation_texts_too_long"] == 8 - fitting
    assert evaluation.get("validation_loss") == (1.5 if fitting else None)
    assert (path / "report.html").is_file()


def test_the_report_has_the_errors_and_what_was_written(finished):
    report = render(read_run(finished))
    rows = report.tables["table"]
    assert len(rows) == 2 * 3 * 2
    for row in rows:
        edits = row["substitutions"] + row["deletions"] + row["insertions"]
        assert row["error_rate"] == pytest.approx(edits / row["said"])
    assert {figure.name for figure in report.figures} == {"training_curves", "alignment"}
    said = read_run(finished).trials[0]["result"]["parts"]["test-clean"]["transcripts"][0]["said"]
    assert said in report.body


def test_a_damaged_record_is_an_error_of_the_report(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "run")
    path = copy / "trials" / "conformer.json"
    trial = json.loads(path.read_text())
    trial["result"]["parts"]["test-clean"]["errors"]["beam"]["words"]["labels"].pop()
    path.write_text(json.dumps(trial))
    with pytest.raises(RunError, match="test-clean, beam, words"):
        render(read_run(copy))


@pytest.mark.slow
def test_it_learns_the_language_of_tones(tmp_path):
    data = write_librispeech(tmp_path / "data", train=160)
    config = dataclasses.replace(
        TINY, width=32, augment=(), dropout=0.0, batch_seconds=16.0, steps=200, evaluate_every=50,
        learning_rate=5e-3,
    )  # fmt: skip
    (trial,) = read_run(run(tmp_path / "runs", data, config)).trials
    errors = trial["result"]["parts"]["test-clean"]["errors"]["greedy"]["characters"]
    edits = sum(sum(errors[kind]) for kind in ("substitutions", "deletions", "insertions"))
    assert edits / sum(errors["labels"]) < 0.1


def test_a_mesh_of_one_device_changes_nothing():
    batch = {"x": np.arange(4)}
    assert mesh.data_mesh(jax.devices()[:1]) is None
    assert mesh.split_rows(batch, None) is batch
    assert mesh.on_each(batch, None) is batch


@pytest.mark.slow
def test_two_devices_take_the_step_of_one():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "NPROC": "32"}
    script = Path(__file__).parent.parent / "support" / "data_parallel.py"
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "the same step on 2 devices" in done.stdout


@pytest.mark.slow
def test_killed_in_mid_training_it_ends_with_the_same_table(finished, tmp_path, speech):
    command = [sys.executable, "-m", "experiments.train_ctc", "librispeech_100", "--data-dir"]
    command += [str(speech), "--out", str(tmp_path), "--tokeniser", "characters", "--width", "16"]
    command += ["--layers", "2", "--heads", "2", "--taps", "3", "--precision", "float32"]
    command += ["--seconds", "0.5", "1.1", "--batch-seconds", "4.0", "--buckets", "1"]
    command += ["--steps", "4", "--evaluate-every", "2", "--beam-width", "4"]
    command += ["--ngram-weights", "0.4", "--ngram-bonuses"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("train_ctc/*/checkpoints/conformer/sha256-2.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    subprocess.run(command, check=True, capture_output=True)
    (killed,) = tmp_path.glob("train_ctc/librispeech_100-*/table.csv")
    assert killed.parent.name == finished.name
    assert killed.read_bytes() == (finished / "table.csv").read_bytes()
    assert read_run(killed.parent).metrics == read_run(finished).metrics
