"""Automatic sharding over the batch: the rule of the call itself, seen in compiled programs."""

import os
import subprocess
import sys

PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, kernels
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
rows, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (("data",), ()))
x = jnp.sin(jnp.arange(8 * 9 * 3.0)).reshape(8, 9, 3)
f = jnp.cos(jnp.arange(12.0)).reshape(4, 3)


def step(x, f):
    def loss(x, f):
        y = kernels.depthwise_conv1d(x, f, activation="silu", lengths=jnp.arange(1, 9))
        return jnp.sum(jnp.sin(y))

    return jax.grad(loss, (0, 1))(x, f)


sharded = jax.jit(step, in_shardings=(rows, whole), out_shardings=(rows, whole))
text = sharded.lower(x, f).compile().as_text()
assert "all-gather" not in text, text
assert "all-reduce" in text, text
found = jax.block_until_ready(sharded(x, f))
for ours, alone in zip(found, jax.jit(step)(x, f), strict=True):
    np.testing.assert_allclose(ours, alone, rtol=1e-5, atol=1e-5)
print("the same")
"""


def test_eight_devices_give_what_one_gives_without_gathering():
    flags = "--xla_cpu_collective_call_terminate_timeout_seconds=20"
    environment = {**os.environ, "NPROC": "32", "XLA_FLAGS": flags}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.stdout.strip() == "the same", run.stderr
