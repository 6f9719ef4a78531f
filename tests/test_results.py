"""What README and results/ state is what the committed tables of the runs say."""

import csv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
EXPERIMENTS = ("optimizers", "ctc", "train_ctc")


def rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name / "results.csv").open() as file:
        return list(csv.DictReader(file))


def percent(value: str) -> str:
    return f"{100 * float(value):.1f}" if value else "–"


def between(row: dict[str, str], name: str) -> str:
    return f"[{percent(row[f'{name}_low'])}, {percent(row[f'{name}_high'])}]"


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
    difference = f"{percent(row['difference'])} {between(row, 'difference')}"
    return (
        f"| {row['encoder']} | {row['objective']} | {row['trainings']} "
        f"| {percent(row['error_rate'])} {between(row, 'strings')} {between(row, 'trainings')} "
        f"| {difference if row['difference'] else '–'} | {short(row['p_holm'])} "
        f"| {short(row['boundary_error_milliseconds'])} | {percent(row['blank_fraction'])} "
        f"| {short(row['calibration_error'])} |"
    )


def recogniser_line(row: dict[str, str]) -> str:
    wrong = " ".join(row[name] for name in ("substitutions", "deletions", "insertions"))
    return (
        f"| {row['decoder']} | {row['unit']} "
        f"| {percent(row['error_rate'])} {between(row, 'error_rate')} | {wrong} | {row['said']} |"
    )


LINES = {"optimizers": optimizer_line, "ctc": speech_line, "train_ctc": recogniser_line}


RECORDED = sorted(
    str(path.parent.relative_to(RESULTS))
    for experiment in EXPERIMENTS
    for path in RESULTS.glob(f"{experiment}/*/results.csv")
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
    lines = [speech_line(row) for row in rows("ctc/standard")]
    longest = {row["workload"]: row["horizon"] for row in rows("optimizers/standard")}
    lines += [
        optimizer_line(row)
        for row in rows("optimizers/standard")
        if row["workload"] == "char_lm" and row["horizon"] == longest["char_lm"]
    ]
    assert len(lines) > 8
    assert [line for line in lines if line not in text] == []


def test_the_readme_shows_figures_that_exist():
    text = (ROOT / "README.md").read_text()
    shown = [part.split(")")[0] for part in text.split("](")[1:]]
    local = [path for path in shown if "://" not in path]
    assert local
    assert [path for path in local if not (ROOT / path).exists()] == []
