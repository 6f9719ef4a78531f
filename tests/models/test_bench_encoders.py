"""The benchmark of speech encoders: it trains what it says it does; a wrong request is refused."""

import functools

import jax
import jax.numpy as jnp
import pytest
from kernel_matrix import compiled_in_haste

from kernels.timing import Budget, Call, WallClock
from research.models import bench_encoders
from research.models.bench_encoders import Training
from research.models.separable_conv_encoder import SeparableConvEncoder


def test_a_step_trains_the_encoder(monkeypatch):
    small = functools.partial(SeparableConvEncoder, width=4, layers=1)
    monkeypatch.setattr(bench_encoders, "ENCODERS", {"separable_conv": small})
    with compiled_in_haste():
        step, parameters = bench_encoders.training("separable_conv", 2, 1.0)
        state, metrics = step()
    assert int(state.step) == 1
    assert 0 < float(metrics["loss"]) < 100
    assert parameters == sum(leaf.size for leaf in jax.tree.leaves(state.params)) > 500


def test_ratios_are_to_the_first(monkeypatch, capsys):
    now = [0.0]

    def takes(seconds):
        def start():
            now[0] += seconds
            return jnp.zeros(())

        return Training(Call(start), 1234)

    trainings = {"bilstm": takes(2.0), "conformer": takes(5.0)}
    clock = WallClock(lambda: now[0])
    rows = bench_encoders.measure(trainings, Budget(1e-9, 3), clock)
    assert [row[:4] for row in rows] == [
        ("bilstm", "1,234", "2 [2, 2]", "1.00"),
        ("conformer", "1,234", "5 [5, 5]", "2.50"),
    ]
    monkeypatch.setattr(bench_encoders, "training", lambda name, *_: takes(1.0))
    bench_encoders.main(["conformer", "--rounds", "1", "--clock", "cpu"])
    assert "cpu seconds" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["conformr"], ["--rounds", "0"], ["--seconds", "0"]])
def test_a_wrong_request_says_what_there_is(wrong, capsys):
    with pytest.raises(SystemExit):
        bench_encoders.main(wrong)
    assert "separable_conv, pooled_conv" in capsys.readouterr().err
