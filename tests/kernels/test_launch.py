"""Launching kernels: arguments in order, outputs, scratch, aliases, and refusals."""

# pyright: reportMissingImports=false, reportInvalidTypeForm=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import launch

triton = pytest.importorskip("triton", reason="needs Triton, which is for Linux only")
tl = pytest.importorskip("triton.language", reason="needs Triton, which is for Linux only")


@triton.jit
def scale_and_count(x, factor, out, count, scratch, size: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(scratch + i, tl.load(x + i, mask=i < size), mask=i < size)
    tl.store(out + i, tl.load(scratch + i, mask=i < size) * factor, mask=i < size)
    tl.store(count, size)


@triton.jit
def add_in_place(x, y, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i) + tl.load(y + i))


@triton.jit
def spoil(x, out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(x + i, tl.load(x + i) + 1)
    tl.store(out + i, 0.0)


def like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


@pytest.mark.parametrize("compiled", [False, True])
def test_scalars_outputs_and_scratch_are_in_order(compiled):
    def call(x):
        out = {"y": like(x), "count": jax.ShapeDtypeStruct((), jnp.int32)}
        out = (out["y"], out["count"])
        return launch.kernel_call(
            scale_and_count, x, 3, out=out, grid=(1,), scratch=[like(x)], size=5, BLOCK=8
        )

    y, count = (jax.jit(call) if compiled else call)(jnp.arange(5.0))
    np.testing.assert_array_equal(y, 3 * np.arange(5.0))
    assert count == 5


def test_an_aliased_output_starts_with_its_input():
    x = jnp.arange(4.0)
    y = launch.kernel_call(add_in_place, x, x, out=like(x), grid=(1,), aliases={0: 0}, BLOCK=4)
    np.testing.assert_array_equal(y, 2 * np.arange(4.0))
    np.testing.assert_array_equal(x, np.arange(4.0))


def test_a_kernel_that_writes_to_its_input_is_found():
    x = jnp.arange(4.0)
    with pytest.raises(Exception, match="wrote to its input 0"):
        jax.block_until_ready(launch.kernel_call(spoil, x, out=like(x), grid=(1,), BLOCK=4))


def test_a_float_must_be_a_constexpr():
    x = jnp.arange(4.0)
    with pytest.raises(ValueError, match=r"argument 1 .* received 0\.5.*as a constexpr"):
        launch.kernel_call(add_in_place, x, 0.5, out=like(x), grid=(1,), BLOCK=4)


def test_a_platform_without_kernels_is_refused_with_the_reason():
    assert "not on tpu" in (launch.unavailable("tpu") or "")
    assert launch.unavailable("cpu") is None


def test_looking_for_jax_triton_leaves_the_cache_folder_alone():
    code = "from kernels import launch; import os; launch.unavailable('cuda'); "
    code += "print(os.environ['TRITON_CACHE_DIR'])"
    environment = {**os.environ, "TRITON_CACHE_DIR": "somewhere"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "somewhere"
