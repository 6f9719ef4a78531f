"""The adapter to ctc-beam-decoder, where that is installed."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.speech.beam_search import beam_search
from research.speech.language_model import WordDecoder

SYMBOLS = ["", " ", "a", "b", "c"]

ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-2.0\t<unk>
-1.0\t<s>\t-0.3
-1.0\t</s>
-2.0\tab\t-0.3
-0.1\tac\t-0.3

\\2-grams:
-0.1\t<s> ac
-0.1\tac </s>

\\end\\
"""


def log_softmax(logits):
    return (logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def decoder():
    pytest.importorskip("ctc_beam_decoder")
    return WordDecoder(SYMBOLS)


def test_without_words_it_finds_what_our_search_finds(decoder):
    rng = np.random.default_rng(0)
    log_probs = log_softmax(1.5 * rng.normal(size=(6, 12, 5)))
    log_probs[:, :, 1] = -100.0  # no spaces: one word
    log_probs = log_softmax(log_probs)
    lengths = np.array([12, 9, 12, 12, 5, 1])
    state = beam_search(jnp.asarray(log_probs), jnp.asarray(lengths), width=64)
    found = decoder(log_probs, lengths, width=400, prune_below=-100.0, min_log_prob=-50.0)
    for i, hypotheses in enumerate(found):
        labels = np.asarray(state.labels[i, 0, : state.counts[i, 0]])
        assert hypotheses[0].text == "".join(SYMBOLS[k] for k in labels)
        assert hypotheses[0].log_prob >= hypotheses[-1].log_prob


def ambiguous():
    """Between ab and ac, ab being likelier."""
    frames = np.full((1, 2, 5), -8.0)
    frames[0, 0, 2] = 0.0
    frames[0, 1, 3], frames[0, 1, 4] = 0.3, 0.0
    return log_softmax(frames), np.array([2])


def test_hotwords_are_preferred(decoder):
    assert decoder(*ambiguous())[0][0].text == "ab"
    assert decoder(*ambiguous(), hotwords=["ac"])[0][0].text == "ac"


def test_a_language_model_is_followed(decoder, tmp_path):
    path = tmp_path / "words.arpa"
    path.write_text(ARPA)
    assert decoder(*ambiguous())[0][0].text == "ab"
    informed = WordDecoder(SYMBOLS, language_model=path, weight=1.0)
    assert informed(*ambiguous())[0][0].text == "ac"


def test_what_cannot_be_built_is_explained(decoder, tmp_path):
    with pytest.raises(ConfigError, match="no language model at"):
        WordDecoder(SYMBOLS, language_model=tmp_path / "none.arpa")
    with pytest.raises(ConfigError, match="blank"):
        WordDecoder(["a", "b"])


def test_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctc_beam_decoder", None)
    with pytest.raises(ConfigError, match="pip install ctc-beam-decoder"):
        WordDecoder(SYMBOLS)
