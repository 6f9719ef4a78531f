"""What README and results/ state is what the committed tables of the runs say."""

import csv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
NAMES = {
    "mlp": "MLP",
    "lenet": "LeNet",
    "sgd": "SGD",
    "momentum": "Momentum",
    "nesterov": "Nesterov",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSprop",
    "adam": "Adam",
    "adamw": "AdamW",
    "conv_attention": "Convolution + attention",
    "bilstm": "Bidirectional LSTM",
    "average": "**average**",
    "10 unseen voices": "ten voices",
}


def rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / name / "table.csv").open() as file:
        return list(csv.DictReader(file))


def percent(value: str) -> str:
    return f"{100 * float(value):.1f}"


def optimizer_line(row: dict[str, str]) -> str:
    reached = f"{row['target_reached']} of {row['final_trials']}"
    mean = row["steps_to_target_mean"]
    steps = f"{float(mean):.0f} ({reached})" if mean else "–"
    trials = int(row["search_trials"]) + int(row["final_trials"])
    diverged = int(row["search_diverged"]) + int(row["final_diverged"])
    return (
        f"| {NAMES[row['workload']]} | {NAMES[row['optimizer']]} "
        f"| {percent(row['best_validation_accuracy'])} "
        f"| {percent(row['test_accuracy_mean'])} ± {percent(row['test_accuracy_deviation'])} "
        f"| {steps} | {diverged} of {trials} |"
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


RECORDED = sorted(str(path.parent.relative_to(RESULTS)) for path in RESULTS.glob("*/*/table.csv"))


def stated_wrongly(name: str, page: Path) -> list[str]:
    """The lines that the recorded table gives and the page does not have, to paste."""
    text, line = page.read_text(), LINES[name.partition("/")[0]]
    return [expected for expected in map(line, rows(name)) if expected not in text]


@pytest.mark.parametrize("name", RECORDED)
def test_results_are_stated_as_recorded(name):
    assert not stated_wrongly(name, RESULTS / name.partition("/")[0] / "README.md")


@pytest.mark.parametrize("name", ["optimizers/quick", "ctc/quick"])
def test_the_readme_states_the_quick_results_as_recorded(name):
    assert not stated_wrongly(name, ROOT / "README.md")


def test_the_readme_shows_figures_that_exist():
    text = (ROOT / "README.md").read_text()
    shown = [part.split(")")[0] for part in text.split("](")[1:]]
    local = [path for path in shown if "://" not in path]
    assert local
    assert [path for path in local if not (ROOT / path).exists()] == []
