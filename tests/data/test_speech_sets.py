from dataclasses import replace

import numpy as np
import pytest
import soundfile
from tone_corpus import PARTS, write_librispeech, write_part

from research.data.speech_sets import (
    SpeechSet,
    check_rates,
    load_speech_set,
    merge,
    positions,
    thinned,
)
from research.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = write_librispeech(tmp_path_factory.mktemp("data"), train=6)
    write_part(root / "LibriSpeech/train-clean-360", 3, 40)
    return root


def load(data, *parts: str) -> SpeechSet:
    return load_speech_set("librispeech", data, train_parts=parts)


def test_training_parts_are_joined_and_the_others_kept_apart(data):
    parts = load(data, "train-clean-100", "train-clean-360")
    assert len(parts.train) == 6 + 3
    assert [*parts.validation] == ["dev-clean", "dev-other"]
    assert [*parts.test] == ["test-clean", "test-other"]
    assert parts.train.speakers == ("10", "40")
    assert "LibriSpeech train-clean-100 and train-clean-360: 9 utterances" in parts.train.source
    assert parts.sha256 != load(data, "train-clean-100").sha256


def test_a_part_that_is_trained_and_tested_on_is_refused(data):
    with pytest.raises(DataError, match="may be in two splits"):
        load(data, "train-clean-100", "test-clean")


def test_positions_lead_back_to_the_parts(data):
    parts = load(data, "train-clean-100")
    together = merge("test", parts.test)
    found = positions(together, parts.test)
    assert sorted(i for own in found.values() for i in own) == list(range(len(together)))
    for name, corpus in parts.test.items():
        assert tuple(together.utterances[i] for i in found[name]) == corpus.utterances


def test_thinned_keeps_both_ends_and_the_order(data):
    corpus = load(data, "train-clean-100").train
    few = thinned(corpus, 3)
    assert few.utterances[0] == corpus.utterances[0]
    assert few.utterances[-1] == corpus.utterances[-1]
    assert len(few) == 3
    assert thinned(corpus, 6) is corpus


def test_another_rate_is_named(data):
    parts = load(data, "train-clean-100")
    check_rates(parts, 16_000)
    first = replace(parts.test["test-clean"].utterances[0], sample_rate=8000)
    odd = replace(
        parts.test["test-clean"],
        utterances=(first, *parts.test["test-clean"].utterances[1:]),
    )
    parts = replace(parts, test={**parts.test, "test-clean": odd})
    with pytest.raises(DataError, match=f"1 of the {PARTS['test-clean']} files of test-clean"):
        check_rates(parts, 16_000)


def test_texts_of_the_prompts_are_on_one_side(tmp_path):
    for part, seed in (("train", 1), ("test", 2)):
        folder = tmp_path / f"prompts/{part}-prompts/1/{seed}"
        folder.mkdir(parents=True)
        lines = []
        for i in range(60 if part == "train" else 3):
            soundfile.write(folder / f"1-{seed}-{i:04d}.flac", np.full(1600, 0.1), 16_000)
            # Each training text is said twice.
            lines.append(f"1-{seed}-{i:04d} {part.upper()} {'X' * (i // 2)}\n")
        (folder / f"1-{seed}.trans.txt").write_text("".join(lines))
    parts = load_speech_set("prompts", tmp_path)
    watched, trained = parts.validation["validation"], parts.train
    assert len(watched) + len(trained) == 60
    assert len(watched) > 0
    assert not {*watched.texts} & {*trained.texts}
    assert all(watched.texts.count(text) == 2 for text in watched.texts)


def test_an_unknown_set_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'librispeech'"):
        load_speech_set("librispech", tmp_path)
