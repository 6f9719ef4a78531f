"""What may be asked of the benchmark, and what it says of the rest."""

import re

import pytest
from bench_cases import TINY, main

from kernels import bench, problems
from kernels.timing import Budget, ClockError

FAMILIES = problems.FAMILIES
pytestmark = pytest.mark.usefixtures("small_bench")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["depthwise_conv"], "Did you mean 'depthwise_conv1d'?"),
        (["convolutions"], "Did you mean 'convolution'?"),
        (["convolution", "--shapes", "tinny"], "Did you mean 'tiny'?"),
        (["--dtype", "bfloat"], "Did you mean 'bfloat16'?"),
        (["nothing_like_it"], "received 'nothing_like_it'."),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(capsys, arguments, message):
    assert main(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--rounds", "0"], ["--seconds", "-1"], ["--pass", "half"], ["--rounds", "x"]]
)
def test_a_bad_option_ends_with_two(arguments):
    with pytest.raises(SystemExit) as ended:
        main(*arguments)
    assert ended.value.code == 2


def test_a_platform_without_a_clock_ends_with_two(monkeypatch, capsys):
    def refuse(_):
        raise ClockError("no clock")

    monkeypatch.setattr(bench, "clock_for", refuse)
    assert main() == 2
    assert "no clock" in capsys.readouterr().err


def test_a_jax_without_the_cpu_ends_with_two(monkeypatch, capsys):
    """As under JAX_PLATFORMS=cuda: what results are compared with cannot be computed."""
    devices = bench.jax.devices

    def without_cpu(platform=None):
        if platform == "cpu":
            raise RuntimeError("Unknown backend cpu")
        return devices(platform)

    monkeypatch.setattr(bench.jax, "devices", without_cpu)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert main() == 2
    assert "JAX_PLATFORMS=cuda leaves it out" in capsys.readouterr().err


def test_families_and_operations_are_selected_in_order_and_once():
    every = [("depthwise_conv1d", "tiny", TINY)]
    assert list(bench.select((), ())) == every
    assert list(bench.select(("convolution", "depthwise_conv1d"), ("tiny",))) == every
    operations = [name for family in problems.FAMILIES.values() for name in family]
    assert operations == [operation for operation, *_ in every]


def test_the_list_names_shapes_and_peers(capsys):
    assert main("--list") == 0
    text = capsys.readouterr().out
    assert "depthwise_conv1d (peers: lax, torch)" in text
    assert re.search(r"tiny +│ 2 +│ 6 +│ 3", text)


@pytest.fixture
def every_operation(small_bench, monkeypatch):
    del small_bench  # must come before
    monkeypatch.setattr(problems, "FAMILIES", FAMILIES)


@pytest.mark.usefixtures("every_operation")
def test_the_list_has_what_was_named_alone(capsys):
    assert main("--list", "ctc", "relative_attention", "--shapes", "long_8000", "parakeet_250") == 0
    text = capsys.readouterr().out
    assert re.findall(r"^(\w+) \(peers", text, re.MULTILINE) == ["ctc_loss", "relative_attention"]
    assert re.findall(r"^│ (\w+)", text, re.MULTILINE) == ["long_8000", "parakeet_250"]
    assert main("--list", "ctc_los") == 2
    assert "Did you mean 'ctc_loss'?" in capsys.readouterr().err


@pytest.mark.usefixtures("every_operation")
def test_the_list_says_what_its_cells_mean(capsys):
    main("--list", "relative_attention", "--shapes", "parakeet_250")
    assert "key_heads 0: as many as heads" in " ".join(capsys.readouterr().out.split())
    main("--list", "attention", "--shapes", "pairs_2048")
    text = " ".join(capsys.readouterr().out.split())
    assert "keys 0: as many as queries" in text
    assert "nts: differs by head, query and key" in text
    main("--list", "ctc", "--shapes", "long_8000")
    assert "lengths True: every other row is cut short" in " ".join(capsys.readouterr().out.split())


def test_the_budget_is_what_was_asked_for(monkeypatch):
    seen = []

    def run(requests, dtypes, passes, within, budget, longest, console):
        seen.append((dtypes, passes, within, budget, longest))
        return iter(())

    monkeypatch.setattr(bench, "run", run)
    main(
        "--dtype", "bfloat16", "float32", "--pass", "gradient", "--rounds", "200", "--longest", "9"
    )
    (found,) = seen
    budget = Budget(2.0, 200, 200)
    assert found == (["bfloat16", "float32"], ("gradient",), ["alone"], budget, 9.0)
