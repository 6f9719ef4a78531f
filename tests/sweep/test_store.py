"""Rows: committed once, whole or not at all, merged, and damage told."""

import json
import threading

import pytest

from research.errors import RunError
from research.runlog import open_run, read_run
from research.sweep import Training, store_of
from research.sweep.store import append_line
from research.sweep.training import Task

TASK = Task("toy", "ab", "sgd", 2, "cosine", 4, 2)


def row(seed, loss=0.5):
    training = Training(TASK, "search", 0, 0, seed, {"learning_rate": 0.1})
    return {
        "key": training.key(),
        "status": "finished",
        "settings": training.settings(),
        "result": {"train_loss": [loss]},
    }


def test_the_first_row_of_a_key_stays(tmp_path):
    store = store_of(tmp_path)
    assert store.keys() == set()
    assert store.commit(row(1, loss=0.1))
    assert not store.commit(row(1, loss=0.2))
    assert store.read(row(1)["key"]) == row(1, loss=0.1)
    assert [path.name for path in store.path.iterdir()] == [f"{row(1)['key']}.json"]
    assert store.missing([row(2)["key"], row(1)["key"]]) == [row(2)["key"]]


def test_one_of_many_writers_wins_and_no_reader_sees_a_half(tmp_path):
    store, key = store_of(tmp_path), row(1)["key"]
    results, barrier = [], threading.Barrier(8)

    def write(number):
        barrier.wait()
        results.append((store.commit(row(1, loss=float(number))), number))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [number for won, number in results if won]
    assert store.read(key) == row(1, loss=float(winner))


def test_a_write_that_fails_leaves_nothing(tmp_path):
    store = store_of(tmp_path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.commit(row(1, loss=float("nan")))
    assert list(store.path.iterdir()) == []


def test_merging_takes_what_is_missing_and_keeps_what_is_there(tmp_path):
    ours, theirs = store_of(tmp_path / "ours"), store_of(tmp_path / "theirs")
    ours.commit(row(1, loss=0.1))
    theirs.commit(row(1, loss=0.9))
    theirs.commit(row(2))
    assert ours.merge(theirs) == 1
    assert ours.merge(theirs) == 0
    assert ours.rows() == sorted([row(1, loss=0.1), row(2)], key=lambda row: row["key"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"seed": 1', '"seed": 3'),
        lambda text: text.replace('"status": "finished"', '"status": "fini"'),
        lambda text: json.dumps(row(2)),
        lambda text: "[]",
    ],
)
def test_a_damaged_row_is_named_and_never_merged(tmp_path, damage):
    store = store_of(tmp_path)
    store.commit(row(1))
    path = store.path / f"{row(1)['key']}.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(RunError, match=rf"{path.name} must .*Delete it"):
        store.rows()
    other = store_of(tmp_path / "other")
    with pytest.raises(RunError, match=path.name):
        other.merge(store)
    assert other.keys() == set()


def test_what_a_killed_writer_leaves_is_no_row(tmp_path):
    store = store_of(tmp_path)
    store.commit(row(1))
    (store.path / f".{row(2)['key']}.12ab.tmp").write_text("{")
    assert store.rows() == [row(1)]


def test_reports_read_rows_with_the_other_records(tmp_path):
    arguments = {"experiment": "toys", "recipe": "quick", "config": {}, "data": {}, "seeds": [1]}
    with open_run(tmp_path, **arguments) as run:
        store_of(run.path).commit(row(1))
        append_line(run.path / "timings.jsonl", {"rows": [row(1)["key"]], "seconds": 1.0})
    records = read_run(run.path)
    assert records.rows == [row(1)]
    assert records.timings == [{"rows": [row(1)["key"]], "seconds": 1.0}]
    (run.path / "rows" / f"{row(1)['key']}.json").write_text("{")
    with pytest.raises(RunError, match=r"rows.*json must be a readable JSON file"):
        read_run(run.path)


def test_lines_of_many_writers_do_not_mix(tmp_path):
    path = tmp_path / "timings.jsonl"

    def write(number):
        for _ in range(50):
            append_line(path, {"from": number, "text": "x" * 500})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted(record["from"] for record in records) == sorted([*range(4)] * 50)
