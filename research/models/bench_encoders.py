"""What a training step of each speech encoder costs.

    python -m research.models.bench_encoders
    python -m research.models.bench_encoders conformer bilstm --rounds 15 --clock cpu

A step is the encoder as it is by default, CTC and AdamW, on random features of 40 log-mel bins, one
frame each 10 ms, that give one frame of logits each 40 ms: encoders that do not subsample see four
frames stacked. Steps are compiled once and take turns; ratios are taken within each round.
"""

import argparse
import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from rich.console import Console
from rich.table import Table

from kernels.timing import Budget, Call, WallClock, clock_for, interleave, paired_ratio, spread
from research.models.encoders import ENCODERS
from research.objectives.ctc import ctc
from research.train import init_state, make_train_step

BINS, CLASSES, LABELS, LOG_MEL_PER_LOGITS = 40, 11, 7, 4
BASELINE = "bilstm"


class Training(NamedTuple):
    """An encoder's step, ready to be called.

    Attributes:
        step: () -> (state, metrics), compiled at the first call.
        parameters: how many.
    """

    step: Call
    parameters: int


def training(name: str, batch: int, seconds: float) -> Training:
    """A training step of an encoder on a batch of utterances of so many seconds."""
    encoder = ENCODERS[name](classes=CLASSES)
    stack = LOG_MEL_PER_LOGITS // encoder.subsampling
    frames = round(100 * seconds / stack)
    features_key, labels_key, dropout_key = jax.random.split(jax.random.key(0), 3)
    lengths = jnp.full(batch, frames, jnp.int32)
    data = {
        "features": jax.random.normal(features_key, (batch, frames, stack * BINS)),
        "labels": jax.random.randint(labels_key, (batch, LABELS), 1, CLASSES),
    }

    def apply(params, data, key):
        rngs = {"dropout": key}
        variables = {"params": params}
        return encoder.apply(variables, data["features"], lengths, deterministic=False, rngs=rngs)

    def loss(logits, data):
        paddings = jnp.zeros((batch, LABELS))
        return ctc(logits, encoder.output_lengths(lengths), data["labels"], paddings)

    optimizer = optax.adamw(1e-3)
    step = make_train_step(apply, loss, optimizer)

    @jax.jit
    def begin(key) -> Any:
        return init_state(encoder.init(key, data["features"], lengths)["params"], optimizer)

    state = begin(jax.random.key(1))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return Training(Call(functools.partial(jax.jit(step), state, data, dropout_key)), parameters)


def measure(trainings: dict[str, Training], budget: Budget, clock: Any) -> list[tuple[str, ...]]:
    """A row of the table for each encoder; the ratio is to the first."""
    taken = interleave({name: each.step for name, each in trainings.items()}, clock, budget)
    rows = []
    for name, each in trainings.items():
        ratio = paired_ratio(taken[name], taken[next(iter(trainings))])
        assert ratio is not None  # all join the first round
        seconds = spread(taken[name].taken)
        rows.append(
            (
                name,
                f"{each.parameters:,}",
                f"{seconds.median:.3g} [{seconds.low:.3g}, {seconds.high:.3g}]",
                f"{ratio.median:.2f}",
                f"{ratio.low:.2f} to {ratio.high:.2f} ({ratio.level:.0%})",
            )
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m research.models.bench_encoders",
        description="Time training steps of speech encoders.",
    )
    parser.add_argument("encoders", nargs="*", help=f"of {', '.join(ENCODERS)}; default: all")
    parser.add_argument("--batch", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=4.5, help="of audio; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: seconds of all cores together, which other processes disturb less",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.encoders if name not in ENCODERS]
    if unknown or min(options.batch, options.rounds) < 1 or not options.seconds >= 1:
        wanted = f"encoders must be among {', '.join(ENCODERS)}, --batch and --rounds from 1 on"
        parser.error(f"{wanted}, --seconds too; received {' '.join(unknown) or options}")
    names = list(dict.fromkeys([BASELINE, *(options.encoders or ENCODERS)]))
    clock = WallClock(time.process_time)
    if options.clock == "wall":
        clock = clock_for(jax.default_backend())
    trainings = {name: training(name, options.batch, options.seconds) for name in names}
    rows = measure(trainings, Budget(1e-9, options.rounds), clock)
    console = Console()
    console.width = max(console.width, 110)
    title = f"a step on {options.batch} × {options.seconds} s; {jax.default_backend()}"
    table = Table(title=title)
    heads = ("", "parameters", f"{options.clock} seconds [quartiles]", f"× {BASELINE}", "interval")
    for column in heads:
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


if __name__ == "__main__":
    main()
