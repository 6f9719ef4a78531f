"""What XLA makes of whole programs, value and every gradient, for a GPU: calls and memory."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from kernels import problems
from kernels.offline import compile_offline, missing_for_offline

pytestmark = pytest.mark.skipif(
    missing_for_offline() is not None, reason=f"offline compilation: {missing_for_offline()}"
)


class Expected(NamedTuple):
    """Launches of a program, and the most it may need beside its arguments and results."""

    operation: str
    shape: str
    launches: int
    temporary_bytes: int
    implementation: str | None = None


EXPECTED = [
    # Value, inputs' gradient, filters' gradient: no array of the inputs' size is added.
    Expected("depthwise_conv1d", "conformer_w31", 3, 2**20),
    # The cotangent of the sum before the activation; it can lie where a result will.
    Expected("depthwise_conv1d", "causal_w4", 4, 4 * 2**20),
    # No patches: the slope, 3 MiB, and parts of the filters' gradient, 8 of 2.25 MiB.
    Expected("conv2d", "residual_14", 4, 24 * 2**20, "triton"),
]


# Convolutions of images take longest to compile.
CELLS = [
    pytest.param(
        expected,
        marks=[pytest.mark.slow] if expected.operation == "conv2d" else [],
        id=f"{expected.operation}-{expected.shape}",
    )
    for expected in EXPECTED
]


@pytest.mark.parametrize("expected", CELLS)
def test_the_whole_program_is_its_launches_and_little_memory(expected: Expected) -> None:
    family = problems.load(expected.operation)
    shape = family.SHAPES[expected.shape]
    # One row of operands is enough to know the shapes of all.
    small = family.problem(expected.operation, "small", shape._replace(batch=1), "bfloat16")
    arguments = tuple(
        jax.ShapeDtypeStruct(
            (shape.batch, *a.shape[1:]) if name in small.per_row else a.shape, a.dtype
        )
        for name, a in zip(small.differentiable, small.arguments, strict=True)
    )
    function = small.function(expected.implementation)
    direction = jax.eval_shape(function, *arguments)
    ours = compile_offline(problems.gradients(function), arguments, direction)
    assert ours.custom_calls == ("triton_kernel_call",) * expected.launches
    assert ours.temporary_bytes <= expected.temporary_bytes
    # That the limit means something: the definition keeps what the operation does not.
    plain = compile_offline(problems.gradients(small.plain()), arguments, direction)
    inputs = arguments[0]
    assert plain.temporary_bytes > jnp.dtype(inputs.dtype).itemsize * inputs.size


@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
def test_other_gpus_get_the_same_program(architecture: str) -> None:
    small = problems.load("depthwise_conv1d")
    call = small.problem("depthwise_conv1d", "small", small.Shape(2, 65, 16, 4), "float32")
    program = compile_offline(call.function(), *call.arguments, architecture=architecture)
    assert program.custom_calls == ("triton_kernel_call",)
