"""What training a recogniser takes, counted from shapes before anything runs."""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from research.data.digit_strings import StringBatch
from research.flops import matrix_flops
from research.speech.recogniser import Recogniser


@dataclass(frozen=True)
class Plan:
    """What a training takes, before it runs.

    Attributes:
        parameters: trained numbers.
        state_bytes: of parameters and optimizer.
        step_flops: of a step, in matrix products and convolutions.
        steps: how many.
        step_seconds: audio in a batch, with padding.
    """

    parameters: int
    state_bytes: int
    step_flops: int
    steps: int
    step_seconds: float

    @property
    def flops(self) -> int:
        """Of the whole training."""
        return self.steps * self.step_flops

    @property
    def audio_hours(self) -> float:
        """Audio that is read, with padding."""
        return self.steps * self.step_seconds / 3600

    def hours(self, peak: float, utilisation: float) -> float:
        """Time at a part of a peak in operations per second."""
        return self.flops / (peak * utilisation) / 3600


def plan_training(
    recogniser: Recogniser, *, batch_seconds: float, longest: float, sample_rate: int, steps: int
) -> Plan:
    """Count a training on batches of the longest utterances, in which attention costs most.

    Nothing is computed but shapes.
    """
    rows = max(1, int(batch_seconds / longest))
    samples, labels = math.ceil(longest * sample_rate), math.ceil(5 * longest)
    kinds: list[Any] = [
        jax.ShapeDtypeStruct((rows, samples), jnp.float32),
        jax.ShapeDtypeStruct((rows,), jnp.int32),
        jax.ShapeDtypeStruct((rows, labels), jnp.int32),
        jax.ShapeDtypeStruct((rows, labels), jnp.float32),
    ]
    shapes = StringBatch(*kinds)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(recogniser.init, key, shapes)
    sizes = jax.tree.map(lambda leaf: math.prod(leaf.shape), state)
    kept = [leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in jax.tree.leaves(state)]
    return Plan(
        parameters=sum(jax.tree.leaves(sizes.params)),
        state_bytes=sum(kept),
        step_flops=matrix_flops(recogniser.step, state, shapes, key),
        steps=steps,
        step_seconds=rows * longest,
    )
