"""Shapes that are tested and measured."""

import zlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from kernels.ctc import reference
from kernels.ctc.configs import TUNABLES
from kernels.problems import Cost, Problem


class Shape(NamedTuple):
    """Sizes of one call; ``lengths`` cuts every other utterance and its labels short."""

    batch: int
    frames: int
    classes: int
    labels: int
    lengths: bool = False


LEGEND = "lengths True: every other row is cut short."

# Characters and word pieces, from short commands to minutes of audio.
SHAPES = {
    "characters_200": Shape(8, 200, 32, 40),
    "characters_400": Shape(16, 400, 32, 100),
    "characters_1000": Shape(16, 1000, 32, 200),
    "pieces_1000": Shape(32, 400, 1000, 60),
    "pieces_5000": Shape(4, 2000, 5000, 150),
    "pieces_500": Shape(2, 2000, 500, 150),
    "long_8000": Shape(1, 8000, 32, 1000),
}


def problem(operation: str, name: str, shape: Shape, dtype: str) -> Problem:
    """A call in this shape, with seeded operands: logits of an untrained model, blank 0.

    Example:
        >>> call = problem("ctc_loss", "small", Shape(2, 9, 5, 3), "float32")
        >>> call.function()(*call.arguments).shape
        (2,)
    """
    batch, frames, classes, count = shape[:4]
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    lengths, label_lengths = np.full(batch, frames), np.full(batch, count)
    if shape.lengths:
        lengths[1::2] = generator.integers(frames // 2, frames + 1, batch // 2)
        label_lengths[1::2] = generator.integers(0, count // 2 + 1, batch // 2)
    logits = generator.normal(size=(batch, frames, classes))
    labels = generator.integers(1, classes, (batch, count)) if classes > 1 else np.zeros((batch, 0))
    operands = {
        "logits": jnp.asarray(logits, dtype),
        "logit_paddings": jnp.asarray(np.arange(frames)[None] >= lengths[:, None], jnp.float32),
        "labels": jnp.asarray(labels, jnp.int32),
        "label_paddings": jnp.asarray(
            np.arange(labels.shape[1])[None] >= label_lengths[:, None], jnp.float32
        ),
    }
    wide = logits.size * jnp.dtype(dtype).itemsize
    narrow = 4 * (batch * frames + 2 * batch * count + batch)
    states = batch * frames * (2 * count + 1)
    # Per logit: subtract, exponential, add; per state: two sums and a product, and so back.
    return Problem(
        operation=operation,
        name=name,
        dtype=dtype,
        operands=operands,
        options={"blank_id": 0},
        differentiable=("logits",),
        per_row=("logits", "logit_paddings", "labels", "label_paddings"),
        definition=reference.ctc_loss,
        forward=Cost(wide + narrow, 3 * logits.size + 3 * states),
        backward=Cost(2 * wide + narrow, 3 * logits.size + 6 * states),
    )


def sizes(shape: Shape, dtype: str) -> dict[str, Any]:
    """What a configuration is chosen by, of a call in this shape."""
    return {
        "rows": shape.batch,
        "frames": shape.frames,
        "classes": shape.classes,
        "labels": shape.labels,
        "dtype": dtype,
    }


__all__ = ["SHAPES", "TUNABLES", "Shape", "problem", "sizes"]
