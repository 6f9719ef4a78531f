"""The ten digits as a telephone dials them: "speech" that needs neither a download nor espeak-ng.

Axis suffix: S samples.
"""

import numpy as np
from jaxtyping import Float

from research.data.digit_recordings import SAMPLE_RATE, DigitRecordings, make_recordings
from research.errors import ConfigError

NAME = "touch_tones"

_LOW_HZ = (697.0, 770.0, 852.0, 941.0)
_HIGH_HZ = (1209.0, 1336.0, 1477.0)
_KEYS = {1: (0, 0), 2: (0, 1), 3: (0, 2), 4: (1, 0), 5: (1, 1), 6: (1, 2), 7: (2, 0), 8: (2, 1)}
_KEYS |= {9: (2, 2), 0: (3, 1)}

_OFF_NOMINAL = 0.015  # of a dialler's frequencies, at most, in Q.24 the least a receiver must take
_SECONDS = (0.12, 0.35)
_TWIST_DECIBELS = (-4.0, 4.0)


def tone_pair(
    digit: int, samples: int, *, detuning: float = 0.0, twist_decibels: float = 0.0
) -> Float[np.ndarray, " S"]:
    """The two tones of a key, x[n] = (sin(2 pi f_low n / r) + g sin(2 pi f_high n / r)) / (1 + g).

    Args:
        digit: the key, 0 to 9.
        samples: how long, at r = 8000 samples per second.
        detuning: both frequencies are multiplied by 1 + this.
        twist_decibels: 20 log10 g, the level of the higher tone over that of the lower.

    Returns:
        A waveform in [-1, 1], float32.

    Raises:
        ConfigError: a digit outside of 0..9.

    Example:
        >>> spectrum = np.abs(np.fft.rfft(tone_pair(5, 8000)))
        >>> sorted(np.argsort(spectrum)[-2:].tolist())
        [770, 1336]

    Source: ITU-T Recommendation Q.23, "Technical features of push-button telephone sets".
    """
    if digit not in _KEYS:
        raise ConfigError(f"a key must be a digit from 0 to 9, but got {digit}")
    row, column = _KEYS[digit]
    time = np.arange(samples) * (1 + detuning) / SAMPLE_RATE
    gain = 10.0 ** (twist_decibels / 20.0)
    low = np.sin(2 * np.pi * _LOW_HZ[row] * time)
    high = np.sin(2 * np.pi * _HIGH_HZ[column] * time)
    return ((low + gain * high) / (1 + gain)).astype(np.float32)


def touch_tones(*, diallers: int = 6, takes: int = 5, seed: int = 0) -> DigitRecordings:
    """Recordings of every key of some telephones, each a little out of tune in its own way.

    A telephone has its own detuning, within 1.5 %, and its own difference between the levels of
    the two tones, within 4 dB; a take has its own duration, 0.12 to 0.35 s.

    Args:
        diallers: how many telephones; they are the speakers.
        takes: of each key of each.
        seed: of what is drawn, >= 0.

    Returns:
        The recordings, ordered by telephone, digit and take.

    Raises:
        ConfigError: no telephones, no takes, or a negative seed.

    Example:
        >>> recordings = touch_tones(diallers=2, takes=1)
        >>> len(recordings), recordings.speaker_names
        (20, ('dialler 1', 'dialler 2'))
    """
    if diallers < 1 or takes < 1 or seed < 0:
        raise ConfigError(
            "touch tones need diallers and takes >= 1 and a seed >= 0, but got "
            f"{diallers}, {takes} and {seed}"
        )
    rng = np.random.Generator(np.random.Philox(key=seed))
    clips, digits, speakers, numbers = [], [], [], []
    for dialler in range(1, diallers + 1):
        detuning = rng.uniform(-_OFF_NOMINAL, _OFF_NOMINAL)
        twist = rng.uniform(*_TWIST_DECIBELS)
        for digit in range(10):
            for take in range(takes):
                samples = round(rng.uniform(*_SECONDS) * SAMPLE_RATE)
                clips.append(tone_pair(digit, samples, detuning=detuning, twist_decibels=twist))
                digits.append(digit)
                speakers.append(f"dialler {dialler}")
                numbers.append(take)
    source = f"touch tones (DTMF): {len(clips)} recordings of {diallers} telephones"
    return make_recordings(NAME, clips, digits, speakers, numbers, source)
