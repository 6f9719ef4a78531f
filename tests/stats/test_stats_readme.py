"""The README of the statistics lists its modules, and its example runs."""

import re
from pathlib import Path

from research import stats

FOLDER = Path(stats.__file__).parent
TEXT = (FOLDER / "README.md").read_text()


def test_every_module_is_listed_and_every_listed_one_exists():
    listed = re.findall(r"^- `(\w+\.py)`: ", TEXT, re.MULTILINE)
    assert sorted(listed) == sorted(p.name for p in FOLDER.glob("[!_]*.py"))


def test_the_example_goes_from_texts_to_an_interval(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(example, names)
    assert names["low"] < 0.2 < names["high"]  # two of ten words
    assert capsys.readouterr().out.startswith("20% of the words wrong, ")
