"""Spoken digits small enough to train on in a test: tones instead of voices."""

import numpy as np
import pytest
import soundfile

RATE = 8000


@pytest.fixture(scope="session")
def tone_digits(tmp_path_factory):
    """A data directory with FSDD's layout: three speakers, ten digits, six takes.

    Digit d is a tone of 300 + 300 d Hz, a little higher or lower by speaker.
    """
    root = tmp_path_factory.mktemp("data")
    folder = root / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    time = np.arange(int(0.12 * RATE)) / RATE
    rng = np.random.default_rng(0)
    for number, speaker in enumerate(("anna", "bert", "carl")):
        for digit in range(10):
            for take in range(6):
                hertz = (300 + 300 * digit) * (1 + 0.02 * number + 0.002 * take)
                tone = 0.5 * np.sin(2 * np.pi * hertz * time) + 0.01 * rng.normal(size=time.size)
                soundfile.write(folder / f"{digit}_{speaker}_{take}.wav", tone, RATE)
    return root
