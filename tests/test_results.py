"""What README and results/ state is what the committed tables of the runs say."""

import csv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
NAMES = {
    "conv_attention": "Convolution + attention",
    "bilstm": "Bidirectional LSTM",
    "average": "**average**",
    "10 unseen voices": "ten voices",
}


TABLES = {"optimizers": "results.csv", "ctc": "table.csv"}


def rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name / TABLES[name.partition("/")[0]]).open() as file:
        return list(csv.DictReader(file))


def percent(value: str) -> str:
    return f"{100 * float(value):.1f}"


def short(value: str) -> str:
    """Three digits; nothing where nothing was measured."""
    return f"{float(value):.3g}" if value else "–"


def optimizer_line(row: dict[str, str]) -> str:
    interval = f"[{short(row['difference_low'])}, {short(row['difference_high'])}]"
    difference = f"{short(row['difference'])} {interval}" if row["difference"] else "–"
    steps = short(row["steps_to_target_median"])
    trials = int(row["search_trials"]) + int(row["final_runs"])
    diverged = int(row["search_diverged"]) + int(row["final_diverged"])
    return (
        f"| {row['workload']} | {row['horizon']} | {row['entrant']} "
        f"| {short(row['test_mean'])} ± {short(row['test_deviation'])} | {difference} "
        f"| {short(row['p_holm'])} | {steps} ({row['target_reached']} of {row['final_runs']}) "
        f"| {diverged} of {trials} |"
    )


def speech_line(row: dict[str, str]) -> str:
    low, high = percent(row["label_error_rate_low"]), percent(row["label_error_rate_high"])
    speaker = NAMES.get(row["test_speaker"], row["test_speaker"])
    return (
        f"| {NAMES[row['encoder']]} | {speaker} "
        f"| {percent(row['label_error_rate'])} [{low}, {high}] "
        f"| {percent(row['validation_label_error_rate'])} |"
    )


LINES = {"optimizers": optimizer_line, "ctc": speech_line}


RECORDED = sorted(
    str(path.parent.relative_to(RESULTS))
    for experiment, table in TABLES.items()
    for path in RESULTS.glob(f"{experiment}/*/{table}")
)


def stated_wrongly(name: str, page: Path) -> list[str]:
    """The lines that the recorded table gives and the page does not have, to paste."""
    text, line = page.read_text(), LINES[name.partition("/")[0]]
    return [expected for expected in map(line, rows(name)) if expected not in text]


@pytest.mark.parametrize("name", RECORDED)
def test_results_are_stated_as_recorded(name):
    assert not stated_wrongly(name, RESULTS / name.partition("/")[0] / "README.md")


def test_the_readme_states_the_results_as_recorded():
    text = (ROOT / "README.md").read_text()
    lines = [speech_line(row) for row in rows("ctc/quick")]
    longest = {row["workload"]: row["horizon"] for row in rows("optimizers/standard")}
    lines += [
        optimizer_line(row)
        for row in rows("optimizers/standard")
        if row["workload"] == "char_lm" and row["horizon"] == longest["char_lm"]
    ]
    assert len(lines) > 10
    assert [line for line in lines if line not in text] == []


def test_the_readme_shows_figures_that_exist():
    text = (ROOT / "README.md").read_text()
    shown = [part.split(")")[0] for part in text.split("](")[1:]]
    local = [path for path in shown if "://" not in path]
    assert local
    assert [path for path in local if not (ROOT / path).exists()] == []
