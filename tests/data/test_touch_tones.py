"""The telephone's digits: each has the two frequencies of its key, whoever dials."""

import numpy as np
import pytest

from research.data.touch_tones import tone_pair, touch_tones
from research.errors import ConfigError

KEYPAD = ["123", "456", "789", " 0 "]
LOW, HIGH = (697, 770, 852, 941), (1209, 1336, 1477)


def nearest(hz, frequencies):
    return int(np.argmin([abs(hz - f) for f in frequencies]))


def dialled(clip, rate):
    """The key whose tones are loudest, by a Fourier transform of the clip."""
    spectrum = np.abs(np.fft.rfft(clip, n=8 * rate))
    hz = np.fft.rfftfreq(8 * rate, 1 / rate)
    low, high = (
        hz[inside][np.argmax(spectrum[inside])]
        for inside in ((hz > 600) & (hz < 1050), (hz > 1100) & (hz < 1600))
    )
    return KEYPAD[nearest(low, LOW)][nearest(high, HIGH)]


def test_every_recording_is_heard_as_the_key_it_says():
    recordings = touch_tones(diallers=3, takes=2)
    heard = [dialled(clip, recordings.sample_rate) for clip in recordings.clips]
    assert heard == [str(digit) for digit in recordings.digits]
    assert np.bincount(recordings.digits).tolist() == [6] * 10


def test_telephones_differ_and_the_seed_decides():
    one, again, other = (touch_tones(diallers=2, takes=1, seed=seed) for seed in (0, 0, 1))
    assert one.sha256 == again.sha256 != other.sha256
    assert one.sizes.min() >= 0.12 * 8000 - 1
    assert one.sizes.max() <= 0.35 * 8000 + 1
    assert len(set(one.sizes.tolist())) > 10


def test_level_of_the_higher_tone():
    spectrum = np.abs(np.fft.rfft(tone_pair(1, 8000, twist_decibels=6.0)))
    assert 20 * np.log10(spectrum[1209] / spectrum[697]) == pytest.approx(6.0, abs=0.01)


@pytest.mark.parametrize("arguments", [{"diallers": 0}, {"takes": 0}, {"seed": -1}])
def test_what_cannot_be(arguments):
    with pytest.raises(ConfigError, match="touch tones need"):
        touch_tones(**arguments)
    with pytest.raises(ConfigError, match="from 0 to 9"):
        tone_pair(10, 80)
