"""What each CTC kernel runs with on a GPU: for ``kernels.tune``, and without a table by rule."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kernels.configurations import Tunable, bucket, round_up


@dataclass(frozen=True)
class RecursionConfig:
    """How a program of the recursion holds its pairs of a blank and a label.

    Attributes:
        lanes: threads, of which each has ``registers`` neighbours; more than 32 meet at a barrier
            in each frame.
        registers: pairs of a thread.
        frames: that are looked up ahead and between which mantissas are not normalised.
    """

    lanes: int = 32
    registers: int = 1
    frames: int = 4

    def __post_init__(self) -> None:
        whole = min(vars(self).values()) >= 1
        powers = all(n.bit_count() == 1 for n in (self.lanes, self.registers)) if whole else False
        if not powers or not 32 <= self.lanes <= 1024 or self.frames > 16:
            raise ValueError(
                "a configuration must have a power of two from 32 to 1024 as lanes, one as "
                f"registers, and from 1 to 16 frames; received {self}."
            )

    @property
    def num_warps(self) -> int:
        """Warps of a program."""
        return self.lanes // 32

    @property
    def num_stages(self) -> int:
        """The loops look ahead by themselves."""
        return 1


@dataclass(frozen=True)
class TileConfig:
    """A tile of frames and classes.

    Attributes:
        block_frames: frames of a program.
        block_classes: classes that it reads at a time.
        num_warps: warps per program.
    """

    block_frames: int = 1
    block_classes: int = 1024
    num_warps: int = 4

    def __post_init__(self) -> None:
        values = vars(self).values()
        if min(values) < 1 or any(n.bit_count() != 1 for n in values) or self.num_warps > 32:
            raise ValueError(
                "a configuration must have powers of two as block_frames, block_classes and "
                f"num_warps (at most 32); received {self}."
            )

    @property
    def num_stages(self) -> int:
        """No loop is pipelined."""
        return 1


def _bucket(*, dtype: str, labels: int, **numbers: int) -> str:
    # By pairs, of which a configuration holds a power of two: 256 labels are 257 of them.
    return bucket(dtype, **dict(sorted(numbers.items())), pairs=labels + 1)


def _recursion(*, labels: int, **_: Any) -> RecursionConfig:
    """A pair a thread up to 256, then the fewest instructions that are left to a thread."""
    pairs = round_up(labels + 1)
    registers = 1 if pairs <= 256 else 2
    return RecursionConfig(max(32, pairs // registers), registers)


def _recursion_candidates(*, labels: int, **_: Any) -> Iterator[RecursionConfig]:
    pairs = round_up(labels + 1)
    for registers, frames in itertools.product((1, 2, 4, 8), (2, 4, 8)):
        lanes = max(32, pairs // registers)
        # Less than all pairs, twice as many as there are, or more registers than a thread has.
        fits = lanes * registers >= pairs and lanes <= 1024 and registers * frames <= 32
        if fits and (lanes > 32 or registers == 1 or 32 * (registers // 2) < pairs):
            yield RecursionConfig(lanes, registers, frames)


def _tile(*, classes: int, labels: int, **_: Any) -> TileConfig:
    """About 2048 elements: several frames where classes and labels are few."""
    width = max(round_up(classes), round_up(labels + 1))
    return TileConfig(max(1, min(16, 2048 // width)), min(2048, max(16, round_up(classes))))


def _tile_candidates(*, classes: int, labels: int, **_: Any) -> Iterator[TileConfig]:
    wide = max(16, round_up(classes))
    width = max(wide, round_up(labels + 1))
    blocks = sorted({min(wide, block) for block in (512, 1024, 2048, 4096)})
    for block, frames, warps in itertools.product(blocks, (1, 2, 4, 8, 16), (1, 2, 4, 8)):
        held = frames * max(block, round_up(labels + 1))
        if 4 * 32 * warps <= held <= 32 * 32 * warps and frames * width <= 2 * 4096:
            yield TileConfig(frames, block, warps)


_KERNEL = "kernels.ctc.kernel"
# Normalisers of all frames; half of the frames from each end; back again; softmax less occupancy.
NORMALISE = Tunable("ctc_loss.normalise", TileConfig, _tile, _tile_candidates, _bucket, _KERNEL)
ADVANCE = Tunable(
    "ctc_loss.advance", RecursionConfig, _recursion, _recursion_candidates, _bucket, _KERNEL
)
SPREAD = Tunable(
    "ctc_loss.spread", RecursionConfig, _recursion, _recursion_candidates, _bucket, _KERNEL
)
GRADIENT = Tunable("ctc_loss.gradient", TileConfig, _tile, _tile_candidates, _bucket, _KERNEL)
TUNABLES = (NORMALISE, ADVANCE, SPREAD, GRADIENT)
