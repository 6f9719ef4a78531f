"""What the matrix of tests/kernels/test_matrix.py runs over, and how it judges a result.

A new operation is one ``Family`` in kernel_families.py, beside its line in ``kernels.problems``.

- A *case* is a shape in a dtype, and so a ``Problem`` with its exact results.
- A *cell* is a case and an implementation. On a CPU the shapes that are measured are cut down to
  what the interpreter can afford; cells marked ``gpu`` run on hardware, at full size.
- A *transform* takes a function of all operands and gives one of the same operands whose results
  have names, such as "gradient of bias", so that a failure can say what is wrong.
"""

import contextlib
import functools
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste
from kernel_families import FAMILIES, Family

import kernels
from kernels import problems

LOW = ("bfloat16", "float16")
ON_CPU, ON_GPU = ("xla", "triton"), (None, "xla", "triton")
WITHOUT_TRITON = importlib.util.find_spec("triton") is None


class Case(NamedTuple):
    """A shape in a dtype; hashable, so that what is exact is computed once."""

    operation: str
    name: str
    shape: Any
    dtype: str

    @property
    def family(self) -> Family:
        return FAMILIES[self.operation]


class Cell(NamedTuple):
    """A case and an implementation."""

    case: Case
    implementation: str | None

    @property
    def problem(self) -> problems.Problem:
        return problem(self.case)

    def ours(self, *operands: Any) -> Any:
        """The operation, as a function of all operands."""
        operation = getattr(kernels, self.case.operation)
        call = functools.partial(operation, implementation=self.implementation)
        given = dict(zip(self.problem.operands, operands, strict=True))
        return call(**given, **self.problem.options)

    def plain(self, *operands: Any) -> Any:
        """Its definition, likewise."""
        given = dict(zip(self.problem.operands, operands, strict=True))
        return self.problem.definition(**given, **self.problem.options)


# ---------------------------------------------------------------------- Cells


def cells(
    cases: Callable[[str, Family], Iterable[Case]],
    *,
    on_gpu: bool | None = None,
    costly: bool = False,
) -> list:
    """Parameters for every implementation of the cases that each family gives.

    Args:
        cases: operation, family -> cases.
        on_gpu: whether for hardware; ``None`` for both.
        costly: whether to leave operations that rest on another to the long tests.
    """
    found = []
    for operation, family in FAMILIES.items():
        for case in cases(operation, family):
            label = f"{operation}-{case.name}-{case.dtype}"
            for name in () if on_gpu else ON_CPU:
                missing = name == "triton" and WITHOUT_TRITON
                marks = [pytest.mark.skipif(missing, reason="needs Triton, for Linux only")]
                is_long = case.name in family.long or (costly and family.rests_on)
                marks += [pytest.mark.slow] if is_long else []
                found.append(pytest.param(Cell(case, name), marks=marks, id=f"{label}-{name}"))
            for name in () if on_gpu is False else ON_GPU:
                found.append(
                    pytest.param(
                        Cell(case, name), marks=pytest.mark.gpu, id=f"{label}-{name}-on-gpu"
                    )
                )
    return found


def cut_cases(operation: str, family: Family) -> list[Case]:
    """The shapes that are measured, cut."""
    shapes = problems.load(operation).SHAPES
    return [
        Case(operation, name, shapes[name]._replace(**fields), "float32")
        for name, fields in family.cut.items()
    ]


def full_cases(operation: str, family: Family) -> list[Case]:
    """The shapes that are measured, as they are."""
    del family
    shapes = problems.load(operation).SHAPES
    return [
        Case(operation, name, shape, dtype)
        for name, shape in shapes.items()
        for dtype in ("float32", "bfloat16")
    ]


def awkward_cases(operation: str, family: Family) -> list[Case]:
    """The awkward shapes, some of them in every precision."""
    return [
        Case(operation, name, shape, dtype)
        for name, shape in family.awkward.items()
        for dtype in ("float32", *(LOW if name in family.low else ()))
    ]


def small_case(operation: str, family: Family) -> list[Case]:
    """The one for what costs most."""
    return [Case(operation, "small", family.small, "float32")]


@functools.lru_cache(maxsize=4)
def problem(case: Case) -> problems.Problem:
    """The case's operands and definition."""
    return problems.load(case.operation).problem(*case)


# ---------------------------------------------------------------------- Transforms

Function = Callable[..., Any]
Transform = Callable[[Function, problems.Problem], Callable[..., dict[str, Any]]]


def reverse(function: Function, problem: problems.Problem) -> Callable[..., dict[str, Any]]:
    """The value and every gradient."""

    def named(*operands):
        value, pullback = jax.vjp(moving(function, problem, operands), *_moved(problem, operands))
        slopes = pullback(_along(value, problem))
        return {"value": value, **_by_operand(problem, "gradient", slopes)}

    return named


def forward(function: Function, problem: problems.Problem) -> Callable[..., dict[str, Any]]:
    """The derivative along a direction in which every operand moves."""

    def named(*operands):
        moved = _moved(problem, operands)
        along = tuple(jnp.sin(array) for array in moved)
        return {"tangent": jax.jvp(moving(function, problem, operands), moved, along)[1]}

    return named


def rematerialised(function: Function, problem: problems.Problem) -> Callable[..., dict[str, Any]]:
    """As ``reverse``, of a function whose results are computed again on the way back."""
    return reverse(jax.checkpoint(function), problem)


def reverse_over(first: Transform) -> Transform:
    """Every gradient of what another transform gives."""

    def transform(function, problem):
        def named(*operands):
            def total(*moved):
                results = moving(first(function, problem), problem, operands)(*moved)
                parts = [jnp.sum(_along(part, problem) * part) for part in results.values()]
                return sum(parts[1:], parts[0])

            moved = _moved(problem, operands)
            slopes = jax.grad(total, tuple(range(len(moved))))(*moved)
            return _by_operand(problem, "second derivative", slopes)

        return named

    return transform


def forward_over(first: Transform) -> Transform:
    """The derivative of what another transform gives, as every operand moves."""

    def transform(function, problem):
        def named(*operands):
            tangents = forward(first(function, problem), problem)(*operands)["tangent"]
            return {f"derivative of the {name}": part for name, part in tangents.items()}

        return named

    return transform


@functools.cache
def mapped(*axes: tuple[int | None, ...], inside: bool) -> Transform:
    """``reverse`` and maps over the operands, the innermost first.

    Args:
        *axes: of each map, for each operand.
        inside: differentiate the map rather than map the derivative.
    """

    def transform(function, problem):
        result = function if inside else reverse(function, problem)
        for each in axes:
            result = jax.vmap(result, each)
        return reverse(result, problem) if inside else result

    return transform


def moving(function, problem, operands):
    """A function of the differentiable operands; the others stay as they are."""

    def of_moved(*moved):
        given = dict(zip(problem.operands, operands, strict=True))
        given.update(zip(problem.differentiable, moved, strict=True))
        return function(*given.values())

    return of_moved


def _moved(problem, operands):
    given = dict(zip(problem.operands, operands, strict=True))
    return tuple(given[name] for name in problem.differentiable)


def _along(value, problem):
    """A cotangent that is the same in float64 as in the dtype of the problem."""
    return problems.cotangent(value.shape, problem.dtype).astype(value.dtype)


def _by_operand(problem, what, parts):
    return {f"{what} of {n}": part for n, part in zip(problem.differentiable, parts, strict=True)}


# ---------------------------------------------------------------------- Judgement


def plainly(function: Function, *arguments: Any) -> Any:
    """A definition in plain XLA; on a GPU without TensorFloat-32."""
    with jax.default_matmul_precision("highest"), in_haste_on_a_cpu():
        return jax.jit(function)(*arguments)


def in_haste_on_a_cpu() -> contextlib.AbstractContextManager[None]:
    """On a GPU what is compiled in haste is another kernel."""
    on_cpu = jax.default_backend() == "cpu"
    return compiled_in_haste() if on_cpu else contextlib.nullcontext()


def in_float64(function: Function, *arguments: Any) -> Any:
    """A definition in float64 on the CPU."""
    cpu = problems.reference_device()
    with jax.enable_x64(True), jax.default_device(cpu), compiled_in_haste():
        arrays = [np.asarray(argument) for argument in arguments]
        wide = [
            jnp.asarray(a.astype(np.float64) if jnp.issubdtype(a.dtype, jnp.floating) else a)
            for a in arrays
        ]
        return jax.tree.map(np.asarray, jax.jit(function)(*wide))


def judge(found: Mapping[str, Any], plain: Callable[[], Mapping[str, Any]], true: Any) -> None:
    """Hold every result to the error rule, and name all that break it.

    Args:
        found: results by name.
        plain: gives those of the definition in plain XLA; called only where an error is above what
            the rule allows in any case.
        true: in float64.
    """
    assert found.keys() == true.keys()
    errors = {name: problems.error(found[name], true[name]) for name in found}
    wrong = []
    if any(error > problems.allowed(0.0) for error in errors.values()):
        peers = plain()
        for name, error in errors.items():
            allowed = problems.allowed(problems.error(peers[name], true[name]))
            if error > allowed:
                wrong.append(f"{name}: relative error {error:.2e}, where {allowed:.2e} is allowed")
    assert not wrong, "\n".join(["", *wrong])


def compare(cell: Cell, transform: Transform, *operands: Any, eager: bool = False) -> None:
    """Hold a transform of the operation to the same one of its definition.

    On a CPU it is compiled in haste: how an operation is optimised changes with the shape rather
    than with the transform, and every shape is compiled as a user would.
    """
    ours = transform(cell.ours, cell.problem)
    with in_haste_on_a_cpu():
        found = ours(*operands) if eager else jax.jit(ours)(*operands)
    kinds, true = _expected(cell.case, transform, tuple(Frozen.of(array) for array in operands))
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == kinds
    judge(found, lambda: plainly(transform(cell.plain, cell.problem), *operands), true)


class Frozen(NamedTuple):
    """An array that can be told from another by its hash."""

    content: bytes
    shape: tuple[int, ...]
    dtype: np.dtype

    @classmethod
    def of(cls, array: Any) -> "Frozen":
        """An array, frozen."""
        array = np.asarray(array)
        return cls(array.tobytes(), array.shape, array.dtype)

    @property
    def array(self) -> np.ndarray:
        """The array again."""
        return np.frombuffer(self.content, self.dtype).reshape(self.shape)


@functools.lru_cache(maxsize=16)  # for one implementation after the other
def _expected(case: Case, transform: Transform, operands: tuple[Frozen, ...]) -> tuple[Any, Any]:
    plain = transform(Cell(case, None).plain, problem(case))
    arrays = [operand.array for operand in operands]
    kinds = jax.eval_shape(plain, *arrays)
    true = in_float64(plain, *arrays)
    return {name: (kind.shape, kind.dtype) for name, kind in kinds.items()}, true


@functools.lru_cache(maxsize=2)
def exact(case: Case) -> dict[str, np.ndarray]:
    """The value and every gradient in float64, along ``direction``."""
    call = problem(case)
    if case.shape in problems.load(case.operation).SHAPES.values():
        return named(case, problems.exact(call))  # row by row: all at once would not fit
    cell = Cell(case, None)
    return in_float64(reverse(cell.plain, call), *call.operands.values())


@functools.lru_cache(maxsize=2)
def plain_results(case: Case) -> dict[str, np.ndarray]:
    """Those of the definition in plain XLA in the dtype of the case."""
    call = problem(case)
    results = plainly(problems.gradients(call.plain()), call.arguments, direction(case))
    return named(case, [np.asarray(result) for result in results])


def direction(case: Case) -> jax.Array:
    """The cotangent that ``exact`` uses."""
    call = problem(case)
    return problems.cotangent(jax.eval_shape(call.plain(), *call.arguments).shape, call.dtype)


def named(case: Case, results: Iterable[Any]) -> dict[str, Any]:
    """A value and gradients, by name."""
    value, *slopes = results
    return {"value": value, **_by_operand(problem(case), "gradient", slopes)}
