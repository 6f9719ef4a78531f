"""What the documentation says was measured is what the committed records hold."""

from pathlib import Path

import pytest

import kernels
from kernels.bench_report import read_records, to_markdown
from kernels.contestants import INEXACT

FOLDER = Path(kernels.__file__).parent
RECORDS = sorted((FOLDER / "results").glob("*.jsonl"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_table_is_that_of_the_records(path: Path) -> None:
    records = read_records(path)
    assert to_markdown(records) in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_no_number_is_of_a_wrong_result_or_a_busy_machine(path: Path) -> None:
    for record in read_records(path):
        if record["status"] != "timed":
            assert "seconds" not in record or record["seconds"] is None
            continue
        for name, error in record["errors"].items():
            allowed = max(record["allowed"][name], 0.0 if record["ours"] else INEXACT)
            assert error <= allowed, (record["contestant"], name)
        assert record["clock"] != "wall" or record["others"] <= 0.1
