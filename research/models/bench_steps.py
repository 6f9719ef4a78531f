"""How much of a training step the convolutions of ``kernels`` save, beside XLA's own.

    python -m research.models.bench_steps
    python -m research.models.bench_steps lenet --rounds 15

Each model is trained as it is, and with ``lax.conv_general_dilated`` in the place of its
convolution, on random data: a single step, five steps in a ``lax.scan``, and one step of eight
models at once under ``vmap``. Both are compiled once and take turns; ratios are taken within each
round, with an interval for their median.
"""

import argparse
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from rich.console import Console
from rich.table import Table

import kernels
from kernels.peers.conv2d import lax_conv2d
from kernels.peers.depthwise1d import lax_depthwise_conv1d
from kernels.timing import Budget, Call, clock_for, interleave, paired_ratio, spread
from research.models.conv_attention_encoder import ConvAttentionEncoder
from research.models.lenet import LeNet
from research.objectives.classification import cross_entropy
from research.train import State, init_state, make_train_step

STEPS, MODELS = 5, 8


class Trained(NamedTuple):
    """A model and what it is trained on.

    Attributes:
        model: convolution -> Linen module.
        theirs: the convolution of XLA with the arguments of ours,
        ours: the one in ``kernels``.
        batch: "inputs", whatever else the module takes as "rest", and "labels".
    """

    model: Callable[[Callable], Any]
    theirs: Callable
    ours: Callable
    batch: dict[str, Any]


def lenet(batch: int) -> Trained:
    """LeNet on images of 28x28 pixels."""
    images, labels = jax.random.split(jax.random.key(0))
    data = {
        "inputs": jax.random.normal(images, (batch, 28, 28, 1)),
        "rest": (),
        "labels": jax.random.randint(labels, (batch,), 0, 10),
    }
    return Trained(lambda f: LeNet(10, convolve=f), lax_conv2d, kernels.conv2d, data)


def conv_attention_encoder(batch: int) -> Trained:
    """The speech encoder on 100 frames, with a label for each: no CTC, so that it is the model."""
    features, labels = jax.random.split(jax.random.key(0))
    data = {
        "inputs": jax.random.normal(features, (batch, 100, 40)),
        "rest": (jnp.full(batch, 100, jnp.int32),),
        "labels": jax.random.randint(labels, (batch, 100), 0, 11),
    }
    return Trained(
        lambda f: ConvAttentionEncoder(11, convolve=f),
        lax_depthwise_conv1d,
        kernels.depthwise_conv1d,
        data,
    )


TRAINED = {"lenet": lenet, "conv_attention_encoder": conv_attention_encoder}


def programs(trained: Trained, convolve: Callable) -> dict[str, tuple[Callable, Callable]]:
    """A step, steps in a loop, and a step of several models: each with what makes its argument."""
    module, batch = trained.model(convolve), trained.batch

    def apply(params, batch, key):
        del key
        return module.apply({"params": params}, batch["inputs"], *batch["rest"])

    def loss(logits, batch):
        return cross_entropy(logits.reshape(-1, logits.shape[-1]), batch["labels"].ravel())

    optimizer, key = optax.sgd(0.1), jax.random.key(1)
    step = make_train_step(apply, loss, optimizer)

    def begin(key) -> State:
        params = module.init(key, batch["inputs"], *batch["rest"])["params"]
        return init_state(params, optimizer)

    def once(state: State) -> State:
        return step(state, batch, key)[0]

    def loop(state: State) -> State:
        return jax.lax.scan(lambda state, _: (once(state), None), state, length=STEPS)[0]

    def one() -> State:
        return jax.jit(begin)(key)

    def several() -> State:
        return jax.jit(jax.vmap(begin))(jax.random.split(key, MODELS))

    return {
        "a step": (once, one),
        f"{STEPS} steps in a loop": (loop, one),
        f"a step of {MODELS} models": (jax.vmap(once), several),
    }


def measure(trained: Trained, budget: Budget) -> list[tuple[str, ...]]:
    """A row of the table for each program."""
    both = {"ours": programs(trained, trained.ours), "lax": programs(trained, trained.theirs)}
    rows = []
    for what in both["ours"]:
        calls = {name: Call(_bound(*each[what])) for name, each in both.items()}
        taken = interleave(calls, clock_for(jax.default_backend()), budget)
        ratio = paired_ratio(taken["lax"], taken["ours"])
        assert ratio is not None  # both join the first round
        rows.append(
            (
                what,
                *(f"{1e3 * spread(taken[name].taken).median:.3g}" for name in calls),
                f"{ratio.median:.2f}",
                f"{ratio.low:.2f} to {ratio.high:.2f} ({ratio.level:.0%})",
                str(ratio.pairs),
            )
        )
    return rows


def _bound(function: Callable, make: Callable) -> Callable[[], Any]:
    return functools.partial(jax.jit(function), make())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table for each model."""
    parser = argparse.ArgumentParser(
        prog="python -m research.models.bench_steps",
        description="Time training steps with the convolutions of kernels beside XLA's.",
    )
    parser.add_argument("models", nargs="*", help=f"of {', '.join(TRAINED)}; default: all")
    parser.add_argument("--batch", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.models if name not in TRAINED]
    if unknown or min(options.batch, options.rounds) < 1:
        wanted = f"models must be among {', '.join(TRAINED)}, --batch and --rounds from 1 on"
        parser.error(f"{wanted}; received {' '.join(unknown) or options}")
    console = Console()
    console.width = max(console.width, 110)
    for name in options.models or TRAINED:
        budget = Budget(1e-9, options.rounds)
        table = Table(title=f"{name}, batch of {options.batch}; {jax.default_backend()}")
        for column in ("", "ours, ms", "lax, ms", "lax, × ours", "interval", "rounds"):
            table.add_column(column, justify="right" if column else "left", no_wrap=True)
        for row in measure(TRAINED[name](options.batch), budget):
            table.add_row(*row)
        console.print(table)


if __name__ == "__main__":
    main()
