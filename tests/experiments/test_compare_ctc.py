"""The speech comparison, small: no speaker leaks, resumable to the bit, examples for the report."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

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


def test_a_diverged_encoder_is_recorded_and_the_other_goes_on(tmp_path, tone_digits):
    config = dataclasses.replace(TINY, learning_rate=1e38, optimizer="sgd", schedule="constant")
    records = read_run(run(tmp_path, tone_digits, config))
    assert [trial["status"] for trial in records.trials] == ["diverged"]


def test_unknown_speakers_and_missing_data_are_named(tmp_path, tone_digits):
    with pytest.raises(DataError, match="zoe"):
        run(tmp_path, tone_digits, dataclasses.replace(TINY, test_speakers=("zoe",)))
    with pytest.raises(DataError, match="fetch fsdd"):
        run(tmp_path, tmp_path, dataclasses.replace(TINY, data="fsdd"))
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        dataclasses.replace(TINY, steps=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_five_times_at_random_moments_it_ends_with_the_same_table(
    finished, tmp_path, tone_digits
):
    command = [sys.executable, "-m", "experiments.compare_ctc", "quick"]
    command += ["--encoders", "bilstm", "--steps", "6", "--batch-size", "4", "--max-seconds", "1.0"]
    command += ["--max-digits", "3", "--gap-seconds", "0.0", "0.1"]
    command += ["--edge-seconds", "0.0", "0.1", "--evaluate-every", "2"]
    command += ["--validation-strings", "4", "--test-strings", "8"]
    command += ["--out", str(tmp_path), "--data-dir", str(tone_digits)]
    started = time.monotonic()
    subprocess.run([*command, "--fresh"], check=True, capture_output=True)
    whole = time.monotonic() - started
    reference = next(tmp_path.glob("compare_ctc/quick-*/table.csv")).read_bytes()
    rng = random.Random(0)
    for attempt in range(5):
        process = subprocess.Popen(
            command + (["--fresh"] if attempt == 0 else []),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0.2, 0.9) * whole)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    path = next(p for p in tmp_path.glob("compare_ctc/quick-*") if "old" not in p.name)
    assert (path / "table.csv").read_bytes() == reference
    assert path.name == finished.name
