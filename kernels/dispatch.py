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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from kernels import launch, varying
from kernels.arguments import meant
from kernels.rows import by_rows, map_of_none

IMPLEMENTATIONS = ("xla", "triton", "cudnn")
PREFERRED = {"cuda": ("cudnn", "triton", "xla")}
_NO_MESH = jax.sharding.AbstractMesh((), ())
operations_by_primitive: dict[Primitive, "Operation"] = {}


class Implementation(NamedTuple):
    """One way to compute an operation; optional operands that are absent arrive as ``None``.

    Attributes:
        forward: ``forward(*operands, **static) -> tuple of outputs``.
        gradient: ``gradient(operands, saved, cotangents, wanted, **static)`` -> the cotangents of
            the operands for which ``wanted`` is true, in order, each of its operand's shape and
            dtype. ``None``: JAX derives it.
        refusal: ``refusal(*operands, **static)`` -> why it cannot compute this, or ``None``.
        tuning: ``tuning(*operands, **static)`` -> the configuration it would run with.
        saving: ``saving(*operands, **static) -> (outputs, saved)``, what runs instead of
            ``forward`` where a gradient will follow; for operations that save.
    """

    forward: Callable[..., tuple]
    gradient: Callable[..., tuple] | None = None
    refusal: Callable[..., str | None] = lambda *_, **__: None
    tuning: Callable[..., Any] = lambda *_, **__: None
    saving: Callable[..., tuple[tuple, tuple]] | None = None


class Call(NamedTuple):
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
        """How many are present."""
        return sum(self.present)


class Operation:
    """An operation with implementations in modules that are imported when they are needed.

    Args:
        name: the public name; each module has an ``Implementation`` of that name.
        modules: implementation -> module. ``xla`` must be there: the shapes are taken from it.
        derivatives: module of the implementation whose ``forward`` JAX differentiates for forward
            mode and second derivatives, which must be right in it to any order; ``xla`` by default.
        preferred: platform -> the implementations that ``None`` picks from, the first that can;
            ``PREFERRED`` by default.
        outputs: how many there are.
        saves: whether every implementation has ``saving``. What is saved has the same shapes in
            all of them, and a leading axis of rows, as the outputs have.
    """

    def __init__(
        self,
        name: str,
        modules: Mapping[str, str],
        *,
        derivatives: str | None = None,
        preferred: Mapping[str, tuple[str, ...]] = PREFERRED,
        outputs: int = 1,
        saves: bool = False,
    ) -> None:
        self.name, self.modules = name, dict(modules)
        self.derivatives = derivatives or modules["xla"]
        self.preferred = preferred
        self.outputs, self.saves = outputs, saves
        self._definitions: dict[Primitive, Callable] = {}
        first = self._traced_shapes, self._pin_first
        self._forward_p = self._primitive(name, self._forward, *first)
        self._saving_p = self._primitive(f"{name}_saving", self._saving, *first)
        self._tangent_p = self._primitive(
            f"{name}_tangent", self._tangent, self._tangent_shapes, self._pin_chosen
        )
        self._gradient_p = self._primitive(
            f"{name}_gradient", self._gradient, self._gradient_shapes, self._pin_chosen
        )
        ad.primitive_jvps[self._forward_p] = functools.partial(self._forward_jvp, saves=False)
        ad.primitive_jvps[self._saving_p] = functools.partial(self._forward_jvp, saves=True)
        ad.primitive_transposes[self._tangent_p] = self._tangent_transpose
        ad.primitive_jvps[self._tangent_p] = self._tangent_jvp
        ad.primitive_jvps[self._gradient_p] = self._gradient_jvp

    def __call__(
        self, *operands: jax.Array | None, implementation: str | None = None, **static: Any
    ) -> tuple[jax.Array, ...]:
        """The outputs; raises NotImplementedError where ``implementation`` cannot compute them."""
        present = tuple(operand is not None for operand in operands)
        call = Call(present, implementation, _frozen(static))
        check_implementation(implementation)
        if implementation is not None:
            reason = self.refusal(implementation, None, call, operands)
            if reason is not None:
                raise NotImplementedError(
                    f"{self.name}: implementation={implementation!r} cannot compute this: "
                    f"{reason}. implementation=None picks one that can."
                )
        arrays = [jnp.asarray(operand) for operand in operands if operand is not None]
        return tuple(self._forward_p.bind(*varying.alike(arrays), call=call))

    # ------------------------------------------------------------------ Choice

    def load(self, implementation: str) -> Implementation:
        """One of the implementations; imports its module."""
        return getattr(importlib.import_module(self.modules[implementation]), self.name)

    def _differentiable(self) -> Implementation:
        return getattr(importlib.import_module(self.derivatives), self.name)

    def refusal(
        self, implementation: str, platform: str | None, call: Call, operands: Sequence[Any]
    ) -> str | None:
        """Why an implementation cannot run; without a platform, why it can run on none."""
        if implementation not in self.modules:
            return f"there is none, only {' and '.join(self.modules)}"
        if implementation == "triton" and (reason := launch.unavailable(platform or "cpu")):
            return reason
        if implementation == "cudnn" and platform not in (None, "cuda"):
            return f"cuDNN runs on CUDA, not on {platform}"
        return self.load(implementation).refusal(*operands, **dict(call.static))

    def choose(self, platform: str, call: Call, operands: Sequence[Any]) -> str:
        """The implementation for a platform: the one asked for, or the first that can."""
        preferred = self.preferred.get(platform, ("xla",))
        reasons = []
        for name in preferred if call.implementation is None else (call.implementation,):
            reason = self.refusal(name, platform, call, operands)
            if reason is None:
                return name
            reasons.append(f"{name}: {reason}")
        raise NotImplementedError(
            f"{self.name} cannot run on {platform}. {'; '.join(reasons)}. "
            "implementation=None picks one that can."
        )

    def is_forward_mode(self, primitive: Primitive) -> bool:
        """Whether it computes tangents, which is always XLA's work."""
        return primitive is self._tangent_p

    def traced(self, primitive: Primitive, *avals: Any, **parameters: Any) -> Any:
        """What XLA computes for one of the primitives, as a closed jaxpr."""
        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
        with jax.disable_jit(False), jax.sharding.use_abstract_mesh(_NO_MESH):
            return _in_xla(self._definitions[primitive], _frozen(parameters)).trace(*shapes).jaxpr

    # ------------------------------------------------------------------ The computations

    def _forward(self, implementation: str, *arrays: Any, call: Call) -> tuple:
        operands = call.place(arrays)
        return self.load(implementation).forward(*operands, **dict(call.static))

    def _saving(self, implementation: str, *arrays: Any, call: Call) -> tuple:
        saving = self.load(implementation).saving
        assert saving is not None
        outputs, saved = saving(*call.place(arrays), **dict(call.static))
        return (*outputs, *saved)

    def _tangent(
        self, implementation: str, *arrays: Any, call: Call, moving: tuple[bool, ...]
    ) -> tuple:
        del implementation  # forward mode is XLA's everywhere
        primals, tangents = arrays[: call.operands], arrays[len(arrays) - sum(moving) :]
        function, start = self._of_some(call, primals, moving)
        return jax.jvp(function, start, list(tangents))[1]

    def _gradient(
        self, implementation: str, *arrays: Any, call: Call, wanted: tuple[bool, ...]
    ) -> tuple:
        primals, rest = arrays[: call.operands], arrays[call.operands :]
        saved, cotangents = rest[: len(rest) - self.outputs], rest[len(rest) - self.outputs :]
        gradient = self.load(implementation).gradient
        if gradient is None:
            return self._derived_gradient(*primals, *cotangents, call=call, wanted=wanted)
        all_wanted = tuple(bool(want) for want in call.place(wanted))
        operands = tuple(call.place(primals))
        return gradient(operands, saved, cotangents, all_wanted, **dict(call.static))

    def _derived_gradient(self, *arrays: Any, call: Call, wanted: tuple[bool, ...]) -> tuple:
        """JAX's own, which can be differentiated again."""
        primals, cotangents = arrays[: call.operands], arrays[call.operands :]
        function, start = self._of_some(call, primals, wanted)
        return jax.vjp(function, *start)[1](tuple(cotangents))

    def _of_some(self, call: Call, arrays: Sequence[Any], chosen: Sequence[bool]):
        """What JAX differentiates, as a function of the chosen operands, and where they are."""
        implementation = self._differentiable()

        def function(*values):
            given = iter(values)
            operands = [
                next(given) if is_chosen else array
                for array, is_chosen in zip(arrays, chosen, strict=True)
            ]
            return tuple(implementation.forward(*call.place(operands), **dict(call.static)))

        start = [array for array, is_chosen in zip(arrays, chosen, strict=True) if is_chosen]
        return function, start

    # ------------------------------------------------------------------ Rules

    def _primitive(
        self, name: str, definition: Callable, shapes: Callable, pinned: Callable
    ) -> Primitive:
        primitive = Primitive(name)
        self._definitions[primitive] = definition
        primitive.multiple_results = True
        primitive.def_impl(functools.partial(_eager, primitive))
        primitive.def_abstract_eval(functools.partial(shapes, primitive))
        batching.primitive_batchers[primitive] = functools.partial(_fold, primitive, pinned)
        for platform in (None, "cpu", "cuda", "rocm", "tpu"):
            rule = varying.lowering(functools.partial(self._run, definition, platform or "default"))
            mlir.register_lowering(primitive, rule, platform=platform)
        # JAX tells devices to custom_partitioning, which our lowering may contain, only on request.
        requests = importlib.import_module("jax._src.dispatch")
        requests.prim_requires_devices_during_lowering.add(primitive)
        operations_by_primitive[primitive] = self
        return primitive

    def _run(self, definition: Callable, platform: str, *arrays: Any, **parameters: Any) -> list:
        """What a platform computes; in XLA what was traced for the shapes, which takes long."""
        call, name = parameters["call"], "xla"
        if definition != self._tangent:
            name = self.choose(platform, call, call.place(arrays[: call.operands]))
        if name == "xla":
            with jax.sharding.use_abstract_mesh(_NO_MESH):
                return _in_xla(definition, _frozen(parameters))(*arrays)
        return list(definition(name, *arrays, **parameters))

    def _traced_shapes(self, primitive: Primitive, *avals: Any, call: Call) -> list:
        traced = self.traced(primitive, *avals, call=call)
        return [varying.like(aval, avals[0]) for aval in traced.out_avals]

    def _tangent_shapes(self, _: Primitive, *avals: Any, call: Call, moving: tuple) -> list:
        """Of the outputs; ``moving`` changes nothing in them."""
        del moving
        first = self._saving_p if self.saves else self._forward_p
        return self._traced_shapes(first, *avals[: call.operands], call=call)[: self.outputs]

    def _gradient_shapes(self, _: Primitive, *avals: Any, call: Call, wanted: tuple) -> list:
        """Of the wanted operands."""
        operands = zip(avals[: call.operands], wanted, strict=True)
        return [varying.like(varying.nowhere(aval), avals[0]) for aval, want in operands if want]

    # A pinned array has rows for every element of a map, also where one row could serve all: the
    # first operand, since it says how many there are, and what has a derivative of each element.
    def _pin_first(self, count: int, call: Call) -> list[bool]:
        return [position == 0 for position in range(count)]

    def _pin_chosen(self, count: int, call: Call, **chosen: tuple[bool, ...]) -> list[bool]:
        (which,) = chosen.values()  # the operands that are moving, or wanted
        return [True, *which[1:], *[True] * (count - call.operands)]

    def _forward_jvp(self, primals, tangents, *, call: Call, saves: bool):
        results = (self._saving_p if self.saves else self._forward_p).bind(*primals, call=call)
        outputs, saved = results[: self.outputs], results[self.outputs :]
        moving = tuple(not _is_zero(tangent) for tangent in tangents)
        moved = [
            ad.instantiate_zeros(t) for t, moves in zip(tangents, moving, strict=True) if moves
        ]
        slopes = self._tangent_p.bind(*primals, *saved, *moved, call=call, moving=moving)
        if not saves:
            return outputs, slopes
        # Derivatives of what is saved are in the rules of those that use it.
        return results, [
            *slopes,
            *(ad.Zero(jax.typeof(array).to_tangent_aval()) for array in saved),
        ]

    def _tangent_jvp(self, primals, tangents, *, call: Call, moving: tuple[bool, ...]):
        slopes = self._tangent_p.bind(*primals, call=call, moving=moving)
        definition = functools.partial(self._tangent, "", call=call, moving=moving)
        return slopes, _jvp(definition, primals, tangents)

    def _gradient_jvp(self, primals, tangents, *, call: Call, wanted: tuple[bool, ...]):
        gradients = self._gradient_p.bind(*primals, call=call, wanted=wanted)
        definition = functools.partial(self._derived_gradient, call=call, wanted=wanted)
        last = len(primals) - self.outputs
        used = [*range(call.operands), *range(last, len(primals))]
        slopes = _jvp(definition, [primals[i] for i in used], [tangents[i] for i in used])
        return gradients, slopes

    def _tangent_transpose(self, cotangents, *arrays, call: Call, moving: tuple[bool, ...]):
        known = len(arrays) - sum(moving)
        linear = [ad.is_undefined_primal(array) for array in arrays[known:]]
        unknown = iter(linear)
        wanted = tuple(moves and next(unknown) for moves in moving)
        cotangents = [ad.instantiate_zeros(cotangent) for cotangent in cotangents]
        gradients = iter(
            self._gradient_p.bind(*arrays[:known], *cotangents, call=call, wanted=wanted)
        )
        return [None] * known + [next(gradients) if is_linear else None for is_linear in linear]


def check_implementation(name: Any) -> None:
    """Refuse, with a ValueError, what is neither ``None`` nor one of ``IMPLEMENTATIONS``."""
    if name is not None and name not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be None or one of {IMPLEMENTATIONS}; received {name!r}."
            f"{meant(name, IMPLEMENTATIONS)} None picks one that can."
        )


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, ad.Zero) or tangent.dtype == jax.dtypes.float0


def _frozen(parameters: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(sorted(parameters.items()))


@functools.lru_cache(maxsize=1024)
def _in_xla(definition: Callable, parameters: tuple[tuple[str, Any], ...]) -> Any:
    """XLA's computation, which JAX traces once for operands of the same shapes."""

    def listed(*arrays):
        return list(definition("xla", *arrays, **dict(parameters)))

    return jax.jit(listed, inline=True)


@functools.lru_cache(maxsize=1024)
def _compiled(primitive: Primitive, parameters: tuple[tuple[str, Any], ...]) -> Callable:
    return jax.jit(functools.partial(primitive.bind, **dict(parameters)))


def _eager(primitive: Primitive, *arrays: Any, **parameters: Any) -> Any:
    with jax.disable_jit(False):  # it is one operation, as XLA's own are
        return _compiled(primitive, _frozen(parameters))(*arrays)


def _jvp(definition: Callable, primals: Sequence[Any], tangents: Sequence[Any]) -> list:
    """The tangents of what a definition gives."""
    moving = [i for i, tangent in enumerate(tangents) if not _is_zero(tangent)]

    def of_moving(*values):
        given = list(primals)
        for position, value in zip(moving, values, strict=True):
            given[position] = value
        return list(definition(*given))

    moved = [ad.instantiate_zeros(tangents[i]) for i in moving]
    return jax.jvp(of_moving, [primals[i] for i in moving], moved)[1]


def _fold(primitive: Primitive, pinned: Callable, arrays, axes, **parameters):
    """One call with V times as many rows; see the convention of this module."""
    size = next(a.shape[d] for a, d in zip(arrays, axes, strict=True) if d is not None)
    if size == 0:
        split = map_of_none(functools.partial(primitive.bind, **parameters), arrays, axes)
        return varying.alike([*split, *arrays])[: len(split)], [0] * len(split)
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
    split = [by_rows(array, size) for array in outputs]
    return split, [0] * len(split)
