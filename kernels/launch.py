"""Launching Triton kernels from JAX; the only module that touches jax_triton and Triton's runtime.

``kernel_call`` is one primitive. Lowered for CUDA it is jax_triton's call, lowered for a CPU the
interpreter behind a callback; nothing of either is imported before. ``sharded`` tells the
partitioner along which axes a launch may be cut. A launch has no derivative and no batching rule of
its own: ``kernels.dispatch`` gives an operation both.
"""

import contextlib
import contextvars
import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.experimental.custom_partitioning import custom_partitioning
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import NamedSharding, PartitionSpec

# Where `make test` puts JAX's CUDA plugin. Installed beside JAX it would be taken for a GPU, and
# every program would start with a complaint that there is none.
CUDA_PLUGIN = Path(sys.prefix, "share", "trellis", "cuda")

_capability: contextvars.ContextVar[int | None] = contextvars.ContextVar("capability", default=None)


def unavailable(platform: str) -> str | None:
    """Why no Triton kernel can run on a platform here; ``None`` when one can."""
    if platform not in ("cpu", "cuda"):
        return f"Triton kernels run on CUDA, and interpreted on a CPU, not on {platform}"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install 'trellis-lab[triton]', Linux only)"
    if platform == "cuda":
        try:
            _jax_triton()
        except ImportError as error:
            return f"jax_triton cannot be imported ({error}); it needs itself and a JAX CUDA plugin"
    return None


@contextlib.contextmanager
def compute_capability(capability: int) -> Iterator[None]:
    """Compile launches lowered inside for this GPU (90 for sm_90), which need not be at hand."""
    token = _capability.set(capability)
    try:
        yield
    finally:
        _capability.reset(token)


def target_capability() -> int | None:
    """The ``compute_capability`` in force; ``None`` where the GPU at hand decides."""
    return _capability.get()


def kernel_call(
    kernel: Any,
    *arguments: Any,
    out: Any,
    grid: Sequence[int],
    num_warps: int = 4,
    num_stages: int = 2,
    scratch: Sequence[jax.ShapeDtypeStruct] = (),
    aliases: Mapping[int, int] | None = None,
    **constexprs: Any,
) -> Any:
    """Launch a Triton kernel.

    The kernel's parameters are the arguments, the outputs, the scratch arrays, then constexprs. An
    aliased output shares the memory of its input and keeps a parameter of its own.

    Args:
        kernel: a function under ``triton.jit``.
        *arguments: arrays, and integers that may differ from call to call. Shapes, strides and
            floating point numbers belong to ``constexprs``: a float would be computed in fp64,
            and a stride that is known at run time only costs the wide loads.
        out: shape and dtype of each output, a pytree.
        grid: number of programs along up to three axes.
        num_warps: warps per program.
        num_stages: depth of the software pipeline.
        scratch: arrays for the kernel's use; their first contents are undefined.
        aliases: position among ``arguments`` -> position among the flattened outputs.
        **constexprs: compile-time parameters, hashable.

    Returns:
        The outputs, in the structure of ``out``.

    Raises:
        ValueError: an argument that is neither an array nor an integer.
        NotImplementedError: when lowered for a platform on which no kernel runs, with the reason.
    """
    for position, argument in enumerate(arguments):
        if isinstance(argument, (float, np.floating)):
            raise ValueError(
                f"argument {position} of a kernel must be an array or an integer; received "
                f"{argument!r}. Pass it as a constexpr: name={argument!r}."
            )
    shapes, structure = jax.tree.flatten(out)
    scalars = {i: int(a) for i, a in enumerate(arguments) if isinstance(a, (bool, int))}
    results = _call_p.bind(
        *(argument for i, argument in enumerate(arguments) if i not in scalars),
        kernel=kernel,
        scalars=tuple(scalars.items()),
        shapes=tuple((tuple(s.shape), np.dtype(s.dtype)) for s in (*shapes, *scratch)),
        grid=tuple(grid),
        num_warps=num_warps,
        num_stages=num_stages,
        aliases=tuple((aliases or {}).items()),
        constexprs=tuple(sorted(constexprs.items())),
    )
    return jax.tree.unflatten(structure, results[: len(shapes)])


_call_p = Primitive("triton_kernel")
_call_p.multiple_results = True


@_call_p.def_impl
def _eager(*arrays, **parameters):
    return jax.jit(functools.partial(_call_p.bind, **parameters))(*arrays)


@_call_p.def_abstract_eval
def _outputs(*arrays, shapes, **_):
    return [ShapedArray(shape, dtype) for shape, dtype in shapes]


def _joined(arrays: Sequence[Any], scalars: Sequence[tuple[int, int]]) -> list[Any]:
    """Array arguments with the scalar ones back in their places."""
    arguments = list(arrays)
    for position, value in scalars:
        arguments.insert(position, value)
    return arguments


def _interpreted(*arrays, kernel, scalars, shapes, grid, aliases, constexprs, **_):
    reason = unavailable("cpu")
    if reason is not None:
        raise NotImplementedError(f"no Triton kernel can run here: {reason}.")

    def host(*values):
        from kernels import interpreter

        inputs = _joined([np.array(value, order="C") for value in values], scalars)
        outputs = [interpreter.poisoned(shape, dtype) for shape, dtype in shapes]
        for position, output in aliases:
            outputs[output][...] = inputs[position]
            inputs[position] = outputs[output]
        shared = {position for position, _ in aliases}
        kept = [None if i in shared else np.copy(value) for i, value in enumerate(inputs)]
        interpreter.run(kernel, grid, *inputs, *outputs, **dict(constexprs))
        for i, before in enumerate(kept):
            if (
                before is not None
                and before.tobytes() != np.asarray(inputs[i], before.dtype).tobytes()
            ):
                raise interpreter.KernelMemoryError(f"the kernel wrote to its input {i}")
        return outputs

    return jax.pure_callback(host, [jax.ShapeDtypeStruct(*s) for s in shapes], *arrays)


def _compiled(*arrays, kernel, scalars, shapes, grid, num_warps, num_stages, aliases, constexprs):
    reason = unavailable("cuda")
    if reason is not None:
        raise NotImplementedError(f"no Triton kernel can run here: {reason}.")
    module = _jax_triton()
    old = "out_shape" in inspect.signature(module.triton_call).parameters
    if aliases and not old:
        raise NotImplementedError(
            "jax_triton 0.4 gives an aliased output no parameter of its own; use jax-triton==0.3.1."
        )
    return module.triton_call(
        *_joined(arrays, scalars),
        kernel=kernel,
        grid=grid,
        num_warps=num_warps,
        num_stages=num_stages,
        compute_capability=_capability.get(),
        **{"out_shape" if old else "out_type": [jax.ShapeDtypeStruct(*s) for s in shapes]},
        **({"input_output_aliases": dict(aliases)} if aliases else {}),
        **dict(constexprs),
    )


def _refused(*_, **__):
    raise NotImplementedError("Triton kernels run on CUDA, and interpreted on a CPU.")


mlir.register_lowering(_call_p, mlir.lower_fun(_refused, multiple_results=True))
mlir.register_lowering(_call_p, mlir.lower_fun(_interpreted, multiple_results=True), platform="cpu")
mlir.register_lowering(_call_p, mlir.lower_fun(_compiled, multiple_results=True), platform="cuda")


@contextlib.contextmanager
def cuda_plugin() -> Iterator[None]:
    """Let what is imported inside find JAX's CUDA plugin in ``CUDA_PLUGIN`` if nowhere else."""
    sys.path.append(str(CUDA_PLUGIN))
    try:
        yield
    finally:
        sys.path.remove(str(CUDA_PLUGIN))


def _jax_triton() -> Any:
    """jax_triton, without what 0.3.1 does to Triton's cache folder when it is imported."""
    before = os.environ.get("TRITON_CACHE_DIR")
    try:
        with cuda_plugin():
            plugin = importlib.import_module("jaxlib.gpu_triton")
            if not hasattr(plugin, "TritonKernel"):  # JAX was imported before, and did not find it
                importlib.reload(plugin)
            return importlib.import_module("jax_triton")
    finally:
        if os.environ.get("TRITON_CACHE_DIR") != before:
            os.environ.pop("TRITON_CACHE_DIR", None)
            if before is not None:
                os.environ["TRITON_CACHE_DIR"] = before


def sharded(function: Callable, rule: str, *arrays: Any, whole: Sequence[str] = ()) -> Any:
    """``function(*arrays)``, cut along the axes that the rule lets the partitioner cut.

    The interpreter is not cut: a callback does not survive the partitioner. Under ``shard_map`` it
    sees the part of each device, as everything does.

    Args:
        function: takes arrays of any size along those axes; launches kernels by the sizes it sees.
            A result that lacks an axis that is cut is a sum over it, and is summed over devices.
        rule: one letter or word per axis, in Shardy's notation: ``"b t c, w c -> b t c"``.
        *arrays: operands.
        whole: the axes that every device needs whole.
    """
    operands, results = (side.split(",") for side in rule.split("->"))
    axes = [tuple(part.split()) for part in (*operands, *results)]

    def partition(mesh, argument_shapes, result_shape):
        shardings: dict[str, Any] = {}
        for names, array in zip(
            axes, (*argument_shapes, *jax.tree.leaves(result_shape)), strict=True
        ):
            spec = array.sharding.spec if array.sharding is not None else ()
            for name, where in zip(names, spec, strict=False):
                if where is not None and name not in whole:
                    shardings.setdefault(name, where)
        placed = [
            NamedSharding(mesh, PartitionSpec(*(shardings.get(name) for name in names)))
            for names in axes
        ]
        outputs = placed[len(arrays) :]
        result = jax.tree.unflatten(jax.tree.structure(result_shape), outputs)

        def local(*arrays):
            parts, structure = jax.tree.flatten(function(*arrays))
            missing = [
                jax.tree.leaves([where for name, where in shardings.items() if name not in names])
                for names in axes[len(arrays) :]
            ]
            sums = [
                jax.lax.psum(part, tuple(over)) if over else part
                for part, over in zip(parts, missing, strict=True)
            ]
            return jax.tree.unflatten(structure, sums)

        return mesh, local, result, tuple(placed[: len(arrays)])

    call = custom_partitioning(function)
    call.def_partition(
        partition=partition,
        sharding_rule=rule,
        need_replication_factors=tuple(sorted(whole, key=sum(axes, ()).index)),
    )
    return jax.lax.platform_dependent(*arrays, cpu=function, default=call)


def row_axis(axis: str, array: Any, first: Any) -> str:
    """The axis of an operand's rows in a rule: the batch, where each row has its own."""
    return "b" if array.shape[0] == first.shape[0] and first.shape[0] > 1 else axis


def shares_rows(first: Any, *others: Any) -> bool:
    """Whether several rows share one of several rows of an operand: a cut would not know which."""
    return any(1 < array.shape[0] < first.shape[0] for array in others)
