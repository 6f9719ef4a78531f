"""Tuning without a GPU: the interpreter runs the candidates, a clock of its own takes the times.

A launch moves that clock by what its configuration costs, so that only a candidate that really
ran can be fast.
"""

import dataclasses
import functools
import json
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels
from kernels import configurations, problems, tune, tuning_search
from kernels.configurations import Device
from kernels.convolution.depthwise1d import tuning
from kernels.convolution.depthwise1d.tuning import Config, Shape
from kernels.tuning_search import Finding

pytest.importorskip("triton", reason="candidates are interpreted, which needs Triton")
from kernels import interpreter

pytestmark = pytest.mark.usefixtures("in_haste")

GPU = Device("NVIDIA Test GPU", "sm_90")
SHAPES = {
    "small": Shape(1, 9, 3, 2, activation="silu"),
    "near": Shape(1, 10, 3, 2, activation="silu"),  # shares every bucket with it
}
CONVOLVE = "depthwise_conv1d.convolve"
KEY = "float32 channels<=4 dilation<=1 frames<=16 rows<=1 width<=2"
HEURISTIC = tuning.CONVOLVE.heuristic(arch="sm_90", **tuning.sizes(SHAPES["small"], "float32"))


@functools.cache
def exact(name: str):
    """The definition is the same in every test."""
    return _exact(tuning.problem("depthwise_conv1d", name, SHAPES[name], "float32"))


_exact = problems.exact


def block(frames: int) -> Config:
    return dataclasses.replace(HEURISTIC, block_frames=frames)


_interpret, _known = interpreter.run, {}


def interpret(kernel, grid, *arrays, **constexprs):
    """The interpreter takes its time, and sees the same launches in many tests."""
    key = (kernel.__name__, grid, *constexprs.items(), *(array.tobytes() for array in arrays))
    if key not in _known:
        _interpret(kernel, grid, *arrays, **constexprs)
        _known[key] = [array.copy() for array in arrays]
    for array, result in zip(arrays, _known[key], strict=True):
        array[...] = result


class Bench:
    """Kernels whose time, and truth, depend on block_frames as a test says."""

    def __init__(self) -> None:
        self.now = 0.0
        self.costs: dict[int, float] = {}  # block_frames -> cost of a launch of convolve
        self.wrong: set[int] = set()
        self.broken: set[int] = set()
        self.measured: list[list[float]] = []

    def run(self, kernel, grid, *arrays, **constexprs):
        frames = constexprs["BLOCK_T"]
        is_convolve = kernel.__name__ == "convolve" and not constexprs["SLOPE"]
        if is_convolve and frames in self.broken:
            raise RuntimeError("too many resources requested")
        interpret(kernel, grid, *arrays, **constexprs)
        if is_convolve and frames in self.wrong:
            arrays[-1][..., 0] *= 1.001
        self.now += self.costs.get(frames, 1.0) if is_convolve else 1.0

    def measure(self, functions, arguments, rounds):
        """A call of each function is enough: the clock is exact."""
        times = []
        for function in functions:
            start = self.now
            jax.block_until_ready(function(*arguments))
            times.append(round(self.now - start, 6))
        self.measured.append(times)
        return [[time] * rounds for time in times]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    bench = Bench()
    monkeypatch.setattr(interpreter, "run", bench.run)
    monkeypatch.setattr(configurations, "device", lambda: GPU)
    monkeypatch.setattr(configurations, "TREE", tmp_path / "tree")
    monkeypatch.setenv("TRELLIS_TUNING", str(tmp_path / "user"))
    monkeypatch.setattr(tuning, "SHAPES", SHAPES)
    monkeypatch.setattr(problems, "FAMILIES", {"convolution": ("depthwise_conv1d",)})
    monkeypatch.setattr(problems, "exact", lambda problem: exact(problem.name))
    give_candidates(monkeypatch, "CONVOLVE", HEURISTIC, block(8), block(32), block(64))
    give_candidates(monkeypatch, "SLOPE")
    give_candidates(monkeypatch, "FILTER_GRADIENT")
    configurations.forget()
    yield bench
    configurations.forget()


def give_candidates(monkeypatch, name, *configs):
    changed = dataclasses.replace(getattr(tuning, name), candidates=lambda **_: configs)
    monkeypatch.setattr(tuning, name, changed)
    everything = (tuning.CONVOLVE, tuning.SLOPE, tuning.FILTER_GRADIENT)
    monkeypatch.setattr(tuning, "TUNABLES", everything)


def nothing_wrong(*_, **__):
    return None


def findings(bench, inspect=nothing_wrong, **options) -> dict[str, Finding]:
    problem = tuning.problem("depthwise_conv1d", "small", SHAPES["small"], "float32")
    found = tuning_search.tune(problem, GPU, bench.measure, inspect=inspect, **options)
    return {finding.tunable.name: finding for finding in found}


def command(bench, *arguments, inspect=nothing_wrong) -> int:
    arguments = (*arguments, "--dtype", "float32")
    return tune.main(arguments, measure=bench.measure, inspect=inspect)


def table(tmp_path):
    return tmp_path / "user" / "nvidia-test-gpu.json"


def test_the_fastest_correct_candidate_is_kept(bench):
    bench.costs = {8: 0.9, 32: 0.5, 64: 0.7}
    found = findings(bench)
    assert [*found] == [CONVOLVE, tuning.SLOPE.name, tuning.FILTER_GRADIENT.name]
    finding = found[CONVOLVE]
    assert (finding.key, finding.heuristic, finding.best) == (KEY, HEURISTIC, block(32))
    assert (finding.tried, finding.dropped, finding.wrong) == (3, (), ())
    assert (finding.seconds, finding.heuristic_seconds) == (0.5, 1.0)
    assert found[tuning.SLOPE.name].best is None


def test_one_kernel_at_a_time_is_changed_where_it_is_launched(bench, monkeypatch):
    give_candidates(monkeypatch, "SLOPE", block(8))
    findings(bench)
    # The value is one launch. The gradients are three: the slope's, the inputs' and the filters'.
    assert bench.measured == [[1.0, 1.0]] * 3 + [[3.0, 3.0]]


def test_what_is_wrong_fails_or_does_not_fit_is_dropped_however_fast(bench):
    bench.costs = {4: 0.1, 8: 0.1, 32: 0.1, 64: 0.8}
    bench.wrong, bench.broken = {8}, {32}
    spills = block(4)
    bench_candidates = (block(8), block(32), spills, block(64))
    problem = tuning.problem("depthwise_conv1d", "small", SHAPES["small"], "float32")
    tunable = dataclasses.replace(tuning.CONVOLVE, candidates=lambda **_: bench_candidates)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "CONVOLVE", tunable)
        finding, *_ = tuning_search.tune(
            problem, GPU, bench.measure,
            inspect=lambda tunable, sizes, config, arch: "spills" if config == spills else None,
        )  # fmt: skip
    assert finding.best == block(64)
    assert finding.tried == 4
    (wrong,) = finding.wrong
    assert wrong.startswith(f"{block(8)}: output 0 is off by 0.00")
    failed, refused = finding.dropped
    assert failed.startswith(str(block(32)))
    assert "too many resources" in failed
    assert "\n" not in failed
    assert refused == f"{spills}: spills"
    # Only what is right is timed: one candidate, then again against the heuristic's.
    assert bench.measured == [[1.0, 0.8]] * 2


def test_a_wrong_gradient_is_found_too(bench, monkeypatch):
    """The slope's kernel alone is wrong, which no value shows."""
    original = bench.run

    def run(kernel, grid, *arrays, **constexprs):
        original(kernel, grid, *arrays, **constexprs)
        if constexprs.get("SLOPE") and constexprs["BLOCK_T"] == 8:
            arrays[-1][..., 0] *= 1.01

    monkeypatch.setattr(interpreter, "run", run)
    give_candidates(monkeypatch, "SLOPE", block(8))
    finding = findings(bench)[tuning.SLOPE.name]
    assert finding.best is None
    assert len(finding.wrong) == 1


@pytest.mark.parametrize("cost", [1.0, 0.995])
def test_a_tie_keeps_the_heuristic(cost, bench):
    bench.costs = {8: cost, 32: cost, 64: cost}
    finding = findings(bench)[CONVOLVE]
    assert finding.best is None
    assert finding.entry("") is None
    assert finding.heuristic_seconds == 1.0


@pytest.mark.parametrize("seed", range(5))
def test_what_is_within_the_noise_is_no_gain_and_what_is_beyond_it_is(seed):
    noise = 1 + 0.1 * np.random.default_rng(seed).normal(size=(4, tuning_search.FINAL_ROUNDS))
    before, *same = noise.tolist()
    assert tuning_search.winner(before, same) is None
    assert (
        tuning_search.winner(
            before, [same[0], [0.7 * time for time in same[1]], [0.9 * time for time in same[2]]]
        )
        == 1
    )
    # A machine that slows down in mid-run slows both: rounds are compared, not totals.
    drift = [1.0 + i for i in range(tuning_search.FINAL_ROUNDS)]
    assert tuning_search.winner(drift, [[0.98 * time for time in drift]]) == 0


def test_nothing_is_tuned_where_the_heuristic_is_wrong(bench, capsys):
    bench.wrong = {HEURISTIC.block_frames}
    finding = findings(bench)[CONVOLVE]
    assert finding.best is None
    assert finding.fault.startswith("the heuristic's: output 0 is off by")
    assert command(bench) == 1
    assert "the heuristic's: output 0" in " ".join(capsys.readouterr().out.split())


def test_an_entry_is_written_and_the_next_launch_uses_it(bench, tmp_path, capsys):
    bench.costs = {32: 0.5}
    assert command(bench) == 0
    x, f = jnp.ones((1, 9, 3)), jnp.ones((2, 3))
    start = bench.now
    call = jax.jit(lambda x: kernels.depthwise_conv1d(x, f, implementation="triton"))
    jax.block_until_ready(call(x))
    assert bench.now - start == 0.5  # block_frames 32 ran
    (found,) = kernels.explain(kernels.depthwise_conv1d, x, f, implementation="triton")
    assert f"{CONVOLVE} {block(32)} from your table, {table(tmp_path)}" in str(found)
    (entry,) = json.loads(table(tmp_path).read_text())["kernels"][CONVOLVE]["entries"].values()
    assert (entry["problem"], entry["seconds"]) == ("small/float32", 0.5)
    assert entry["heuristic_seconds"] == 1.0
    assert f"jax {jax.__version__}" in entry["made_with"]
    shown = capsys.readouterr().out
    assert f"1 entries written to {table(tmp_path)}" in shown
    for text in (KEY.split()[1], "block_frames 32", "2.00", "no better one"):
        assert text in shown


def test_shapes_of_one_bucket_are_tuned_once(bench, tmp_path):
    bench.costs = {32: 0.5}
    assert command(bench, "--shapes", "small") == 0
    alone = len(bench.measured)
    bench.measured.clear()
    assert command(bench, "depthwise_conv1d", "convolution") == 0
    assert len(bench.measured) == alone


def test_a_table_does_not_sway_the_next_tuning_and_what_lost_goes(bench, tmp_path):
    bench.costs = {32: 0.5}
    assert command(bench) == 0
    bench.costs = {8: 0.9, 32: 1.5}
    bench.measured.clear()
    assert command(bench) == 0
    assert bench.measured[0] == [1.0, 0.9]  # against the heuristic's, not the table's
    assert configurations.entries(table(tmp_path), tuning.CONVOLVE)[KEY].config == block(8)
    bench.costs = {}
    assert command(bench) == 0
    assert configurations.entries(table(tmp_path), tuning.CONVOLVE) == {}


def test_an_interrupted_run_keeps_what_was_finished(bench, tmp_path, monkeypatch, capsys):
    bench.costs = {32: 0.5}
    give_candidates(monkeypatch, "SLOPE", block(8))

    def interrupt(functions, arguments, rounds):
        if len(bench.measured) == 4:  # three candidates and the final of the first kernel
            raise KeyboardInterrupt
        return bench.measure(functions, arguments, rounds)

    status = tune.main(["--dtype", "float32"], measure=interrupt, inspect=nothing_wrong)
    assert status == 130
    assert "interrupted" in capsys.readouterr().err
    assert configurations.entries(table(tmp_path), tuning.CONVOLVE)[KEY].config == block(32)


def test_a_spent_budget_stops_and_does_not_undo_an_earlier_search(bench, tmp_path, capsys):
    bench.costs = {32: 0.5}
    assert command(bench) == 0
    before = table(tmp_path).read_text()
    late = iter([False, False, False, True])  # before the kernel, then after one candidate

    finding = findings(bench, is_late=lambda: next(late, True))[CONVOLVE]
    assert (finding.tried, finding.finished, finding.best) == (1, False, None)
    assert not tune._counts(finding, table(tmp_path))
    assert tune._counts(dataclasses.replace(finding, finished=True), table(tmp_path))
    assert tune._counts(finding, tmp_path / "empty.json")
    assert command(bench, "--budget", "0") == 0
    assert "not begun: small/float32, near/float32" in capsys.readouterr().err
    assert table(tmp_path).read_text() == before


def test_tables_go_where_they_are_told(bench, tmp_path):
    bench.costs = {32: 0.5}
    assert command(bench, "--out", "tree", "--shapes", "small") == 0
    assert command(bench, "--out", str(tmp_path / "mine.json"), "--shapes", "small") == 0
    mine = (tmp_path / "mine.json").read_text()
    assert mine == (tmp_path / "tree" / "nvidia-test-gpu.json").read_text()
    assert not table(tmp_path).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dense"], "operation must be one of .*'depthwise_conv1d'.*'dense'"),
        (["--shapes", "huge"], r"--shapes must be among \['near', 'small'\]; received \['huge'\]"),
        (["--out", "table.txt"], r"--out must be tree, cache or a file that ends in .json"),
    ],
)
def test_a_wrong_command_line_is_answered_with_what_there_is(arguments, message, bench, capsys):
    assert command(bench, *arguments) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_family_without_kernels_is_left_out(bench, monkeypatch):
    monkeypatch.setattr(tuning, "TUNABLES", ())
    with pytest.raises(ValueError, match=r"must have Triton kernels; received .'depthwise_conv1d"):
        tune.selected(["depthwise_conv1d"], [], ["float32"])


def test_a_damaged_table_is_told_before_anything_is_measured(bench, tmp_path, capsys):
    table(tmp_path).parent.mkdir()
    table(tmp_path).write_text("{")
    assert command(bench) == 2
    assert "nvidia-test-gpu.json is not a table" in capsys.readouterr().err
    assert not bench.measured


def test_a_shape_that_cannot_be_tuned_does_not_stop_the_others(bench, monkeypatch, capsys):
    original = tuning.problem

    def problem(operation, name, shape, dtype):
        if name == "small":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return original(operation, name, shape, dtype)

    monkeypatch.setattr(tuning, "problem", problem)
    bench.costs = {32: 0.5}
    assert command(bench) == 1
    captured = capsys.readouterr()
    assert "not tuned: depthwise_conv1d small/float32: JaxRuntimeError: RESOURCE" in captured.err
    assert "1 entries written" in captured.out


def test_without_a_gpu_the_command_says_what_it_needs(capsys):
    assert tune.main([]) == 2
    told = capsys.readouterr().err
    assert "needs an NVIDIA GPU" in told
    assert "JAX has cpu" in told
    assert "heuristics" in told


def test_what_the_static_report_finds_wrong_is_refused():
    sizes = tuning.sizes(Shape(2, 2048, 2048, 31), "float32")
    fits = tuning.CONVOLVE.heuristic(arch="sm_90", **sizes)
    assert tuning_search.inspect(tuning.CONVOLVE, sizes, fits, "sm_90") is None
    spills = Config(block_frames=32, block_channels=64, num_warps=1, unroll=1)
    assert "spills" in (tuning_search.inspect(tuning.CONVOLVE, sizes, spills, "sm_90") or "")
    # Nothing is known of the limits of another architecture: what fails to launch is dropped.
    assert tuning_search.inspect(tuning.CONVOLVE, sizes, spills, "sm_75") is None


def test_the_clock_gives_every_function_a_time_in_every_round():
    calls = SimpleNamespace(count=0)

    def slow(x):
        calls.count += 1
        return jnp.sum(jnp.sort(jnp.sin(x)))

    times = tuning_search.measure_on_device([jnp.negative, slow], [jnp.ones(4096)], 3)
    assert [len(seconds) for seconds in times] == [3, 3]
    assert all(second > 0 for seconds in times for second in seconds)
    assert calls.count > 3


@pytest.mark.gpu
def test_tuning_on_the_gpu_at_hand(tmp_path):
    path = tmp_path / "table.json"
    options = ("--shapes", "separable_w7", "--budget", "60", "--out", str(path))
    assert tune.main(["depthwise_conv1d", *options]) == 0
    for tunable in tuning.TUNABLES:
        for entry in configurations.entries(path, tunable).values():
            assert entry.seconds < entry.heuristic_seconds
