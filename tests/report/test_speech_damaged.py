"""Rows of the CTC study that are not what an examination writes: each is named, none is guessed."""

import pytest
from speech_rows import ONE, changed, rows_of, write_study

from research.errors import RunError
from research.report import render
from research.runlog import read_run


def no_details(row):
    del row["result"]["details"]


def short_column(row):
    row["result"]["details"]["decoders"]["greedy"]["deletions"].pop()


def negative_count(row):
    row["result"]["details"]["decoders"]["greedy"]["deletions"][0] = -1


def other_strings_by_beam(row):
    row["result"]["details"]["decoders"]["beam"]["labels"][0] += 1


def no_labels(row):
    for found in row["result"]["details"]["decoders"].values():
        found["labels"] = [0] * len(found["labels"])


def small_confusion(row):
    row["result"]["details"]["confusion"] = [[1]]


def text_for_a_number(row):
    row["result"]["details"]["entropy"] = "low"


def unfinished_bins(row):
    row["result"]["details"]["reliability"]["accuracy"].pop()


def other_workload(row):
    row["settings"]["workload"] = "fsdd/ctc"


def other_test_strings(row):
    for found in row["result"]["details"]["decoders"].values():
        found["labels"][0] += row["settings"]["workload"].count("prior")


@pytest.mark.parametrize(
    "damage",
    [no_details, short_column, negative_count, other_strings_by_beam, no_labels, small_confusion,
     text_for_a_number, unfinished_bins, other_workload, other_test_strings],
)  # fmt: skip
def test_a_damaged_row_is_named(tmp_path, damage):
    rows = changed(ONE, damage)
    path = write_study(tmp_path / "quick", ONE, rows=rows, examples={})
    with pytest.raises(RunError, match=r"rows/[0-9a-f]{16}\.json"):
        render(read_run(path))


def test_two_trainings_of_one_speaker_and_seed_are_an_error(tmp_path):
    rows = rows_of(ONE)
    again = next(row for row in rows if row["settings"]["phase"] == "final") | {"key": "ab" * 8}
    path = write_study(tmp_path / "quick", ONE, rows=[*rows, again], examples={})
    with pytest.raises(RunError, match=r"(abab){4}\.json must.*speaker and seed.*trial"):
        render(read_run(path))
