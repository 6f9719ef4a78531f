"""N-gram models: probabilities worked out by hand, sums of one, ARPA files, use in beam search."""

import itertools
import math
import random
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_matrix import compiled_in_haste

from research.errors import ConfigError, DataError
from research.speech.beam_search import beam_search
from research.speech.language_model import WordDecoder
from research.speech.ngram import (
    BEGIN,
    END,
    UNKNOWN,
    label_automaton,
    perplexity,
    read_arpa,
    train_ngram,
    write_arpa,
)


def some_texts(count=40, symbols="abcd"):
    """Texts in which what follows depends on what is there."""
    rng, texts = random.Random(0), []
    for _ in range(count):
        text = []
        for _ in range(rng.randint(0, 6)):
            likely = symbols[(symbols.index(text[-1]) + 1) % len(symbols)] if text else symbols[0]
            text.append(likely if rng.random() < 0.7 else rng.choice(symbols))
        texts.append(tuple(text))
    return texts


def prob(model, symbol, *history):
    return math.exp(model.log_prob(symbol, history))


def test_kneser_ney_by_hand():
    """Texts ab, aa, cb, with D = 1/2.

    Symbols before a: <s>, a; b: a, c; c: <s>; </s>: b, a. Of seven; four kinds.
    """
    model = train_ngram(["ab", "aa", "cb"], 2, discount=0.5)
    half, uniform = Fraction(1, 2), Fraction(1, 4)
    one = {
        symbol: (Fraction(n) - half + 4 * half * uniform) / 7
        for symbol, n in {"a": 2, "b": 2, "c": 1, END: 2}.items()
    }
    assert sum(one.values()) == 1
    for symbol, expected in one.items():
        assert prob(model, symbol) == pytest.approx(float(expected))
    # After a: b, a, </s>, once each; after b: </s> twice; a text begins with a twice, once with c.
    expected = {
        ("a", "a"): (half + 3 * half * one["a"]) / 3,
        ("c", "a"): 3 * half * one["c"] / 3,
        (END, "b"): (2 - half + half * one[END]) / 2,
        ("a", "b"): half * one["a"] / 2,
        ("a", BEGIN): (2 - half + 2 * half * one["a"]) / 3,
        (END, BEGIN): 2 * half * one[END] / 3,
    }
    for (symbol, history), value in expected.items():
        assert prob(model, symbol, history) == pytest.approx(float(value))
    log = sum(math.log(expected[step]) for step in (("a", BEGIN), ("a", "a"))) + math.log(
        (half + 3 * half * one[END]) / 3
    )
    assert perplexity(model, ["aa"]) == pytest.approx(math.exp(-log / 3))


def test_in_trigrams_the_begin_of_a_text_keeps_its_counts():
    """Texts ab, ab, xb: the bigram "<s> a" counts 2, though nothing comes before it."""
    model = train_ngram(["ab", "ab", "xb"], 3, discount=0.5)
    # Before a: <s>; b: a, x; x: <s>; </s>: b. Five, four kinds.
    one = (1 - 0.5 + 0.5 * 4 / 4) / 5
    assert prob(model, "a", BEGIN) == pytest.approx((2 - 0.5 + 2 * 0.5 * one) / 3)
    # The bigram "b </s>" comes after a and x: 2, not 3.
    end = (1 - 0.5 + 0.5 * 4 / 4) / 5
    assert prob(model, END, "b") == pytest.approx((2 - 0.5 + 0.5 * end) / 2)


def test_the_discount_is_that_of_counts_of_one_and_two():
    """Of the bigrams of texts ab, ab, ac two occur once, two twice or more: a b 2, b </s> 2."""
    model = train_ngram(["ab", "ab", "ac"], 2)
    # <s> a 3, a b 2, a c 1, b </s> 2, c </s> 1: D = 2 / (2 + 4); of symbols, b 1, a 1, c 1, </s> 2:
    # D = 3 / (3 + 2).
    one = (1 - 0.6 + 0.6 * 4 / 4) / 5
    assert prob(model, "b", "a") == pytest.approx((2 - 1 / 3 + 2 / 3 * one) / 3)


def test_dirichlet_by_hand():
    model = train_ngram(["ab", "aa"], 2, smoothing="dirichlet", strength=3.0)
    one = {"a": (3 + 1) / 9, "b": (1 + 1) / 9, END: (2 + 1) / 9}
    assert prob(model, "b", "a") == pytest.approx((1 + 3 * one["b"]) / 6)
    assert prob(model, "a", "b") == pytest.approx(3 * one["a"] / 4)


@pytest.mark.parametrize("smoothing", ["kneser_ney", "dirichlet"])
@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("unknown", [False, True])
def test_probabilities_sum_to_one_after_any_history(smoothing, order, unknown):
    model = train_ngram(
        some_texts(), order, smoothing=smoothing, vocabulary="abcde", unknown=unknown
    )
    assert set(model.vocabulary) == {*"abcde", END, *([UNKNOWN] if unknown else [])}
    histories = [(BEGIN,), *itertools.product((BEGIN, *"abc"), "abe", "bcd")]
    for history in histories:
        total = sum(prob(model, symbol, *history) for symbol in model.vocabulary)
        assert total == pytest.approx(1.0, abs=1e-9)


def test_more_order_predicts_better_what_depends_on_the_past():
    texts = some_texts(400)
    train, test = texts[:300], texts[300:]
    found = [perplexity(train_ngram(train, order), test) for order in (1, 2)]
    assert found[1] < 0.8 * found[0]


def test_what_cannot_be_trained_is_explained():
    with pytest.raises(DataError, match="no"):
        train_ngram([], 2)
    with pytest.raises(DataError, match="</s>"):
        train_ngram([["a", "</s>"]], 2)
    for wrong in ({"order": 0}, {"discount": 1.0}, {"strength": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            train_ngram(["a"], **{"order": 2, **wrong})
    with pytest.raises(DataError, match="unknown=True"):
        train_ngram(["a"], 2).log_prob("z")
    assert train_ngram(["a"], 2, unknown=True).log_prob("z") < 0


@pytest.mark.parametrize("unknown", [False, True])
def test_arpa_files_keep_the_model(tmp_path, unknown):
    model = train_ngram(some_texts(), 3, unknown=unknown)
    write_arpa(model, tmp_path / "model.arpa")
    again = read_arpa(tmp_path / "model.arpa")
    assert again.order == 3
    assert again.vocabulary == model.vocabulary
    for history in itertools.product("abcd", repeat=2):
        for symbol in model.vocabulary:
            assert again.log_prob(symbol, history) == pytest.approx(model.log_prob(symbol, history))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "line|complete"),
        (lambda text: text.replace("\\end\\", ""), "complete"),
        (lambda text: text.replace("ngram 2=", "ngram 2=9"), "as many"),
        (lambda text: text.replace("-99", "minus"), "line 7"),
        (lambda text: "", "ARPA"),
    ],
)
def test_damaged_arpa_files_are_refused(tmp_path, damage, message):
    path = tmp_path / "model.arpa"
    write_arpa(train_ngram(["ab", "aa"], 2), path)
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)
    with pytest.raises(DataError, match=message):
        read_arpa(path)


def test_symbols_with_white_space_have_no_arpa_file(tmp_path):
    model = train_ngram(["a b"], 2)
    assert model.log_prob(" ", ["a"]) < 0
    with pytest.raises(DataError, match="white space"):
        write_arpa(model, tmp_path / "model.arpa")


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_automaton_adds_what_the_model_says(order):
    model = train_ngram(some_texts(), order)
    classes = ["a", "b", "", "c", "d"]
    automaton = label_automaton(model, classes, weight=0.7, bonus=0.2, blank_id=2)
    assert automaton.ends is not None
    scores, targets, ends = map(np.asarray, automaton)
    assert len(scores) <= 5 ** (order - 1)
    for text in ("", "a", "dcba", "abcdabcd", "aaaa"):
        state, total, expected = 0, 0.0, 0.0
        for i, symbol in enumerate(text):
            label = classes.index(symbol)
            total += scores[state, label]
            state = targets[state, label]
            expected += 0.7 * model.log_prob(symbol, (BEGIN, *text[:i])) + 0.2
        total += ends[state]
        expected += 0.7 * model.log_prob(END, (BEGIN, *text))
        assert total == pytest.approx(expected, abs=1e-4)


def test_beam_search_follows_the_model_where_the_sound_hardly_decides():
    """After a comes b, after b comes a; the second label sounds a little more like the first."""
    model = train_ngram(["ab", "ba", "ab", "ba"], 2)
    automaton = label_automaton(model, ["", "a", "b"])
    blank, a, b = (0.94 * jnp.eye(3) + 0.02)[:, None]
    like_a, like_b = jnp.array([[0.02, 0.53, 0.45]]), jnp.array([[0.02, 0.45, 0.53]])
    sounds = [jnp.concatenate(row) for row in ((a, blank, like_a), (b, blank, like_b))]
    logits = jnp.log(jnp.stack(sounds))
    with compiled_in_haste():
        informed = beam_search(logits, jnp.array([3, 3]), width=4, automaton=automaton)
        alone = beam_search(logits, jnp.array([3, 3]), width=4)
    assert alone.labels[:, 0, :2].tolist() == [[1, 1], [2, 2]]
    assert informed.labels[:, 0, :2].tolist() == [[1, 2], [2, 1]]


def test_the_word_decoder_reads_our_arpa_files(tmp_path):
    pytest.importorskip("ctc_beam_decoder")
    write_arpa(train_ngram([["ac"], ["ac"], ["ab", "ac"]], 2, unknown=True), tmp_path / "m.arpa")
    classes = ["", " ", "a", "b", "c"]
    frames = np.full((1, 2, 5), -8.0)
    frames[0, 0, 2], frames[0, 1, 3], frames[0, 1, 4] = 0.0, 0.3, 0.0
    log_probs = np.asarray(jax.nn.log_softmax(frames))
    arguments = log_probs, np.array([2])
    assert WordDecoder(classes)(*arguments)[0][0].text == "ab"
    informed = WordDecoder(classes, language_model=tmp_path / "m.arpa", weight=1.0)
    assert informed(*arguments)[0][0].text == "ac"


def test_an_arpa_file_may_have_no_ngrams_of_an_order(tmp_path):
    model = train_ngram([""], 4)
    write_arpa(model, tmp_path / "x.arpa")
    again = read_arpa(tmp_path / "x.arpa")
    assert again.order == 4
    assert again.log_prob(END, [BEGIN]) == pytest.approx(model.log_prob(END, [BEGIN]))
    cut = (tmp_path / "x.arpa").read_text().replace("ngram 3=0", "ngram 3=1")
    (tmp_path / "cut.arpa").write_text(cut)
    with pytest.raises(DataError, match="Is it complete"):
        read_arpa(tmp_path / "cut.arpa")


def test_ngrams_that_all_occur_once_are_still_likelier_than_others():
    model = train_ngram(["abcd"], 2)
    assert model.log_prob("b", ["a"]) > math.log(0.5) > model.log_prob("d", ["a"])
