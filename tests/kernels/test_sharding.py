"""Operations over several devices: the rules of the calls themselves, seen in what is computed."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import kernel_matrix as matrix
import numpy as np
import pytest
import sharded
from compilation import sooner

import kernels
from kernels import launch
from kernels.offline import missing_for_offline

# More devices than processors wait for each other for ever unless XLA has threads for all.
ENVIRONMENT = {
    "NPROC": "32",
    "XLA_FLAGS": sooner("--xla_cpu_collective_call_terminate_timeout_seconds=120"),
}

# Ten times what it takes on two idle cores: a busy host is no fault.
TIMEOUT = 900
pytestmark = pytest.mark.timeout(TIMEOUT + 60)


def run(platform):
    """In a process of its own, since the number of devices is chosen once."""
    here = Path(sharded.__file__)
    process = subprocess.run(
        [sys.executable, str(here), platform],
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(here.parents[2])},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return process.stdout.splitlines()


def test_eight_devices_give_what_one_gives_without_gathering():
    assert run("cpu") == [
        *(f"checked {o} {name}" for o in matrix.FAMILIES for name in sharded.on_simulated(o)),
        *(f"checked channels of {operation}" for operation in sharded.BY_CHANNEL),
        "checked features of conv2d",
        *(f"checked second derivatives of {o}" for o in sharded.differentiated_twice()),
        "checked ctc_posteriors",
        "checked CTC over explicit axes",
    ]


@pytest.mark.skipif(matrix.WITHOUT_TRITON, reason="needs Triton, which is for Linux only")
@pytest.mark.skipif(missing_for_offline() is not None, reason=str(missing_for_offline()))
def test_eight_gpus_launch_kernels_on_their_own_rows():
    assert run("cuda") == [f"checked {operation} triton" for operation in matrix.FAMILIES]


@pytest.mark.skipif(matrix.WITHOUT_TRITON, reason="needs Triton, which is for Linux only")
def test_rows_that_share_a_row_of_an_operand_are_not_cut(monkeypatch):
    """Of two filters for sixteen rows, a device with two of the rows would not know which."""
    sharded_call, whole_rows = launch.sharded, []

    def recorded(function, rule, *arrays, whole=()):
        whole_rows.append("b" in whole)
        return sharded_call(function, rule, *arrays, whole=whole)

    monkeypatch.setattr(launch, "sharded", recorded)

    def gradients(inputs, filters):
        def total(inputs, filters):
            return jnp.sum(kernels.depthwise_conv1d(inputs, filters, implementation="triton"))

        return jax.grad(total, (0, 1))(inputs, filters)

    inputs, filters = jnp.ones((2, 8, 5, 3)), jnp.ones((2, 2, 3))
    jax.jit(jax.vmap(gradients)).lower(inputs, filters)
    assert any(whole_rows)
    whole_rows.clear()
    jax.jit(gradients).lower(inputs[0], filters[0])
    assert whole_rows
    assert not any(whole_rows)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "cell", matrix.cells(lambda operation, _: [sharded.case(operation)], on_gpu=True)
)
def test_the_gpus_at_hand_give_what_one_gives(cell):
    count = max(n for n in (1, 2, 4, 8) if n <= len(jax.devices()))
    axes = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ("data",), axis_types=axes)
    sharded.check_values(cell, mesh)
