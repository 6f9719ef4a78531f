"""A computation whose results XLA puts into memory before anything else uses them.

On a CPU XLA computes what is elementwise again inside each of its consumers, a sum of W products
too, and removes ``lax.optimization_barrier`` before it decides that. A call that must not be
inlined stays a call. Other platforms do not see the mark, and inline it.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def apart(function: Callable, *arrays: Any) -> Any:
    """``function(*arrays)``, computed once on a CPU however often its results are used.

    Args:
        function: of arrays; what it reads must be in its arguments.
        *arrays: pytrees of them.

    Example:
        >>> apart(lambda x: (x, x + 1), jax.numpy.arange(2))[1]
        Array([1, 2], dtype=int32)
    """
    leaves, structure = jax.tree.flatten(jax.jit(function)(*arrays))
    if not leaves:
        return jax.tree.unflatten(structure, ())
    return jax.tree.unflatten(structure, _mark_p.bind(*leaves))


def _mark(first: Any, *others: Any) -> tuple:
    """Puts the mark on the call that returned the arrays."""
    return (set_xla_metadata(first, inlineable="false"), *others)


# It takes all of the call's results, as JAX would drop those that are not used, and with them the
# reason for the call.
_mark_p = Primitive("mark_as_apart")
_mark_p.multiple_results = True
_mark_p.def_impl(lambda *arrays: arrays)
_mark_p.def_abstract_eval(lambda *avals: avals)
batching.primitive_batchers[_mark_p] = lambda arrays, axes: (_mark_p.bind(*arrays), axes)
ad.primitive_jvps[_mark_p] = lambda arrays, tangents: (_mark_p.bind(*arrays), tangents)
# Uncached, as the function of a cached rule could not see which operation its argument is from.
mlir.register_lowering(_mark_p, lambda _, *values: values, cacheable=False)
mlir.register_lowering(
    _mark_p, mlir.lower_fun(_mark, multiple_results=True), platform="cpu", cacheable=False
)
