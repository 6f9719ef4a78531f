"""One compiled program for all trainings of a task: hyperparameters, seeds and data are arguments.

Axes: R trainings in one call, W steps between evaluations (a window), B examples of a batch, N
batches of the validation or test split.

A call advances R trainings by a window and evaluates them; Python sees losses once a window, and
stops when no training goes on. The modes differ in what becomes of the axis R, and in ``step`` in
where the loop over steps is.
"""

import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from research.data.sampler import batch_indices
from research.errors import ConfigError, DataError
from research.optimizers import build_scheduled, find
from research.sweep.chunks import Plan
from research.sweep.curve import Curve
from research.sweep.meter import Spent, metered
from research.sweep.store import Row
from research.sweep.training import Task, Training
from research.train import State, init_state, make_train_step, padded_batches
from research.workloads.workload import Examination, Workload

_EVALUATION_BATCH = 256

Hyperparameters = Mapping[str, Any]  # name -> (R,), on the device or not


class Split(NamedTuple):
    """A split in batches of one shape, on the device; ``valid`` says which examples are real."""

    batches: Mapping[str, Array]  # (N, B, ...) each
    valid: Bool[Array, "N B"]


class Data(NamedTuple):
    """The arrays of a workload, on the device."""

    train: Mapping[str, Array]  # (examples, ...) each
    validation: Split
    test: Split


class Prepared(NamedTuple):
    """A workload with what all its tasks share: the arrays on the device, the compiled start.

    ``initial(seed)`` -> the parameters, and the data of the key that steps draw from.
    """

    workload: Workload
    data: Data
    validation_examples: int
    test_examples: int
    initial: Callable[[np.uint32], tuple[Any, Array]]


class Trainings(NamedTuple):
    """R trainings on the way."""

    states: State  # a leading axis R on every array
    key_data: Array  # (R, ...); key arrays themselves would take the slow way into a call
    hyperparameters: Hyperparameters


class Program(NamedTuple):
    """What a task compiles to.

    ``begin(params, key data, hyperparameters)``, with an axis R each, -> Trainings;
    ``advance(data, trainings, indices (R, W, B))`` -> the same W steps later, losses (R, W), and
    the sums over each validation batch, {"loss": (R, N), "score": (R, N)};
    ``test(data, trainings)`` -> the same for the test split; ``evaluated(trainings)`` -> the
    parameters to evaluate, with the axis R.
    """

    begin: Callable[[Any, Any, Hyperparameters], Trainings]
    advance: Callable[..., tuple[Trainings, Array, Mapping[str, Array]]]
    test: Callable[[Data, Trainings], Mapping[str, Array]]
    evaluated: Callable[[Trainings], Any]


def prepare(workload: Workload) -> Prepared:
    """Put a workload's arrays where programs take them from; once for all its tasks."""
    train = {name: jnp.asarray(array) for name, array in workload.train.items()}
    data = Data(train, _split(workload.validation), _split(workload.test))

    @jax.jit
    def initial(seed):
        init_key, train_key = jax.random.split(jax.random.key(seed))
        return workload.init(init_key), jax.random.key_data(train_key)

    return Prepared(
        workload, data, _examples(workload.validation), _examples(workload.test), initial
    )


def _examples(split: Mapping[str, np.ndarray]) -> int:
    return len(next(iter(split.values())))


def _split(examples: Mapping[str, np.ndarray]) -> Split:
    size = _examples(examples)
    if size == 0:
        raise DataError("a split must have at least one example to be evaluated on; it has none.")
    number = math.ceil(size / _EVALUATION_BATCH)
    batches, valid = zip(*padded_batches(examples, math.ceil(size / number)), strict=True)
    stacked = {name: jnp.asarray(np.stack([b[name] for b in batches])) for name in examples}
    return Split(stacked, jnp.asarray(np.stack(valid)))


def make_program(workload: Workload, task: Task, plan: Plan) -> Program:
    """The program of a task, compiled at its first call.

    Args:
        workload: that of the task.
        task: with ``steps`` a multiple of ``evaluate_every``.
        plan: how its trainings are run.

    Raises:
        ConfigError: an unknown optimizer or schedule, or windows that do not fill the steps.
    """
    if task.evaluate_every < 1 or task.steps < 1 or task.steps % task.evaluate_every:
        raise ConfigError(
            "steps must be a positive multiple of evaluate_every; received "
            f"steps={task.steps}, evaluate_every={task.evaluate_every}."
        )
    plan.checked()
    entry = find(task.optimizer, task.space_version)

    def optimizer(hyperparameters):
        return build_scheduled(entry, hyperparameters, task.schedule, task.steps)

    def begin(params, key_data, hyperparameters) -> Trainings:
        state = init_state(params, optimizer(hyperparameters))
        return Trainings(state, key_data, hyperparameters)

    def step(data: Data, training: Trainings, index):
        def apply(params, batch, key):
            return workload.loss(params, batch, key)

        batch = {
            name: array.at[index].get(mode="promise_in_bounds")
            for name, array in data.train.items()
        }
        take = make_train_step(apply, _itself, optimizer(training.hyperparameters))
        key = jax.random.wrap_key_data(training.key_data)
        state, metrics = take(training.states, batch, key)
        return training._replace(states=state), metrics["loss"]

    def evaluated(training: Trainings):
        return entry.evaluated(training.states.opt_state, training.states.params)

    def evaluate(split: Split, training: Trainings):
        params = evaluated(training)

        def sums(batch_and_valid):
            batch, valid = batch_and_valid
            values = workload.measure(params, batch)
            return {
                name: jnp.sum(jnp.where(valid, values[name].astype(jnp.float32), 0))
                for name in ("loss", "score")
            }

        return jax.lax.map(sums, tuple(split))

    def window(data: Data, training: Trainings, indices):
        training, losses = jax.lax.scan(functools.partial(step, data), training, indices)
        return training, losses, evaluate(data.validation, training)

    def test(data: Data, training: Trainings):
        return evaluate(data.test, training)

    if plan.mode == "step":
        advance = _step_by_step(step, evaluate)
    else:
        rows = _rows(window, plan)
        advance = jax.jit(rows, donate_argnums=1)
    return Program(
        jax.jit(lambda *arguments: jax.lax.map(lambda one: begin(*one), arguments)),
        advance,
        jax.jit(_rows(test, plan)),
        jax.jit(jax.vmap(evaluated)),
    )


def _itself(loss, batch):
    del batch
    return loss


def _rows(function: Callable, plan: Plan) -> Callable:
    """A function of (data, one training, ...) -> that of R trainings, as the plan says."""

    def rows(data: Data, *arguments):
        if plan.mode in ("step", "scan"):
            return _lead(function(data, *_first(arguments)))
        if plan.mode == "vmap":
            return jax.vmap(functools.partial(function, data))(*arguments)
        each = lambda one: function(data, *one)  # noqa: E731
        return jax.lax.map(each, arguments, batch_size=plan.group if plan.group > 1 else None)

    return rows


def _step_by_step(step: Callable, evaluate: Callable) -> Callable:
    """A window as a loop in Python over a compiled step of one training."""

    @functools.partial(jax.jit, donate_argnums=1)
    def compiled(data: Data, training: Trainings, index):
        return _lead(step(data, _first(training), index))

    @jax.jit
    def evaluated(data: Data, training: Trainings):
        return _lead(evaluate(data.validation, _first(training)))

    def advance(data: Data, training: Trainings, indices):
        losses = []
        for index in indices[0]:
            training, loss = compiled(data, training, index)
            losses.append(loss)
        return training, np.stack(jax.device_get(losses), axis=1), evaluated(data, training)

    return advance


def _first(tree: Any) -> Any:
    return jax.tree.map(lambda array: array[0], tree)


def _lead(tree: Any) -> Any:
    def lead(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype)
        return leaf[None]

    return jax.tree.map(lead, tree)


def start(
    program: Program, prepared: Prepared, plan: Plan, trainings: Sequence[Training]
) -> Trainings:
    """The first state of up to ``plan.chunk`` trainings; the last is repeated to fill a call."""
    filled = _filled(plan, trainings)
    names = sorted(filled[0].hyperparameters)
    hyperparameters = {
        name: np.array([training.hyperparameters[name] for training in filled], np.float32)
        for name in names
    }
    # One at a time, so that a seed gives the same bits in every mode.
    first = [jax.device_get(prepared.initial(np.uint32(training.seed))) for training in filled]
    params, key_data = jax.tree.map(lambda *leaves: np.stack(leaves), *first)
    return program.begin(params, key_data, hyperparameters)


def windows(
    program: Program, prepared: Prepared, plan: Plan, trainings: Sequence[Training]
) -> Iterator[tuple[Trainings, Float[np.ndarray, "R W"], Mapping[str, np.ndarray]]]:
    """Advance up to ``plan.chunk`` trainings from start to end.

    Args:
        program: of the task and plan.
        prepared: the workload.
        plan: how the trainings are run.
        trainings: of one task.

    Yields:
        The trainings at the end of each window (they are gone once the next is asked for), the
        losses of its steps, and the mean validation {"loss": (R,), "score": (R,)}.
    """
    task = trainings[0].task
    running = start(program, prepared, plan, trainings)
    for window in range(task.steps // task.evaluate_every):
        indices = _indices(prepared.workload, task, plan, trainings, window)
        running, losses, sums = program.advance(prepared.data, running, indices)
        yield running, np.asarray(losses), _means(sums, prepared.validation_examples)


def _indices(
    workload: Workload, task: Task, plan: Plan, trainings: Sequence[Training], window: int
) -> Int[np.ndarray, "R W B"]:
    """The examples of each batch of a window, as the sampler draws them by seed and step."""
    size = _examples(workload.train)
    shape = (task.evaluate_every, workload.batch_size)
    by_seed = {
        # W batches in a row are one batch of W times as many examples.
        seed: batch_indices(seed, window, size, math.prod(shape)).reshape(shape)
        for seed in {training.seed for training in trainings}
    }
    filled = _filled(plan, trainings)
    return np.stack([by_seed[training.seed] for training in filled]).astype(np.int32)


def _filled(plan: Plan, trainings: Sequence[Training]) -> list[Training]:
    return [*trainings, *([trainings[-1]] * (plan.chunk - len(trainings)))]


class Trained(NamedTuple):
    """A training that has ended: its row, and what was found besides where a workload looks."""

    row: Row
    examination: Examination | None


def train(
    program: Program, prepared: Prepared, plan: Plan, trainings: Sequence[Training]
) -> tuple[list[Trained], int, Spent]:
    """Run up to ``plan.chunk`` trainings of one task from start to end.

    Args:
        program: of the task and plan.
        prepared: the workload.
        plan: how they are run.
        trainings: which.

    Returns:
        What came of each, in their order; how many steps were taken in all of them together; what
        these took, with their evaluations, but without the test.
    """
    task = trainings[0].task
    curves = [Curve(task.steps, task.evaluate_every) for _ in trainings]
    steps, last, tested, params = 0, None, {}, None
    with metered() as spent:
        for running, losses, means in windows(program, prepared, plan, trainings):
            last = running
            for row, curve in enumerate(curves):
                curve.add(losses[row], float(means["loss"][row]), float(means["score"][row]))
            steps += task.evaluate_every * len(trainings)
            if all(curve.ended for curve in curves):
                break
    final = any(training.phase == "final" for training in trainings)
    if final and last is not None and not all(curve.ended for curve in curves):
        tested = _means(program.test(prepared.data, last), prepared.test_examples)
        params = program.evaluated(last) if prepared.workload.examine else None
    ended = []
    for row, (training, curve) in enumerate(zip(trainings, curves, strict=True)):
        scores = {name: float(mean[row]) for name, mean in tested.items()}
        made = curve.row(training, scores if training.phase == "final" else {})
        found = None
        if training.phase == "final" and made["status"] == "finished" and params is not None:
            assert prepared.workload.examine is not None
            found = prepared.workload.examine(jax.tree.map(operator.itemgetter(row), params))
            made["result"]["details"] = dict(found.details)
        ended.append(Trained(made, found))
    return ended, steps, spent


def _means(sums: Mapping[str, Array], examples: int) -> dict[str, Float[np.ndarray, " R"]]:
    """Means over the examples, added up in float64."""
    with np.errstate(all="ignore"):
        return {
            name: np.asarray(array, np.float64).sum(axis=-1) / examples
            for name, array in sums.items()
        }


def sizes(program: Program, prepared: Prepared, training: Training) -> dict[str, int]:
    """Bytes of the optimizer's state of one training, and the number of its parameters."""
    running = jax.eval_shape(program.begin, *_one(prepared, training))

    def total(tree, size):
        return sum(size(leaf) for leaf in jax.tree.leaves(tree))

    return {
        "state_bytes": total(running.states.opt_state, lambda x: x.size * x.dtype.itemsize),
        "parameters": total(running.states.params, lambda x: x.size),
    }


def _one(prepared: Prepared, training: Training) -> tuple[Any, Any, Hyperparameters]:
    """Shapes of the arguments of ``Program.begin`` for one training."""
    params, key_data = _lead(jax.eval_shape(prepared.initial, np.uint32(0)))
    one = jax.ShapeDtypeStruct((1,), jnp.float32)
    return params, key_data, dict.fromkeys(training.hyperparameters, one)
