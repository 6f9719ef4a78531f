"""The benchmark of training steps: both sides train the same model; a wrong request is refused."""

import jax
import numpy as np
import pytest
from compilation import compiled_in_haste

from kernels.timing import Budget
from research.models import bench_steps


@pytest.mark.parametrize(
    "name", ["lenet", pytest.param("conv_attention_encoder", marks=pytest.mark.slow)]
)
def test_both_convolutions_train_the_same_model(name):
    trained = bench_steps.TRAINED[name](2)
    after = []
    for convolve in (trained.ours, trained.theirs):
        step, begin = bench_steps.programs(trained, convolve)["a step"]
        with compiled_in_haste():
            state = begin()
            after.append(jax.jit(step)(state))
    before = jax.tree.leaves(state.params)
    for ours, theirs, start in zip(
        *(jax.tree.leaves(state.params) for state in after), before, strict=True
    ):
        moved = np.abs(theirs - start).max()
        assert moved > 0
        assert np.abs(ours - theirs).max() < 1e-3 * moved + 1e-7


def test_the_table_has_a_row_for_each_program(monkeypatch, capsys):
    def programs(trained, convolve):
        slower = 3 if convolve is trained.theirs else 1
        return {"a step": (lambda x: x * slower, lambda: 1.0)}

    monkeypatch.setattr(bench_steps, "programs", programs)
    (row,) = bench_steps.measure(bench_steps.lenet(1), Budget(1e-9, 3))
    assert row[0] == "a step"
    assert row[-1] == "3"
    bench_steps.main(["lenet", "--rounds", "1", "--batch", "1"])
    assert "lenet, batch of 1" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["lenett"], ["--rounds", "0"]])
def test_a_wrong_request_says_what_there_is(wrong, capsys):
    with pytest.raises(SystemExit):
        bench_steps.main(wrong)
    assert "lenet, conv_attention_encoder" in capsys.readouterr().err
