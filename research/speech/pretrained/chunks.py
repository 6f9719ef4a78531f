"""Long audio as overlapping chunks, and which frames of each count."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from research.errors import ConfigError


class Chunk(NamedTuple):
    """A stretch of the audio, and what of its frames belongs to the whole.

    Attributes:
        samples: of the audio.
        frames: of those that the stretch gives.
    """

    samples: slice
    frames: slice


def chunks_of(
    samples: int, size: int, stride: int, *, hop: int, frames_of: Callable[[int], int]
) -> list[Chunk]:
    """Cut audio into chunks of one size, joined at the middle of their overlaps.

    Chunks begin at multiples of ``hop``, so that their frames are on the grid of the whole; the
    last is moved back to end with the audio, within a hop.

    Args:
        samples: of the audio.
        size: of a chunk, in hops.
        stride: frames of context that a frame has at least on both sides, except at the ends.
        hop: samples from one frame to the next.
        frames_of: how many frames so many samples give.

    Returns:
        The chunks, in order; the frames that count join up to ``frames_of(samples)``.

    Raises:
        ConfigError: chunks that consist of overlap.

    Example:
        >>> chunks = chunks_of(100, 6, 1, hop=10, frames_of=lambda n: n // 10)
        >>> [(c.samples.start, c.samples.stop, c.frames.start, c.frames.stop) for c in chunks]
        [(0, 60, 0, 5), (40, 100, 1, 6)]

    Source: the strides of transformers' pipeline for CTC models, explained in Patry, "Making
    automatic speech recognition work on large files with Wav2Vec2", 2022.
    """
    frames = frames_of(samples)
    per_chunk = frames_of(size * hop)
    step = min(size, per_chunk) - 2 * stride
    if stride < 0 or step < 1:
        raise ConfigError(
            "a chunk must be longer than the context on both of its sides, but there are "
            f"{per_chunk} frames in a chunk and {stride} of context on each; "
            "take longer chunks or a shorter stride"
        )
    last = max(0, -(-(samples - size * hop) // hop))
    begins = [*range(0, last, step), last]
    joins = [(first + per_chunk + second) // 2 for first, second in pairwise(begins)]
    return [
        Chunk(
            slice(begin * hop, min((begin + size) * hop, samples)),
            slice(start - begin, stop - begin),
        )
        for begin, start, stop in zip(begins, [0, *joins], [*joins, frames], strict=True)
    ]
