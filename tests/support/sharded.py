"""An operation over several devices against one: run by tests/kernels/test_sharding.py.

``python sharded.py cpu`` computes on 8 simulated devices; ``python sharded.py cuda`` compiles for 8
GPUs that need not be there, and reads the program. Both print "checked ..." for each operation.
"""

import math
import os
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import kernel_matrix as matrix
import numpy as np

import kernels
from kernels import launch, offline, problems
from kernels.architectures import find_architecture

DEVICES = 8
SECOND = {
    "Hessian-vector products": matrix.forward_over(matrix.reverse),
    "reverse over reverse": matrix.reverse_over(matrix.reverse),
}
BY_CHANNEL = ("depthwise_conv1d", "depthwise_conv2d")  # channels may be cut, as rows may
SUMMED = ("attention", "relative_attention", "conv_attention")
MOVES = ("all-gather", "all-to-all", "collective-permute", "reduce-scatter", "all-reduce")
_ALL_REDUCE = re.compile(r"= (.*) all-reduce(?:-done)?\(")
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")
_LAUNCH = re.compile(r'= (.*?) custom-call\(.*custom_call_target="triton_kernel_call"')


class Posteriors(matrix.Cell):
    """Of a call of ``ctc_loss``, whose operands they have too."""

    def ours(self, *operands: Any) -> Any:
        """The operation, as a function of all operands."""
        return kernels.ctc_posteriors(*operands, implementation=self.implementation)


def on_simulated(operation: str) -> tuple[str, ...]:
    """Implementations that are computed on 8 devices.

    Those that sum over devices would wait for an interpreter each, on a few processors.
    """
    one = matrix.WITHOUT_TRITON or operation in SUMMED
    return ("xla",) if one else matrix.ON_CPU


def differentiated_twice() -> list[str]:
    """Operations whose second derivatives are computed: not those that rest on another."""
    return [name for name, family in matrix.FAMILIES.items() if family.rests_on is None]


def case(operation: str) -> matrix.Case:
    """One with rows for every device."""
    return matrix.Case(operation, "sharded", matrix.FAMILIES[operation].sharded, "float32")


def programs(cell: matrix.Cell, function: Callable | None = None) -> dict[str, Callable]:
    """The value, that with every gradient, and second derivatives, of all operands."""
    function = function or cell.ours
    second = {what: transform(function, cell.problem) for what, transform in SECOND.items()}
    return {
        "value": lambda *operands: {"value": function(*operands)},
        "gradients": matrix.reverse(function, cell.problem),
        **second,
    }


def specs(cell: matrix.Cell) -> tuple[jax.P, ...]:
    """Rows are cut; what serves all rows is on every device."""
    rows = cell.problem.per_row
    return tuple(jax.P("data") if name in rows else jax.P() for name in cell.problem.operands)


def automatic(cell: matrix.Cell, what: str, mesh: jax.sharding.Mesh) -> Any:
    """The program, cut by the partitioner from the shardings of its operands alone."""
    shardings = [jax.NamedSharding(mesh, spec) for spec in specs(cell)]
    return jax.jit(programs(cell)[what], in_shardings=shardings)


def mapped(cell: matrix.Cell, what: str, mesh: jax.sharding.Mesh) -> Any:
    """The program around ``shard_map`` of the operation."""
    function = jax.shard_map(cell.ours, mesh=mesh, in_specs=specs(cell), out_specs=jax.P("data"))
    return jax.jit(programs(cell, function)[what])


def check_values(
    cell: matrix.Cell, mesh: jax.sharding.Mesh, *, what: str = "gradients", cut: bool = True
) -> None:
    """Several devices give what one gives, up to the order of a sum.

    Args:
        cell: what to compute.
        mesh: with the axis "data".
        what: which of the programs.
        cut: whether automatic sharding is checked too, and that it moves nothing.
    """
    operands = [np.asarray(operand) for operand in cell.problem.operands.values()]
    alone = jax.jit(programs(cell)[what])(*operands)
    for way in (automatic, mapped) if cut else (mapped,):
        compiled = way(cell, what, mesh).lower(*operands).compile()
        if way is automatic and what == "gradients":
            check_moves(cell, what, compiled.as_text())
        found = jax.block_until_ready(compiled(*operands))
        for name, array in alone.items():
            error = problems.error(found[name], np.asarray(array, np.float64))
            # Second derivatives are sums of terms that nearly cancel.
            allowed = 2e-6 if what == "gradients" else 1e-5
            assert error < allowed, f"{way.__name__}: {name} differs by {error:.1e}"


def check_moves(cell: matrix.Cell, what: str, hlo: str) -> None:
    """No device waits for another's rows; only gradients of shared operands are summed."""
    shared = {
        name: operand.size
        for name, operand in cell.problem.operands.items()
        if name in cell.problem.differentiable and name not in cell.problem.per_row
    }
    allowed = ("all-reduce",) if what == "gradients" and shared else ()
    found = {move: [*re.finditer(rf"= .*\b{move}(-start)?\(", hlo)] for move in MOVES}
    moves = {
        move: [match[0][:120] for match in matches] for move, matches in found.items() if matches
    }
    assert moves.keys() == {*allowed}, f"{what}: {moves}, where {allowed} is expected"
    summed = sum(elements(result) for result in _ALL_REDUCE.findall(hlo))
    expected = sum(shared.values()) if allowed else 0
    assert summed == expected, f"{what}: {summed} numbers are summed, not {expected} of {shared}"


def check_channels(operation: str, mesh: jax.sharding.Mesh) -> None:
    """With a channel on each device nothing moves, and the gradients are those of one device."""
    shape = matrix.FAMILIES[operation].sharded._replace(batch=2, channels=DEVICES)
    cell = matrix.Cell(matrix.Case(operation, "channels", shape, "float32"), "xla")
    operands = [np.asarray(operand) for operand in cell.problem.operands.values()]
    cut = [
        jax.P(*[None] * (a.ndim - 1), "data" if a.shape[-1] == DEVICES else None) for a in operands
    ]
    shardings = [jax.NamedSharding(mesh, spec) for spec in cut]
    function = programs(cell)["gradients"]
    compiled = jax.jit(function, in_shardings=shardings).lower(*operands).compile()
    hlo = str(compiled.as_text())
    assert not [move for move in MOVES if re.search(rf"= .*\b{move}(-start)?\(", hlo)]
    found, alone = compiled(*operands), jax.jit(function)(*operands)
    for name, array in alone.items():
        assert problems.error(found[name], np.asarray(array, np.float64)) < 2e-6, name


def check_features(mesh: jax.sharding.Mesh) -> None:
    """With features of ``conv2d`` on each device nothing but the inputs' gradient is summed.

    It is summed as the product gives it, before the filters' places are added up.
    """
    generator = np.random.default_rng(0)
    shapes = {"inputs": (2, 9, 7, 3), "filters": (3, 3, 3, 2 * DEVICES), "bias": (2 * DEVICES,)}
    operands = [generator.normal(size=shape).astype(np.float32) for shape in shapes.values()]

    def value(inputs, filters, bias):
        return kernels.conv2d(inputs, filters, bias, activation="relu")

    def gradients(*operands):
        return jax.grad(lambda *o: jnp.sum(jnp.sin(value(*o))), (0, 1, 2))(*operands)

    cut = [jax.P(), jax.P(None, None, None, "data"), jax.P("data")]
    shardings = [jax.NamedSharding(mesh, spec) for spec in cut]
    allowed = {value: [], gradients: ["all-reduce"]}
    for function, moves in allowed.items():
        compiled = jax.jit(function, in_shardings=shardings).lower(*operands).compile()
        hlo = str(compiled.as_text())
        assert [m for m in MOVES if re.search(rf"= .*\b{m}(-start)?\(", hlo)] == moves
        if moves:
            summed = sum(elements(result) for result in _ALL_REDUCE.findall(hlo))
            assert summed == 9 * operands[0].size, f"{summed} numbers are summed"
        found, alone = compiled(*operands), jax.jit(function)(*operands)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            assert problems.error(one, np.asarray(other, np.float64)) < 2e-6


def check_explicit() -> None:
    """Rows over an explicit axis, of all operands or of the logits alone: the path and its like."""
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    logits = np.random.default_rng(0).normal(size=(DEVICES, 6, 5)).astype(np.float32)
    labels = np.full((DEVICES, 2), [1, 2], np.int32)
    operands = (logits, np.zeros(logits.shape[:2]), labels, np.zeros(labels.shape))
    rows = jax.NamedSharding(mesh, jax.P("data"))
    everything = [jax.device_put(operand, rows) for operand in operands]
    functions: list[Any] = [kernels.ctc_loss, kernels.ctc_posteriors, kernels.ctc_alignment]
    for function in functions:
        alone = jax.tree.leaves(function(*operands))
        for given in (everything, [everything[0], *operands[1:]], [logits, *everything[1:]]):
            for call in (function, jax.jit(function)):
                within = [call(*given)]
                with jax.set_mesh(mesh):
                    within.append(call(*given))
                for found in map(jax.tree.leaves, within):
                    for one, other in zip(found, alone, strict=True):
                        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-6)


def elements(shapes: str) -> int:
    """How many numbers arrays of these shapes have."""
    return sum(math.prod(int(n) for n in dims.split(",") if n) for dims in _SHAPE.findall(shapes))


def on_cpu() -> None:
    """Compute on simulated devices."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    for operation in matrix.FAMILIES:
        for implementation in on_simulated(operation):
            cell = matrix.Cell(case(operation), implementation)
            # The interpreter is a callback, which is not cut; under shard_map it need not be.
            cut = implementation != "triton"
            check_values(cell, mesh, cut=cut)
            if cut:
                lowered = automatic(cell, "value", mesh).lower(*cell.problem.operands.values())
                check_moves(cell, "value", lowered.compile().as_text())
            print("checked", operation, implementation, flush=True)
    for operation in BY_CHANNEL:
        check_channels(operation, mesh)
        print("checked channels of", operation, flush=True)
    check_features(mesh)
    print("checked features of conv2d", flush=True)
    for operation in differentiated_twice():
        cell = matrix.Cell(case(operation), "xla")
        check_values(cell, mesh, what="Hessian-vector products")
        mapped(cell, "reverse over reverse", mesh).lower(*cell.problem.operands.values())
        print("checked second derivatives of", operation, flush=True)
    check_values(Posteriors(case("ctc_loss"), "xla"), mesh, cut=False)
    print("checked ctc_posteriors", flush=True)
    check_explicit()
    print("checked CTC over explicit axes", flush=True)


def for_cuda() -> None:
    """Compile for GPUs; the program is read, not run."""
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # no such device could load it
    sys.path.append(str(launch.CUDA_PLUGIN))
    import jaxlib.gpu_triton  # noqa: F401, registers the call with XLA
    from jax.experimental import topologies

    device = find_architecture("sm_90")
    topology = topologies.get_topology_desc(
        platform="cuda", topology=f"1x{DEVICES}x1", target_config=offline._describe(device)
    )
    axes = (jax.sharding.AxisType.Auto,)
    mesh = jax.sharding.Mesh(np.array(topology.devices), ("data",), axis_types=axes)
    alone = jax.sharding.Mesh(np.array(topology.devices[:1]), ("data",), axis_types=axes)

    def compiled(cell, way, what, mesh):
        kinds = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in cell.problem.operands.values()]
        with launch.compute_capability(device.number):
            traced = way(cell, what, mesh).trace(*kinds)
            return traced.lower(lowering_platforms=("cuda",)).compile().as_text()

    for operation in matrix.FAMILIES:
        cell = matrix.Cell(case(operation), "triton")
        whole = launched(compiled(cell, automatic, "gradients", alone))
        assert whole, "no kernel is launched"
        check_moves(cell, "value", compiled(cell, automatic, "value", mesh))
        for way in (automatic, mapped):
            hlo = compiled(cell, way, "gradients", mesh)
            check_moves(cell, "gradients", hlo)
            cut = [DEVICES * part for part in launched(hlo)]
            assert cut == whole, f"{way.__name__}: each of {DEVICES} devices computes {cut} / 8"
        print("checked", operation, "triton", flush=True)


def launched(hlo: str) -> list[int]:
    """How many numbers each kernel gives, on one device."""
    return sorted(elements(results) for results in _LAUNCH.findall(hlo))


if __name__ == "__main__":
    # What moves between devices is settled before XLA would optimise what each of them runs.
    with matrix.compiled_in_haste():
        {"cpu": on_cpu, "cuda": for_cuda}[sys.argv[1]]()
