"""Readers of speech corpora on small files written in their layouts."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from research.data import data_dir
from research.data.common_voice import load_common_voice
from research.data.librispeech import load_chapters, load_librispeech, load_prompts
from research.data.utterances import Corpus, check_splits
from research.data.yesno import load_yesno
from research.errors import DataError


def tone(path: Path, seconds: float = 0.1, rate: int = 16_000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.3 * np.sin(np.arange(round(seconds * rate)) * 0.1)
    soundfile.write(path, np.tile(samples[:, None], (1, channels)), rate)


def write_chapter(part: Path, speaker: str, chapter: str, texts: list[str]) -> Path:
    folder = part / speaker / chapter
    for i in range(len(texts)):
        tone(folder / f"{speaker}-{chapter}-{i:04d}.flac", 0.1 + 0.05 * i)
    lines = [f"{speaker}-{chapter}-{i:04d} {text}" for i, text in enumerate(texts)]
    (folder / f"{speaker}-{chapter}.trans.txt").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def librispeech(tmp_path: Path) -> Path:
    part = tmp_path / "LibriSpeech" / "dev-clean"
    write_chapter(part, "84", "121123", ["GO DO YOU HEAR", "BUT IN LESS THAN FIVE MINUTES"])
    write_chapter(part, "84", "121550", ["BUT WITH FULL RAVISHMENT"])
    write_chapter(part, "174", "50561", ["FORGOTTEN TOO THE NAME", "HOW LIGHT"])
    return tmp_path


def test_librispeech_gives_every_utterance_with_its_text_speaker_and_length(librispeech):
    corpus = load_librispeech(librispeech, "dev-clean")
    assert corpus.name == "dev-clean"
    assert [u.name for u in corpus.utterances] == [
        "174-50561-0000",
        "174-50561-0001",
        "84-121123-0000",
        "84-121123-0001",
        "84-121550-0000",
    ]
    second = corpus.utterances[1]
    assert (second.text, second.speaker, second.frames) == ("HOW LIGHT", "174", 2400)
    assert second.path.is_file()
    np.testing.assert_allclose(corpus.seconds, [0.1, 0.15, 0.1, 0.15, 0.1])
    assert corpus.speakers == ("174", "84")
    assert "5 utterances, 0.00 h, 2 speakers" in corpus.source


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(librispeech, tmp_path_factory):
    before = load_librispeech(librispeech, "dev-clean").sha256
    moved = tmp_path_factory.mktemp("moved")
    (librispeech / "LibriSpeech").rename(moved / "LibriSpeech")
    assert load_librispeech(moved, "dev-clean").sha256 == before
    transcript = moved / "LibriSpeech/dev-clean/174/50561/174-50561.trans.txt"
    transcript.write_text(transcript.read_text().replace("LIGHT", "DARK"))
    assert load_librispeech(moved, "dev-clean").sha256 != before


def test_what_file_managers_leave_is_not_read(librispeech):
    folder = librispeech / "LibriSpeech/dev-clean/174/50561"
    (folder / "._174-50561-0000.flac").write_bytes(b"x")
    (folder.parent / ".DS_Store").write_bytes(b"x")
    assert len(load_librispeech(librispeech, "dev-clean")) == 5


def break_librispeech(folder: Path, how: str) -> None:
    audio, transcript = folder / "174-50561-0000.flac", folder / "174-50561.trans.txt"
    lines = transcript.read_text().splitlines()
    match how:
        case "no audio":
            audio.unlink()
        case "no line":
            transcript.write_text(lines[0] + "\n")
        case "no transcript":
            transcript.unlink()
        case "empty text":
            transcript.write_text(f"174-50561-0000 \n{lines[1]}\n")
        case "twice":
            transcript.write_text("\n".join([*lines, lines[0]]))
        case "other chapter":
            transcript.write_text("\n".join([*lines, "174-999-0000 X"]))
        case "not text":
            transcript.write_bytes(b"\xff\xfe\x00")
        case "not audio":
            audio.write_bytes(b"not audio at all")
        case "stereo":
            tone(audio, channels=2)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no audio", r"no .*174-50561-0000\.flac for 174-50561-0000"),
        ("no line", r"174-50561-0001\.flac has no line .*\(1 such files\)"),
        ("no transcript", "no .*trans.txt for 2 audio files"),
        ("empty text", "that of 174-50561-0000 is empty"),
        ("twice", "174-50561-0000 is twice"),
        ("other chapter", "line 3 of .* begins with '174-999-0000'"),
        ("not text", "must be UTF-8 text"),
        ("not audio", "libsndfile can read"),
        ("stereo", "has 2 channels"),
    ],
)
def test_damage_to_librispeech_is_an_error_that_names_the_file(librispeech, how, message):
    break_librispeech(librispeech / "LibriSpeech/dev-clean/174/50561", how)
    with pytest.raises(DataError, match=message):
        load_librispeech(librispeech, "dev-clean")


def test_a_part_that_is_not_there_says_where_to_put_it(librispeech):
    with pytest.raises(DataError, match=r"research\.data fetch test-clean --data-dir"):
        load_librispeech(librispeech, "test-clean")
    with pytest.raises(DataError, match="is it the part itself"):
        load_chapters(librispeech / "LibriSpeech" / "dev-clean" / "84", "LibriSpeech")


def test_an_utterance_in_two_chapters_folders_is_an_error(librispeech):
    part = librispeech / "LibriSpeech/dev-clean"
    corpus = load_librispeech(librispeech, "dev-clean")
    with pytest.raises(DataError, match="174-50561-0000 occurs twice"):
        Corpus("x", (*corpus.utterances, corpus.utterances[0]), "")
    write_chapter(part, "200", "1", ["A"])
    train = load_chapters(part, "all")
    with pytest.raises(DataError, match="no audio file may be in two splits"):
        check_splits({"train": train, "test": corpus})


def test_splits_that_share_a_speaker_or_a_text_are_refused(tmp_path):
    for split, speaker, text in [("a", "1", "SAME"), ("b", "1", "OTHER"), ("c", "2", "SAME")]:
        write_chapter(tmp_path / split, speaker, split, [text])
    a, b, c = (load_chapters(tmp_path / split, split) for split in "abc")
    with pytest.raises(DataError, match="no speaker may be in two splits, but '1' is in train"):
        check_splits({"train": a, "test": b})
    check_splits({"train": a, "test": b}, same_speakers=True, same_texts=False)
    check_splits({"train": a, "test": c})
    with pytest.raises(DataError, match="no text may be in two splits, but 'SAME'"):
        check_splits({"train": a, "test": c}, same_texts=False)


def test_a_corpus_can_be_limited_in_length(librispeech):
    corpus = load_librispeech(librispeech, "dev-clean")
    assert len(corpus.between(0.12, 1.0)) == 2
    with pytest.raises(DataError, match=r"of 5 to 9 s, but its 5 have 0.1 to 0.15 s"):
        corpus.between(5, 9)


HEADER = "client_id\tpath\tsentence_id\tsentence\tup_votes\n"


def write_common_voice(folder: Path, suffix: str = "wav") -> Path:
    rows = {
        "train": [("anna", "a1", 'She said "no".'), ("anna", "a2", "Yes."), ("ben", "b1", "Go!")],
        "dev": [("carl", "c1", "Don’t stop.")],
        "test": [("dora", "d1", "Où est-il ?")],
    }
    for split, entries in rows.items():
        lines = [f"{who}\t{clip}.{suffix}\tx\t{text}\t2\n" for who, clip, text in entries]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{split}.tsv").write_text(HEADER + "".join(lines), "utf-8")
        for i, (_, clip, _) in enumerate(entries):
            tone(folder / "clips" / f"{clip}.{suffix}", 0.3 + 0.1 * i, 32_000)
    return folder


@pytest.mark.parametrize("suffix", ["wav", "mp3"])
def test_common_voice_gives_every_split(tmp_path, suffix):
    if suffix == "mp3" and "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile writes no MP3")
    corpora = load_common_voice(write_common_voice(tmp_path / "en", suffix))
    assert {name: len(corpus) for name, corpus in corpora.items()} == {
        "train": 3,
        "dev": 1,
        "test": 1,
    }
    first = corpora["train"].utterances[0]
    assert (first.text, first.speaker, first.sample_rate) == ('She said "no".', "anna", 32_000)
    np.testing.assert_allclose(corpora["train"].seconds, [0.3, 0.4, 0.5], atol=0.08)


def replace_in(path: Path, old: str, new: str) -> None:
    assert old in path.read_text("utf-8")
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("test", "dora", "anna", "no speaker may be in two splits, but 'anna' is in train and in"),
        ("dev", "c1.wav", "c9.wav", r"there is no .*c9\.wav"),
        ("train", "Yes.", "  ", "a2.wav is empty"),
        ("train", "a2.wav", "a1.wav", "a1.wav occurs twice"),
        ("train", "a2.wav", "../a1.wav", "line 3 of .* has 'anna' and '../a1.wav'"),
        ("dev", "carl\tc1.wav", "carl", "the table is damaged"),
        ("train", "sentence\t", "text\t", "has no sentence"),
    ],
)
def test_damage_to_common_voice_is_an_error(tmp_path, table, old, new, message):
    folder = write_common_voice(tmp_path / "en")
    replace_in(folder / f"{table}.tsv", old, new)
    with pytest.raises(DataError, match=message):
        load_common_voice(folder)


def test_common_voice_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds clips/"):
        load_common_voice(tmp_path)
    folder = write_common_voice(tmp_path / "en")
    with pytest.raises(DataError, match=r"no .*other\.tsv; choose another split"):
        load_common_voice(folder, ("train", "other"))


def test_yesno_reads_its_texts_from_the_names(tmp_path):
    names = ["0_1_1_0_1_0_0_1", "1_1_1_1_1_1_1_1", "0_0_0_0_0_0_0_0", "1_0_1_0_1_0_1_0"]
    for name in names:
        tone(tmp_path / "yesno/waves_yesno" / f"{name}.wav", rate=8000)
    train, test = load_yesno(tmp_path)
    assert [u.name for u in test.utterances] == sorted(names)[2:3]
    assert {u.name for u in train.utterances} | {sorted(names)[2]} == set(names)
    texts = {u.name: u.text for u in train.utterances}
    assert texts["0_1_1_0_1_0_0_1"] == "no yes yes no yes no no yes"
    tone(tmp_path / "yesno/waves_yesno/0_1_2.wav", rate=8000)
    with pytest.raises(DataError, match="must be named like"):
        load_yesno(tmp_path)


def test_yesno_that_is_not_there_or_too_small_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"waves_yesno\.tar\.gz"):
        load_yesno(tmp_path)
    (tmp_path / "yesno/waves_yesno").mkdir(parents=True)
    with pytest.raises(DataError, match="at least 3 recordings, but it has 0"):
        load_yesno(tmp_path)


def test_prompts_share_no_text(tmp_path):
    write_chapter(tmp_path / "prompts/train-prompts", "1", "1", ["ADDED", "PRESS ONE"])
    write_chapter(tmp_path / "prompts/test-prompts", "1", "2", ["PRESS TWO"])
    train, test = load_prompts(tmp_path)
    assert (len(train), len(test), train.speakers) == (2, 1, test.speakers)
    write_chapter(tmp_path / "prompts/test-prompts", "1", "2", ["ADDED"])
    with pytest.raises(DataError, match="no text may be in two splits, but 'ADDED'"):
        load_prompts(tmp_path)


@pytest.mark.data
def test_the_published_sets_are_read_as_their_publishers_say():
    train, test = load_prompts(data_dir())
    assert max(train.seconds.max(), test.seconds.max()) <= 15
    assert {u.sample_rate for u in train.utterances} == {16_000}
    train, test = load_yesno(data_dir())
    assert (len(train), len(test)) == (40, 20)
    assert {len(u.text.split()) for u in train.utterances} == {8}
