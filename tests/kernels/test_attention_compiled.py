"""The attention kernels as compiled for GPUs that are not there: registers, memory, devices.

``python test_attention_compiled.py`` compiles a program for 8 GPUs and prints what it is made of.
"""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import launch, offline
from kernels.architectures import find_architecture
from kernels.attention.operands import DIFFERENTIABLE, Operands
from kernels.compiled import compile_variant, examine
from kernels.offline import compile_offline, missing_for_offline

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux only"
)
without_plugin = pytest.mark.skipif(
    missing_for_offline() is not None, reason=str(missing_for_offline())
)
slow = pytest.mark.slow
kernel: Any = None
if importlib.util.find_spec("triton") is not None:
    kernel = importlib.import_module("kernels.attention.kernel")

STATIC = {"scale": 0.125, "causal": True, "window": None, "soft_cap": None, "dropout_rate": 0.0}
MATRIX = {"sm_80": "mma", "sm_90": "wgmma", "sm_100": "tcgen05"}


def variants(arch, *names):
    """Those whose names begin so; all, where no name is given."""
    found = list(kernel.compiled_variants(arch))
    if not names:
        return found
    return [next(v for v in found if v.name.startswith(f"attention.{name}")) for name in names]


def check(variant, arch):
    """Nothing spilled, nothing in float64, nothing atomic, and products on the matrix units."""
    row = examine(variant, arch)
    assert not row.faults, row
    assert not row.atomics, row
    assert row.double == 0
    if "float32" in variant.name:
        assert not row.matrix, row  # never TF32
    else:
        kinds = set(row.matrix)
        assert kinds & {"mma", MATRIX[arch]}, row
        assert not any("without matrix instructions" in note for note in row.notes)
    return row


def test_the_plain_kernels_use_the_device_well():
    forward, wide = variants("sm_90", "forward/plain_64/bfloat16", "forward/plain_128/bfloat16")
    row = check(forward, "sm_90")
    assert row.matrix.keys() == {"wgmma"}
    assert row.blocks_per_sm == 2
    assert row.loads.keys() == {128}
    assert check(wide, "sm_90").matrix.keys() == {"wgmma"}


def test_products_of_float32_are_not_rounded():
    (variant,) = variants("sm_80", "forward/plain_64/float32")
    check(variant, "sm_80")
    assert "tf32" not in compile_variant(variant, find_architecture("sm_80")).asm["ptx"]


@slow
@pytest.mark.parametrize("arch", MATRIX)
def test_compiles_without_spills(arch):
    for variant in variants(arch):
        check(variant, arch)


def test_variants_have_names_of_their_own():
    for arch in MATRIX:
        names = [variant.name for variant in kernel.compiled_variants(arch)]
        assert len(set(names)) == len(names) >= 20


# ---------------------------------------------------------------------- Whole programs


def program(names, **static):
    """The value and every gradient, from operands of these names in order, and cotangents."""
    wanted = tuple(name in names and name in DIFFERENTIABLE for name in Operands._fields)

    def everything(*arrays):
        *operands, cotangent, of_residual = arrays
        given = Operands(**dict(zip(names, operands, strict=True)))
        outputs, saved = kernel.attention.saving(*given, **static)
        cotangents = (cotangent, of_residual)
        return outputs, kernel.attention.gradient(given, saved, cotangents, wanted, **static)

    return everything


def shapes(rows, queries, keys, heads, key_heads, width, **more):
    """Of queries, keys, values and more, and cotangents; float where there is no other dtype."""
    half = jnp.bfloat16
    found = {
        "query": ((rows, queries, heads, width), half),
        "key": ((rows, keys, key_heads, width), half),
        "value": ((rows, keys, key_heads, width), half),
    } | {
        name: value if isinstance(value[0], tuple) else (value, half)
        for name, value in more.items()
    }
    arrays = [jax.ShapeDtypeStruct(*value) for value in found.values()]
    out = jax.ShapeDtypeStruct((rows, queries, heads, width), half)
    return list(found), [*arrays, out, jax.ShapeDtypeStruct(out.shape[:3], jnp.float32)]


@without_plugin
@pytest.mark.parametrize(
    ("more", "launches"),
    [
        ({}, 3),
        pytest.param({"bias": (1, 16, 1, 4096), "position": True}, 5, marks=slow),
        pytest.param({"bias": (1, 1, 4096, 1), "offset_bias": (1, 16, 8191)}, 5, marks=slow),
    ],
    ids=["plain", "relative", "offsets"],
)
def test_no_buffer_of_all_scores(more, launches):
    rows, size, heads, width = 2, 4096, 16, 64
    more = dict(more)
    if more.pop("position", False):
        more |= {
            "position_query": (rows, size, heads, width),
            "position_key": (1, 2 * size - 1, heads, width),
        }
    names, arrays = shapes(rows, size, size, heads, 4, width, **more)
    compiled = compile_offline(program(names, **STATIC), *arrays)
    assert compiled.custom_calls == ("triton_kernel_call",) * launches
    # One head's scores of one row in bfloat16 are 32 MiB, all are 1 GiB.
    positions = 4 * sum(np.prod(a.shape) for n, a in zip(names, arrays, strict=False) if n in more)
    # The cotangents of the queries are there once more, times the factors.
    cotangents = 2 * int(np.prod(arrays[0].shape))
    assert compiled.temporary_bytes <= 6 * 2**20 + cotangents + 6 * positions
    assert compiled.temporary_bytes < 2 * rows * heads * size * size / 2


# ---------------------------------------------------------------------- Several devices


@slow  # what is always tested of it is in test_sharding.py
@without_plugin
@pytest.mark.parametrize("key_heads", [4, 1])
def test_devices_share_rows_and_heads_without_gathering(key_heads):
    """Rows over two, heads over four; what devices send each other is gradients they share."""
    process = subprocess.run(
        [sys.executable, __file__, str(key_heads)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    found = json.loads(process.stdout.splitlines()[-1])
    assert found["moves"] == []
    # The shared bias of all heads, of the heads here, and position keys; keys of all heads alike.
    shared = [1 * 1 * 111, 4 * 64 * 48 + 111 * 4 * 16]
    shared += [2 * 4 * 48 * 16] if key_heads == 1 else []
    assert sorted(found["sums"]) == sorted(shared)
    assert found["launches"] == 6
    out = "bf16[4,64,4,16]{3,2,1,0}"
    per_query = ", f32[4,64,4]{2,1,0}" * 3
    assert f"({out}{per_query})" in found["results"]


def for_eight_devices(key_heads: int) -> dict[str, Any]:
    """Collectives and launches of the program that each of 8 devices runs."""
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    jax.config.update("jax_enable_compilation_cache", False)  # no such device could load it
    sys.path.append(str(launch.CUDA_PLUGIN))
    import jaxlib.gpu_triton  # noqa: F401, registers the call with XLA
    from jax.experimental import topologies

    device = find_architecture("sm_90")
    topology = topologies.get_topology_desc(
        platform="cuda", topology="1x8x1", target_config=offline._describe(device)
    )
    axes = (jax.sharding.AxisType.Auto,) * 2
    devices = np.array(topology.devices).reshape(2, 4)
    mesh = jax.sharding.Mesh(devices, ("data", "heads"), axis_types=axes)
    rows, queries, keys, heads, width = 8, 64, 48, 16, 16
    offsets = queries + keys - 1
    names, arrays = shapes(
        rows, queries, keys, heads, key_heads, width,
        bias=(1, heads, queries, keys), offset_bias=(1, 1, offsets),
        position_query=(rows, queries, heads, width), position_key=(1, offsets, heads, width),
        mask=((rows, 1, 1, keys), jnp.bool), key_lengths=((rows,), jnp.int32),
        dropout_seeds=((rows, heads, 2), jnp.uint32),
    )  # fmt: skip
    by_both, by_rows = jax.P("data", None, "heads"), jax.P("data")
    of_keys = by_both if key_heads > 1 else by_rows
    specs = {
        "query": by_both, "key": of_keys, "value": of_keys, "bias": jax.P(None, "heads"),
        "offset_bias": jax.P(), "position_query": by_both, "mask": by_rows,
        "position_key": jax.P(None, None, "heads"), "key_lengths": by_rows,
        "dropout_seeds": jax.P("data", "heads"),
    }  # fmt: skip
    shardings = [
        jax.NamedSharding(mesh, spec) for spec in (*(specs[n] for n in names), by_both, by_both)
    ]
    function = jax.jit(program(names, **STATIC | {"dropout_rate": 0.1}), in_shardings=shardings)
    with launch.compute_capability(device.number):
        lowered = function.trace(*arrays).lower(lowering_platforms=("cuda",))
        hlo = str(lowered.compile().as_text())
    moves = r"= .*\b(all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
    results = re.findall(r'= (.*?) custom-call\(.*custom_call_target="triton_kernel_call"', hlo)
    sums = re.findall(r"= \w+\[([\d,]*)\]\S* all-reduce(?:-start)?\(", hlo)
    return {
        "moves": re.findall(moves, hlo),
        "sums": [int(np.prod([int(n) for n in dims.split(",")])) for dims in sums],
        "launches": len(results),
        "results": results,
    }


if __name__ == "__main__":
    print(json.dumps(for_eight_devices(int(sys.argv[1]))))
