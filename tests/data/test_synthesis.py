import importlib.util
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from research.data import synthesis
from research.data.spoken_digits import default_speakers, split_speakers
from research.data.synthesis import load_synthetic_digits, trim_silence
from research.errors import DataError

# A breathy voice is among them: its noise is what differs when a seed is missing.
VOICES = ("en-gb+f2", "en-us+m3")
needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="needs the extra [synthesis]"
)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spoken")
    return folder, load_synthetic_digits(folder, voices=VOICES, takes=1)


@needs_espeak
def test_every_voice_speaks_every_digit(spoken):
    _, recordings = spoken
    assert len(recordings) == 20
    assert recordings.speakers == (VOICES[0],) * 10 + (VOICES[1],) * 10
    assert recordings.digits.tolist() == list(range(10)) * 2
    assert recordings.takes.tolist() == [0] * 20
    assert recordings.name == "espeak"
    assert recordings.source.startswith("synthetic speech (espeak-ng 1.")
    assert len({clip.tobytes() for clip in recordings.clips}) == 20
    seconds = recordings.sizes / recordings.sample_rate
    assert seconds.min() > 0.2
    assert seconds.max() < 0.9


@needs_espeak
def test_the_bits_do_not_depend_on_the_run_nor_on_the_other_voices(spoken, tmp_path):
    _, recordings = spoken
    again = load_synthetic_digits(tmp_path, voices=VOICES[::-1], takes=1)
    for i, clip in enumerate(recordings.clips):
        np.testing.assert_array_equal(clip, again.clips[(i + 10) % 20])


@needs_espeak
def test_a_cached_file_needs_no_synthesiser(spoken, monkeypatch):
    folder, recordings = spoken
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(synthesis, "_make", lambda *arguments: pytest.fail("spoke again"))
    again = load_synthetic_digits(folder, voices=VOICES, takes=1)
    assert again.sha256 == recordings.sha256
    assert [path.name for path in folder.iterdir()] == [next(folder.glob("digits-v1-*.npz")).name]


@needs_espeak
@pytest.mark.parametrize("damage", ["truncated", "text", "flipped", "empty", "other settings"])
def test_a_damaged_cache_is_made_anew_with_a_message(tmp_path, caplog, damage):
    voices = VOICES[1:]
    recordings = load_synthetic_digits(tmp_path, voices=voices, takes=1)
    path = next(tmp_path.glob("*.npz"))
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("no archive")
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        with np.load(path) as file:
            arrays = {name: file[name].copy() for name in file.files}
        if damage == "flipped":
            arrays["samples"][100] ^= 1
        else:
            arrays["settings"] = np.array("0")
        np.savez(path, **arrays)
    with caplog.at_level(logging.WARNING):
        again = load_synthetic_digits(tmp_path, voices=voices, takes=1)
    assert "speaking the digits anew" in caplog.text
    assert again.sha256 == recordings.sha256
    assert path.stat().st_size == len(content)


def test_without_the_wheel_the_error_names_both_ways_out(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError) as caught:
        load_synthetic_digits(tmp_path)
    assert "pip install 'trellis-lab[synthesis]'" in str(caught.value)
    assert "python -m research.data fetch fsdd" in str(caught.value)


@needs_espeak
@pytest.mark.parametrize("voice", ["en-gb+nobody", "de+m3", "m3", "en-gb+"])
def test_an_unknown_voice_is_an_error_and_leaves_nothing_behind(tmp_path, voice):
    with pytest.raises(DataError, match=r"accent\+variant"):
        load_synthetic_digits(tmp_path, voices=(voice,), takes=1)
    assert list(tmp_path.iterdir()) == []


@needs_espeak
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="must be writable"):
        load_synthetic_digits(tmp_path / "file", voices=VOICES, takes=1)


def test_a_failing_helper_is_an_error_with_its_last_line(tmp_path, monkeypatch):
    def run(*arguments, **options):
        return subprocess.CompletedProcess(arguments, 3, "", "a long story\nno library")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(DataError, match="ended with 3: no library"):
        load_synthetic_digits(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_helper_does_not_import_jax():
    code = "import sys, research.data.synthesis; sys.exit('jax' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_no_voice_is_in_two_lists():
    lists = (synthesis.TRAINING_VOICES, synthesis.VALIDATION_VOICES, synthesis.TEST_VOICES)
    assert [len(voices) for voices in lists] == [40, 6, 10]
    variants = [voice.split("+")[1] for voices in lists for voice in voices]
    assert len(set(variants)) == 56
    assert len({voice.split("+")[0] for voice in synthesis.TRAINING_VOICES}) == 8


def test_trimming_keeps_pauses_inside():
    word = np.r_[np.ones(160), np.zeros(400), np.ones(160)]
    quiet = 0.001 * np.ones(800)
    np.testing.assert_array_equal(trim_silence(np.r_[quiet, word, quiet], 8000), word)
    np.testing.assert_array_equal(trim_silence(word, 8000), word)
    assert trim_silence(np.zeros(1000), 8000).size == 1000
    assert trim_silence(np.ones(20), 8000).size == 20


def envelope(clip: np.ndarray) -> np.ndarray:
    """What a clip sounds like: cepstra at eight points in time."""
    count = 1 + (len(clip) - 200) // 80
    frames = np.stack([clip[80 * i : 80 * i + 200] for i in range(count)]) * np.hanning(200)
    power = np.abs(np.fft.rfft(frames, 256)[:, 1:]) ** 2
    bands = np.log(power.reshape(count, 32, 4).sum(axis=2) + 1e-4)
    at = np.linspace(0, count - 1, 8)
    return np.stack([np.interp(at, np.arange(count), band) for band in bands.T])


@needs_espeak
@pytest.mark.slow
def test_all_voices_are_spoken_and_the_test_voices_are_unlike_the_others(spoken, tmp_path):
    recordings = load_synthetic_digits(tmp_path)
    assert len(recordings) == 56 * 10 * synthesis.TAKES
    split = split_speakers(recordings, *default_speakers(recordings))
    assert [len(part) for part in split] == [1600, 240, 400]
    seconds = recordings.sizes / recordings.sample_rate
    assert np.percentile(seconds, 1) > 0.2
    assert np.percentile(seconds, 99) < 0.9
    assert len({clip.tobytes() for clip in recordings.clips}) > 0.99 * len(recordings)

    # Distance of two voices: between their closest takes, over the ten digits. Two takes of one
    # voice are nearer to each other than a test voice is to any training voice.
    shapes = np.stack([envelope(clip) for clip in recordings.clips])
    shapes = shapes.reshape(56, 10, synthesis.TAKES, -1)
    position = {voice: i for i, voice in enumerate(synthesis.ALL_VOICES)}
    distances = np.full((56, 56), np.inf)
    for i, voice in enumerate(shapes):
        for j, other in enumerate(shapes):
            pairs = np.sqrt(((voice[:, :, None] - other[:, None]) ** 2).mean(axis=-1))
            if i == j:
                pairs += np.where(np.eye(synthesis.TAKES, dtype=bool), np.inf, 0.0)
            distances[i, j] = pairs.min(axis=(1, 2)).mean()
    test = [position[voice] for voice in synthesis.TEST_VOICES]
    train = [position[voice] for voice in synthesis.TRAINING_VOICES]
    within = distances.diagonal()[test]
    across = distances[np.ix_(test, train)].min(axis=1)
    assert (across > within).all()
