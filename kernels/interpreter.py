"""Triton kernels on NumPy arrays, in the process that also compiles them, with memory checked.

Triton brings an interpreter that needs torch, one process of its own (``TRITON_INTERPRET=1``), and
trusts the kernel. This module drives its parts and adds

- bfloat16 arithmetic: the stock interpreter adds and compares the bit patterns as integers, and
  rounds towards zero;
- loop bounds that are tensors, under NumPy 2.4, and scalar comparisons that stay masks;
- ``OutOfBounds`` for an address outside every array of the call, whatever lies there;
- ``Race`` where one program touches what another has written, or writes what another has read:
  nothing orders two programs, so the result would depend on the schedule;
- programs in shuffled order, so that what depends on it shows in the values too.

It cannot see a barrier that is missing inside one program. Works with Triton 3.6 to 3.8; importable
without Triton.
"""

import contextlib
import importlib
import inspect
import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np

triton: Any = None
tl: Any = None
stock: Any = None
libdevice: Any = None
with contextlib.suppress(ImportError):
    triton = importlib.import_module("triton")
    tl = importlib.import_module("triton.language")
    stock = importlib.import_module("triton.runtime.interpreter")
    libdevice = importlib.import_module("triton.language.extra.libdevice")


class KernelMemoryError(RuntimeError):
    """A kernel touched memory it must not touch."""


class OutOfBounds(KernelMemoryError):
    """An address outside every array that the kernel was given."""


class Race(KernelMemoryError):
    """Two programs, or two lanes of one store, touch an element and at least one of them writes."""


# The interpreter patches triton.language, of which a process has one.
_LOCK = threading.RLock()
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_rewritten: dict[Callable, Callable] = {}
_watch: "_Memory | None" = None


def poisoned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array of which every bit is set: NaN, or -1, so that what a kernel leaves out shows.

    Example:
        >>> poisoned((2,), np.float32)
        array([nan, nan], dtype=float32)
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.frombuffer(bytearray(b"\xff" * size), dtype).reshape(shape)


def run(
    kernel: Any,
    grid: Sequence[int],
    *arguments: np.ndarray | int | float | bool,
    seed: int | None = 0,
    check_memory: bool = True,
    **constexprs: Any,
) -> None:
    """Run every program of a grid, one after another; arrays are used in place.

    Args:
        kernel: a function under ``triton.jit``.
        grid: number of programs along up to three axes.
        *arguments: C-contiguous arrays and scalars, in the order of the kernel's parameters.
        seed: shuffles the order of the programs; ``None`` keeps the order of the grid.
        check_memory: look for addresses out of bounds and for races.
        **constexprs: the compile-time parameters.

    Raises:
        OutOfBounds, Race: with ``check_memory``.
        NotImplementedError: Triton is not installed.
        ValueError: an array is not C-contiguous.
    """
    if triton is None:
        raise NotImplementedError("interpreting a kernel needs Triton: pip install triton")
    global _watch
    sizes = (*grid, 1, 1)[:3]
    programs = [
        (x, y, z) for z in range(sizes[2]) for y in range(sizes[1]) for x in range(sizes[0])
    ]
    numbers = list(range(len(programs)))
    if seed is not None:
        random.Random(seed).shuffle(numbers)
    with _LOCK, np.errstate(all="ignore"), _patched_language():
        memory = _Memory()
        function = _interpretable(kernel.fn)
        bound = inspect.getcallargs(kernel.fn, *arguments, **constexprs)
        static = {parameter.name for parameter in kernel.params if parameter.is_constexpr}
        values = {
            name: value if name in static else _tensor(value, name, memory)
            for name, value in bound.items()
        }
        stock.interpreter_builder.set_grid_dim(*sizes)
        _watch = memory if check_memory else None
        try:
            for number in numbers:
                memory.program = number
                stock.interpreter_builder.set_grid_idx(*programs[number])
                function(**values)
        finally:
            _watch = None


class _Memory:
    """The arrays of a call, and which program wrote and read each element last.

    Owners are numbers of programs plus one; 0 is nobody, SEVERAL more than one program, or any
    number of atomic updates.
    """

    SEVERAL = -1

    def __init__(self) -> None:
        self.program = 0
        self._arrays: list[tuple[int, np.ndarray, str, np.ndarray, np.ndarray]] = []

    def add(self, array: np.ndarray, name: str) -> None:
        if not array.flags.c_contiguous:
            raise ValueError(f"{name} must be C-contiguous: pass np.ascontiguousarray({name}).")
        start = array.ctypes.data
        if array.size and all(start != other for other, *_ in self._arrays):
            owners = np.zeros((2, array.size), np.int64)
            self._arrays.append((start, array, name, owners[0], owners[1]))

    def touch(self, pointers: Any, mask: Any, *, write: bool, atomic: bool = False) -> None:
        lanes = np.broadcast_to(np.asarray(mask, bool), np.shape(pointers))
        addresses = np.asarray(pointers)[lanes].astype(np.int64).ravel()
        inside = np.zeros(addresses.shape, bool)
        for start, array, name, writers, readers in self._arrays:
            here = (addresses >= start) & (addresses <= start + array.nbytes - array.itemsize)
            inside |= here
            elements = (addresses[here] - start) // array.itemsize
            if atomic:
                self._refuse(elements, writers, (0, self.SEVERAL), name, "updates", "written")
                writers[elements] = self.SEVERAL
            elif elements.size:
                self._claim(elements, name, writers, readers, write)
        if not inside.all():
            action = "writes" if write else "reads"
            names = ", ".join(name for _, _, name, _, _ in self._arrays)
            raise OutOfBounds(
                f"program {self.program} {action} {np.count_nonzero(~inside)} address(es) outside "
                f"every array ({names}). Look at the mask and at the offsets of that load or store."
            )

    def _claim(self, elements, name, writers, readers, write) -> None:
        me = self.program + 1
        self._refuse(elements, writers, (0, me), name, "writes" if write else "reads", "written")
        if not write:
            owners = readers[elements]
            readers[elements] = np.where((owners == 0) | (owners == me), me, self.SEVERAL)
            return
        self._refuse(elements, readers, (0, me), name, "writes", "read")
        if np.unique(elements).size != elements.size:
            raise Race(f"program {self.program} writes an element of {name} twice in one store")
        writers[elements] = me

    def _refuse(self, elements, owners, allowed, name, action, before) -> None:
        foreign = ~np.isin(owners[elements], allowed)
        if foreign.any():
            raise Race(
                f"program {self.program} {action} {name}{elements[foreign][:4].tolist()} (flat "
                f"indices), {before} by another program. Give each program elements of its own, or "
                "split the kernel in two."
            )


def _tensor(value: Any, name: str, memory: _Memory) -> Any:
    """A kernel argument as the interpreter's tensor."""
    if isinstance(value, np.ndarray):
        memory.add(value, name)
        names = {"float8_e4m3fn": "float8e4nv", "float8_e5m2": "float8e5", "bool": "int1"}
        element = str(value.dtype)
        kind = tl.pointer_type(getattr(tl, names.get(element, element)))
        return tl.tensor(stock.TensorHandle(np.array([value.ctypes.data], np.uint64), kind), kind)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return tl.tensor(stock.TensorHandle(np.array([value], np.float32), tl.float32), tl.float32)
    return stock._implicit_cvt(value)


def _interpretable(function: Callable) -> Callable:
    if function not in _rewritten:
        _rewritten[function] = stock.FunctionRewriter(function).rewrite_ast()
    return _rewritten[function]


@contextlib.contextmanager
def _patched_language() -> Iterator[None]:
    """Let triton.language compute with NumPy, and put everything back afterwards."""
    scope = stock._LangPatchScope()
    builder = stock.interpreter_builder
    jitted = importlib.import_module("triton.runtime.jit").JITFunction
    try:
        for language in (tl, tl.core):
            stock._patch_builtin(language, builder, scope)
            stock._patch_builtin(language.tensor, builder, scope)
            stock._patch_lang_tensor(language.tensor, scope)
            stock._patch_lang_core(language, scope)
        stock._patch_builtin(tl.math, builder, scope)
        stock._patch_builtin(tl.core.tensor_descriptor_base, builder, scope)
        # NumPy 2.4 refuses int() of an array of one element, which loop bounds are.
        scope.set_attr(tl.tensor, "__index__", lambda self: int(self.handle.data.reshape(())))
        for name, member in list(vars(tl.tensor).items()):
            if isinstance(member, jitted):  # x.sum(), x.max(): a method, and so bound
                scope.set_attr(tl.tensor, name, _method(member))
        scope.set_attr(jitted, "__call__", lambda self, *a, **k: _interpretable(self.fn)(*a, **k))
        for name, function in _LIBDEVICE.items():
            if hasattr(libdevice, name):
                scope.set_attr(libdevice, name, _elementwise(function))
        for name, function in vars(_Builder).items():
            if not name.startswith("__"):
                scope.set_attr(stock.InterpreterBuilder, name, function)
        yield
    finally:
        scope.restore()


def _method(function: Callable) -> Callable:
    return lambda self, *arguments, **options: function(self, *arguments, **options)


# Elementary functions of the device, which the stock interpreter does not have.
_LIBDEVICE: dict[str, Callable] = {
    "erf": np.vectorize(math.erf, otypes=[np.float32]),
    "expm1": np.expm1,
    "fast_dividef": np.divide,
    "fast_expf": np.exp,
    "fast_log2f": np.log2,
    "fast_logf": np.log,
    "log1p": np.log1p,
    "pow": np.power,
    "rint": np.rint,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "tanh": np.tanh,
}


def _elementwise(function: Callable) -> Callable:
    def apply(*arguments: Any, **_: Any) -> Any:
        tensors = [stock.interpreter_semantic.to_tensor(argument) for argument in arguments]
        kind = tensors[0].type
        data = np.asarray(function(*(t.handle.data for t in tensors)), tensors[0].handle.data.dtype)
        return tl.tensor(stock.TensorHandle(data, kind.scalar), kind)

    return apply


def _is_bfloat16(*handles: Any) -> bool:
    return any(handle.dtype.scalar == tl.bfloat16 for handle in handles)


def _widened(handle: Any) -> np.ndarray:
    """The data of a handle, as float32 where it is bfloat16 (kept as uint16)."""
    if not _is_bfloat16(handle):
        return handle.data
    return np.ascontiguousarray(handle.data).view(_BFLOAT16).astype(np.float32)


def _bfloat16(data: Any) -> Any:
    """A bfloat16 handle, rounded to the nearest even as the device does."""
    rounded = np.asarray(np.asarray(data, np.float32).astype(_BFLOAT16), order="C")
    return stock.TensorHandle(rounded.view(np.uint16), tl.bfloat16)


def _float32(handle: Any) -> Any:
    return stock.TensorHandle(_widened(handle), tl.float32) if _is_bfloat16(handle) else handle


class _Builder:
    """Methods that take the place of those of the stock builder."""

    def binary_op(self, left, right, op):
        bits = (np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.left_shift, np.right_shift)
        if not _is_bfloat16(left) or op in bits:
            result = _STOCK["binary_op"](self, left, right, op)
        else:
            data = op(_widened(left), _widened(right))
            result = stock.TensorHandle(data, tl.int1) if data.dtype == bool else _bfloat16(data)
        # The stock builder gives the mask the type of the operands, and widens it when it splats.
        comparison = result.data.dtype == bool
        return stock.TensorHandle(result.data, tl.int1) if comparison else result

    def unary_op(self, argument, op):
        if _is_bfloat16(argument):
            return _bfloat16(op(_widened(argument)))
        return _STOCK["unary_op"](self, argument, op)

    def ternary_op(self, first, second, third, op):
        if _is_bfloat16(third) and op is not np.where:
            return _bfloat16(op(*(_widened(handle) for handle in (first, second, third))))
        return _STOCK["ternary_op"](self, first, second, third, op)

    def create_dot(self, left, right, accumulator, *options):
        return _STOCK["create_dot"](self, _float32(left), _float32(right), accumulator, *options)

    def cast_impl(self, source, target):
        if target.scalar == tl.bfloat16 and not _is_bfloat16(source):
            return _bfloat16(source.data)
        if target.scalar != tl.bfloat16:
            source = _float32(source)
        return _STOCK["cast_impl"](self, source, target)

    def create_fp_to_fp(self, source, target, rounding):
        kinds = (source.dtype.scalar, target.scalar)
        if any(kind.primitive_bitwidth == 8 for kind in kinds):
            return _STOCK["create_fp_to_fp"](self, source, target, rounding)
        return self.cast_impl(source, target)  # type: ignore[attr-defined]

    def create_masked_load(self, pointers, mask, *options, **more):
        if _watch is not None:
            _watch.touch(pointers.data, mask.data, write=False)
        return _STOCK["create_masked_load"](self, pointers, mask, *options, **more)

    def create_masked_store(self, pointers, value, mask, *options, **more):
        if _watch is not None:
            _watch.touch(pointers.data, mask.data, write=True)
        return _STOCK["create_masked_store"](self, pointers, value, mask, *options, **more)

    def create_atomic_rmw(self, op, pointers, value, mask, *options):
        if _watch is not None:
            _watch.touch(pointers.data, mask.data, write=True, atomic=True)
        return _STOCK["create_atomic_rmw"](self, op, pointers, value, mask, *options)

    def create_atomic_cas(self, pointers, *options):
        if _watch is not None:
            _watch.touch(pointers.data, True, write=True, atomic=True)
        return _STOCK["create_atomic_cas"](self, pointers, *options)


_STOCK: dict[str, Callable] = (
    {}
    if triton is None
    else {
        name: vars(stock.InterpreterBuilder)[name]
        for name in vars(_Builder)
        if name in vars(stock.InterpreterBuilder)
    }
)
