"""A loop of short steps, compiled for a CPU as one function.

XLA's program for a CPU calls a compiled function for every fusion. In a loop of short steps these
calls cost more than their work. XLA compiles a loop over less than a kilobyte as one function;
``fori_loop`` asks for the same where there is more, by the mark that XLA itself puts on such loops.
Other platforms do not see the mark, and inline the call.

XLA compiles what is marked as it stands, and ends the process where it cannot. So no operand may be
a constant of the program (what follows from ``computed`` is none), nor may XLA mark a loop inside:
it does below ``LIMIT``, or where a user has moved that limit, and then needs no mark of ours.
Releases of JAX that this was not tested with get none either.
"""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import mlir

LIMIT = 1024  # bytes
UNTESTED = (0, 13)
OPTION = "xla_cpu_small_while_loop_byte_threshold"


def fori_loop(count: int, body: Callable, carry: Any, *invariants: Any, step_bytes: int) -> Any:
    """``lax.fori_loop(0, count, lambda i, c: body(i, c, *invariants), carry)``, as one kernel.

    On a CPU, that is, and on one core. The body may hold elementwise operations, slices, padding,
    and loops of its own; for sums and maxima there is ``pair_reduced``. A long one over a single
    array, or a matrix product, XLA would give to a library, and then fail to compile the call. The
    same goes for sorting, gathering and scattering. What it reads must be in its arguments.

    Args:
        count: number of steps.
        body: ``body(i, carry, *invariants)`` gives the next carry.
        carry: arrays that a step replaces; none may be a constant of the program.
        invariants: arrays that it reads; none may be a constant either.
        step_bytes: size of what a step of the innermost loop works on.
    """
    if step_bytes < LIMIT or not _understood():
        return lax.fori_loop(0, count, lambda i, carry: body(i, carry, *invariants), carry)
    given = (jnp.full((1,), count, jnp.int32), carry, invariants)

    def loop(operands):
        count, carry, invariants = jax.tree.map(_once, operands, given)
        return lax.fori_loop(0, count[0], lambda i, carry: body(i, carry, *invariants), carry)

    leaves, structure = jax.tree.flatten(jax.jit(loop)(jax.tree.map(_twice, given)))
    return jax.tree.unflatten(structure, _mark_p.bind(*leaves))


def pair_reduced(first: Any, second: Any, reducer: Callable, start: float) -> tuple[Any, Any]:
    """Two arrays reduced along the last axis, in one operation, which XLA gives to no library.

    Both results must be used, or XLA simplifies it to the one that is.
    """

    def both(left, right):
        return tuple(reducer(*pair) for pair in zip(left, right, strict=True))

    starts = tuple(jnp.asarray(start, array.dtype) for array in (first, second))
    return lax.reduce((first, second), starts, both, (first.ndim - 1,))


def computed(array: Any) -> Any:
    """The same array, never a constant: XLA folds those, but not with an iota of two or more."""
    longest = max(range(array.ndim), key=array.shape.__getitem__)
    number = lax.broadcasted_iota(jnp.int32, array.shape, longest)
    return jnp.where(number < 2**30, array, jnp.zeros_like(array))


def _understood() -> bool:
    return jax.__version_info__ < UNTESTED and OPTION not in os.environ.get("XLA_FLAGS", "")


def _twice(array: Any) -> Any:
    """One element comes as two, so that it can be ``computed``."""
    return array if array.size != 1 else computed(jnp.broadcast_to(jnp.ravel(array), (2,)))


def _once(array: Any, original: Any) -> Any:
    return array if original.size != 1 else jnp.reshape(array[:1], original.shape)


def _mark(first: Any, *others: Any) -> tuple:
    """Puts the mark on the call that returned the arrays."""
    return (set_xla_metadata(first, inlineable="false", xla_cpu_small_call="true"), *others)


# It takes all of the call's results: where one is not used, JAX would drop it, XLA would then drop
# it from the loop, and could not compile a call that has an operand for nothing.
_mark_p = Primitive("mark_as_one_kernel")
_mark_p.multiple_results = True
_mark_p.def_impl(lambda *arrays: arrays)
_mark_p.def_abstract_eval(lambda *avals: avals)
# Uncached, as the function of a cached rule could not see which operation its argument is from.
mlir.register_lowering(_mark_p, lambda _, *values: values, cacheable=False)
mlir.register_lowering(
    _mark_p, mlir.lower_fun(_mark, multiple_results=True), platform="cpu", cacheable=False
)
