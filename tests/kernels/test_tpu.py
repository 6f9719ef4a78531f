"""What XLA is given for a TPU. There is none here: programs are lowered for it, and not run."""

import jax
import kernel_matrix as matrix
import pytest

import kernels

PROGRAMS = {
    "value": lambda function, problem: function,
    "gradients": matrix.reverse,
    "Hessian-vector products": matrix.forward_over(matrix.reverse),
}


def lowered(function, *operands):
    """The program; JAX raises where an operation has no rule for the platform."""
    return jax.jit(function).trace(*operands).lower(lowering_platforms=("tpu",)).as_text()


def call(operation, implementation=None, dtype="float32"):
    family = matrix.FAMILIES[operation]
    return matrix.Cell(matrix.Case(operation, "small", family.small, dtype), implementation)


@pytest.mark.parametrize("what", PROGRAMS)
@pytest.mark.parametrize("operation", matrix.FAMILIES)
def test_programs_are_plain_xla(operation, what):
    for dtype in ("float32", "bfloat16"):
        cell = call(operation, dtype=dtype)
        text = lowered(PROGRAMS[what](cell.ours, cell.problem), *cell.problem.operands.values())
        assert "stablehlo." in text
        assert "custom_call" not in text
        assert "f64" not in text  # which a TPU does not have


@pytest.mark.parametrize("name", ["ctc_posteriors", "ctc_alignment", "ctc_feasible"])
def test_what_goes_with_the_ctc_loss_is_plain_xla(name):
    operands = tuple(call("ctc_loss").problem.operands.values())
    text = lowered(getattr(kernels, name), *operands[1 if name == "ctc_feasible" else 0 :])
    assert "stablehlo." in text
    assert "custom_call" not in text
    assert "f64" not in text


@pytest.mark.skipif(matrix.WITHOUT_TRITON, reason="needs Triton, which is for Linux only")
@pytest.mark.parametrize("operation", matrix.FAMILIES)
def test_triton_is_refused_there(operation):
    cell = call(operation, "triton")
    bound = f"({operation}|{matrix.FAMILIES[operation].rests_on})"
    with pytest.raises(NotImplementedError, match=f"(?s){bound}.* cannot run on tpu.*triton"):
        lowered(cell.ours, *cell.problem.operands.values())
