import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import ConfigError
from research.speech.beam_search import LabelAutomaton
from research.speech.ngram import train_ngram
from research.speech.tokenisers import CharacterTokeniser
from research.speech.transcripts import (
    Heard,
    Transcripts,
    beam,
    choose_fusion,
    error_lists,
    greedy,
    ngram_automaton,
    weighted,
    write_down,
)

TOKENISER = CharacterTokeniser(" ab")
TEXTS = ["ab a", "b", "aab"]


def spelled(text: str, frames: int) -> np.ndarray:
    """Logits whose best path is the text, a blank after each label."""
    path = [label for k in TOKENISER.encode(text) for label in (k, 0)]
    path += [0] * (frames - len(path))
    return 9.0 * np.eye(TOKENISER.size, dtype=np.float32)[path]


def heard_of(*texts: str) -> list[Heard]:
    """In two batches, backwards, the last filled up."""
    logits = np.stack([spelled(text, 10) for text in texts])
    order = np.arange(len(texts))[::-1]
    batches = []
    for start in range(0, len(texts), 2):
        indices = order[start : start + 2]
        rows = np.pad(indices, (0, 2 - len(indices)), mode="edge")
        batches.append(
            Heard(indices, logits[rows], np.full(2, 10, np.int32), np.zeros(2, np.float32))
        )
    return batches


def test_transcripts_are_in_the_order_of_the_corpus():
    found = write_down(
        heard_of("ab a", "a", "aab"),
        ["AB  a", "b", "aab"],
        TOKENISER,
        {"greedy": greedy(), "beam": beam(4)},
    )
    for made in found.values():
        assert made.said == TEXTS
        assert made.heard == ["ab a", "a", "aab"]
    assert [count.errors for count in found["greedy"].words] == [0, 1, 0]
    assert [tuple(count) for count in found["greedy"].characters][1] == (1, 0, 0, 1)
    assert found["greedy"].of([2, 1]) == Transcripts(["aab", "b"], ["aab", "a"])


def test_lists_hold_a_count_for_each_utterance():
    found = error_lists(Transcripts(["a b", "b"], ["a", "a b"]).words)
    assert found == {
        "substitutions": [0, 0],
        "deletions": [1, 0],
        "insertions": [0, 1],
        "labels": [2, 1],
    }


def test_the_automaton_scores_a_text_as_its_ngram_model_does():
    automaton = ngram_automaton(TOKENISER, TEXTS, 3)
    model = train_ngram(TEXTS, 3, vocabulary=" ab")
    state, total = 0, 0.0
    for label in TOKENISER.encode("ab a"):
        total += float(automaton.scores[state, label])
        state = int(automaton.next_states[state, label])
    assert automaton.ends is not None
    total += float(automaton.ends[state])
    text = ("<s>", *"ab a")
    expected = sum(model.log_prob(s, text[: i + 1]) for i, s in enumerate((*"ab a", "</s>")))
    assert total == pytest.approx(expected, rel=1e-5)


def test_a_strong_model_overrules_the_sound():
    """Where a and b sound alike, the texts decide."""
    unsure = spelled("aa", 10)
    unsure[2, TOKENISER.encode("b")[0]] = unsure[2, TOKENISER.encode("a")[0]] + 0.1
    logits, frames = jnp.asarray(unsure)[None], jnp.array([10])
    automaton = ngram_automaton(TOKENISER, ["aa"] * 5, 2)
    (plain,) = beam(8)(logits, frames)
    (fused,) = beam(8, automaton=weighted(automaton, 1.0, 0.0))(logits, frames)
    assert TOKENISER.decode(plain) == "ab"
    assert TOKENISER.decode(fused) == "aa"


def test_the_best_weight_then_the_best_bonus_is_chosen():
    automaton = LabelAutomaton(jnp.full((1, 2), -1.0), jnp.zeros((1, 2), int))

    def measure(made):
        score = float(made.scores[0, 1])
        return abs(score + 0.35)  # least at weight 0.6 and bonus 0.25

    fusion = choose_fusion(measure, automaton, (0.2, 0.6, 1.0), (0.0, 0.25, 0.75))
    assert (fusion.weight, fusion.bonus) == (0.2, 0.0)
    fusion = choose_fusion(measure, automaton, (0.6, 1.0), (0.0, 0.25, 0.75))
    assert (fusion.weight, fusion.bonus) == (0.6, 0.25)
    assert fusion.word_error_rate == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ConfigError, match="a weight"):
        choose_fusion(measure, automaton, (), ())
