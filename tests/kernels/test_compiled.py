"""Kernels compiled for GPUs that are not here: every fault is planted once and must be found."""

# pyright: reportInvalidTypeForm=false
# Triton is imported where it is installed, so its types are not known here.

import functools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

triton = pytest.importorskip("triton", reason="compiling kernels needs triton")
tl = pytest.importorskip("triton.language")

from kernels.architectures import ARCHITECTURES, find_architecture  # noqa: E402
from kernels.compiled import (  # noqa: E402
    ReportError,
    Row,
    Variant,
    compile_variant,
    disassembler,
    examine,
    read_compiled,
)
from kernels.cubin import resources  # noqa: E402
from kernels.launch import kernel_call, unavailable  # noqa: E402
from kernels.offline import compile_offline, missing_for_offline  # noqa: E402

ARCHS = sorted(ARCHITECTURES)
needs_disassembler = pytest.mark.skipif(
    disassembler() is None, reason="this triton brings no cuobjdump"
)


class Config(NamedTuple):
    num_warps: int = 4
    num_stages: int = 2


@triton.jit
def _scale(inputs, outputs, FACTOR: tl.constexpr, STRIDE: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(outputs + i * STRIDE, tl.load(inputs + i * STRIDE) * FACTOR)


@triton.jit
def _scale_in_double(inputs, outputs, factor, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(outputs + i, (tl.load(inputs + i) * factor).to(tl.float32))


@triton.jit
def _normalise(inputs, outputs, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """Hold a tile in registers from a sum over it to its use: too large a tile spills."""
    i = tl.arange(0, ROWS)[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    x = tl.load(inputs + i)
    tl.store(outputs + i, x / tl.sum(tl.sum(x, 1), 0))


@triton.jit
def _add_all(inputs, outputs, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.atomic_add(outputs + i, tl.load(inputs + i))


@triton.jit
def _product(
    left,
    right,
    outputs,
    DEPTH: tl.constexpr,
    BLOCK: tl.constexpr,
    STEP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    i, j, k = tl.arange(0, BLOCK), tl.arange(0, BLOCK), tl.arange(0, STEP)
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, DEPTH, STEP):
        x = tl.load(left + i[:, None] * DEPTH + start + k[None, :])
        y = tl.load(right + (start + k)[:, None] * BLOCK + j[None, :])
        total = tl.dot(x, y, total, input_precision=PRECISION)
    tl.store(outputs + i[:, None] * BLOCK + j[None, :], total)


def scale(stride: int = 1, block: int = 1024, bytes: float = 8192.0) -> Variant:
    constants = {"FACTOR": 0.1, "STRIDE": stride, "BLOCK": block}
    signature = {"inputs": "*fp32", "outputs": "*fp32"}
    return Variant("scale", _scale, signature, constants, Config(), bytes, 1024.0)


def scale_in_double() -> Variant:
    signature = {"inputs": "*fp32", "outputs": "*fp32", "factor": "fp64"}
    return Variant("double", _scale_in_double, signature, {"BLOCK": 128}, Config(), 1.0, 1.0)


def add_all() -> Variant:
    signature = {"inputs": "*fp32", "outputs": "*fp32"}
    return Variant("add", _add_all, signature, {"BLOCK": 128}, Config(), 1.0, 1.0)


def normalise(rows: int) -> Variant:
    constants = {"ROWS": rows, "BLOCK": 128}
    signature = {"inputs": "*fp32", "outputs": "*fp32"}
    config = Config(num_warps=1)
    return Variant("normalise", _normalise, signature, constants, config, 1.0, 1.0)


def product(
    dtype: str = "bf16", precision: str = "ieee", block: int = 64, step: int = 64, stages: int = 2
) -> Variant:
    constants = {"DEPTH": 1024, "BLOCK": block, "STEP": step, "PRECISION": precision}
    signature = {"left": f"*{dtype}", "right": f"*{dtype}", "outputs": "*fp32"}
    config = Config(num_stages=stages)
    flops = 2.0 * block * block * 1024
    return Variant("product", _product, signature, constants, config, 1.0, flops)


# Compiling and disassembling take a second each: once for all tests.
@functools.cache
def compiled(make: Callable[..., Variant], arch: str, **options: Any) -> Any:
    return compile_variant(make(**options), find_architecture(arch))


@functools.cache
def read(make: Callable[..., Variant], arch: str, use_sass: bool = True, **options: Any) -> Row:
    kernel = compiled(make, arch, **options)
    return read_compiled(make(**options), kernel, find_architecture(arch), use_sass=use_sass)


def findings(row: Row) -> str:
    return "; ".join((*row.faults, *row.notes))


@pytest.mark.parametrize("arch", ARCHS)
def test_a_plain_kernel_has_no_findings(arch: str) -> None:
    row = examine(scale(), arch, family="toy")
    assert (row.family, row.variant, row.arch) == ("toy", "scale", arch)
    assert row.faults == row.notes == ()
    assert 8 <= row.registers <= 64
    assert row.loads == row.stores == {128: 2}
    assert (row.stack_bytes, row.spills, row.double, row.atomics) == (0, 0, 0, 0)
    assert (row.matrix, row.shared_bytes) == ({}, 0)
    assert (row.occupancy, row.limit) == (1.0, "warps")
    assert row.bound == "memory"
    bandwidth = find_architecture(arch).bandwidth
    assert row.bound_microseconds == pytest.approx(8192 / bandwidth * 1e6, abs=1e-3)


@pytest.mark.parametrize("arch", ARCHS)
def test_a_spill_is_a_fault(arch: str) -> None:
    assert read(normalise, arch, rows=8).faults == ()
    row = read(normalise, arch, rows=64)
    assert "spills registers" in findings(row)
    assert row.stack_bytes > 0
    assert row.spills


@pytest.mark.parametrize("arch", ARCHS)
def test_a_float64_constant_is_a_fault(arch: str) -> None:
    row = read(scale_in_double, arch)
    assert row.double > 0
    assert f"{row.double} float64 instructions" in row.faults
    # Nor does it hide where only PTX can be read.
    assert read(scale_in_double, arch, use_sass=False).double > 0


@pytest.mark.parametrize("arch", ARCHS)
def test_more_shared_memory_than_a_block_may_have_is_a_fault(arch: str) -> None:
    assert read(product, arch).faults == ()
    row = read(product, arch, stages=16)
    assert row.shared_bytes > find_architecture(arch).shared_per_block
    assert "bytes of shared memory, limit" in findings(row)
    assert (row.blocks_per_sm, row.limit) == (0, "shared")


@pytest.mark.parametrize(("arch", "kind"), [("sm_80", "mma"), ("sm_90", "wgmma")])
def test_a_product_without_matrix_instructions_is_noted(arch: str, kind: str) -> None:
    architecture = find_architecture(arch)
    good = read(product, arch)
    assert good.matrix.keys() == {kind}
    assert good.notes == ()
    assert good.bound == "compute"
    assert good.bound_microseconds == pytest.approx(
        good.flops / architecture.matrix_half * 1e6, abs=1e-3
    )
    plain = read(product, arch, dtype="fp32", block=32, step=16)
    assert plain.matrix == {}
    assert "tl.dot without matrix instructions" in plain.notes
    assert plain.bound_microseconds == pytest.approx(
        plain.flops / architecture.float32 * 1e6, abs=1e-3
    )
    tf32 = read(product, arch, dtype="fp32", precision="tf32x3", block=32, step=16)
    assert tf32.notes == ()
    assert tf32.bound_microseconds == pytest.approx(
        tf32.flops / architecture.matrix_tf32 * 1e6, abs=1e-3
    )


def test_the_matrix_units_of_blackwell_are_used() -> None:
    row = read(product, "sm_100")
    assert row.matrix.keys() == {"tcgen05"}
    assert row.notes == ()


@pytest.mark.parametrize("arch", ARCHS)
def test_loads_that_are_not_vectorised_are_noted(arch: str) -> None:
    row = read(scale, arch, stride=3)
    assert row.loads == {32: 8}
    assert "most loads have under 64 bits per thread" in row.notes


def test_atomics_are_counted() -> None:
    assert read(add_all, "sm_90").atomics > 0
    assert read(add_all, "sm_90", use_sass=False).atomics > 0


@needs_disassembler
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("rows", [8, 64])
def test_registers_and_stack_are_those_that_nvidia_reads(
    arch: str, rows: int, tmp_path: Path
) -> None:
    cubin = compiled(normalise, arch, rows=rows).asm["cubin"]
    path = tmp_path / "kernel.cubin"
    path.write_bytes(cubin)
    command = [str(disassembler()), "-res-usage", str(path)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    registers, stack = resources(cubin)
    assert f"REG:{registers} STACK:{stack} " in run.stdout + run.stderr


@needs_disassembler
@pytest.mark.parametrize("arch", ARCHS)
def test_ptx_tells_the_same_where_there_is_no_disassembler(arch: str) -> None:
    for make, options in ((scale, {}), (scale, {"stride": 3}), (product, {})):
        sass, ptx = read(make, arch, **options), read(make, arch, use_sass=False, **options)
        assert ptx.spills is None
        assert ptx.matrix.keys() == sass.matrix.keys()
        assert (ptx.loads.keys(), ptx.stores) == (sass.loads.keys(), sass.stores)
        assert (ptx.registers, ptx.double, ptx.notes) == (sass.registers, sass.double, sass.notes)


def test_an_emptied_cache_folder_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """jax_triton sets the variable so when it is imported."""
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    assert examine(scale(), "sm_90").faults == ()


def test_a_kernel_that_does_not_compile_is_named() -> None:
    with pytest.raises(ReportError, match="scale must compile for sm_90"):
        examine(scale(block=1000), "sm_90")


@pytest.mark.skipif(
    (missing_for_offline() or unavailable("cuda")) is not None,
    reason=f"launches for a GPU: {missing_for_offline() or unavailable('cuda')}",
)
@pytest.mark.parametrize("arch", ARCHS)
def test_a_launch_is_a_custom_call_of_the_whole_program(arch: str) -> None:
    def scaled(x: jax.Array) -> jax.Array:
        out = jax.ShapeDtypeStruct(x.shape, x.dtype)
        y = kernel_call(_scale, x, out=out, grid=(8,), FACTOR=0.1, STRIDE=1, BLOCK=1024)
        return y.reshape(64, 128)

    x = jax.ShapeDtypeStruct((8192,), jnp.float32)
    program = compile_offline(scaled, x, architecture=arch)
    assert program.custom_calls == ("triton_kernel_call",)
    assert program.temporary_bytes == 0
