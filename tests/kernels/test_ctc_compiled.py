"""The CTC kernels as compiled for GPUs that are not there: what a frame costs, spills, memory."""

import importlib
import importlib.util
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from kernels.architectures import find_architecture
from kernels.compiled import compile_variant, examine
from kernels.ctc.configs import ADVANCE
from kernels.loops import largest_loop
from kernels.offline import compile_offline, missing_for_offline

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux only"
)
slow = pytest.mark.slow
kernel: Any = None
if importlib.util.find_spec("triton") is not None:
    kernel = importlib.import_module("kernels.ctc.kernel")


def of_recursion(arch, name):
    """The variants of the recursion forwards and back, in a shape."""
    found = [v for v in kernel.compiled_variants(arch) if v.name.split("/")[1] == name]
    return [v for v in found if v.name.split(".")[1].startswith(("advance", "spread"))]


def test_a_frame_has_a_shuffle_or_two_and_no_barrier():
    advance, spread = of_recursion("sm_90", "short")
    for variant, shuffles, most in ((advance, 2, 125), (spread, 1, 60)):
        loop: Any = largest_loop(variant, "sm_90")
        frames = variant.config.frames
        assert loop.shuffles == shuffles * frames
        assert loop.barriers == loop.shared == 0
        assert loop.stores == 2 * frames
        assert loop.instructions <= most * frames


@pytest.mark.parametrize("name", ["short", pytest.param("longest", marks=slow)])
def test_posteriors_are_written_by_the_threads_that_read_the_shares(name):
    """They take the shares' place in memory, and nothing orders the warps of a program."""
    (_, spread) = of_recursion("sm_90", name)
    text = compile_variant(spread, find_architecture("sm_90")).asm["ttgir"]
    layouts = re.findall(r"tt\.(load|store) [^\n]*?tensor<[^\n,]*, (#\w+)>", text)
    assert {access for access, _ in layouts} == {"load", "store"}
    assert len({layout for _, layout in layouts}) == 1


@slow
def test_more_registers_cost_no_shuffles():
    wide = ADVANCE.config(32, 8, 2)
    variant = kernel.variant(
        ADVANCE, {"rows": 1, "frames": 500, "classes": 9, "labels": 250, "dtype": "float32"},
        wide, "wide",
    )  # fmt: skip
    loop: Any = largest_loop(variant, "sm_90")
    assert loop.shuffles == 2 * wide.frames
    assert loop.barriers == 0
    # Eight pairs in place of one.
    assert loop.instructions <= 8 * 85 * wide.frames


@slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_compiles_without_spills(arch):
    for variant in kernel.compiled_variants(arch):
        row = examine(variant, arch)
        assert not row.faults, row
        assert not row.atomics, row


@slow
@pytest.mark.skipif(missing_for_offline() is not None, reason=str(missing_for_offline()))
def test_the_whole_program_is_six_launches_and_two_arrays_of_labels():
    rows, size, classes, count = 16, 1000, 32, 200
    shapes = [((rows, size, classes), jnp.float32), ((rows, size), jnp.int32)]
    shapes += [((rows, count), jnp.int32), ((rows,), jnp.int32), ((rows,), jnp.float32)]

    def program(*arrays):
        (loss,), saved = kernel.ctc_loss.saving(*arrays[:4], blank_id=0)
        wanted = (True, False, False, False)
        arguments = (arrays[:4], saved, arrays[4:], wanted)
        return loss, *kernel.ctc_loss.gradient(*arguments, blank_id=0)

    arrays = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    compiled = compile_offline(program, *arrays)
    assert compiled.custom_calls == ("triton_kernel_call",) * 6
    column = rows * size * (count + 1) * 4
    assert compiled.temporary_bytes <= 2.05 * column
    value = compile_offline(lambda *a: kernel.ctc_loss.forward(*a, blank_id=0), *arrays[:4])
    assert value.custom_calls == ("triton_kernel_call",) * 3
    assert value.temporary_bytes <= 0.04 * column
