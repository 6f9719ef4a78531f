"""Who takes part in the benchmark of one problem, and whether its results are right.

A contestant that JAX compiles is compiled once, ahead of time; what is checked and what is timed
are that one executable.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

import kernels
from kernels import dispatch, problems
from kernels.peers import Factory, JaxPeer, LibraryPeer, peers
from kernels.problems import Problem
from kernels.timing import Call

AUTOMATIC = "auto"
# A peer that is less precise than we must be is timed all the same, up to this error: what it costs
# is part of the comparison, and so is how far off it is. Beyond, it computes something else.
INEXACT = 0.05
_INTERPRETED = (
    "on a CPU it runs in an interpreter, whose time says nothing about the kernel: not timed"
)


@dataclass(frozen=True)
class Contestant:
    """A call that can be checked and timed.

    Attributes:
        name: "ours/xla", or the peer's.
        ours: whether it is.
        call: the work.
        read: results of the call -> the value, then every gradient if wanted.
        compile_seconds: lowering and compiling; ``None`` where nothing is compiled.
        temporary_bytes: beside operands and results, by XLA's account; ``None`` where unknown.
        peak_bytes: operands and results with them, all that is held at once, likewise.
        note: what a reader of its numbers must know.
    """

    name: str
    ours: bool
    call: Call
    read: Callable[[Any], tuple[np.ndarray, ...]]
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    peak_bytes: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Absent:
    """A contestant that does not take part.

    Attributes:
        name: as of a contestant.
        ours: likewise.
        reason: why.
        failed: whether it should have been able to.
    """

    name: str
    ours: bool
    reason: str
    failed: bool = False


def enter(
    problem: Problem, gradient: bool, factories: Mapping[str, Factory] | None = None
) -> list[Contestant | Absent]:
    """Everyone who could take part: ours in every implementation, then the peers.

    Args:
        problem: what to compute.
        gradient: the value and every gradient, instead of the value alone.
        factories: the peers; those of ``kernels.peers`` by default.
    """
    found = [_ours(problem, name, gradient) for name in dispatch.IMPLEMENTATIONS]
    if preferred(problem, gradient) == f"ours/{AUTOMATIC}":
        found.append(
            _compiled(f"ours/{AUTOMATIC}", True, problem.function(None), problem, gradient)
        )
    for name, factory in (peers(problem.operation) if factories is None else factories).items():
        found.append(_peer(name, factory, problem, gradient))
    return found


def preferred(problem: Problem, gradient: bool) -> str:
    """Ours that the others are compared with: what ``implementation=None`` picks.

    Returns:
        The contestant's name; "ours/auto" where that is not one implementation throughout.
    """
    try:
        whole, operands = _pass(problem.function(None), problem, gradient)
        chosen = {found.implementation for found in kernels.explain(whole, *operands)}
    except Exception:  # it cannot even be traced, which its own entry will say
        chosen = set()
    return f"ours/{chosen.pop() if len(chosen) == 1 else AUTOMATIC}"


def _pass(function: Callable[..., Any], problem: Problem, gradient: bool) -> tuple[Callable, tuple]:
    """What is compiled, and the operands that it takes."""
    if gradient:
        shape = jax.eval_shape(function, *problem.arguments)
        direction = problems.cotangent(shape.shape, shape.dtype)
        whole, operands = problems.gradients(function), (problem.arguments, direction)
    else:
        whole, operands = lambda *arguments: (function(*arguments),), problem.arguments
    if problem.within == "alone":
        return whole, operands
    operands = jax.tree.map(lambda a: jnp.broadcast_to(a, (problems.COPIES, *a.shape)), operands)
    if problem.within == "models":
        return jax.vmap(whole), operands
    return lambda *copies: jax.lax.map(lambda one: whole(*one), copies), operands


def _ours(problem: Problem, implementation: str, gradient: bool) -> Contestant | Absent:
    name = f"ours/{implementation}"
    if implementation == "triton" and jax.default_backend() == "cpu":
        return Absent(name, True, _INTERPRETED)
    return _compiled(name, True, problem.function(implementation), problem, gradient)


def _peer(name: str, factory: Factory, problem: Problem, gradient: bool) -> Contestant | Absent:
    try:
        peer = factory(problem, gradient)
    except Exception as error:
        return Absent(name, False, f"it could not be set up: {_line(error)}", failed=True)
    if isinstance(peer, str):
        return Absent(name, False, peer)
    if isinstance(peer, JaxPeer):
        return _compiled(name, False, peer.function, problem, gradient, peer.note)
    if problem.within != "alone":
        peer = _in_turn(peer)
    return Contestant(name, False, Call(peer.start, peer.wait), peer.read, note=peer.note)


def _in_turn(peer: LibraryPeer) -> LibraryPeer:
    """A library that is not compiled has nothing but a call for each copy."""

    def start():
        return [peer.start() for _ in range(problems.COPIES)]

    def wait(results):
        for result in results:
            peer.wait(result)

    def read(results):
        return tuple(np.stack(parts) for parts in zip(*map(peer.read, results), strict=True))

    note = f"{peer.note}; {problems.COPIES} calls, one after the other".removeprefix("; ")
    return LibraryPeer(start, wait, read, note)


def _compiled(
    name: str,
    ours: bool,
    function: Callable[..., Any],
    problem: Problem,
    gradient: bool,
    note: str = "",
) -> Contestant | Absent:
    try:
        whole, operands = _pass(function, problem, gradient)
        with compiled_afresh():
            start = time.perf_counter()
            executable = jax.jit(whole).lower(*operands).compile()
            seconds = time.perf_counter() - start
    except NotImplementedError as error:
        return Absent(name, ours, str(error))
    except Exception as error:  # whatever XLA raises: the others can still be measured
        return Absent(name, ours, f"it does not compile: {_line(error)}", failed=True)
    memory = executable.memory_analysis()
    return Contestant(
        name,
        ours,
        Call(functools.partial(executable, *operands)),
        lambda results: tuple(np.asarray(part) for part in results),
        seconds,
        None if memory is None else int(memory.temp_size_in_bytes),
        None if memory is None else _held(memory),
        note,
    )


def _held(memory: Any) -> int:
    """All that XLA allocates; the peak that it states leaves out operands that are used up."""
    sizes = (getattr(memory, f"{kind}_size_in_bytes") for kind in ("argument", "output", "temp"))
    return int(sum(sizes) - memory.alias_size_in_bytes)


@contextlib.contextmanager
def compiled_afresh() -> Iterator[None]:
    """Keep JAX's persistent cache out, which would make compilation look free.

    JAX asks once per process whether the cache is on, hence the resets.
    """
    before = getattr(jax.config, "jax_enable_compilation_cache")  # noqa: B009
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return f"{type(error).__name__}: {text.splitlines()[0]}"[:300]


@dataclass(frozen=True)
class Truth:
    """What is right, and how far off one may be.

    Attributes:
        names: of the results: "value", then the operands that have gradients.
        exact: the results in float64.
        allowed: largest relative error of each, by the error rule.
    """

    names: tuple[str, ...]
    exact: tuple[np.ndarray, ...]
    allowed: tuple[float, ...]

    def errors(self, results: tuple[np.ndarray, ...], gradient: bool) -> dict[str, float]:
        """The error of each result, by name; infinite where it is missing or misshapen, or NaN."""
        names = self.names if gradient else self.names[:1]
        if len(results) != len(names):
            return dict.fromkeys(names, float("inf"))
        true = self.exact[: len(names)]
        return {n: problems.error(r, t) for n, r, t in zip(names, results, true, strict=True)}

    def of_copies(self) -> "Truth":
        """What is right of ``COPIES`` calls, stacked."""
        exact = [np.broadcast_to(array, (problems.COPIES, *array.shape)) for array in self.exact]
        return dataclasses.replace(self, exact=tuple(exact))

    def wrong(self, errors: Mapping[str, float], *, ours: bool = True) -> list[str]:
        """Names of the results whose error is larger than allowed; a peer may be ``INEXACT``."""
        least = 0.0 if ours else INEXACT
        limits = {n: max(a, least) for n, a in zip(self.names, self.allowed, strict=True)}
        return [name for name, error in errors.items() if not error <= limits[name]]


def find_truth(problem: Problem) -> Truth:
    """The float64 results, and the errors of the definition in the problem's own dtype.

    Both are computed row by row: the definition is naive, and too large at once.
    """
    exact = problems.exact(problem)
    plain = [problems.error(p, e) for p, e in zip(_definition(problem), exact, strict=True)]
    allowed = tuple(problems.allowed(error) for error in plain)
    return Truth(("value", *problem.differentiable), exact, allowed)


def _definition(problem: Problem) -> tuple[np.ndarray, ...]:
    """The value and every gradient of the definition in plain XLA, in the problem's dtype."""
    rows = next(len(problem.operands[name]) for name in problem.per_row)
    fixed = [name for name in problem.operands if name not in problem.differentiable]
    shape = jax.eval_shape(problem.plain(), *problem.arguments)
    direction = problems.cotangent(shape.shape, shape.dtype)

    @jax.jit
    def row(arguments, others, direction):
        def definition(*arguments):
            given = dict(zip(problem.differentiable, arguments, strict=True))
            given |= dict(zip(fixed, others, strict=True))
            return problem.definition(**given, **problem.options)

        return problems.gradients(definition)(arguments, direction)

    def of(names, i):
        return tuple(
            problem.operands[n][i : i + 1] if n in problem.per_row else problem.operands[n]
            for n in names
        )

    found = [
        row(of(problem.differentiable, i), of(fixed, i), direction[i : i + 1]) for i in range(rows)
    ]
    value, *slopes = ([np.asarray(part) for part in parts] for parts in zip(*found, strict=True))
    joined = [
        np.concatenate(parts)
        if name in problem.per_row
        else np.asarray(sum(part.astype(np.float64) for part in parts)).astype(
            jnp.dtype(problem.dtype)
        )
        for name, parts in zip(problem.differentiable, slopes, strict=True)
    ]
    return np.concatenate(value), *joined
