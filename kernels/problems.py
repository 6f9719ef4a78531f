"""One call of an operation with everything around it: what tests, benchmark and tuning share.

Each family lists its shapes in ``tuning.SHAPES`` and turns one into a ``Problem`` with
``tuning.problem(operation, name, shape, dtype)``. A new operation is one line in ``FAMILIES``;
``tuning.OPERATIONS`` has those of a family that have shapes of their own.
"""

import functools
import importlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import kernels

FAMILIES = {
    "attention": ("attention", "relative_attention", "conv_attention"),
    "convolution": (
        "depthwise_conv1d",
        "conformer_convolution",
        "depthwise_conv2d",
        "conv2d",
    ),
    "ctc": ("ctc_loss",),
}


# Where the benchmark has a call: by itself; COPIES of it, one after the other in a loop of one
# program; or all at once under vmap, each copy with filters or weights of its own.
WITHIN = ("alone", "loop", "models")
COPIES = 4


@dataclass(frozen=True)
class Cost:
    """The least that a computation can do, however it is done.

    Attributes:
        bytes: read from and written to memory, each operand and result once.
        flops: multiplications and additions.
    """

    bytes: float
    flops: float


@dataclass(frozen=True)
class Problem:
    """An operation with its operands, and its definition.

    Attributes:
        operation: public name in ``kernels``.
        name: of the shape.
        dtype: of the differentiable operands, "bfloat16".
        operands: the arrays, by keyword.
        options: the other keyword arguments.
        differentiable: names of operands that have a gradient, in order.
        per_row: names of operands with a row of their own for each row of the result; the others
            serve all rows.
        definition: the naive definition, with the keywords of the operation but
            ``implementation``, in the precision of what it is given.
        forward: least cost of the value.
        backward: least cost of all gradients, given the value's cotangent.
        within: what the benchmark has around the call, a name in ``WITHIN``.
    """

    operation: str
    name: str
    dtype: str
    operands: Mapping[str, Any]
    options: Mapping[str, Any]
    differentiable: tuple[str, ...]
    per_row: tuple[str, ...]
    definition: Callable[..., Any]
    forward: Cost
    backward: Cost
    within: str = "alone"

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The differentiable operands."""
        return tuple(self.operands[name] for name in self.differentiable)

    def function(self, implementation: str | None = None) -> Callable[..., Any]:
        """The operation, as a function of the differentiable operands."""
        operation = getattr(kernels, self.operation)
        return self._of_arguments(functools.partial(operation, implementation=implementation))

    def plain(self) -> Callable[..., Any]:
        """The definition, as a function of the differentiable operands."""
        return self._of_arguments(self.definition)

    def _of_arguments(self, function: Callable[..., Any]) -> Callable[..., Any]:
        fixed = {k: v for k, v in self.operands.items() if k not in self.differentiable}

        def of_arguments(*arguments):
            given = dict(zip(self.differentiable, arguments, strict=True))
            return function(**given, **fixed, **self.options)

        return of_arguments


def load(operation: str) -> Any:
    """The ``tuning`` module of an operation's family, or what has the same names for it.

    Raises:
        ValueError: there is no such operation.

    Example:
        >>> "conformer_w31" in load("depthwise_conv1d").SHAPES
        True
    """
    for family, operations in FAMILIES.items():
        if operation in operations:
            module = importlib.import_module(f"kernels.{family}.tuning")
            return getattr(module, "OPERATIONS", {}).get(operation, module)
    known = sorted(name for operations in FAMILIES.values() for name in operations)
    raise ValueError(f"an operation must be one of {known}; received {operation!r}.")


def cotangent(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """A direction to differentiate along that differs from element to element."""
    count = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape)
    return jnp.asarray(np.cos(count), dtype)


def gradients(function: Callable[..., Any]) -> Callable[..., tuple]:
    """``function`` -> a function of its arguments and a cotangent: the value and every gradient."""

    def value_and_gradients(arguments, direction):
        value, pullback = jax.vjp(function, *arguments)
        return value, *pullback(direction.astype(value.dtype))

    return value_and_gradients


class NoReference(ValueError):
    """JAX may not compute on the CPU, where results are computed that others are compared with."""


def reference_device() -> Any:
    """The CPU, which computes definitions in float64 beside any GPU.

    Raises:
        NoReference: JAX was told to leave it out.
    """
    try:
        return jax.devices("cpu")[0]
    except RuntimeError as error:
        raise NoReference(
            "results are compared with a definition in float64 that the CPU computes, and "
            f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')} leaves it out. Unset it, or set "
            "JAX_PLATFORMS=cuda,cpu."
        ) from error


def exact(problem: Problem) -> tuple[np.ndarray, ...]:
    """The value and every gradient along ``cotangent`` in float64, one row at a time.

    Rows keep the memory of a naive definition small at the sizes that are measured.

    Returns:
        The value, then the gradient of each differentiable operand.
    """
    operands = {name: _widened(value) for name, value in problem.operands.items()}
    rows = next(len(operands[name]) for name in problem.per_row)
    shape = jax.eval_shape(problem.plain(), *problem.arguments).shape
    direction = np.asarray(cotangent(shape, jnp.dtype(problem.dtype)), np.float64)

    def of_row(one, direction):
        fixed = {k: v for k, v in one.items() if k not in problem.differentiable}

        def definition(*arguments):
            given = dict(zip(problem.differentiable, arguments, strict=True))
            return problem.definition(**given, **fixed, **problem.options)

        arguments = tuple(one[name] for name in problem.differentiable)
        return gradients(definition)(arguments, direction)

    compiled, cpu = jax.jit(of_row), reference_device()

    def row(i):
        one = {k: v[i : i + 1] if k in problem.per_row else v for k, v in operands.items()}
        # Both settings are a thread's own.
        with jax.enable_x64(True), jax.default_device(cpu):
            return [np.asarray(part) for part in compiled(one, direction[i : i + 1])]

    # The first compiles for all. Much of a definition runs on one core.
    with ThreadPoolExecutor() as pool:
        found = [row(0), *pool.map(row, range(1, rows))]
    parts = list(zip(*found, strict=True))
    value, *slopes = parts
    joined = [
        np.concatenate(part) if name in problem.per_row else np.sum(part, 0)
        for name, part in zip(problem.differentiable, slopes, strict=True)
    ]
    return np.concatenate(value), *joined


def _widened(value: Any) -> np.ndarray:
    array = np.asarray(value)
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    return array.astype(np.float64) if floating else array


def error(found: Any, true: np.ndarray) -> float:
    """Largest deviation, relative to the largest element; inf where anything is not finite."""
    found = np.asarray(found).astype(np.float64)
    if found.shape != true.shape or not np.isfinite(found).all():
        return float("inf")
    scale = np.abs(true).max(initial=np.finfo(np.float64).tiny)
    return float(np.abs(found - true).max(initial=0.0) / scale)


def allowed(plain_error: float) -> float:
    """The error rule: at most twice that of the definition in plain XLA in the same precision."""
    return 2 * plain_error + 1e-6
