"""The speech comparison, small: no speaker leaks, resumable to the bit, examples for the report."""

import dataclasses
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from compilation import compiled_in_haste

from experiments import compare_ctc
from experiments.command_line import Options
from experiments.compare_ctc import Config, make_folds
from research import checkpoint
from research.data.digit_strings import StringConfig
from research.data.spoken_digits import load_spoken_digits
from research.errors import ConfigError, DataError
from research.runlog import read_run

TINY = Config(
    encoders=("bilstm",),
    steps=6,
    batch_size=4,
    max_seconds=1.0,
    strings=StringConfig(max_digits=3, gap_seconds=(0.0, 0.1), edge_seconds=(0.0, 0.1)),
    evaluate_every=2,
    validation_strings=4,
    test_strings=8,
)


def run(out, data_dir, config=TINY, **options):
    report = compare_ctc.run("quick", config, Options(out=out, data_dir=data_dir, **options))
    return report.parent


@pytest.fixture(scope="module", autouse=True)
def in_haste():
    """Trainings of six steps take longer to compile than to run."""
    with compiled_in_haste():
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tone_digits):
    return run(tmp_path_factory.mktemp("runs"), tone_digits)


def test_the_records_hold_what_was_asked(finished):
    records = read_run(finished)
    (trial,) = records.trials
    assert trial["settings"] == {
        "encoder": "bilstm",
        "test_speaker": "carl",
        "parameters": trial["settings"]["parameters"],
        "seed": 1,
    }
    assert trial["settings"]["parameters"] > 1000
    counts = np.array(trial["result"]["utterance_errors"])
    assert counts.shape == (8, 4)
    assert trial["result"]["label_error_rate"] == pytest.approx(
        counts[:, :3].sum() / counts[:, 3].sum()
    )
    assert [m["step"] for m in records.metrics] == [2, 4, 6]
    assert "fsdd" in records.data["name"]
    assert (finished / "report.html").is_file()


def test_examples_fit_together(finished):
    records = read_run(finished)
    arrays = records.examples(records.trials[0]["trial"])
    seconds = len(arrays["waveform_0"]) / arrays["sample_rate"]
    assert len(arrays["log_mel_0"]) * arrays["hop_seconds"] == pytest.approx(seconds, abs=0.05)
    posteriors = arrays["log_posteriors_0"]
    assert len(posteriors) * arrays["frame_seconds"] == pytest.approx(seconds, abs=0.08)
    np.testing.assert_allclose(np.exp(posteriors).sum(axis=1), 1.0, rtol=1e-5)
    path = arrays["alignment_0"]
    collapsed = [k for k, before in zip(path, (-1, *path), strict=False) if k not in (before, 0)]
    assert collapsed == arrays["labels_0"].tolist()


def test_logits_of_every_encoder_are_equally_far_apart(tone_digits):
    recordings = load_spoken_digits("fsdd", tone_digits)
    (fold,) = make_folds(recordings, ())
    batch = compare_ctc.make_strings(recordings, fold.split.train, TINY, stream=1, step=0, size=2)
    shapes, seconds = set(), set()
    for name in compare_ctc.ENCODERS:
        encoder, front_end = compare_ctc.make_encoder(name)
        recogniser = compare_ctc.make_encoder_recogniser(encoder, front_end, TINY)
        params = jax.eval_shape(recogniser.init, jax.random.key(0), batch).params
        output = jax.eval_shape(recogniser.evaluate, params, batch)
        shapes.add(output.logits.shape)
        seconds.add(recogniser.frame_seconds)
    assert len(shapes) == len(seconds) == 1
    assert seconds.pop() == pytest.approx(0.04)


def test_resumed_from_a_checkpoint_it_ends_with_the_same_bits(
    finished, tmp_path, tone_digits, monkeypatch
):
    saves = []
    original = checkpoint.save

    def interrupted(*args):
        original(*args)
        saves.append(int(args[1].step))
        if len(saves) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, tone_digits)
    again = run(tmp_path, tone_digits)
    assert saves == [2, 4, 6]
    assert again.name == finished.name
    for name in ("table.csv", "table.json"):
        assert (again / name).read_bytes() == (finished / name).read_bytes()
    assert read_run(again).metrics == read_run(finished).metrics
    assert read_run(again).trials == read_run(finished).trials


def test_each_speaker_is_held_out_in_turn(tone_digits):
    recordings = load_spoken_digits("fsdd", tone_digits)
    folds = make_folds(recordings, ("each",))
    assert [fold.name for fold in folds] == ["anna", "bert", "carl"]
    for fold in folds:
        heard = {recordings.speakers[i] for i in (*fold.split.train, *fold.split.validation)}
        tested = {recordings.speakers[i] for i in fold.split.test}
        assert tested == {fold.name}
        assert fold.name not in heard
        assert not set(fold.split.train) & set(fold.split.validation)


def test_a_diverged_training_is_recorded_and_the_next_goes_on(tmp_path, tone_digits, monkeypatch):
    original = compare_ctc.fit
    starts = []

    def spoilt_first(step, state, batches, **options):
        starts.append(state)
        if len(starts) == 1:
            nan = jax.tree.map(lambda leaf: leaf * np.nan, state.params)
            state = state._replace(params=nan)
        return original(step, state, batches, **options)

    monkeypatch.setattr(compare_ctc, "fit", spoilt_first)
    records = read_run(run(tmp_path, tone_digits, dataclasses.replace(TINY, seeds=(1, 2))))
    assert [trial["status"] for trial in records.trials] == ["diverged", "finished"]
    assert records.trials[0]["result"] == {"diverged_at": 1, "steps": 6}


def test_any_number_of_strings_can_be_tested(tmp_path, tone_digits):
    config = dataclasses.replace(TINY, test_strings=3, validation_strings=5)
    records = read_run(run(tmp_path, tone_digits, config))
    assert len(records.trials[0]["result"]["utterance_errors"]) == 3
    assert "labels_2" in records.examples(records.trials[0]["trial"])


def test_unknown_speakers_and_missing_data_are_named(tmp_path, tone_digits):
    with pytest.raises(DataError, match="zoe"):
        run(tmp_path, tone_digits, dataclasses.replace(TINY, test_speakers=("zoe",)))
    with pytest.raises(DataError, match="fetch fsdd"):
        run(tmp_path, tmp_path, dataclasses.replace(TINY, data="fsdd"))
    with pytest.raises(ConfigError, match="at the parameters that it trains"):
        dataclasses.replace(TINY, optimizer="schedule_free_adamw")
    with pytest.raises(ConfigError, match=r"near 1 for dog, .* received 0\.003"):
        dataclasses.replace(TINY, optimizer="dog", learning_rate=3e-3)
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        dataclasses.replace(TINY, steps=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_five_times_in_mid_training_it_ends_with_the_same_table(tmp_path, tone_digits):
    command = [sys.executable, "-m", "experiments.compare_ctc", "quick", "--data-dir"]
    command += [str(tone_digits), "--encoders", "bilstm", "--steps", "24", "--batch-size", "4"]
    command += ["--max-seconds", "1.0", "--max-digits", "3", "--evaluate-every", "2"]
    command += ["--validation-strings", "4", "--test-strings", "8", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    rng = random.Random(0)
    for evaluations in (1, 3, 4, 7, 9):
        process = subprocess.Popen(
            [*command, str(tmp_path / "killed")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while len(evaluated(tmp_path / "killed")) < evaluations:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        assert process.wait() == -signal.SIGKILL
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    (whole,) = tmp_path.glob("whole/compare_ctc/quick-*/table.csv")
    (killed,) = tmp_path.glob("killed/compare_ctc/quick-*/table.csv")
    assert killed.read_bytes() == whole.read_bytes()
    assert read_run(killed.parent).metrics == read_run(whole.parent).metrics
    # From a checkpoint each time: at most one evaluation is made again after a kill.
    assert len(evaluated(tmp_path / "killed")) <= 12 + 5


def evaluated(root):
    paths = list(root.glob("compare_ctc/quick-*/metrics.jsonl"))
    return paths[0].read_text().splitlines() if paths else []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_mid_training_it_leaves_with_a_message(tmp_path, tone_digits, number):
    command = [sys.executable, "-m", "experiments.compare_ctc", "quick", "--steps", "100000"]
    command += ["--data-dir", str(tone_digits), "--out", str(tmp_path), "--encoders", "bilstm"]
    command += ["--batch-size", "4", "--max-seconds", "1.0", "--max-digits", "3"]
    command += ["--evaluate-every", "2", "--validation-strings", "4"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not evaluated(tmp_path):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "The same command goes on" in errors


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_quick_recipe_learns_voices_it_never_heard(tmp_path):
    pytest.importorskip("espeakng_loader", reason="needs the [synthesis] extra")
    config = dataclasses.replace(
        compare_ctc.RECIPES["quick"].config, data="espeak", encoders=("conv_attention",)
    )
    (trial,) = read_run(run(tmp_path / "runs", tmp_path / "data", config)).trials
    assert trial["result"]["label_error_rate"] <= 0.15
