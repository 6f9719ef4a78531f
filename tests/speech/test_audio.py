import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from research.errors import DataError
from research.speech.audio import read_audio

RATE = 8000


def tone(samples: int = 400) -> np.ndarray:
    return 0.5 * np.sin(np.arange(samples) * 0.3)


@pytest.mark.parametrize(
    ("suffix", "subtype", "tolerance"),
    [
        ("wav", "PCM_16", 2**-15),
        ("wav", "PCM_24", 2**-23),
        ("wav", "FLOAT", 1e-7),
        ("wav", "PCM_U8", 2**-7),
        ("flac", "PCM_16", 2**-15),
    ],
)
def test_every_sample_format_gives_the_same_waveform(tmp_path, suffix, subtype, tolerance):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(), RATE, subtype=subtype)
    samples = read_audio(path, sample_rate=RATE)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, tone(), atol=1.01 * tolerance)


def test_a_path_may_be_a_string(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), RATE)
    assert read_audio(str(tmp_path / "a.wav"), sample_rate=RATE).shape == (400,)


def test_an_odd_extra_chunk_before_the_samples_is_skipped(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE, subtype="PCM_16")
    whole = path.read_bytes()
    at = whole.index(b"data")
    extra = b"junk" + (3).to_bytes(4, "little") + b"abc\0"
    size = (len(whole) + len(extra) - 8).to_bytes(4, "little")
    path.write_bytes(b"RIFF" + size + whole[8:at] + extra + whole[at:])
    assert read_audio(path, sample_rate=RATE).shape == (400,)


def test_every_proper_prefix_of_a_wav_file_is_an_error(tmp_path):
    whole = tmp_path / "whole.wav"
    soundfile.write(whole, tone(40), RATE, subtype="PCM_16")
    content = whole.read_bytes()
    cut = tmp_path / "cut.wav"
    for size in range(len(content)):
        cut.write_bytes(content[:size])
        with pytest.raises(DataError):
            read_audio(cut, sample_rate=RATE)


def test_a_truncated_flac_file_is_an_error(tmp_path):
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 20_000), RATE)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"a\.flac"):
        read_audio(path, sample_rate=RATE)


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros((40, 2)), RATE, "mono.*2 channels"),
        (np.zeros(40), 16_000, "8000 Hz.*16000 Hz"),
        (np.zeros(0), RATE, "at least one sample"),
        (np.array([0.0, np.nan, 0.0]), RATE, "finite.*sample 1"),
        (np.array([0.0, np.inf]), RATE, "finite"),
        (np.array([0.0, 1000.0]), RATE, r"\[-1, 1\].*1000"),
    ],
)
def test_unusable_audio_is_an_error_that_names_the_file(tmp_path, samples, rate, message):
    path = tmp_path / "odd.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    with pytest.raises(DataError, match=message) as caught:
        read_audio(path, sample_rate=RATE)
    assert str(path) in str(caught.value)


def test_what_is_not_audio_is_an_error(tmp_path):
    (tmp_path / "text.wav").write_text("this is not audio, however long it goes on" * 10)
    (tmp_path / "nothing.wav").write_bytes(b"")
    with pytest.raises(DataError, match="libsndfile"):
        read_audio(tmp_path / "text.wav", sample_rate=RATE)
    with pytest.raises(DataError, match="0 bytes"):
        read_audio(tmp_path / "nothing.wav", sample_rate=RATE)
    with pytest.raises(DataError, match="existing file"):
        read_audio(tmp_path / "absent.wav", sample_rate=RATE)
    with pytest.raises(DataError, match="existing file"):
        read_audio(tmp_path, sample_rate=RATE)


def test_audio_and_digits_do_not_import_jax():
    modules = "research.speech.audio, research.data.spoken_digits, research.data.digit_strings"
    code = f"import sys, {modules}; sys.exit('jax' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_a_file_too_short_for_the_lower_rate_is_refused(tmp_path):
    path = tmp_path / "blip.wav"
    soundfile.write(path, tone(1), 48_000)
    with pytest.raises(DataError, match="as long as a sample at 8000 Hz"):
        read_audio(path, sample_rate=RATE, resample=True)
