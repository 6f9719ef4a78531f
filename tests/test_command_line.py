"""The command line: helps, suggests, and turns errors into messages."""

import dataclasses
import os
import signal
from pathlib import Path

import pytest

from experiments import command_line
from experiments.__main__ import list_experiments
from experiments.command_line import Options, Recipe
from research.errors import DataError


@dataclasses.dataclass(frozen=True)
class Config:
    """A toy configuration."""

    trials: int = 8
    """How many trials."""
    names: tuple[str, ...] = ("a", "b")
    """What is compared."""


RECIPES = {"quick": Recipe("in a minute", Config()), "standard": Recipe("longer", Config(trials=9))}


def call(*arguments, run=None):
    calls = []

    def record(recipe, config, options):
        calls.append((recipe, config, options))
        return Path("report.html")

    command_line.main("toys", "Compare toys.", RECIPES, run or record, arguments)
    return calls[0]


def test_a_recipe_alone_and_with_overrides(capsys):
    assert call("standard") == ("standard", Config(trials=9), Options())
    assert capsys.readouterr().out == "Report: report.html\n"
    arguments = ["quick", "--trials", "3", "--names", "x", "y", "z", "--out", "there", "--fresh"]
    recipe, config, options = call(*arguments)
    assert (recipe, config) == ("quick", Config(trials=3, names=("x", "y", "z")))
    assert options == Options(out=Path("there"), fresh=True)


def exits(*arguments, capsys, **options):
    with pytest.raises(SystemExit) as caught:
        call(*arguments, **options)
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


def test_help_explains_recipes_and_options(capsys):
    code, out, _ = exits("--help", capsys=capsys)
    assert code == 0
    assert "usage: python -m experiments.toys {quick,standard}" in out
    assert "in a minute" in out
    code, out, _ = exits("quick", "--help", capsys=capsys)
    assert code == 0
    assert "--trials" in out
    assert "How many trials." in out
    assert "moved aside" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["quik"], "received 'quik'. Did you mean 'quick'?"),
        ([], "received nothing."),
        (["zebra"], "must be a recipe (quick, standard); received 'zebra'.\n"),
        (["quick", "--trails", "3"], "--trials"),
        (["quick", "--trials", "many"], "many"),
    ],
)
def test_mistakes_are_answered_with_the_right_name(arguments, expected, capsys):
    code, _, err = exits(*arguments, capsys=capsys)
    assert code == 2
    assert expected in err


def test_errors_are_messages_without_a_traceback(capsys):
    def run(recipe, config, options):
        raise DataError("labels must be digits; received 'x'.")

    code, _, err = exits("quick", run=run, capsys=capsys)
    assert (code, err) == (2, "error: labels must be digits; received 'x'.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_says_how_to_go_on(number, capsys):
    def run(recipe, config, options):
        os.kill(os.getpid(), number)
        raise AssertionError("the signal should have arrived")

    before = signal.getsignal(signal.SIGTERM)
    code, _, err = exits("quick", run=run, capsys=capsys)
    assert code == 130
    assert "The same command goes on" in err
    assert signal.getsignal(signal.SIGTERM) is before


def test_each_experiment_has_a_line():
    experiments = list_experiments()
    assert set(experiments) == {"compare_optimizers", "compare_ctc", "train_ctc"}
    assert all(line.endswith("?") for line in experiments.values())
