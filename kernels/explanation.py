"""Which implementation of each operation a program would run, and why."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from kernels.dispatch import IMPLEMENTATIONS, operations_by_primitive


@dataclass(frozen=True)
class Explanation:
    """What ``explain`` found: the choice, its tuning, and why the others were not chosen."""

    operation: str
    platform: str
    implementation: str
    tuning: Any
    others: Mapping[str, str]

    def __str__(self) -> str:
        tuning = f" with {self.tuning}" if self.tuning is not None else ""
        others = "".join(f"\n  not {name}: {reason}" for name, reason in self.others.items())
        return f"{self.operation} on {self.platform}: {self.implementation}{tuning}{others}"


def explain(operation: Callable, *arguments: Any, **options: Any) -> list[Explanation]:
    """Which implementation would run here, with which tuning, and why not the others.

    Args:
        operation: one of ``kernels``, or any function that calls them.
        *arguments: what it would be called with; arrays, or pytrees of them.
        **options: likewise, and what is no array: ``padding="CAUSAL"`` must be a keyword.

    Returns:
        One explanation for each call that it makes, in order. None where it makes none, with a
        warning: all of it is plain JAX, as in ``ctc_alignment`` and ``ctc_feasible``.

    Raises:
        ValueError: what is no array is not passed by keyword.

    Example:
        >>> import jax.numpy as jnp, kernels
        >>> found = explain(kernels.depthwise_conv1d, jnp.ones((2, 9, 4)), jnp.ones((3, 4)))
        >>> [(call.operation, call.implementation) for call in found]
        [('depthwise_conv1d', 'xla')]
    """
    for leaf in jax.tree.leaves(arguments):
        if not hasattr(leaf, "shape") and not isinstance(leaf, bool | int | float | complex):
            raise ValueError(
                "positional arguments of explain must be arrays, or pytrees of them, since it "
                f"traces them; received {leaf!r}. Pass it by keyword, as in padding='CAUSAL'."
            )
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    traced = jax.make_jaxpr(lambda *values: operation(*values, **options))(*arguments)
    found = [
        _explanation(equation, platform)
        for equation in _equations(traced.jaxpr)
        if equation.primitive in operations_by_primitive
    ]
    if not found:
        name = getattr(operation, "__name__", operation)
        warnings.warn(
            f"{name} calls none of the operations of kernels that have several implementations: "
            "all of it is plain JAX, compiled by XLA.",
            stacklevel=2,
        )
    return found


def _equations(jaxpr: Any) -> list[Any]:
    found = []
    for equation in jaxpr.eqns:
        found.append(equation)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                found += _equations(getattr(inner, "jaxpr", inner))
    return found


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns")


def _explanation(equation: Any, platform: str) -> Explanation:
    """What would run on a platform for operands of these shapes and dtypes."""
    operation, call = operations_by_primitive[equation.primitive], equation.params["call"]
    operands = call.place([variable.aval for variable in equation.invars])
    forward_mode = operation.is_forward_mode(equation.primitive)
    chosen = "xla" if forward_mode else operation.choose(platform, call, operands)
    others = {}
    for name in IMPLEMENTATIONS:
        if name == chosen:
            continue
        reason = operation.refusal(name, platform, call, operands)
        if forward_mode:
            preference = "forward mode is computed by XLA"
        elif call.implementation:
            preference = f"{chosen} was asked for on {platform}"
        else:
            preference = f"{chosen} is preferred on {platform}"
        others[name] = reason or preference
    tuning = operation.load(chosen).tuning(*operands, **dict(call.static))
    return Explanation(equation.primitive.name, platform, chosen, tuning, others)
