"""The training loop as pure functions: a state, a step, and a loop that can stop and go on.

Everything random comes from a key that the caller passes; everything that changes is in ``State``.
The position in the data is the step number, because batches are a function of it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

Batch = Any
Apply = Callable[[Any, Batch, Key[Array, ""]], Any]
Loss = Callable[[Any, Batch], Float[Array, ""]]


class State(NamedTuple):
    """What training changes; a checkpoint holds this and the key."""

    step: Int[Array, ""]
    params: Any
    opt_state: optax.OptState


TrainStep = Callable[[State, Batch, Key[Array, ""]], tuple[State, dict[str, Array]]]


class Diverged(Exception):
    """The loss became infinite or NaN; ``step``, counted from one, is the first that saw it."""

    def __init__(self, step: int):
        super().__init__(f"the training loss was not finite at step {step}")
        self.step = step


def init_state(params: Any, optimizer: optax.GradientTransformation) -> State:
    """The state before the first step.

    No two arrays of it share memory, nor one with ``params``, so that a step may be given all of it
    to reuse: some optimizers start from one array of zeros twice, or keep the first parameters.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> int(init_state({"w": jnp.zeros(3)}, optax.sgd(0.1)).step)
        0
    """
    opt_state = jax.tree.map(jnp.copy, optimizer.init(params))
    return State(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params), opt_state)


def make_train_step(apply: Apply, loss: Loss, optimizer: optax.GradientTransformation) -> TrainStep:
    """A pure function for one optimizer step; jit it once and reuse it.

    params' = params + optimizer.update(grad_params loss(apply(params, batch, key_t), batch)), with
    key_t = fold_in(key, step).

    Args:
        apply: (params, batch, key) -> outputs. The key is for dropout and augmentation.
        loss: (outputs, batch) -> scalar.
        optimizer: an optax transformation; it may close over traced hyperparameters.

    Returns:
        (state, batch, key) -> (next state, {"loss", "gradient_norm"}).

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> apply = lambda params, batch, key: params["w"] * batch["x"]
        >>> loss = lambda outputs, batch: jnp.mean((outputs - batch["y"]) ** 2)
        >>> optimizer = optax.sgd(0.5)
        >>> step = jax.jit(make_train_step(apply, loss, optimizer))
        >>> state = init_state({"w": jnp.zeros(())}, optimizer)
        >>> batch = {"x": jnp.ones(4), "y": jnp.full(4, 3.0)}
        >>> state, metrics = step(state, batch, jax.random.key(0))
        >>> float(state.params["w"]), float(metrics["loss"])
        (3.0, 9.0)
    """

    def train_step(state: State, batch: Batch, key: Key[Array, ""]):
        step_key = jax.random.fold_in(key, state.step)

        def objective(params):
            return loss(apply(params, batch, step_key), batch)

        value, gradients = jax.value_and_grad(objective)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": value, "gradient_norm": optax.tree.norm(gradients)}
        return State(state.step + 1, params, opt_state), metrics

    return train_step


def fit(
    train_step: TrainStep,
    state: State,
    batches: Callable[[int], Batch],
    *,
    key: Key[Array, ""],
    steps: int,
    evaluate_every: int,
    on_evaluate: Callable[[State, float], None],
    on_step: Callable[[int], None] = lambda step: None,
) -> State:
    """Train from ``state.step`` to ``steps``, stopping now and then to evaluate.

    Args:
        train_step: (state, batch, key) -> (state, metrics); jitted by the caller.
        state: where to start; a restored state goes on exactly where it was saved.
        batches: step number -> batch.
        key: the run's random key; each step folds its number into it.
        steps: the step number to stop at.
        evaluate_every: steps between calls of ``on_evaluate``; it is also called at the end,
            once a step was taken.
        on_evaluate: called with the state and the mean training loss since the last call. Saving a
            checkpoint belongs here, so that the loss window of a resumed run starts where it began.
        on_step: called with the number of finished steps, for a progress bar.

    Returns:
        The state at ``steps``.

    Raises:
        Diverged: a training loss was not finite. Seen at the next evaluation; the step is exact.
        ValueError: ``evaluate_every`` below one.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> apply = lambda params, batch, key: params * batch
        >>> loss = lambda outputs, batch: jnp.mean((outputs - 2.0) ** 2)
        >>> optimizer = optax.sgd(0.25)
        >>> step = jax.jit(make_train_step(apply, loss, optimizer))
        >>> state = fit(
        ...     step,
        ...     init_state(jnp.zeros(()), optimizer),
        ...     lambda step: jnp.ones(3),
        ...     key=jax.random.key(0),
        ...     steps=4,
        ...     evaluate_every=2,
        ...     on_evaluate=lambda state, loss: print(int(state.step), loss),
        ... )
        2 2.5
        4 0.15625
    """
    if evaluate_every < 1:
        raise ValueError(f"evaluate_every must be at least 1; received {evaluate_every}.")
    losses = []
    for step in range(int(state.step), steps):
        state, metrics = train_step(state, batches(step), key)
        losses.append(metrics["loss"])
        on_step(step + 1)
        if (step + 1) % evaluate_every == 0 or step + 1 == steps:
            window = np.asarray(jax.device_get(losses), np.float64)
            if not np.isfinite(window).all():
                first = int(np.argmin(np.isfinite(window)))
                raise Diverged(step + 2 - len(window) + first)
            on_evaluate(state, float(window.mean()))
            losses = []
    return state


def padded_batches(
    arrays: Mapping[str, np.ndarray], batch_size: int
) -> Iterator[tuple[dict[str, np.ndarray], Bool[np.ndarray, "B"]]]:
    """All examples once, in order, in batches of one shape; the last is filled with its first row.

    Args:
        arrays: named arrays with a common leading axis.
        batch_size: examples per batch.

    Yields:
        The batch and a mask of the examples that are real, (B,).

    Raises:
        ValueError: no arrays, leading sizes that differ, or a batch of no example.

    Example:
        >>> [mask.tolist() for _, mask in padded_batches({"x": np.arange(3)}, 2)]
        [[True, True], [True, False]]
    """
    sizes = {name: len(array) for name, array in arrays.items()}
    if batch_size < 1 or len({*sizes.values()}) != 1:
        raise ValueError(
            "arrays must have one leading size, one at least, and batches an example or more; "
            f"received sizes {sizes} and batch_size {batch_size}."
        )
    (size,) = {*sizes.values()}
    for start in range(0, size, batch_size):
        index = np.arange(start, start + batch_size)
        valid = index < size
        index = np.where(valid, index, start)
        yield {name: array[index] for name, array in arrays.items()}, valid


def evaluate(
    measure: Callable[[Any, Batch], Mapping[str, Array]],
    params: Any,
    batches: Iterable[tuple[Batch, Bool[np.ndarray, "B"]]],
) -> dict[str, float]:
    """Mean of per-example measurements over a whole set, summed in float64.

    Args:
        measure: (params, batch) -> named values per example, each (B,); jitted by the caller.
        params: the model's parameters.
        batches: batches with a mask of their real examples, as ``padded_batches`` yields them.

    Returns:
        The mean of each measurement.

    Raises:
        ValueError: no real example in ``batches``.

    Example:
        >>> double = lambda params, batch: {"twice": params * batch["x"]}
        >>> evaluate(double, 2.0, padded_batches({"x": np.array([1.0, 2.0, 6.0])}, 2))
        {'twice': 6.0}
    """
    totals: dict[str, float] = {}
    count = 0
    for batch, valid in batches:
        for name, values in measure(params, batch).items():
            total = float(np.sum(np.asarray(values, np.float64), where=valid))
            totals[name] = totals.get(name, 0.0) + total
        count += int(valid.sum())
    if count == 0:
        raise ValueError("evaluate needs at least one example; received none.")
    return {name: total / count for name, total in totals.items()}
