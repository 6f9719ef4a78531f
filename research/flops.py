"""Floating-point operations of a program, counted before it runs."""

import math
from collections.abc import Callable
from typing import Any

import jax

from kernels.dispatch import operations_by_primitive


def matrix_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Operations of all matrix products and convolutions in a function, 2 for a multiply-add.

    They are counted in what JAX traces: the body of a loop as often as it runs, the dearest branch
    where it depends on the platform or a condition. XLA's own count of a compiled program takes a
    loop's body once, but has the other operations too, which are few in a network.

    Args:
        function: of arrays; may be jitted, or a derivative.
        arguments: arrays, or their shapes and types alone (`jax.ShapeDtypeStruct`).

    Returns:
        The count. A loop of unknown length counts as one turn.

    Example:
        >>> import jax.numpy as jnp
        >>> matrix_flops(lambda x, y: x @ y, jnp.ones((2, 3)), jnp.ones((3, 5)))
        60
    """
    return _of_program(jax.make_jaxpr(function)(*arguments))


def _of_program(program: Any) -> int:
    # A closed program holds the program itself and its constants.
    return sum(_of_step(step) for step in getattr(program, "jaxpr", program).eqns)


def _of_step(step: Any) -> int:
    kind, shapes = step.primitive.name, [_shape(v) for v in step.invars]
    if kind == "dot_general":
        (contracted, _), _ = step.params["dimension_numbers"]
        length = math.prod(shapes[0][axis] for axis in contracted)
        return 2 * math.prod(_shape(step.outvars[0])) * length
    if kind == "conv_general_dilated":
        features = shapes[1][step.params["dimension_numbers"].rhs_spec[0]]
        # A dilated input is mostly zeros, which nobody need multiply.
        zeros = math.prod(step.params["lhs_dilation"])
        return 2 * math.prod(_shape(step.outvars[0])) * math.prod(shapes[1]) // features // zeros
    if step.primitive in operations_by_primitive:
        operation, avals = operations_by_primitive[step.primitive], [v.aval for v in step.invars]
        return _of_program(operation.traced(step.primitive, *avals, **step.params))
    inner = [_of_program(program) for program in _programs(list(step.params.values()))]
    if not inner:
        return 0
    if kind == "cond":
        return max(inner)
    return step.params["length"] * sum(inner) if kind == "scan" else sum(inner)


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())


def _programs(values: list[Any]) -> list[Any]:
    found = []
    for value in values:
        if isinstance(value, list | tuple):
            found += _programs(list(value))
        elif hasattr(value, "eqns") or hasattr(getattr(value, "jaxpr", None), "eqns"):
            found.append(value)
    return found
