"""The search behind ``python -m kernels.tune``: which configuration is fastest, and still right.

It needs neither a GPU nor a clock of its own: what takes the times and what looks at compiled code
are arguments.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from kernels import configurations, problems
from kernels.architectures import ARCHITECTURES, find_architecture
from kernels.configurations import Device, Entry, Tunable
from kernels.problems import Problem

ROUNDS, FINAL_ROUNDS, FINALISTS = 5, 20, 3
# Three of four rounds must show at least this gain. Less is not worth an entry.
LEAST_GAIN = 0.01


class Measure(Protocol):
    """Times functions in turns."""

    def __call__(
        self, functions: Sequence[Callable[..., Any]], arguments: Sequence[Any], rounds: int
    ) -> Sequence[Sequence[float]]:
        """Seconds of each function in each round, all on these arguments."""
        ...


class Inspect(Protocol):
    """Looks at a kernel as it compiles, before it runs."""

    def __call__(
        self, tunable: Tunable, sizes: Mapping[str, Any], config: Any, arch: str
    ) -> str | None:
        """Why it must not run; ``None`` if nothing is wrong."""
        ...


@dataclass(frozen=True)
class Finding:
    """What tuning one kernel for one bucket of sizes came to.

    Attributes:
        problem: shape and dtype.
        tunable: the kernel.
        key: the bucket.
        sizes: for which it was tuned.
        heuristic: the configuration to beat.
        best: the fastest correct one if it beats that, else ``None``.
        seconds: median with ``best``.
        heuristic_seconds: with the heuristic, in the same rounds.
        tried: number of candidates.
        finished: whether these are all.
        dropped: those that did not compile, run or fit, with the reason.
        wrong: those with a wrong result, with the error.
        fault: why nothing could be tuned.
    """

    problem: str
    tunable: Tunable
    key: str
    sizes: Mapping[str, Any]
    heuristic: Any
    best: Any = None
    seconds: float = float("nan")
    heuristic_seconds: float = float("nan")
    tried: int = 0
    finished: bool = True
    dropped: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    fault: str = ""

    def entry(self, made_with: str) -> Entry | None:
        """What belongs into the table."""
        if self.best is None:
            return None
        measured = (self.seconds, self.heuristic_seconds)
        return Entry(self.best, self.sizes, self.problem, *measured, made_with)


class _Task(NamedTuple):
    """A computation with its arguments, its result in float64 and the errors that it may have."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    true: tuple[np.ndarray, ...]
    allowed: tuple[float, ...]

    def compile(self, configs: Mapping[Any, Any]) -> Callable[..., Any]:
        # A function of its own, as JAX would find an earlier trace of the same one.
        with configurations.override(configs):
            return jax.jit(lambda *a: self.function(*a)).lower(*self.arguments).compile()

    def complaint(self, outputs: Sequence[Any], right: Sequence[Any] = ()) -> str | None:
        """What is wrong with a result; nothing if it is bit by bit another that is right."""
        if right and all(bool(jnp.array_equal(a, b)) for a, b in zip(outputs, right, strict=True)):
            return None
        for i, (found, true) in enumerate(zip(outputs, self.true, strict=True)):
            error = problems.error(found, true)
            if not error <= self.allowed[i]:
                return f"output {i} is off by {error:.2g}, allowed {self.allowed[i]:.2g}"
        return None


def inspect(tunable: Tunable, sizes: Mapping[str, Any], config: Any, arch: str) -> str | None:
    """What the static report finds wrong with a kernel; nothing where it lacks the architecture."""
    if arch not in ARCHITECTURES:
        return None
    compiled = importlib.import_module("kernels.compiled")
    variant = importlib.import_module(tunable.module).variant(tunable, sizes, config, "candidate")
    architecture = find_architecture(arch)
    row = compiled.read_compiled(
        variant, compiled.compile_variant(variant, architecture), architecture
    )
    return "; ".join(row.faults) or None


def measure_on_device(
    functions: Sequence[Callable[..., Any]], arguments: Sequence[Any], rounds: int
) -> list[list[float]]:
    """Seconds that the device was busy with each function in each round."""
    timing = importlib.import_module("kernels.timing")
    calls = {
        str(i): timing.Call(functools.partial(function, *arguments))
        for i, function in enumerate(functions)
    }
    budget = timing.Budget(seconds=0.0, rounds=rounds, most=rounds)
    samples = timing.interleave(calls, timing.clock_for(jax.default_backend()), budget)
    return [list(samples[name].taken) for name in calls]


def tune(
    problem: Problem,
    device: Device,
    measure: Measure,
    *,
    done: Collection[tuple[str, str]] = (),
    inspect: Inspect = inspect,
    is_late: Callable[[], bool] = lambda: False,
) -> Iterator[Finding]:
    """Tune every kernel that the value and the gradients of a problem launch.

    Args:
        problem: a call.
        device: whose heuristics are to be beaten.
        measure: times programs.
        done: (kernel, bucket) pairs to leave out.
        inspect: refuses a candidate before it runs.
        is_late: whether to stop; asked before each candidate. What was tried until then counts.

    Yields:
        A finding for each kernel and bucket, as soon as it is known.
    """
    asked = _asked(problem)
    remaining = {what: task for what, task in asked.items() if what not in done}
    if not remaining or is_late():
        return
    tasks = _tasks(problem)
    bases: dict[str, _Base] = {}
    for (kernel, key), (name, tunable, sizes) in remaining.items():
        if is_late():
            return
        configs = {what: t.heuristic(arch=device.arch, **s) for what, (_, t, s) in asked.items()}
        if name not in bases:
            bases[name] = _base(tasks[name], configs)
        finding = Finding(
            f"{problem.name}/{problem.dtype}", tunable, key, sizes, configs[kernel, key]
        )
        look = functools.partial(inspect, arch=device.arch)
        yield _search(finding, tasks[name], bases[name], measure, look, is_late)


def _functions(problem: Problem) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """The computations that are timed. Nothing of the value is left in the gradients' program."""
    function = problem.function("triton")
    shape = jax.eval_shape(function, *problem.arguments)
    direction = problems.cotangent(shape.shape, shape.dtype)

    def slopes(direction, *arguments):
        return jax.vjp(function, *arguments)[1](direction)

    return {
        "value": (lambda *arguments: (function(*arguments),), problem.arguments),
        "gradients": (slopes, (direction, *problem.arguments)),
    }


def _asked(problem: Problem) -> dict[tuple[str, str], tuple[str, Tunable, dict[str, Any]]]:
    """What is launched: (kernel, bucket) -> the first computation that does, tunable, sizes."""
    found: dict[tuple[str, str], tuple[str, Tunable, dict[str, Any]]] = {}
    for name, (function, arguments) in _functions(problem).items():
        with configurations.override({}), configurations.record() as asked:
            jax.jit(function).lower(*arguments)
        for what, (tunable, sizes) in asked.items():
            found.setdefault(what, (name, tunable, sizes))
    return found


def _tasks(problem: Problem) -> dict[str, _Task]:
    true = problems.exact(problem)
    (_, value), (_, (direction, *_)) = _functions(problem).values()
    plain = jax.jit(problems.gradients(problem.plain()))(value, direction)
    allowed = [problems.allowed(problems.error(p, t)) for p, t in zip(plain, true, strict=True)]
    parts = {"value": slice(0, 1), "gradients": slice(1, None)}
    return {
        name: _Task(*computation, true[parts[name]], tuple(allowed[parts[name]]))
        for name, computation in _functions(problem).items()
    }


class _Base(NamedTuple):
    """A computation with every kernel as the heuristic has it, whatever a table says."""

    configs: Mapping[Any, Any]
    program: Callable[..., Any] | None
    outputs: Sequence[Any]
    fault: str


def _base(task: _Task, configs: Mapping[Any, Any]) -> _Base:
    try:
        program = task.compile(configs)
        outputs = jax.block_until_ready(program(*task.arguments))
    except Exception as error:
        return _Base(configs, None, (), f"the heuristic's: {summary(error)}")
    fault = task.complaint(outputs)
    return _Base(configs, program, outputs, f"the heuristic's: {fault}" if fault else "")


def _search(
    finding: Finding,
    task: _Task,
    base: _Base,
    measure: Measure,
    inspect: Callable[[Tunable, Mapping[str, Any], Any], str | None],
    is_late: Callable[[], bool],
) -> Finding:
    tunable, sizes, what = finding.tunable, finding.sizes, (finding.tunable.name, finding.key)
    if base.program is None or base.fault:
        return dataclasses.replace(finding, fault=base.fault)
    dropped, wrong, tried, finished = [], [], 0, True
    baseline: list[float] = []
    finalists: list[tuple[float, int, Any, Callable[..., Any]]] = []
    for config in dict.fromkeys(tunable.candidates(**sizes)):
        if config == finding.heuristic:
            continue
        if is_late():
            finished = False
            break
        tried += 1
        try:
            fault = inspect(tunable, sizes, config)
            if fault:
                dropped.append(f"{config}: {fault}")
                continue
            program = task.compile({**base.configs, what: config})
            fault = task.complaint(jax.block_until_ready(program(*task.arguments)), base.outputs)
        except Exception as error:  # whatever Triton, XLA or the driver may raise
            dropped.append(f"{config}: {summary(error)}")
            continue
        if fault:
            wrong.append(f"{config}: {fault}")
            continue
        before, seconds = measure([base.program, program], task.arguments, ROUNDS)
        baseline.extend(before)
        finalists.append((float(np.median(seconds) / np.median(before)), tried, config, program))
        finalists = sorted(finalists)[:FINALISTS]
    best = None
    seconds = heuristic_seconds = float(np.median(baseline)) if baseline else float("nan")
    finalists = [finalist for finalist in finalists if finalist[0] < 1]
    if finalists:
        programs = [base.program, *(program for *_, program in finalists)]
        before, *times = measure(programs, task.arguments, FINAL_ROUNDS)
        won = winner(before, times)
        if won is not None:
            best = finalists[won][2]
            seconds, heuristic_seconds = float(np.median(times[won])), float(np.median(before))
    return dataclasses.replace(
        finding,
        best=best,
        seconds=seconds,
        heuristic_seconds=heuristic_seconds,
        tried=tried,
        finished=finished,
        dropped=tuple(dropped),
        wrong=tuple(wrong),
    )


def winner(before: Sequence[float], times: Sequence[Sequence[float]]) -> int | None:
    """Which of several is fastest, if it beats ``before`` beyond the noise; round by round.

    Example:
        >>> winner([1.0, 2.0, 1.0, 1.0], [[0.9, 1.7, 0.9, 0.9], [0.5, 2.5, 0.9, 1.1]])
        0
    """
    gains = [np.divide(before, after) for after in times]
    fastest = int(np.argmax([np.median(gain) for gain in gains]))
    return fastest if np.quantile(gains[fastest], 0.25) > 1 + LEAST_GAIN else None


def summary(error: BaseException) -> str:
    r"""An error's kind, and the first and last line of what it says.

    Example:
        >>> summary(ValueError("at 5:4:\n    y = x @ x\nx must be a matrix"))
        'ValueError: at 5:4: … x must be a matrix'
    """
    lines = [line.strip()[:200] for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' … '.join(lines[:1] + lines[1:][-1:])}"
