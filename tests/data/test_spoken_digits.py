import os
from collections.abc import Sequence

import numpy as np
import pytest
import soundfile

from research.data import spoken_digits, synthesis
from research.data.digit_recordings import DigitRecordings, make_recordings
from research.data.fsdd import recordings_folder
from research.data.spoken_digits import (
    default_speakers,
    load_spoken_digits,
    split_speakers,
)
from research.errors import ConfigError, DataError

CLIP = np.array([0.5, -0.5, 0.25], np.float32)


def recordings_of(
    *speakers: str, takes: Sequence[int] = range(8), name: str = "fsdd"
) -> DigitRecordings:
    rows = [(speaker, digit, take) for speaker in speakers for digit in (3, 4) for take in takes]
    return make_recordings(
        name=name,
        clips=[CLIP] * len(rows),
        digits=[digit for _, digit, _ in rows],
        speakers=[speaker for speaker, _, _ in rows],
        takes=[take for _, _, take in rows],
        source="three samples each",
    )


@pytest.fixture
def spoken_by_espeak(monkeypatch):
    """Stands in for the synthesiser; returns the folders it was asked for."""
    folders = []

    def load(cache_dir):
        folders.append(cache_dir)
        return recordings_of("en-gb+m3", "en-us+f2", name="espeak")

    monkeypatch.setattr(synthesis, "load_synthetic_digits", load)
    return folders


def put_fsdd(data_dir) -> None:
    folder = recordings_folder(data_dir)
    folder.mkdir(parents=True)
    soundfile.write(folder / "4_ann_0.wav", CLIP, 8000)


def test_auto_takes_real_recordings_where_they_are_found(tmp_path, spoken_by_espeak):
    put_fsdd(tmp_path)
    assert load_spoken_digits("auto", tmp_path).name == "fsdd"
    assert load_spoken_digits(data_dir=tmp_path).speakers == ("ann",)
    assert spoken_by_espeak == []


def test_auto_speaks_them_elsewhere(tmp_path, spoken_by_espeak):
    assert load_spoken_digits("auto", tmp_path).name == "espeak"
    assert spoken_by_espeak == [tmp_path / "espeak_digits"]


def test_a_name_overrides_what_is_found(tmp_path, spoken_by_espeak):
    put_fsdd(tmp_path)
    assert load_spoken_digits("espeak", tmp_path).name == "espeak"
    with pytest.raises(DataError, match="fetch fsdd"):
        load_spoken_digits("fsdd", tmp_path / "elsewhere")


def test_damaged_recordings_are_never_replaced_by_synthetic_speech(tmp_path, spoken_by_espeak):
    put_fsdd(tmp_path)
    (recordings_folder(tmp_path) / "5_ann_0.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match="5_ann_0"):
        load_spoken_digits("auto", tmp_path)
    assert spoken_by_espeak == []


def test_the_environment_names_the_data_directory(tmp_path, monkeypatch, spoken_by_espeak):
    put_fsdd(tmp_path)
    monkeypatch.setenv("TRELLIS_DATA", str(tmp_path))
    assert load_spoken_digits().name == "fsdd"


def test_an_unknown_source_is_an_error():
    with pytest.raises(ConfigError, match=r"auto, fsdd, espeak.*'librispeech'"):
        load_spoken_digits("librispeech")  # pyright: ignore[reportArgumentType]


def test_a_test_speaker_is_heard_nowhere_else():
    recordings = recordings_of("ann", "bob", "cid")
    train, validation, test = split_speakers(recordings, ("bob",))
    speakers = np.array(recordings.speakers)
    assert set(speakers[test]) == {"bob"}
    assert len(test) == 16
    assert set(speakers[train]) == set(speakers[validation]) == {"ann", "cid"}
    assert set(recordings.takes[validation]) == {0, 1, 2, 3, 4}
    assert set(recordings.takes[train]) == {5, 6, 7}
    everything = np.concatenate([train, validation, test])
    assert sorted(everything) == list(range(len(recordings)))


def test_validation_speakers_make_all_three_disjoint():
    recordings = recordings_of("ann", "bob", "cid", "dan")
    split = split_speakers(recordings, ("bob", "dan"), ("ann",))
    heard = [set(np.array(recordings.speakers)[part]) for part in split]
    assert heard == [{"cid"}, {"ann"}, {"bob", "dan"}]
    assert [len(part) for part in split] == [16, 16, 32]


@pytest.mark.parametrize(
    ("test", "validation", "message"),
    [
        (("eve",), (), "among ann, bob.*eve"),
        (("ann",), ("eve",), "validation speakers.*eve"),
        (("ann",), ("ann",), "one split only.*ann"),
        (("ann", "bob"), (), "train part.*empty"),
        (("ann",), ("bob",), "train part.*empty"),
        ((), (), "test part.*empty"),
        ("ann", (), "tuple of names"),
    ],
)
def test_a_split_that_leaks_or_is_empty_is_an_error(test, validation, message):
    with pytest.raises(DataError, match=message):
        split_speakers(recordings_of("ann", "bob"), test, validation)


def test_without_official_takes_there_is_nothing_to_validate_on():
    with pytest.raises(DataError, match=r"validation part.*empty"):
        split_speakers(recordings_of("ann", "bob", takes=range(5, 9)), ("ann",))


def test_default_speakers_are_the_last_unreserved_one_or_the_fixed_voices():
    assert default_speakers(recordings_of("ann", "bob")) == (("bob",), ())
    assert default_speakers(recordings_of("kim", "lucas", "abe")) == (("kim",), ())
    with pytest.raises(DataError, match=r"at least two speakers.*ann"):
        default_speakers(recordings_of("ann", "lucas"))
    spoken = recordings_of("en-gb+m3", name="espeak")
    assert default_speakers(spoken) == (synthesis.TEST_VOICES, synthesis.VALIDATION_VOICES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digits": [10]}, "digits 0 to 9.*10"),
        ({"digits": [-1]}, "digits 0 to 9.*-1"),
        ({"takes": [-1]}, "takes must be"),
        ({"clips": [np.zeros(4)]}, "silent"),
        ({"clips": [np.full(4, 0.3)]}, "silent"),
        ({"clips": [np.zeros(0)]}, "not empty"),
        ({"clips": [np.zeros((4, 2))]}, "one-dimensional"),
        ({"clips": [np.array([0.1, np.nan])]}, "finite"),
        ({"speakers": []}, "equally many"),
        ({"clips": [], "digits": [], "speakers": [], "takes": []}, "at least one recording"),
    ],
)
def test_recordings_that_cannot_be_used_are_errors(change, message):
    good = {"clips": [CLIP], "digits": [1], "speakers": ["ann"], "takes": [0]}
    with pytest.raises(DataError, match=message):
        make_recordings("x", source="", **(good | change))


def test_speaker_ids_follow_the_sorted_names():
    recordings = recordings_of("zoe", "ann", takes=[0])
    assert recordings.speaker_names == ("ann", "zoe")
    assert recordings.speaker_ids.tolist() == [1, 1, 0, 0]


@pytest.mark.data
def test_the_published_recordings_split_by_speaker():
    recordings = spoken_digits.load_spoken_digits("fsdd", os.environ["TRELLIS_DATA"])
    test, validation = default_speakers(recordings)
    assert (test, validation) == (("yweweler",), ())
    assert [len(part) for part in split_speakers(recordings, test)] == [1800, 200, 500]
