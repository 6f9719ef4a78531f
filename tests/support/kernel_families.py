"""What the test matrix must know of each operation: shapes, and what must not count."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from kernels import problems
from kernels.convolution.tuning import Shape as Convolution
from kernels.ctc.tuning import Shape as Ctc


@dataclass(frozen=True)
class Family:
    """What the matrix must know of an operation.

    Attributes:
        cut: name in ``tuning.SHAPES`` -> the fields that let the interpreter afford it.
        awkward: sizes at which tiles, blocks and rows end unevenly.
        low: names of those that run in every precision; all run in float32.
        small: a shape with every operand, for what costs most to compile or to run.
        sharded: a shape with rows for 8 devices.
        ignored: problem -> masks of elements that must not count, by operand and for "output".
        fitting: what tests/kernels/test_matrix.py does to an operand -> operands that may be so.
        results: dtype of the value, where it is not that of the operands.
    """

    cut: Mapping[str, Mapping[str, Any]]
    awkward: Mapping[str, Any]
    low: tuple[str, ...]
    small: Any
    sharded: Any
    ignored: Callable[[problems.Problem], Mapping[str, np.ndarray]] = field(default=lambda _: {})
    fitting: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    results: str | None = None


def _frames_past_the_end(problem: problems.Problem) -> dict[str, np.ndarray]:
    """Of an operation on (B, T, C) with lengths, and of what it gives: (B, U, C)."""
    inputs, lengths = problem.operands["inputs"], np.asarray(problem.operands["lengths"])
    result = jax.eval_shape(problem.plain(), *problem.arguments)
    masks = {}
    for name, shape in (("inputs", inputs.shape), ("output", result.shape)):
        valid = lengths + shape[1] - inputs.shape[1]
        past = np.arange(shape[1])[None, :] >= valid[:, None]
        masks[name] = np.broadcast_to(past[:, :, None], shape)
    return masks


def _padded_frames(problem: problems.Problem) -> dict[str, np.ndarray]:
    """Of an operation on logits (B, T, K) with paddings (B, T)."""
    padded = np.asarray(problem.operands["logit_paddings"], bool)
    return {"logits": np.broadcast_to(padded[:, :, None], problem.operands["logits"].shape)}


FAMILIES = {
    "depthwise_conv1d": Family(
        # 16 channels are a block, and 4 times 16 frames.
        cut={
            "causal_w4": {"batch": 2, "frames": 67, "channels": 17, "lengths": True},
            "conformer_w31": {"batch": 1, "frames": 37, "channels": 5},
            "parakeet_w9": {"batch": 3, "frames": 65, "channels": 3, "lengths": True},
            "wav2vec2_bert_w31": {"batch": 2, "frames": 13, "channels": 3, "width": 11},
            "separable_w7": {"batch": 2, "frames": 64, "channels": 16},
            "wide_w128": {"batch": 1, "frames": 17, "channels": 2, "width": 24},
            "dilated_w3": {"batch": 2, "frames": 131, "channels": 2, "lengths": True},
        },
        awkward={
            "one": Convolution(1, 1, 1, 1),
            "one_frame": Convolution(2, 1, 3, 3, activation="gelu"),
            "shorter_than_the_filter": Convolution(3, 5, 2, 8, activation="relu", lengths=True),
            "prime": Convolution(2, 17, 33, 4, 3, "CAUSAL", "silu", lengths=True),
            "valid": Convolution(2, 65, 3, 5, 2, "VALID", lengths=True),
            "uneven": Convolution(2, 63, 3, 2, 1, (5, 0), "gelu", lengths=True),
        },
        low=("prime",),
        small=Convolution(2, 7, 3, 3, 2, "SAME", "silu", lengths=True),
        sharded=Convolution(16, 9, 3, 4, activation="silu", lengths=True),
        ignored=_frames_past_the_end,
    ),
    "ctc_loss": Family(
        # Segments have 16 frames in XLA; in Triton both halves meet in the middle.
        cut={
            "characters_200": {
                "batch": 2,
                "frames": 17,
                "classes": 5,
                "labels": 6,
                "lengths": True,
            },
            "characters_400": {"batch": 1, "frames": 33, "classes": 6, "labels": 12},
            "characters_1000": {"batch": 1, "frames": 7, "classes": 3, "labels": 3},
            "pieces_1000": {"batch": 2, "frames": 8, "classes": 67, "labels": 2, "lengths": True},
            "pieces_5000": {"batch": 1, "frames": 5, "classes": 300, "labels": 2},
            "pieces_500": {"batch": 3, "frames": 6, "classes": 33, "labels": 1},
            "long_8000": {"batch": 1, "frames": 70, "classes": 3, "labels": 31},
        },
        awkward={
            "one": Ctc(1, 1, 2, 1),
            "nothing_said": Ctc(2, 3, 4, 0),
            "only_the_blank": Ctc(2, 4, 1, 0),
            "sixteen": Ctc(2, 16, 7, 4, lengths=True),
            # With no more classes than labels the emissions are found in another way.
            "two_classes": Ctc(2, 17, 2, 6, lengths=True),
        },
        low=("sixteen", "two_classes"),
        small=Ctc(2, 5, 4, 2, lengths=True),
        sharded=Ctc(8, 4, 5, 2, lengths=True),
        ignored=_padded_frames,
        fitting={
            "of another kind": ("logit_paddings", "label_paddings"),
            "longer": ("logits",),  # one class more
        },
        results="float32",
    ),
}
