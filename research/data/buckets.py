"""Batches of utterances of similar length: a pure function of the seed and the step.

Nothing is stored between batches, so a run that was interrupted goes on from its step number alone.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from research.data.sampler import batch_indices
from research.errors import ConfigError

_CUTS = 256
"""Places where the lengths may be cut into buckets; a finer grid saves no padding worth having."""


@dataclass(frozen=True, eq=False)
class Buckets:
    """Utterances grouped by length, so that few shapes are compiled and little is padded.

    Attributes:
        members: positions of the utterances of each bucket, ascending in length.
        batch_sizes: utterances in a batch of each bucket.
        longest: the longest utterance of each bucket, in seconds.
    """

    members: tuple[Int[np.ndarray, " n"], ...]
    batch_sizes: tuple[int, ...]
    longest: tuple[float, ...]

    def steps_before(self, epoch: int) -> int:
        """How many batches come before an epoch; an epoch is as many utterances as there are.

        Where batches do not fit into an epoch, one bucket's last batch of it goes on into the next.
        """
        sizes = zip(self.members, self.batch_sizes, strict=True)
        return sum(epoch * len(members) // batch for members, batch in sizes)


def make_buckets(
    seconds: Float[np.ndarray, " U"], *, buckets: int, batch_seconds: float, multiple: int = 1
) -> Buckets:
    """Cut the utterances, in the order of their length, where the least padding comes of it.

    The groups are those with the least sum of (longest - length), by dynamic programming.

    Args:
        seconds: length of each utterance.
        buckets: how many groups; fewer where there are fewer utterances.
        batch_seconds: length of a batch with its padding; an utterance that is longer comes alone.
        multiple: every batch has a multiple of so many utterances, such as the devices that share
            it, and no fewer, however long they are.

    Returns:
        The groups, shortest utterances first.

    Raises:
        ConfigError: no utterance, no bucket, no time, or no multiple.

    Example:
        >>> b = make_buckets(np.array([3.0, 1.0, 9.0, 2.0]), buckets=2, batch_seconds=10.0)
        >>> [x.tolist() for x in b.members], b.batch_sizes, b.longest
        ([[1, 3, 0], [2]], (3, 1), (3.0, 9.0))
    """
    seconds = np.asarray(seconds, np.float64)
    if seconds.size < 1 or min(buckets, multiple) < 1 or not batch_seconds > 0:
        raise ConfigError(
            "buckets need utterances, at least one bucket, batch_seconds > 0 and a multiple of at "
            f"least 1, but got {seconds.size} utterances, {buckets}, {batch_seconds:g} and "
            f"{multiple}"
        )
    order = np.argsort(seconds, kind="stable")
    members = tuple(np.split(order, _least_padding(seconds[order], min(buckets, seconds.size))))
    longest = tuple(float(seconds[group[-1]]) for group in members)
    sizes = tuple(max(1, int(batch_seconds / length / multiple)) * multiple for length in longest)
    return Buckets(members, sizes, longest)


def _least_padding(ordered: np.ndarray, buckets: int) -> list[int]:
    """Where to cut ascending lengths into so many groups."""
    places = np.unique(np.linspace(0, ordered.size, max(_CUTS, buckets) + 1).astype(int))
    # cost[i, j]: what a group from place i to place j > i takes with its padding.
    counts = places[None, :] - places[:, None]
    cost = np.where(counts > 0, counts * ordered[places - 1][None, :], np.inf)
    total, choices = cost[0], []
    for _ in range(buckets - 1):
        ways = total[:, None] + cost
        choices.append(ways.argmin(axis=0))
        total = ways.min(axis=0)
    cuts, at = [], len(places) - 1
    for choice in reversed(choices):
        at = int(choice[at])
        cuts.append(int(places[at]))
    return cuts[::-1]


class BucketBatch(NamedTuple):
    """Which bucket a batch is from, and its utterances."""

    bucket: int
    indices: Int[np.ndarray, " B"]


def bucketed_batch(buckets: Buckets, *, seed: int, step: int) -> BucketBatch:
    """The utterances in the batch of one step.

    In epoch e a bucket of n utterances gives its batches of B from number e n // B to
    (e + 1) n // B - 1, those of `batch_indices` with a seed of its own; whose turn it is is drawn
    for each epoch. So every utterance of a bucket comes once before any comes again.

    Args:
        buckets: the groups.
        seed: selects the stream, 0..2**32 - 1.
        step: number of the batch, from 0.

    Returns:
        The bucket and positions of its utterances, int64 (B,).

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> b = make_buckets(np.array([5.0, 5.0, 10.0, 10.0]), buckets=2, batch_seconds=10.0)
        >>> epoch = [bucketed_batch(b, seed=0, step=i).indices for i in range(b.steps_before(1))]
        >>> sorted(np.concatenate(epoch).tolist())
        [0, 1, 2, 3]
    """
    if not 0 <= seed < 2**32 or step < 0:
        raise ConfigError(
            f"a batch needs a seed in 0..2**32 - 1 and a step >= 0, but got {seed} and {step}"
        )
    low, high = 0, 1
    while buckets.steps_before(high) <= step:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if buckets.steps_before(middle) <= step else (low, middle)
    epoch = low
    firsts, counts = [], []
    for members, size in zip(buckets.members, buckets.batch_sizes, strict=True):
        firsts.append(epoch * len(members) // size)
        counts.append((epoch + 1) * len(members) // size - firsts[-1])
    order = batch_indices(_mixed(seed, 0), epoch, sum(counts), sum(counts))
    turns = np.repeat(np.arange(len(counts)), counts)[order]
    place = step - buckets.steps_before(epoch)
    bucket = int(turns[place])
    number = firsts[bucket] + int((turns[:place] == bucket).sum())
    members, size = buckets.members[bucket], buckets.batch_sizes[bucket]
    chosen = batch_indices(_mixed(seed, bucket + 1), number, len(members), size)
    return BucketBatch(bucket, members[chosen])


def _mixed(seed: int, stream: int) -> int:
    """A seed of its own for each stream: the upper half of 64 bits says which."""
    return (stream << 32) | seed
