"""The test strings kept as examples: read, compared, shown with their errors."""

import numpy as np
import pytest
from speech_rows import Study, Truth, example_arrays, first_examples, rows_of, write_study

from research.errors import RunError
from research.report import render
from research.report.speech.examples import (
    chosen,
    compare,
    figure_title,
    read_examples,
    spoken,
    transcript,
)
from research.runlog import read_run

NAMES = ["-", *(str(k) for k in range(10))]
STUDY = Study(truths={"ctc": Truth()}, encoders={"bilstm": 0.0}, folds=("theo",), seeds=(1,),
              trials=1, strings=4)  # fmt: skip

pytestmark = pytest.mark.usefixtures("unpainted")


def run_with(path, arrays):
    (key,) = first_examples(STUDY, rows_of(STUDY))
    return write_study(path / "quick", STUDY, examples={key: arrays}), key


@pytest.mark.parametrize(
    "key", ["log_mel_0", "alignment_0", "frame_seconds", "hypothesis_0", "waveform_0"]
)
def test_damaged_examples_are_an_error(tmp_path, key):
    arrays = example_arrays([([2], [2])])
    del arrays[key]
    path, row = run_with(tmp_path, arrays)
    with pytest.raises(RunError, match=row):
        render(read_run(path))


@pytest.mark.parametrize(
    ("key", "array"),
    [("alignment_0", np.zeros(3, int)), ("boundaries_0", np.zeros((1, 3))),
     ("labels_0", np.array([99])), ("waveform_0", np.zeros((2, 2)))],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_an_error(key, array):
    arrays = example_arrays([([2], [2])]) | {key: array}
    with pytest.raises(RunError, match="do not fit together"):
        read_examples(arrays, "here")


def test_examples_of_another_alphabet_are_an_error(tmp_path):
    arrays = example_arrays([([2], [2])])
    arrays["log_posteriors_0"] = arrays["log_posteriors_0"][:, :7]
    path, row = run_with(tmp_path, arrays)
    with pytest.raises(RunError, match=f"{row}.*11 classes"):
        render(read_run(path))


def not_a_file_of_arrays(content):
    return b"torn"


def one_flipped_byte(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [not_a_file_of_arrays, one_flipped_byte])
def test_a_damaged_file_of_examples_is_an_error(tmp_path, damage):
    path, row = run_with(tmp_path, example_arrays([([2], [2])]))
    file = path / "examples" / f"{row}.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(RunError, match=row):
        render(read_run(path))


def test_an_error_is_shown_beside_a_success_with_true_boundaries(tmp_path):
    path, _ = run_with(tmp_path, example_arrays([([6], [6]), ([2, 3, 4], [2, 4])]))
    report = render(read_run(path))
    (shown,) = [figure for figure in report.figures if figure.name.startswith("example_")]
    assert "an error beside a success" in shown.title
    assert "brackets" in shown.shows
    assert '1<mark>2</mark>3</span><br><span class="digits">1<mark>·</mark>3' in report.body


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [([1, 2, 3], [1, 2, 3], 0), ([1, 2, 3], [1, 3], 1), ([1], [1, 1], 1), ([1, 2], [], 2),
     ([1, 2], [2, 1], 2), ([], [4], 1)],
)  # fmt: skip
def test_compared_symbols_spell_both_lines(reference, hypothesis, errors):
    edits = compare(reference, hypothesis)
    assert [said for _, said, _ in edits if said is not None] == reference
    assert [heard for _, _, heard in edits if heard is not None] == hypothesis
    assert sum(kind != "equal" for kind, _, _ in edits) == errors


def test_errors_are_marked_in_both_lines():
    (example,) = read_examples(example_arrays([([9, 1, 4, 3], [9, 7, 4])]), "here")
    said, heard = transcript(example, NAMES)
    assert said == '<span class="digits">8<mark>0</mark>3<mark>2</mark></span>'
    assert heard == '<span class="digits">8<mark>6</mark>3<mark>·</mark></span>'
    assert figure_title(example, NAMES) == "said 8 0 3 2\nrecognised 8 6 3"


def test_padding_of_labels_is_dropped():
    arrays = example_arrays([([2, 3], [2])])
    arrays["labels_0"] = np.array([2, 3, 0, 0])
    arrays["hypothesis_0"] = np.array([2, 0, 0, 0])
    (example,) = read_examples(arrays, "here")
    assert (example.labels, example.hypothesis, example.errors) == ((2, 3), (2,), 1)


def test_the_worst_and_the_right_ones_are_chosen():
    strings = [([1], [1]), ([1, 2, 3], []), ([1, 2], [1]), ([4], [4]), ([5], [6])]
    wrong, right = chosen(read_examples(example_arrays(strings), "here"), most=2)
    assert [example.labels for example in wrong] == [(1, 2, 3), (1, 2)]
    assert [example.labels for example in right] == [(1,), (4,)]


def test_symbols_are_written_as_their_alphabet_asks():
    letters = ["-", "a", "b", " "]
    pieces = ["-", "\N{LOWER ONE EIGHTH BLOCK}the", "n"]
    assert spoken([1, 3, 2, 2], letters) == "a bb"
    assert spoken([1, 2, 1], pieces) == "then the"
    assert spoken([], letters) == "nothing"
    assert spoken([1, 2] * 40, letters, most=8) == "abababa\N{HORIZONTAL ELLIPSIS}"
