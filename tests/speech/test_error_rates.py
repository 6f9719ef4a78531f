import numpy as np
import pytest

from research.errors import DataError
from research.speech.error_rates import (
    ErrorCounts,
    confusion_counts,
    count_errors,
    error_rate,
)


def edit_distance(reference, hypothesis) -> int:
    """Wagner and Fischer's table."""
    table = np.zeros((len(reference) + 1, len(hypothesis) + 1), int)
    table[:, 0] = np.arange(len(reference) + 1)
    table[0] = np.arange(len(hypothesis) + 1)
    for i, said in enumerate(reference):
        for j, heard in enumerate(hypothesis):
            table[i + 1, j + 1] = min(
                table[i, j + 1] + 1, table[i + 1, j] + 1, table[i, j] + (said != heard)
            )
    return int(table[-1, -1])


def random_pairs(count: int, symbols, seed: int = 0):
    rng = np.random.default_rng(seed)
    draw = lambda: [symbols[i] for i in rng.integers(len(symbols), size=rng.integers(0, 8))]  # noqa: E731
    return [draw() for _ in range(count)], [draw() for _ in range(count)]


@pytest.mark.parametrize("symbols", [[0, 1, 2], ["one", "a b", ""], list(range(1, 11))])
def test_errors_add_up_to_the_edit_distance(symbols):
    references, hypotheses = random_pairs(200, symbols)
    counts = count_errors(references, hypotheses)
    for reference, hypothesis, count in zip(references, hypotheses, counts, strict=True):
        assert count.errors == edit_distance(reference, hypothesis)
        assert count.reference == len(reference)
        assert count.insertions - count.deletions == len(hypothesis) - len(reference)


def test_each_kind_of_error():
    said = map(list, ["abc", "abc", "abc", "", "ab"])
    counts = count_errors([*said], [*map(list, ["axc", "ac", "abxc", "ab", ""])])
    assert counts == [
        ErrorCounts(1, 0, 0, 3),
        ErrorCounts(0, 1, 0, 3),
        ErrorCounts(0, 0, 1, 3),
        ErrorCounts(0, 0, 2, 0),
        ErrorCounts(0, 2, 0, 2),
    ]
    assert error_rate(counts) == 7 / 11


def test_the_rate_may_pass_one_and_empty_references_have_none():
    assert error_rate(count_errors([["a"]], [["b", "c", "d"]])) == 3.0
    with pytest.raises(DataError, match="at least one reference symbol"):
        error_rate(count_errors([[]], [["a"]]))
    with pytest.raises(DataError, match="0 references"):
        error_rate([])


def test_confusion_agrees_with_the_counts():
    symbols = [1, 2, 3, 4]
    references, hypotheses = random_pairs(150, symbols, seed=1)
    table = confusion_counts(references, hypotheses, symbols)
    counts = np.array(count_errors(references, hypotheses)).sum(axis=0)
    matched = table[:-1, :-1]
    assert table.shape == (5, 5)
    assert matched.sum() - np.trace(matched) == counts[0]
    assert table[:-1, -1].sum() == counts[1]
    assert table[-1, :-1].sum() == counts[2]
    assert table[-1, -1] == 0
    for i, symbol in enumerate(symbols):
        assert table[i].sum() == sum(reference.count(symbol) for reference in references)
        assert table[:, i].sum() == sum(hypothesis.count(symbol) for hypothesis in hypotheses)


def test_confusion_of_known_sequences():
    table = confusion_counts([[1, 2], [3], [2]], [[1, 3], [3, 3], []], [1, 2, 3])
    assert table.tolist() == [[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 1, 0]]


def test_nothing_to_compare():
    assert count_errors([], []) == []
    assert not confusion_counts([], [], "ab").any()


def test_bad_input_is_an_error():
    with pytest.raises(DataError, match="as many hypotheses"):
        count_errors([["a"]], [])
    with pytest.raises(DataError, match=r"among.*'c'"):
        confusion_counts(["a"], ["c"], "ab")
    with pytest.raises(DataError, match="distinct"):
        confusion_counts(["a"], ["a"], "aa")


@pytest.mark.parametrize(
    ("references", "hypotheses"),
    [
        (["the cat sat"], ["the cat sit"]),
        ([["the", "cat"]], ["the cat"]),
        ("the cat", "the cut"),
        ([""], [["a"]]),
    ],
)
def test_a_text_is_not_taken_for_its_characters(references, hypotheses):
    with pytest.raises(DataError, match=r"text\.split\(\).*words.*list\(text\).*characters"):
        count_errors(references, hypotheses)
