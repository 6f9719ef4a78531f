import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from research.data.digit_recordings import CLIP_RMS
from research.data.fsdd import RESERVED_SPEAKERS, load_fsdd, recordings_folder
from research.errors import DataError


def write(data_dir: Path, name: str, samples: np.ndarray | None = None, rate: int = 8000) -> Path:
    folder = recordings_folder(data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if samples is None:
        seed = sum(name.encode())
        samples = np.random.default_rng(seed).normal(0, 0.01 + (seed % 16) / 100, 200)
    soundfile.write(folder / name, np.clip(samples, -1, 1), rate, subtype="PCM_16")
    return folder / name


def write_two_speakers(data_dir: Path) -> None:
    for speaker in ("zoe", "ann"):
        for digit in (1, 0):
            for take in (10, 2):
                write(data_dir, f"{digit}_{speaker}_{take}.wav")


def test_recordings_are_read_in_a_fixed_order_with_their_labels(tmp_path):
    write_two_speakers(tmp_path)
    recordings = load_fsdd(tmp_path)
    assert recordings.speakers == ("ann",) * 4 + ("zoe",) * 4
    assert recordings.digits.tolist() == [0, 0, 1, 1] * 2
    assert recordings.takes.tolist() == [2, 10] * 4
    assert recordings.sample_rate == 8000
    assert recordings.name == "fsdd"
    assert "8 recordings by 2 speakers (ann, zoe)" in recordings.source
    expected, _ = soundfile.read(recordings_folder(tmp_path) / "1_ann_10.wav")
    correlation = np.corrcoef(expected, recordings.clips[3])[0, 1]
    assert correlation == pytest.approx(1.0)


def test_levels_are_made_equal(tmp_path):
    write_two_speakers(tmp_path)
    for clip in load_fsdd(tmp_path).clips:
        assert clip.dtype == np.float32
        assert abs(clip.mean()) < 1e-6
        assert np.sqrt(np.mean(clip**2)) == pytest.approx(CLIP_RMS, rel=1e-4)


def test_the_fingerprint_follows_the_audio_and_the_labels(tmp_path):
    write_two_speakers(tmp_path)
    first = load_fsdd(tmp_path).sha256
    assert load_fsdd(tmp_path).sha256 == first
    path = recordings_folder(tmp_path) / "1_ann_10.wav"
    samples, _ = soundfile.read(path)
    louder = samples.copy()
    louder[7] += 2**-14
    write(tmp_path, path.name, louder)
    changed = load_fsdd(tmp_path).sha256
    write(tmp_path, path.name, samples)
    assert load_fsdd(tmp_path).sha256 == first != changed
    path.rename(path.with_name("3_ann_10.wav"))
    assert load_fsdd(tmp_path).sha256 != first


def test_reserved_speakers_are_left_out_unless_asked_for(tmp_path):
    assert RESERVED_SPEAKERS == ("lucas",)
    write(tmp_path, "0_ann_0.wav")
    path = write(tmp_path, "0_lucas_0.wav")
    path.write_bytes(b"not even read")
    assert load_fsdd(tmp_path).speakers == ("ann",)
    write(tmp_path, "0_lucas_0.wav")
    assert load_fsdd(tmp_path, include_reserved=True).speakers == ("ann", "lucas")


def test_what_file_managers_leave_behind_is_ignored(tmp_path):
    write(tmp_path, "0_ann_0.wav")
    folder = recordings_folder(tmp_path)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "._0_ann_0.wav").write_bytes(b"x")
    (folder / "README.md").write_text("x")
    assert len(load_fsdd(tmp_path)) == 1


@pytest.mark.parametrize(
    "name", ["10_ann_0.wav", "x_ann_0.wav", "0_ann.wav", "0_ann_x.wav", "ann_0_0.wav", "0__0.wav"]
)
def test_a_recording_with_an_odd_name_is_an_error(tmp_path, name):
    write(tmp_path, "0_ann_0.wav")
    write(tmp_path, name)
    with pytest.raises(DataError, match=r"digit}_{speaker}_{index}.*fetch fsdd"):
        load_fsdd(tmp_path)


def test_missing_recordings_are_an_error_that_says_how_to_fetch_them(tmp_path):
    with pytest.raises(DataError, match=rf"no such folder.*fetch fsdd --data-dir {tmp_path}"):
        load_fsdd(tmp_path)
    recordings_folder(tmp_path).mkdir(parents=True)
    with pytest.raises(DataError, match=r"there are none.*research\.data fetch fsdd"):
        load_fsdd(tmp_path)
    write(tmp_path, "0_lucas_0.wav")
    with pytest.raises(DataError, match="there are none"):
        load_fsdd(tmp_path)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.full((80, 2), 0.1), 8000, "mono"),
        (np.full(80, 0.1), 16_000, "8000 Hz"),
        (np.zeros(0), 8000, "at least one sample"),
        (np.zeros(80), 8000, "silent"),
    ],
)
def test_unusable_recordings_are_errors(tmp_path, samples, rate, message):
    write(tmp_path, "0_ann_0.wav")
    write(tmp_path, "7_ann_3.wav", samples, rate)
    with pytest.raises(DataError, match=message):
        load_fsdd(tmp_path)


def test_a_truncated_recording_is_an_error(tmp_path):
    path = write(tmp_path, "0_ann_0.wav")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"0_ann_0.*truncated.*fetch fsdd"):
        load_fsdd(tmp_path)


@pytest.mark.data
def test_the_published_recordings_load_whole():
    recordings = load_fsdd(os.environ["TRELLIS_DATA"])
    assert len(recordings) == 2500
    assert recordings.speaker_names == ("george", "jackson", "nicolas", "theo", "yweweler")
    table = np.zeros((5, 10, 50), int)
    np.add.at(table, (recordings.speaker_ids, recordings.digits, recordings.takes), 1)
    assert (table == 1).all()
    seconds = recordings.sizes / recordings.sample_rate
    assert seconds.min() == pytest.approx(0.1435)
    assert seconds.max() == pytest.approx(2.28275)
