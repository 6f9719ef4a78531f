"""The benchmark of sweeps: both sides train the same model; a wrong request is refused."""

import importlib
import io

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments import bench_sweep, torch_loop
from research.errors import ConfigError, RunError
from research.sweep.backends import ChunkFailed
from research.sweep.chunks import Plan
from research.sweep.program import make_program, prepare, windows

SCAN, VMAP = Plan("scan")._asdict(), Plan("vmap", 8, 8)._asdict()
RECORD = {
    "case": "mlp_16",
    "goal": 20.0,
    "chosen": VMAP,
    "ours_cpu_seconds_per_step": [1e-5, 2e-5, 2e-5],
    "torch_cpu_seconds_per_step": [5e-4, 5e-4, 5e-4],
    "ratio": {"median": 25.0, "low": 25.0, "high": 50.0, "level": 0.75, "pairs": 3},
    "modes": [{**SCAN, "cpu_seconds": [4e-5]}, {**VMAP, "cpu_seconds": [2e-5]}],
}


def initial(workload, seed):
    return jax.device_get(workload.init(jax.random.split(jax.random.key(seed))[0]))


@pytest.mark.parametrize("name", ["mlp_32", "lenet"])
def test_the_torch_module_computes_what_the_model_does(name):
    torch = pytest.importorskip("torch")
    workload = bench_sweep.load(name)
    params = initial(workload, 0)
    for layer in params.values():  # biases start from zero, and would hide a wrong one
        layer["bias"] = np.random.default_rng(0).normal(size=layer["bias"].shape).astype("float32")
    batch = {key: array[:32] for key, array in workload.validation.items()}
    with torch.no_grad():
        images = torch.from_numpy(batch["x"].transpose(0, 3, 1, 2).copy())
        logits = torch_loop.build(torch, params)(images)
        labels = torch.from_numpy(batch["y"].astype(np.int64))
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    expected = workload.measure(params, batch)
    np.testing.assert_allclose(losses.numpy(), expected["loss"], rtol=1e-4, atol=1e-5)
    wrong = (logits.argmax(1) != labels).numpy()
    np.testing.assert_array_equal(wrong, expected["score"])


def test_both_sides_train_alike():
    torch = pytest.importorskip("torch")
    workload = bench_sweep.load("mlp_16")
    (training,) = bench_sweep.trainings("mlp_16", 1)
    program = make_program(workload, training.task, Plan("scan"))
    ours = windows(program, prepare(workload), Plan("scan"), [training])
    expected = [float(np.mean(next(ours)[1])) for _ in range(2)]
    module = torch_loop.build(torch, initial(workload, training.seed))
    found = torch_loop.train(torch, module, workload, training, 2)
    assert expected[1] < 0.9 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=bench_sweep.AGREEMENT)


def test_the_tables_say_what_was_measured():
    text = io.StringIO()
    bench_sweep.show([RECORD], Console(file=text, width=110))
    for part in ("50,000", "2,000", "25.00", "25.00 to 50.00 (75%)", "vmap 8", "1.000 times"):
        assert part in text.getvalue()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["mlp_33"], "cases must be among mlp_16, mlp_32, mlp_128, lenet; received mlp_33"),
        (["--rounds", "0"], "--rounds must be at least 1; received 0"),
        (["--trainings", "-2"], "--trainings must be at least 1; received -2"),
        (["--out", "{folder}/nowhere/a.jsonl"], "--out must lie in a folder that exists"),
        (["--out", "{folder}"], "--out must be a file of JSON lines"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_measured(
    wrong, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(bench_sweep, "measure_case", lambda *args: pytest.fail("measured"))
    with pytest.raises(SystemExit, match="2"):
        bench_sweep.main([word.format(folder=tmp_path) for word in wrong])
    captured = capsys.readouterr().err
    assert message in captured
    assert "Namespace" not in captured


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (ChunkFailed("the worker process 7 ended with signal 9"), "ended with signal 9"),
        (ChunkFailed("ValueError: no", "Traceback: where"), "Traceback: where"),
        (RunError("both sides of lenet must train the same model"), "must train the same"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
)
def test_what_was_measured_before_a_failure_is_shown(failure, message, monkeypatch, capsys):
    def measure(name, trainings, rounds, log):
        if name == "lenet":
            raise failure
        return {**RECORD, "case": name}

    monkeypatch.setattr(bench_sweep, "measure_case", measure)
    monkeypatch.setattr(torch_loop, "import_torch", lambda: None)
    with pytest.raises(SystemExit, match="2"):
        bench_sweep.main(["mlp_32", "lenet", "mlp_16"])
    captured = capsys.readouterr()
    assert "mlp_32: what the planner chooses from" in captured.out
    assert message in captured.err
    assert "experiments.bench_sweep lenet mlp_16" in captured.err


def test_without_torch_it_says_what_to_install(monkeypatch, capsys):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ConfigError, match="pip install torch"):
        torch_loop.import_torch()
    with pytest.raises(SystemExit):
        bench_sweep.main(["mlp_16"])
    assert "pip install torch" in capsys.readouterr().err
