import json
import sys
import unicodedata
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from research.errors import ConfigError, DataError
from research.speech.text import TextNorm
from research.speech.tokenisers import (
    CharacterTokeniser,
    SubwordTokeniser,
    label_batch,
    load_tokeniser,
)

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "please enter your agent number followed by the pound key",
    "that agent is already logged on",
    "don't press the pound key",
    "your call is number three in the queue",
    "the call may be recorded",
]


@pytest.mark.parametrize(
    ("norm", "text", "expected"),
    [
        (TextNorm(), "  Ｆｕｌｌ\twidth ﬁne ", "full width fine"),
        (TextNorm(), "don’t “stop”—now…", "don't stop now"),
        (TextNorm(), "don´t don‛t don`t ŉ", "don't don't don't 'n"),
        (TextNorm(unicode_form="none"), "don´t", "don't"),
        (TextNorm(apostrophes="remove"), "don’t 'n'", "dont n"),
        (TextNorm(case="upper"), "straße é", "STRASSE É"),
        (TextNorm(case="keep", punctuation="keep"), "A, b.", "A, b."),
        (TextNorm(), "cafe\u0301", "café"),
        (TextNorm(unicode_form="none"), "ﬁ", "ﬁ"),
        (TextNorm(unicode_form="NFC"), "e\u0301 ﬁ", "é ﬁ"),
        (TextNorm(), "नमस्ते, שָׁלוֹם!", "नमस्ते שָׁלוֹם"),
        (TextNorm(), "?!", ""),
    ],
)
def test_text_is_made_uniform_and_stays_so(norm, text, expected):
    if norm.unicode_form != "none":
        expected = unicodedata.normalize(norm.unicode_form, expected)
    assert norm(text) == expected
    assert norm(norm(text)) == expected


def test_an_unknown_way_to_make_text_uniform_is_an_error():
    with pytest.raises(ConfigError, match="case to be one of lower, upper, keep"):
        TextNorm(case="title")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("blank", ["first", "last"])
@pytest.mark.parametrize("unknown", ["error", "replace", "skip"])
def test_characters_come_back_and_never_as_the_blank(blank, unknown):
    tokeniser = CharacterTokeniser.from_texts(TEXTS, blank=blank, unknown=unknown)
    assert tokeniser.characters == " '" + "abcdefghijklmnopqrstuvwxyz"
    assert tokeniser.size == 29 + (unknown == "replace")
    assert tokeniser.blank_id == (0 if blank == "first" else tokeniser.size - 1)
    for text in TEXTS:
        ids = tokeniser.encode(text.upper())
        assert tokeniser.decode(ids) == text
        assert len(ids) == len(text)
        assert tokeniser.blank_id not in ids
        assert set(ids) <= set(range(tokeniser.size))


def test_an_unknown_character_is_an_error_or_a_sign_or_nothing():
    with pytest.raises(DataError, match=r"character 1 of 'ax' is 'x'.*unknown='replace'"):
        CharacterTokeniser("ab").encode("ax")
    replace = CharacterTokeniser("ab", unknown="replace")
    assert replace.decode(replace.encode("axb")) == "a⁇b"
    skip = CharacterTokeniser("ab", unknown="skip")
    assert skip.decode(skip.encode("axb")) == "ab"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"characters": ""}, "each once"),
        ({"characters": "aba"}, "each once"),
        ({"characters": "aB"}, "'B' becomes 'b'"),
        ({"characters": "a", "blank": "middle"}, "'first' or the 'last'"),
        ({"characters": "a", "unknown": "ignore"}, "'replace' or 'skip'"),
    ],
)
def test_characters_that_could_not_come_back_are_errors(arguments, message):
    with pytest.raises(ConfigError, match=message):
        CharacterTokeniser(**arguments)


def test_characters_of_no_text_are_an_error():
    with pytest.raises(DataError, match="have none"):
        CharacterTokeniser.from_texts(["", "?"])


@pytest.mark.parametrize("bad", [0, 4, -1])
def test_ids_that_no_text_has_are_errors(bad):
    with pytest.raises(DataError, match=r"0\.\.3 and not be the blank"):
        CharacterTokeniser("abc").decode([1, bad])


def test_labels_are_what_the_loss_takes():
    tokeniser = CharacterTokeniser("abc", blank="last")
    labels, paddings = label_batch(tokeniser, ["abba", "", "c"], length=5)
    assert labels.shape == paddings.shape == (3, 5)
    assert (labels[paddings == 1] == tokeniser.blank_id).all()
    assert paddings.sum(axis=1).tolist() == [1, 5, 4]
    # Logits that spell the labels, a blank between equal ones, have next to no loss.
    path = [[0, 1, 3, 1, 0, 3], [3] * 6, [3, 2, 2, 3, 3, 3]]
    logits = 30 * jnp.eye(tokeniser.size)[jnp.array(path)]
    loss = kernels.ctc_loss(
        logits, jnp.zeros((3, 6)), jnp.asarray(labels), jnp.asarray(paddings), blank_id=3
    )
    np.testing.assert_allclose(loss, 0, atol=1e-3)


def test_a_text_of_too_many_labels_is_an_error():
    with pytest.raises(DataError, match="'abba' has 4"):
        label_batch(CharacterTokeniser("ab"), ["a", "abba"], length=3)


@pytest.mark.parametrize("blank", ["first", "last"])
def test_characters_are_saved_and_loaded(tmp_path, blank):
    norm = TextNorm(case="upper")
    tokeniser = CharacterTokeniser("AÉ 'あ", blank, "replace", norm)
    tokeniser.save(tmp_path / "t.json")
    assert load_tokeniser(tmp_path / "t.json") == tokeniser


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"kind": "x", "norm": {}}', '{"kind": "x", "norm": {"case": 1}}']
)
def test_a_file_that_is_no_tokeniser_is_an_error(tmp_path, content):
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(DataError, match="JSON file that one was saved to"):
        load_tokeniser(path)
    with pytest.raises(DataError, match="FileNotFoundError"):
        load_tokeniser(tmp_path / "none.json")


@pytest.fixture(scope="module")
def subwords() -> SubwordTokeniser:
    pytest.importorskip("sentencepiece")
    return SubwordTokeniser.train(TEXTS * 5, 45)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("blank", ["first", "last"])
def test_subwords_come_back_and_never_as_the_blank(subwords, kind, blank):
    del subwords  # which skips where sentencepiece is not installed
    tokeniser = SubwordTokeniser.train(TEXTS * 5, 45, kind=kind, blank=blank)
    assert tokeniser.size == 46 == len(tokeniser.pieces) + 1
    first = int(blank == "first")
    for text in TEXTS:
        ids = tokeniser.encode(text.upper())
        assert tokeniser.decode(ids) == text
        assert tokeniser.blank_id not in ids
        spelled = "".join(tokeniser.pieces[i - first] for i in ids)
        assert spelled.replace("▁", " ").strip() == text
    lengths = [len(tokeniser.encode(text)) for text in TEXTS]
    assert sum(lengths) < 0.9 * sum(map(len, TEXTS))


def test_the_same_texts_give_the_same_pieces(subwords):
    assert SubwordTokeniser.train(TEXTS * 5, 45) == subwords


def test_unknown_pieces_come_back_as_a_sign(subwords):
    assert "⁇" in subwords.decode(subwords.encode("pound 鍵 key"))


def test_subwords_are_saved_as_json_and_loaded(subwords, tmp_path):
    subwords.save(tmp_path / "t.json")
    assert set(json.loads((tmp_path / "t.json").read_text())) == {"kind", "model", "blank", "norm"}
    loaded = load_tokeniser(tmp_path / "t.json")
    assert loaded == subwords
    assert loaded.encode(TEXTS[0]) == subwords.encode(TEXTS[0])


def test_a_damaged_model_is_an_error(subwords):
    for model in (b"", b"nonsense", subwords.model[: len(subwords.model) // 2]):
        with pytest.raises(DataError, match="whole SentencePiece model"):
            SubwordTokeniser(model)


def test_more_pieces_than_the_texts_have_are_an_error(subwords):
    del subwords
    with pytest.raises(ConfigError, match="5000 pieces of kind 'unigram'"):
        SubwordTokeniser.train(TEXTS, 5000)
    with pytest.raises(DataError, match="every text is empty"):
        SubwordTokeniser.train(["", "?"], 60)


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ConfigError, match=r"trellis-lab\[subwords\]"):
        SubwordTokeniser.train(TEXTS, 60)


def test_nothing_is_printed_while_pieces_are_learned(subwords, capfd, tmp_path: Path):
    del subwords
    SubwordTokeniser.train(TEXTS * 5, 45)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_what_is_skipped_leaves_no_second_space():
    tokeniser = CharacterTokeniser(" ab", unknown="skip")
    assert tokeniser.decode(tokeniser.encode("x a xx b x")) == "a b"
