"""The CTC comparison: values by hand, averages, verdicts, the examples."""

import json

import numpy as np
import pytest
from research.report.examples import chosen, compare, read_examples, shown_example, transcript
from research.report.speech_table import cells, verdict

from research.errors import RunError
from research.report import render, speech
from research.runlog import read_run

NAMES = ["-", *(str(k) for k in range(10))]


pytestmark = pytest.mark.usefixtures("unpainted")


def rows_of(path):
    return {(r["encoder"], r["test_speaker"]): r for r in speech.table(read_run(path))}


def test_the_table_is_what_one_computes_by_hand(speech_run):
    rows = rows_of(speech_run())
    assert list(rows) == [("bilstm", "theo"), ("conv_attention", "theo")]
    row = rows["bilstm", "theo"]
    assert row["label_error_rate"] == pytest.approx(2 / 16)
    assert (row["substitutions"], row["deletions"], row["insertions"]) == (1, 1, 0)
    assert (row["labels"], row["strings"], row["strings_right"]) == (16, 4, 0.5)
    assert row["deletion_rate"] == pytest.approx(1 / 16)
    assert row["label_error_rate_low"] < 2 / 16 < row["label_error_rate_high"]
    assert (row["validation_label_error_rate"], row["parameters"]) == (0.02, 387_000)
    assert row["label_error_rate_seed_deviation"] is None


def test_speakers_average_with_equal_weight(speech_run, make_speech_trial):
    trials = [
        make_speech_trial("bilstm", [[1, 0, 0, 5], [0, 0, 0, 5]], speaker="theo"),
        make_speech_trial("bilstm", [[1, 1, 1, 5], [0, 0, 0, 5]] * 10, speaker="george"),
    ]
    config = {"encoders": ["bilstm"], "test_speakers": ["theo", "george"], "seeds": [0]}
    rows = rows_of(speech_run(trials=trials, config=config, metrics=[], examples={}))
    assert list(rows) == [("bilstm", "theo"), ("bilstm", "george"), ("bilstm", "average")]
    average = rows["bilstm", "average"]
    assert average["label_error_rate"] == pytest.approx((0.1 + 0.3) / 2)
    shares = [average[f"{kind}_rate"] for kind in ("substitution", "deletion", "insertion")]
    assert shares == pytest.approx([0.1, 0.05, 0.05])
    assert sum(shares) == pytest.approx(average["label_error_rate"])


def test_seeds_on_the_same_strings_are_no_more_strings(speech_run, make_speech_trial):
    strings = [[1, 0, 0, 5], [0, 0, 0, 5], [0, 1, 0, 3]] * 10
    config = {"encoders": ["bilstm"], "test_speakers": ["theo"], "seeds": [0, 1]}
    once = speech_run(trials=[make_speech_trial("bilstm", strings)], config=config, examples={})
    first = rows_of(once)["bilstm", "theo"]
    trial = make_speech_trial("bilstm", strings, seed=1)
    (once / "trials/bilstm/theo/seed-1.json").write_text(json.dumps(trial))
    both = rows_of(once)["bilstm", "theo"]
    assert both["seeds"] == 2
    assert both["label_error_rate_low"] == pytest.approx(first["label_error_rate_low"])
    assert both["label_error_rate_high"] == pytest.approx(first["label_error_rate_high"])
    assert both["label_error_rate_seed_deviation"] == 0


def test_an_average_over_fewer_speakers_stays_blank(speech_run, make_speech_trial):
    trials = [make_speech_trial("bilstm", [[1, 0, 0, 5], [0, 0, 0, 5]], speaker="theo")]
    config = {"encoders": ["bilstm"], "test_speakers": ["theo", "george"], "seeds": [0]}
    path = speech_run(trials=trials, config=config, metrics=[], examples={})
    rows = rows_of(path)
    assert rows["bilstm", "theo"]["label_error_rate"] == pytest.approx(0.1)
    assert rows["bilstm", "george"]["label_error_rate"] is None
    assert rows["bilstm", "average"]["label_error_rate"] is None
    assert "Run in progress: 1 of 2 trials" in render(read_run(path)).body


def test_the_title_says_where_the_speech_is_from(speech_run):
    report = render(read_run(speech_run()))
    assert "Free Spoken Digit Dataset" in report.title
    assert f"<h1>{report.title}</h1>" in report.body


def verdict_on(speech_run, make, first, second, **options):
    trials = [make("bilstm", first), make("conv_attention", second, **options)]
    return verdict(cells(read_run(speech_run(trials=trials, metrics=[], examples={}))))


def test_a_clear_difference_is_said(speech_run, make_speech_trial):
    few = [[0, 0, 0, 5], [1, 0, 0, 5]] * 20
    many = [[2, 0, 0, 5], [1, 1, 0, 5]] * 20
    said = verdict_on(speech_run, make_speech_trial, many, few)
    assert said.startswith("Convolution + attention has the lowest")
    assert "Bidirectional LSTM (40.0 %, 30.0 points more" in said
    assert "makes more errors" in said
    assert "trained with one seed" in said  # one run each: said, not hidden


def test_nothing_learned_is_no_victory(speech_run, make_speech_trial):
    said = verdict_on(
        speech_run, make_speech_trial, [[0, 5, 0, 5], [0, 4, 0, 5]], [[3, 2, 4, 5], [2, 3, 2, 5]]
    )
    assert said.startswith("No encoder has learned to recognise digits")
    assert "lowest" not in said


def test_an_unclear_difference_has_no_winner(speech_run, make_speech_trial):
    one = [[0, 0, 0, 5], [1, 0, 0, 5], [1, 0, 0, 5]] * 4
    two = [[1, 0, 0, 5], [0, 0, 0, 5], [2, 0, 0, 5]] * 4
    said = verdict_on(speech_run, make_speech_trial, one, two)
    assert said.startswith("No clear winner.")
    assert "\N{MINUS SIGN}" in said  # the interval of the difference reaches below zero


def test_encoders_on_different_speakers_are_not_compared(speech_run, make_speech_trial):
    strings = [[0, 0, 0, 5], [1, 0, 0, 5]]
    said = verdict_on(speech_run, make_speech_trial, strings, strings, speaker="george")
    assert "not compared" in said


def test_a_diverged_run_is_counted(speech_run, make_speech_trial):
    trials = [
        make_speech_trial("bilstm", [[1, 0, 0, 5], [0, 0, 0, 5]]),
        make_speech_trial("conv_attention", [[0, 0, 0, 1]], diverged=True),
    ]
    path = speech_run(trials=trials, metrics=[], examples={})
    assert rows_of(path)["conv_attention", "theo"]["diverged"] == 1
    assert rows_of(path)["conv_attention", "theo"]["label_error_rate"] is None
    body = render(read_run(path)).body
    assert "Convolution + attention diverged in 1 of 1 run" in body
    assert "(1 diverged)" in body


def test_no_error_at_all_still_has_an_upper_limit(speech_run, make_speech_trial):
    trials = [make_speech_trial("bilstm", [[0, 0, 0, 5]] * 10)]
    row = rows_of(speech_run(trials=trials, metrics=[], examples={}))["bilstm", "theo"]
    assert row["label_error_rate"] == row["label_error_rate_low"] == 0
    assert 0.03 < row["label_error_rate_high"] < 0.1


def test_the_figures_are_there(speech_run):
    found = {figure.name for figure in render(read_run(speech_run())).figures}
    assert found == {"alignment_bilstm", "training_curves", "error_by_length", "confusion"}


@pytest.mark.parametrize(
    "damage",
    [
        {"label_error_rate": 0.5},  # contradicts its utterances
        {"utterance_errors": [[1, 0, 3]]},
        {"utterance_errors": [[0, 0, 0, 0]]},
        {"utterance_errors": None},
        {"confusion": [[1]]},
        {"confusion": {"symbols": ["0"], "counts": [[1]]}},
    ],
)
def test_a_damaged_trial_is_named(speech_run, make_speech_trial, damage):
    trial = make_speech_trial("bilstm", [[1, 0, 0, 5], [0, 0, 0, 5]])
    trial["result"] |= damage
    with pytest.raises(RunError, match="bilstm/theo/seed-0"):
        render(read_run(speech_run(trials=[trial], metrics=[], examples={})))


@pytest.mark.parametrize("key", ["log_mel_0", "alignment_0", "frame_seconds", "hypothesis_0"])
def test_damaged_examples_are_an_error(speech_run, make_examples, key):
    arrays = make_examples([([2], [2])])
    del arrays[key]
    with pytest.raises(RunError, match="bilstm/theo/seed-0"):
        render(read_run(speech_run(examples={"bilstm/theo/seed-0": arrays})))


def test_examples_of_another_length_are_an_error(make_examples):
    arrays = make_examples([([2], [2])])
    arrays["alignment_0"] = arrays["alignment_0"][:-1]
    with pytest.raises(RunError, match="do not fit together"):
        read_examples(arrays, "here")


def not_a_file_of_arrays(content):
    return b"torn"


def one_flipped_byte(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [not_a_file_of_arrays, one_flipped_byte])
def test_a_damaged_file_of_examples_is_an_error(speech_run, damage):
    path = speech_run()
    file = path / "examples/bilstm/theo/seed-0.npz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(RunError, match="seed-0"):
        render(read_run(path))


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


def test_errors_are_marked_in_both_lines(make_examples):
    (example,) = read_examples(make_examples([([9, 1, 4, 3], [9, 7, 4])]), "here")
    said, heard = transcript(example, NAMES)
    assert said == '<span class="digits">8<mark>0</mark>3<mark>2</mark></span>'
    assert heard == '<span class="digits">8<mark>6</mark>3<mark>·</mark></span>'


def test_padding_of_labels_is_dropped(make_examples):
    arrays = make_examples([([2, 3], [2])])
    arrays["labels_0"] = np.array([2, 3, 0, 0])
    arrays["hypothesis_0"] = np.array([2, 0, 0, 0])
    (example,) = read_examples(arrays, "here")
    assert (example.labels, example.hypothesis, example.errors) == ((2, 3), (2,), 1)


def test_the_worst_and_a_typical_example_are_chosen(make_examples):
    strings = [([1], [1]), ([1, 2, 3], []), ([1, 2], [1]), ([4], [4]), ([5], [5])]
    examples = read_examples(make_examples(strings), "here")
    kinds = [(kind, example.labels) for kind, example in chosen(examples)]
    assert kinds == [("most errors", (1, 2, 3)), ("most errors", (1, 2)), ("typical", (1,))]
    assert shown_example(examples) == 1
