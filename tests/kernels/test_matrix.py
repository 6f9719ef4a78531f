"""One body for every operation: implementation, shape and dtype against what JAX can do with it.

``tests/support/kernel_matrix.py`` says which shapes and how an error is judged. What holds for one
operation only is in that operation's own file. ``pytest -m gpu`` runs this body on hardware.
"""

import functools

import jax
import jax.numpy as jnp
import kernel_matrix as matrix
import numpy as np
import pytest
from compilation import AS_USERS_DO

from kernels import interpreter, problems


def every_shape():
    cut = matrix.cells(matrix.cut_cases, on_gpu=False)
    full = matrix.cells(matrix.full_cases, on_gpu=True)
    return cut + matrix.cells(matrix.awkward_cases) + full


small = pytest.mark.parametrize("cell", matrix.cells(matrix.small_case))
small_if_costly = pytest.mark.parametrize("cell", matrix.cells(matrix.small_case, costly=True))


def arrays(cell):
    return tuple(cell.problem.operands.values())


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def test_every_operation_and_every_shape_is_here():
    operations = {name for family in problems.FAMILIES.values() for name in family}
    assert operations == matrix.FAMILIES.keys()
    for operation, family in matrix.FAMILIES.items():
        assert family.cut.keys() == problems.load(operation).SHAPES.keys()


@pytest.mark.parametrize("cell", matrix.cells(matrix.small_case, on_gpu=False)[:1])
def test_rows_are_exact_together_and_alone(cell):
    alone = matrix.named(cell.case, problems.exact(cell.problem))
    for name, array in matrix.exact(cell.case).items():
        assert problems.error(alone[name], array) < 1e-13, name


@pytest.mark.parametrize("cell", every_shape())
def test_value_and_every_gradient(cell):
    call, case = cell.problem, cell.case
    function = problems.gradients(call.function(cell.implementation))
    compiled = jax.jit(function, compiler_options=AS_USERS_DO)
    found = matrix.named(case, compiled(call.arguments, matrix.direction(case)))
    for name, array in zip(("value", *call.differentiable), found.values(), strict=True):
        expected = cell.case.family.results if name == "value" else None
        assert array.dtype == (expected or call.dtype), name
    matrix.judge(found, lambda: matrix.plain_results(case), matrix.exact(case))


@small_if_costly
@pytest.mark.parametrize(
    "transform",
    [
        pytest.param(matrix.forward, id="forward"),
        pytest.param(matrix.rematerialised, id="rematerialised"),
        pytest.param(matrix.forward_over(matrix.reverse), id="forward over reverse"),
        pytest.param(matrix.reverse_over(matrix.reverse), id="reverse over reverse"),
        pytest.param(matrix.reverse_over(matrix.forward), id="reverse over forward"),
    ],
)
def test_other_derivatives(transform, cell):
    matrix.compare(cell, transform, *arrays(cell))


@small
def test_without_jit(cell):
    matrix.compare(cell, matrix.reverse, *arrays(cell), eager=True)


# ---------------------------------------------------------------------- Maps


def mapped_cells(*, each=True):
    """Every operand on its own, all together, and maps in maps; without ``each`` two of these."""
    found = []
    for parameter in matrix.cells(matrix.small_case, costly=True):
        (cell,) = parameter.values
        names = tuple(cell.problem.operands)
        choices = {name: ({name},) for name in names if each} | {
            "all": (set(names),),
            "others in some": (set(names[1::2]), set(names[::2])),
        }
        if each:
            choices["some in others"] = (set(names[::2]), set(names[1::2]))
        for label, levels in choices.items():
            # Operands are folded in the same way for all implementations.
            again = label != "all" and cell.implementation == "triton"
            marks = [*parameter.marks, *([pytest.mark.slow] if again else [])]
            found.append(pytest.param(cell, levels, marks=marks, id=f"{parameter.id}-{label}"))
    return found


def stacked(cell, levels):
    """The operands with an axis for each map over them, at different places, and those places."""
    operands, axes = {n: np.asarray(a) for n, a in cell.problem.operands.items()}, []
    for depth, mapped in enumerate(levels):
        places = {name: (i + 1) % (np.ndim(operands[name]) + 1) for i, name in enumerate(operands)}
        axes.append(tuple(place if name in mapped else None for name, place in places.items()))
        for name in mapped:
            array = operands[name]
            others = (np.flip(array, 0), array)
            if name in cell.problem.differentiable:
                others = (-array, array / array.dtype.type(2))
            operands[name] = np.stack((array, *others)[: 3 - depth], places[name])
    return map(jnp.asarray, operands.values()), axes


@pytest.mark.parametrize(("cell", "levels"), mapped_cells())
def test_maps_over_every_operand(cell, levels):
    operands, axes = stacked(cell, levels)
    of_gradient = matrix.mapped(*axes, inside=False)
    matrix.compare(cell, of_gradient, *operands)


@pytest.mark.parametrize(("cell", "levels"), mapped_cells(each=False))
def test_gradient_of_maps(cell, levels):
    operands, axes = stacked(cell, levels)
    matrix.compare(cell, matrix.mapped(*axes, inside=True), *operands)


# ---------------------------------------------------------------------- Bits


def bitwise_cells(*, full):
    def first_low(operation, family):
        found = matrix.awkward_cases(operation, family)
        return [case for case in found if (case.name, case.dtype) == (family.low[0], "float32")]

    found = matrix.cells(first_low, costly=True)
    return found + (matrix.cells(matrix.full_cases, on_gpu=True) if full else [])


@pytest.mark.parametrize("cell", bitwise_cells(full=True))
def test_the_same_bits_twice_and_when_compiled_again(cell):
    call, along = cell.problem, matrix.direction(cell.case)
    function = problems.gradients(call.function(cell.implementation))

    def again(arguments, direction):  # by its name another program to the compilation cache
        return function(arguments, direction)

    options = dict(AS_USERS_DO)
    if jax.default_backend() == "gpu" and cell.implementation is None:
        options["xla_gpu_deterministic_ops"] = True  # cuDNN may be chosen, which repeats only so
    first = jax.jit(function, compiler_options=options)
    expected = bits(first(call.arguments, along))
    assert bits(first(call.arguments, along)) == expected
    assert bits(jax.jit(again, compiler_options=options)(call.arguments, along)) == expected


@pytest.mark.skipif(matrix.WITHOUT_TRITON, reason="needs Triton, which is for Linux only")
@pytest.mark.parametrize(
    "cell", [p for p in bitwise_cells(full=False) if p.values[0].implementation == "triton"]
)
def test_the_same_bits_in_every_order_of_the_programs(cell, monkeypatch):
    if jax.default_backend() != "cpu":
        pytest.skip("the order of programs can be chosen in the interpreter only")
    call, along = cell.problem, matrix.direction(cell.case)
    function = jax.jit(problems.gradients(call.function("triton")))
    found, run, seeds = [], interpreter.run, (0, 1, 2, None)
    for seed in seeds:
        monkeypatch.setattr(interpreter, "run", functools.partial(run, seed=seed))
        found.append(bits(function(call.arguments, along)))
    assert found == [found[0]] * len(seeds)


@pytest.mark.parametrize("cell", bitwise_cells(full=False))
def test_what_must_not_count_does_not(cell):
    """NaN in padded elements, and in the cotangent of padded results, changes no bit."""
    call = cell.problem
    masks = dict(cell.case.family.ignored(call))
    clean = dict(call.operands)
    dirty = {name: spoilt(array, masks.get(name)) for name, array in clean.items()}
    along = matrix.direction(cell.case)
    junk = spoilt(along, masks.get("output"))

    @jax.jit
    def function(operands, direction):
        moving = matrix.moving(cell.ours, call, tuple(operands[name] for name in call.operands))
        moved = tuple(operands[name] for name in call.differentiable)
        return matrix.named(cell.case, problems.gradients(moving)(moved, direction))

    expected, found = function(clean, along), function(dirty, junk)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    for name in set(masks) & set(call.differentiable):
        assert not np.asarray(found[f"gradient of {name}"])[masks[name]].any(), name
    if "output" in masks:
        assert not np.asarray(found["value"])[masks["output"]].any()


def spoilt(array, mask):
    return array if mask is None else jnp.where(mask, jnp.asarray(jnp.nan, array.dtype), array)


# ---------------------------------------------------------------------- Refusals


@small
def test_float64_is_exact_or_refused(cell):
    with jax.enable_x64(True), jax.default_device(problems.reference_device()):
        case = cell.case._replace(dtype="float64")
        call = problems.load(case.operation).problem(*case)
        function = jax.jit(problems.gradients(call.function(cell.implementation)))
        if cell.implementation == "triton":
            with pytest.raises(NotImplementedError, match="float64"):
                function(call.arguments, matrix.direction(case))
            return
        results = matrix.named(case, function(call.arguments, matrix.direction(case)))
        errors = {n: problems.error(results[n], t) for n, t in matrix.exact(case).items()}
    assert {name: error for name, error in errors.items() if error > 1e-13} == {}


SPOILS = {
    "one axis more": lambda array: array[None],
    "one axis less": lambda array: array[0],
    "longer": lambda array: jnp.concatenate([array, array[..., :1]], -1),
    "of another kind": lambda array: array.astype(
        jnp.int32 if jnp.issubdtype(array.dtype, jnp.floating) else jnp.float32
    ),
}


@small
@pytest.mark.parametrize("spoil", SPOILS)
def test_an_operand_that_does_not_fit_is_named(spoil, cell):
    for name, array in cell.problem.operands.items():
        if name in cell.case.family.fitting.get(spoil, ()):
            continue
        operands = dict(cell.problem.operands) | {name: SPOILS[spoil](array)}
        with pytest.raises(ValueError, match=rf"(?s){name}.*received"):
            jax.eval_shape(cell.ours, *operands.values())


@small
def test_an_implementation_is_there_or_refused(cell):
    call = cell.problem
    with pytest.raises(ValueError, match="implementation must be None or one of"):
        jax.eval_shape(call.function("cuda"), *call.arguments)
    for name in {"xla", "triton", "cudnn"} - {*matrix.ON_CPU}:
        with pytest.raises(NotImplementedError, match="implementation=None picks one that can"):
            jax.eval_shape(call.function(name), *call.arguments)
