from typing import Any

import numpy as np
import pytest

from research.data.digit_recordings import CLIP_RMS, DigitRecordings, make_recordings
from research.data.digit_strings import StringConfig, digit_strings
from research.errors import ConfigError, DataError

RATE = 8000
# No noise to speak of, so that the clips can be recognised in the strings.
CLEAN = StringConfig(level_decibels=(0.0, 0.0), snr_decibels=(200.0, 200.0))


def tones(speakers=("ann", "bob", "cid"), seconds: float = 0.1) -> DigitRecordings:
    """Every recording is a tone of a frequency of its own: 200 + 20 * index Hz."""
    count = 10 * len(speakers)
    time = np.arange(round(seconds * RATE)) / RATE
    return make_recordings(
        name="tones",
        clips=[np.sin(2 * np.pi * (200 + 20 * i) * time) for i in range(count)],
        digits=[i % 10 for i in range(count)],
        speakers=[speakers[i // 10] for i in range(count)],
        takes=[0] * count,
        source="tones",
    )


def make(recordings=None, config=CLEAN, indices=None, **changes):
    recordings = tones() if recordings is None else recordings
    indices = np.arange(len(recordings)) if indices is None else np.asarray(indices)
    settings: dict[str, Any] = {"seed": 0, "step": 0, "batch_size": 16, "max_samples": 3 * RATE}
    return digit_strings(recordings, indices, config, **(settings | changes))


def segments(waveform: np.ndarray) -> list[tuple[int, int]]:
    """Where the (nearly noiseless) waveform is not silent, joined over 2 ms."""
    loud = np.flatnonzero(np.abs(waveform) > 1e-4)
    cuts = np.flatnonzero(np.diff(loud) > 16)
    starts = loud[np.r_[0, cuts + 1]]
    ends = loud[np.r_[cuts, len(loud) - 1]] + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def test_the_same_seed_and_step_give_the_same_bits_and_others_do_not():
    one, again = make(), make()
    for a, b in zip(one, again, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    for other in (make(step=1), make(seed=1)):
        assert other.waveforms.tobytes() != one.waveforms.tobytes()
        assert other.labels.tobytes() != one.labels.tobytes()


def test_shapes_types_and_padding():
    batch = make(max_samples=30_000)
    assert batch.waveforms.shape == (16, 30_000)
    assert batch.waveforms.dtype == batch.label_paddings.dtype == np.float32
    assert batch.lengths.dtype == batch.labels.dtype == np.int32
    assert batch.labels.shape == batch.label_paddings.shape == (16, 7)
    for waveform, length in zip(batch.waveforms, batch.lengths, strict=True):
        assert 0 < length <= 30_000
        assert not waveform[length:].any()
    # Labels come first, then padding: 1 where the label is 0.
    np.testing.assert_array_equal(batch.label_paddings, batch.labels == 0)
    assert (np.diff(batch.label_paddings, axis=1) >= 0).all()


def test_spans_are_where_the_digits_are():
    config = StringConfig(gap_seconds=(0.05, 0.1), level_decibels=(0, 0), snr_decibels=(200, 200))
    batch = make(config=config)
    assert batch.spans is not None
    for waveform, labels, spans in zip(batch.waveforms, batch.labels, batch.spans, strict=True):
        heard = np.array(segments(waveform)) / RATE
        np.testing.assert_allclose(spans[labels > 0], heard, atol=0.003)  # tones fade in and out
        assert not spans[labels == 0].any()


@pytest.mark.parametrize("across", [False, True])
def test_labels_are_the_digits_heard_plus_one_all_by_one_speaker_or_by_any(across):
    config = StringConfig(gap_seconds=(0.05, 0.1), level_decibels=(0, 0), snr_decibels=(200, 200))
    batch = make(config=config, across_speakers=across)
    speakers, most = set(), 0
    for waveform, labels in zip(batch.waveforms, batch.labels, strict=True):
        heard = []
        for start, end in segments(waveform):
            spectrum = np.abs(np.fft.rfft(waveform[start:end], RATE))
            heard.append(round((np.argmax(spectrum) - 200) / 20))
        assert [index % 10 + 1 for index in heard] == labels[labels > 0].tolist()
        of_string = {index // 10 for index in heard}
        speakers, most = speakers | of_string, max(most, len(of_string))
    assert speakers == {0, 1, 2}
    assert most == (3 if across else 1)


def test_the_number_of_digits_is_uniform():
    config = StringConfig(min_digits=2, max_digits=4)
    counts = (make(config=config, batch_size=600).labels > 0).sum(axis=1)
    assert set(counts) == {2, 3, 4}
    assert np.bincount(counts)[2:].min() > 150


def test_only_the_given_recordings_are_used():
    labels = make(indices=[3, 4, 25], batch_size=64).labels
    assert set(labels[labels > 0]) == {4, 5, 6}
    for row in labels:
        assert not ({4, 5} & set(row) and 6 in row)  # 25 is by another speaker than 3 and 4


def test_gaps_and_edges_lie_in_their_ranges():
    config = StringConfig(
        min_digits=3,
        max_digits=3,
        gap_seconds=(0.1, 0.2),
        edge_seconds=(0.05, 0.08),
        level_decibels=(0, 0),
        snr_decibels=(200, 200),
    )
    batch = make(config=config)
    gaps = []
    for waveform, length in zip(batch.waveforms, batch.lengths, strict=True):
        (a, b), (c, d), (e, f) = segments(waveform)
        gaps += [c - b, e - d]
        for edge in (a, length - f):
            assert 0.05 * RATE - 1 <= edge <= 0.08 * RATE + 8
    assert min(gaps) >= 0.1 * RATE - 1
    assert max(gaps) <= 0.2 * RATE + 16
    assert max(gaps) - min(gaps) > 0.05 * RATE


def test_clips_fade_in_and_out():
    clip = np.ones(800, np.float32)
    clip[400:] = -1  # zero mean, and full level at both ends
    recordings = make_recordings("step", [clip], [5], ["ann"], [0], "")
    config = StringConfig(1, 1, level_decibels=(0, 0), snr_decibels=(200, 200))
    waveform = make(recordings, config).waveforms[0]
    start, end = segments(waveform)[0]
    assert np.abs(np.diff(waveform[start - 1 : start + 40])).max() < CLIP_RMS / 30
    assert np.abs(np.diff(waveform[end - 40 : end + 1])).max() < CLIP_RMS / 30
    np.testing.assert_allclose(waveform[start + 45 : start + 390], CLIP_RMS, rtol=1e-4)


def test_levels_of_the_digits_differ_within_the_range():
    config = StringConfig(gap_seconds=(0.05, 0.1), snr_decibels=(200, 200))
    batch = make(config=config, batch_size=64)
    decibels = []
    for waveform in batch.waveforms:
        for start, end in segments(waveform):
            middle = waveform[start + 45 : end - 45]
            decibels.append(20 * np.log10(np.sqrt(np.mean(middle**2)) / CLIP_RMS))
    assert -6.3 < min(decibels) < -5
    assert 5 < max(decibels) < 6.3


@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_noise_has_the_asked_power(snr):
    levels = (0.0, 0.0)
    quiet = make(config=StringConfig(level_decibels=levels, snr_decibels=(200, 200)))
    noisy = make(config=StringConfig(level_decibels=levels, snr_decibels=(snr, snr)))
    np.testing.assert_array_equal(quiet.labels, noisy.labels)
    noises = []
    for clean, loud, length, labels in zip(
        quiet.waveforms, noisy.waveforms, noisy.lengths, noisy.labels, strict=True
    ):
        noise = (loud - clean)[:length]
        speech_power = (clean**2).sum() / ((labels > 0).sum() * 800)
        assert abs(10 * np.log10(speech_power / (noise**2).mean()) - snr) < 1.0
        noises.append(noise[:1000])
    # Different strings hear different noise, some white, some low-pass.
    correlations = np.corrcoef(noises) - np.eye(len(noises))
    assert np.abs(correlations).max() < 0.3
    tilts = [np.corrcoef(noise[1:], noise[:-1])[0, 1] for noise in noises]
    assert min(tilts) < 0.2
    assert max(tilts) > 0.3


def test_long_strings_are_drawn_again_until_they_fit():
    full = make(batch_size=64)
    tight = make(batch_size=64, max_samples=5000)
    assert full.lengths.max() > 5000
    assert tight.lengths.max() <= 5000
    assert (tight.labels > 0).sum(axis=1).max() >= 3


def test_the_room_for_the_shortest_string_is_enough():
    config = StringConfig(1, 1, edge_seconds=(0.05, 0.05))
    assert make(config=config, max_samples=800 + 2 * 400).lengths.max() == 1600
    with pytest.raises(DataError, match=r"1600 samples and max_samples is 1599"):
        make(config=config, max_samples=1599)


def test_strings_that_hardly_ever_fit_are_an_error():
    config = StringConfig(7, 7)
    with pytest.raises(DataError, match="1000 strings in a row"):
        make(config=config, max_samples=7 * 800 + 2 * 400 + 5)


def test_a_speaker_with_no_room_is_an_error_rather_than_silently_absent():
    clips = [np.sin(np.arange(400)), np.sin(np.arange(9000))]
    recordings = make_recordings("two", clips, [1, 2], ["ann", "bob"], [0, 0], "")
    with pytest.raises(DataError, match="bob's shortest"):
        make(recordings, max_samples=8000)


@pytest.mark.parametrize("indices", [[], [30], [-1]])
def test_indices_are_checked(indices):
    with pytest.raises(DataError, match="indices"):
        make(indices=np.array(indices, int))


@pytest.mark.parametrize("changes", [{"seed": -1}, {"step": -1}, {"batch_size": 0}])
def test_seed_step_and_batch_are_checked(changes):
    with pytest.raises(ConfigError, match="seed and step"):
        make(**changes)


@pytest.mark.parametrize(
    "settings",
    [
        {"min_digits": 0},
        {"min_digits": 4, "max_digits": 3},
        {"gap_seconds": (-0.1, 0.1)},
        {"edge_seconds": (0.2, 0.1)},
        {"snr_decibels": (30, 10)},
        {"level_decibels": (float("nan"), 1.0)},
    ],
)
def test_a_configuration_that_makes_no_sense_is_an_error(settings):
    with pytest.raises(ConfigError):
        StringConfig(**settings)


def test_the_recordings_are_left_as_they_were():
    recordings = tones()
    before = [clip.copy() for clip in recordings.clips]
    make(recordings, StringConfig())
    for clip, old in zip(recordings.clips, before, strict=True):
        np.testing.assert_array_equal(clip, old)
