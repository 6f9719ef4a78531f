"""A training problem of a second, for tests of what runs trainings; workers import it by name."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from research.sweep import Task, Training
from research.sweep.training import Phase
from research.workloads.workload import Workload

LOADER = "tiny_workload:load"
SHA256 = "00" * 32


def load(name, data_dir=None):
    """Regression with a hidden layer; ``broken`` cannot be loaded. Says which process loads it."""
    if name == "broken":
        raise ValueError("the data of 'broken' cannot be read")
    if data_dir is not None:
        (Path(data_dir) / f"{os.getpid()}.pid").touch()
    generator = np.random.default_rng(0)
    w = generator.normal(size=(5,)).astype(np.float32)

    def examples(size):
        x = generator.normal(size=(size, 5)).astype(np.float32)
        return {"x": x, "y": x @ w + 0.1 * generator.normal(size=size).astype(np.float32)}

    def errors(params, batch):
        hidden = jnp.tanh(batch["x"] @ params["w"])
        return (hidden @ params["v"] - batch["y"]) ** 2

    def init(key):
        keys = jax.random.split(key)
        return {
            "w": 0.5 * jax.random.normal(keys[0], (5, 8)),
            "v": 0.5 * jax.random.normal(keys[1], (8,)),
        }

    def loss(params, batch, key):
        kept = jax.random.bernoulli(key, 0.9, batch["y"].shape)
        return jnp.mean(errors(params, batch) * kept)

    def measure(params, batch):
        squares = errors(params, batch)
        return {"loss": squares, "score": squares > 1.0}

    return Workload(
        name=name,
        description="linear regression with a hidden layer",
        metric="share of errors over 1",
        target=0.1,
        steps=40,
        batch_size=16,
        source="made up",
        sha256=SHA256,
        train=examples(50),
        validation=examples(300),
        test=examples(7),
        init=init,
        loss=loss,
        measure=measure,
    )


def task(workload="tiny", optimizer="adamw", steps=40, evaluate_every=10, schedule="cosine"):
    return Task(workload, SHA256, optimizer, 2, schedule, steps, evaluate_every)


def trainings(of: Task, number: int, *, phase: Phase = "search", study: int = 0):
    """Points of the search space, each with a seed of its own."""
    from research.optimizers import draw_trials, find

    space = find(of.optimizer, of.space_version).space
    points = draw_trials(space, number, seed=study)
    return [
        Training(of, phase, study, trial, 100 + trial, point) for trial, point in enumerate(points)
    ]
