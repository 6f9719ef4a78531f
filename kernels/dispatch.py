"""Which implementation of an operation runs where, and how JAX transforms all of them alike.

A family writes, for each implementation, a ``forward`` and a ``gradient`` of arrays. ``Operation``
binds them as three primitives, which is what gives every operation

- the choice of the implementation when the program is lowered, for the platform it is lowered to;
- reverse mode through ``gradient``, forward mode and second derivatives through XLA;
- ``vmap``, nested too, by folding the mapped axis into the leading one;
- ``shard_map`` with its check of varying axes.

The convention behind the folding: the leading axis of every array counts rows. The first operand
and all outputs have B of them; another operand has N, a divisor of B, and row b uses its row
b // (B // N). One row serves all.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from kernels import launch

IMPLEMENTATIONS = ("xla", "triton", "cudnn")
_PREFERRED = {"cuda": ("cudnn", "triton", "xla")}
_operations: dict[Primitive, "Operation"] = {}


class Implementation(NamedTuple):
    """One way to compute an operation; optional operands that are absent arrive as ``None``.

    Attributes:
        forward: ``forward(*operands, **static) -> tuple of outputs``.
        gradient: ``gradient(operands, outputs, cotangents, wanted, **static)`` -> the cotangents of
            the operands for which ``wanted`` is true, in order, each of its operand's shape and
            dtype. ``outputs`` is empty unless the operation saves them. ``None``: JAX derives it.
        refusal: ``refusal(*operands, **static)`` -> why it cannot compute this, or ``None``.
        tuning: ``tuning(*operands, **static)`` -> the configuration it would run with.
    """

    forward: Callable[..., tuple]
    gradient: Callable[..., tuple] | None = None
    refusal: Callable[..., str | None] = lambda *_, **__: None
    tuning: Callable[..., Any] = lambda *_, **__: None


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


class _Call(NamedTuple):
    """What the three primitives of an operation have in common; hashable."""

    present: tuple[bool, ...]
    implementation: str | None
    static: tuple[tuple[str, Any], ...]

    def place(self, arrays: Sequence[Any]) -> list[Any]:
        """The operands, with ``None`` for those that are absent."""
        given = iter(arrays)
        return [next(given) if present else None for present in self.present]

    @property
    def operands(self) -> int:
        return sum(self.present)


class Operation:
    """An operation with implementations in modules that are imported when they are needed.

    Args:
        name: the public name; each module has an ``Implementation`` of that name.
        modules: implementation -> module. ``xla`` must be there: it is also the definition of the
            shapes, of forward mode and of second derivatives.
        saves_outputs: whether ``gradient`` needs the outputs.
    """

    def __init__(
        self, name: str, modules: Mapping[str, str], *, saves_outputs: bool = False
    ) -> None:
        self.name, self.modules, self.saves_outputs = name, dict(modules), saves_outputs
        self._forward_p = self._primitive(name, self._forward, self._pin_first)
        self._tangent_p = self._primitive(f"{name}_tangent", self._tangent, self._pin_moving)
        self._gradient_p = self._primitive(f"{name}_gradient", self._gradient, self._pin_wanted)
        ad.primitive_jvps[self._forward_p] = self._forward_jvp
        ad.primitive_transposes[self._tangent_p] = self._tangent_transpose
        for primitive, definition in (
            (self._tangent_p, self._tangent),
            (self._gradient_p, self._gradient),
        ):
            ad.primitive_jvps[primitive] = functools.partial(_jvp, primitive, definition)

    def __call__(
        self, *operands: jax.Array | None, implementation: str | None = None, **static: Any
    ) -> tuple[jax.Array, ...]:
        """The outputs; raises NotImplementedError where ``implementation`` cannot compute them."""
        call = _Call(
            tuple(operand is not None for operand in operands),
            implementation,
            tuple(sorted(static.items())),
        )
        if implementation is not None:
            if implementation not in IMPLEMENTATIONS:
                raise ValueError(
                    f"implementation must be None or one of {IMPLEMENTATIONS}; received "
                    f"{implementation!r}."
                )
            reason = self._refusal(implementation, None, call, operands)
            if reason is not None:
                raise NotImplementedError(
                    f"{self.name}: implementation={implementation!r} cannot compute this: "
                    f"{reason}. implementation=None picks one that can."
                )
        arrays = [jnp.asarray(operand) for operand in operands if operand is not None]
        varying = frozenset().union(*(_varying(array) for array in arrays))
        arrays = [_made_varying(array, varying) for array in arrays]
        return tuple(self._forward_p.bind(*arrays, call=call))

    # ------------------------------------------------------------------ Choice

    def _load(self, implementation: str) -> Implementation:
        return getattr(importlib.import_module(self.modules[implementation]), self.name)

    def _refusal(
        self, implementation: str, platform: str | None, call: _Call, operands: Sequence[Any]
    ) -> str | None:
        """Why an implementation cannot run; without a platform, why it can run on none."""
        if implementation not in self.modules:
            return f"there is none, only {' and '.join(self.modules)}"
        if implementation == "triton":
            reason = launch.unavailable(platform or "cpu")
            if reason is not None:
                return reason
        return self._load(implementation).refusal(*operands, **dict(call.static))

    def _choose(self, platform: str, call: _Call, operands: Sequence[Any]) -> str:
        """The implementation for a platform: the one asked for, or the first that can."""
        preferred = _PREFERRED.get(platform, ("xla",))
        reasons = []
        for name in preferred if call.implementation is None else (call.implementation,):
            reason = self._refusal(name, platform, call, operands)
            if reason is None:
                return name
            reasons.append(f"{name}: {reason}")
        raise NotImplementedError(
            f"{self.name} cannot run on {platform}. {'; '.join(reasons)}. "
            "implementation=None picks one that can."
        )

    def explain(self, platform: str, avals: Sequence[Any], call: _Call) -> Explanation:
        """What would run on a platform for operands of these shapes and dtypes."""
        operands = call.place(avals)
        chosen = self._choose(platform, call, operands)
        others = {}
        for name in IMPLEMENTATIONS:
            if name != chosen:
                reason = self._refusal(name, platform, call, operands)
                asked = (
                    f"{chosen} was asked for" if call.implementation else f"{chosen} is preferred"
                )
                others[name] = reason or f"{asked} on {platform}"
        tuning = self._load(chosen).tuning(*operands, **dict(call.static))
        return Explanation(self.name, platform, chosen, tuning, others)

    # ------------------------------------------------------------------ The three computations

    def _forward(self, platform: str, *arrays: Any, call: _Call) -> tuple:
        operands = call.place(arrays)
        name = self._choose(platform, call, operands) if platform else "xla"
        return self._load(name).forward(*operands, **dict(call.static))

    def _tangent(self, platform: str, *arrays: Any, call: _Call, moving: tuple[bool, ...]) -> tuple:
        del platform  # forward mode is XLA's everywhere
        primals, tangents = arrays[: call.operands], list(arrays[len(arrays) - sum(moving) :])
        positions = [i for i, moves in enumerate(moving) if moves]

        def of_moving(*values):
            operands = list(primals)
            for position, value in zip(positions, values, strict=True):
                operands[position] = value
            return tuple(self._load("xla").forward(*call.place(operands), **dict(call.static)))

        return jax.jvp(of_moving, [primals[i] for i in positions], tangents)[1]

    def _gradient(
        self, platform: str, *arrays: Any, call: _Call, wanted: tuple[bool, ...]
    ) -> tuple:
        operands = call.place(arrays[: call.operands])
        rest = arrays[call.operands :]
        saved = len(rest) // 2 if self.saves_outputs else 0
        implementation = self._load(self._choose(platform, call, operands) if platform else "xla")
        all_wanted = tuple(bool(want) for want in call.place(wanted))
        if implementation.gradient is not None:
            outputs, cotangents = tuple(rest[:saved]), tuple(rest[saved:])
            return implementation.gradient(
                tuple(operands), outputs, cotangents, all_wanted, **dict(call.static)
            )
        positions = [i for i, want in enumerate(all_wanted) if want]

        def of_wanted(*values):
            given = list(operands)
            for position, value in zip(positions, values, strict=True):
                given[position] = value
            return tuple(implementation.forward(*given, **dict(call.static)))

        return jax.vjp(of_wanted, *(operands[i] for i in positions))[1](tuple(rest[saved:]))

    # ------------------------------------------------------------------ Rules

    def _primitive(self, name: str, definition: Callable, pinned: Callable) -> Primitive:
        primitive = Primitive(name)
        primitive.multiple_results = True
        primitive.def_impl(functools.partial(_eager, primitive))
        primitive.def_abstract_eval(functools.partial(_shapes, definition))
        batching.primitive_batchers[primitive] = functools.partial(_fold, primitive, pinned)
        for platform in ("default", "cpu", "cuda", "rocm", "tpu"):
            rule = mlir.lower_fun(functools.partial(_listed, definition, platform))
            if platform == "default":
                mlir.register_lowering(primitive, rule)
            else:
                mlir.register_lowering(primitive, rule, platform=platform)
        # JAX tells devices to custom_partitioning, which our lowering may contain, only on request.
        requests = importlib.import_module("jax._src.dispatch")
        requests.prim_requires_devices_during_lowering.add(primitive)
        _operations[primitive] = self
        return primitive

    def _pin_first(self, count: int, call: _Call) -> list[bool]:
        return [position == 0 for position in range(count)]

    def _pin_moving(self, count: int, call: _Call, moving: tuple[bool, ...]) -> list[bool]:
        operands = [position == 0 or moves for position, moves in enumerate(moving)]
        return operands + [True] * (count - call.operands)

    def _pin_wanted(self, count: int, call: _Call, wanted: tuple[bool, ...]) -> list[bool]:
        return self._pin_moving(count, call, wanted)

    def _forward_jvp(self, primals, tangents, *, call: _Call):
        outputs = self._forward_p.bind(*primals, call=call)
        moving = tuple(not _is_zero(tangent) for tangent in tangents)
        saved = outputs if self.saves_outputs else []
        moved = [
            ad.instantiate_zeros(t) for t, moves in zip(tangents, moving, strict=True) if moves
        ]
        return outputs, self._tangent_p.bind(*primals, *saved, *moved, call=call, moving=moving)

    def _tangent_transpose(self, cotangents, *arrays, call: _Call, moving: tuple[bool, ...]):
        known = len(arrays) - sum(moving)
        linear = [ad.is_undefined_primal(array) for array in arrays[known:]]
        unknown = iter(linear)
        wanted = tuple(moves and next(unknown) for moves in moving)
        cotangents = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
        gradients = iter(
            self._gradient_p.bind(*arrays[:known], *cotangents, call=call, wanted=wanted)
        )
        return [None] * known + [next(gradients) if is_linear else None for is_linear in linear]


def explain(operation: Callable, *arguments: Any, **options: Any) -> list[Explanation]:
    """Which implementation would run here, with which tuning, and why not the others.

    Args:
        operation: one of ``kernels``, or any function that calls them.
        *arguments: what it would be called with.
        **options: likewise.

    Returns:
        One explanation for each call that it makes, in order.

    Example:
        >>> import jax.numpy as jnp, kernels
        >>> found = explain(kernels.depthwise_conv1d, jnp.ones((2, 9, 4)), jnp.ones((3, 4)))
        >>> [(call.operation, call.implementation) for call in found]
        [('depthwise_conv1d', 'xla')]
    """
    platform = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    traced = jax.make_jaxpr(lambda *values: operation(*values, **options))(*arguments)
    return [
        _operations[equation.primitive].explain(
            platform, [variable.aval for variable in equation.invars], equation.params["call"]
        )
        for equation in _equations(traced.jaxpr)
        if equation.primitive in _operations
    ]


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


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, ad.Zero) or tangent.dtype == jax.dtypes.float0


def _varying(array: Any) -> frozenset:
    """The axes of ``shard_map`` along which an array differs; JAX moved their home."""
    aval = jax.typeof(array)
    kind = getattr(aval, "mat", None)
    return getattr(aval, "vma", frozenset()) if kind is None else kind.varying


def _made_varying(array: Any, axes: frozenset) -> Any:
    """Primitives take operands that vary over the same axes of ``shard_map``."""
    missing = tuple(axes - _varying(array))
    return jax.lax.pcast(array, missing, to="varying") if missing else array


def _listed(definition: Callable, platform: str, *arrays: Any, **parameters: Any) -> list:
    return list(definition(platform, *arrays, **parameters))


@functools.lru_cache(maxsize=1024)
def _compiled(primitive: Primitive, parameters: tuple[tuple[str, Any], ...]) -> Callable:
    return jax.jit(functools.partial(primitive.bind, **dict(parameters)))


def _eager(primitive: Primitive, *arrays: Any, **parameters: Any) -> Any:
    return _compiled(primitive, tuple(sorted(parameters.items())))(*arrays)


def _shapes(definition: Callable, *avals: Any, **parameters: Any) -> list:
    """Shapes, dtypes and varying axes, from tracing the definition in XLA."""
    traced = jax.make_jaxpr(functools.partial(_listed, definition, "", **parameters))(*avals)
    return traced.out_avals


def _jvp(primitive: Primitive, definition: Callable, primals, tangents, **parameters):
    """Derivatives of a derivative: XLA's, of the definition."""
    outputs = primitive.bind(*primals, **parameters)
    positions = [i for i, tangent in enumerate(tangents) if not _is_zero(tangent)]

    def of_moving(*values):
        given = list(primals)
        for position, value in zip(positions, values, strict=True):
            given[position] = value
        return _listed(definition, "", *given, **parameters)

    moving = [ad.instantiate_zeros(tangents[i]) for i in positions]
    return outputs, jax.jvp(of_moving, [primals[i] for i in positions], moving)[1]


def _fold(primitive: Primitive, pinned: Callable, arrays, axes, **parameters):
    """One call with V times as many rows; see the convention of this module."""
    size = next(a.shape[d] for a, d in zip(arrays, axes, strict=True) if d is not None)
    folded = []
    for array, axis, pin in zip(arrays, axes, pinned(len(arrays), **parameters), strict=True):
        if axis is None and array.shape[0] == 1 and not pin:
            folded.append(array)
            continue
        if axis is None:
            array = jnp.broadcast_to(array[None], (size, *array.shape))
        else:
            array = jnp.moveaxis(array, axis, 0)
        folded.append(array.reshape(size * array.shape[1], *array.shape[2:]))
    outputs = primitive.bind(*folded, **parameters)
    split = [array.reshape(size, array.shape[0] // size, *array.shape[1:]) for array in outputs]
    return split, [0] * len(split)
