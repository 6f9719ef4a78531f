"""How long a call takes: the clock of each platform, interleaved rounds, paired statistics.

On a CPU the clock is the wall's. On a GPU it is the time that the device was busy, from the trace
of JAX's profiler: launches from Python take longer than short kernels, and a wall clock would
measure them. Every result names its clock, so that the two are never compared.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.profiler import ProfileData

SAMPLE_SECONDS = 2e-2  # a sample is repeated calls of at least this long in all
MAX_REPEATS = 100
SETTLE_SECONDS = 0.1  # calls shorter than this are first made once untimed, before every sample
LONG = 1.0  # a call that took so many seconds is timed without a trial
DISTURBED = 0.1  # of the cores: a sample during which others used more is taken again
ACCOUNT_SECONDS = 0.01  # a tick of the system's account of their use
_CORES = os.cpu_count() or 1


class ClockError(RuntimeError):
    """There is no time to be read: no clock for a platform, or nothing in a trace."""


class Call(NamedTuple):
    """Something to be timed.

    Attributes:
        start: begins the work and returns its results, which may not be there yet.
        wait: returns when the results, and all work started before, are there.
    """

    start: Callable[[], Any]
    wait: Callable[[Any], Any] = jax.block_until_ready

    def __call__(self) -> Any:
        """The results, when they are there."""
        results = self.start()
        self.wait(results)
        return results


class Clock(Protocol):
    """A way to take the time of a call."""

    name: str

    def seconds(self, call: Call, repeats: int) -> float:
        """Mean seconds of one of so many calls in a row."""
        ...


class WallClock:
    """Time that passes, each call waited for."""

    name = "wall"

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now

    def seconds(self, call: Call, repeats: int) -> float:
        """Mean seconds from the start of a call until its results are there."""
        start = self._now()
        for _ in range(repeats):
            call()
        return (self._now() - start) / repeats


class DeviceClock:
    """Time that GPUs were busy, by JAX's profiler; it sees other libraries' kernels too."""

    name = "device busy"

    def seconds(self, call: Call, repeats: int) -> float:
        """Mean seconds of a call during which a kernel ran or memory was copied.

        Raises:
            ClockError: the trace has no work on a GPU.
        """
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0
        with tempfile.TemporaryDirectory(prefix="trellis-trace-") as folder:
            with jax.profiler.trace(folder, profiler_options=options):
                results = None
                for _ in range(repeats):
                    results = call.start()
                call.wait(results)
            files = sorted(Path(folder).rglob("*.xplane.pb"))
            if not files:
                raise ClockError("JAX's profiler must write a *.xplane.pb file; it wrote none.")
            return busy_seconds(ProfileData.from_file(str(files[-1]))) / repeats


def clock_for(platform: str) -> Clock:
    """The clock of a JAX platform.

    Raises:
        ClockError: there is none.

    Example:
        >>> clock_for("cpu").name, clock_for("gpu").name
        ('wall', 'device busy')
    """
    clocks = {"cpu": WallClock, "gpu": DeviceClock, "cuda": DeviceClock}
    if platform not in clocks:
        raise ClockError(
            f"a platform to measure must be one of {[*clocks]}; received {platform!r}. "
            "Choose one with JAX_PLATFORMS."
        )
    return clocks[platform]()


def busy_seconds(profile: Any) -> float:
    """Time during which at least one GPU was working.

    Counted is what lies on the streams of GPUs, kernels and copies; work that overlaps counts once.
    The other lines of a GPU repeat the same work under the names of steps, modules and operations.

    Args:
        profile: a ``jax.profiler.ProfileData``.

    Raises:
        ClockError: no GPU did anything.
    """
    seen, intervals = [], []
    for plane in profile.planes:
        for line in plane.lines:
            seen.append(f"{plane.name} {line.name}")
            if plane.name.startswith("/device:GPU") and line.name.startswith("Stream"):
                intervals += [(e.start_ns, e.start_ns + e.duration_ns) for e in line.events]
    total = _union(intervals)
    if total <= 0:
        raise ClockError(
            "a trace must hold work on a line 'Stream…' of a plane '/device:GPU…'; received "
            f"{seen or 'nothing'}. Was the work done on a GPU, and may this user trace it (CUPTI)?"
        )
    return total * 1e-9


def _union(intervals: Iterable[tuple[float, float]]) -> float:
    """The length that intervals cover together."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


@dataclass(frozen=True)
class Budget:
    """How long to measure.

    Attributes:
        seconds: a contestant joins no more rounds once it took so long, samples and all.
        rounds: but it joins at least so many,
        most: and no more than so many.
        patience: samples that others disturbed are taken again until they took so many times
            ``seconds``; then the contestant joins no more rounds than it must.
    """

    seconds: float = 2.0
    rounds: int = 3
    most: int = 100
    patience: float = 6.0


class Samples(NamedTuple):
    """Times of one contestant.

    Attributes:
        seconds: of a call, one number a round; ``None`` where it did not join.
        repeats: calls per sample.
        retaken: samples that do not count, because others used the cores meanwhile.
        others: share of the cores that others used during those that count, if it is known.
    """

    seconds: list[float | None]
    repeats: int
    retaken: int = 0
    others: float | None = None

    @property
    def taken(self) -> list[float]:
        """The times of the rounds that it joined."""
        return [value for value in self.seconds if value is not None]


def order(names: Sequence[str], turn: int, seed: int = 0) -> list[str]:
    """Who goes when: shuffled anew for every block of rounds, and rotated inside it.

    In a block of as many rounds as there are names, each has every place once.

    Example:
        >>> [order("ab", turn)[0] for turn in range(2)] in (["a", "b"], ["b", "a"])
        True
    """
    block, place = divmod(turn, len(names))
    generator = np.random.default_rng((seed, block))
    shuffled = [names[int(i)] for i in generator.permutation(len(names))]
    return shuffled[place:] + shuffled[:place]


def interleave(
    calls: Mapping[str, Call],
    clock: Clock,
    budget: Budget,
    *,
    known: Mapping[str, float] | None = None,
    others: Callable[[], float | None] | None = None,
    seed: int = 0,
    now: Callable[[], float] = time.perf_counter,
) -> dict[str, Samples]:
    """Time all calls in turns, so that a change of the machine's speed meets all of them.

    Each is made a few times before the first round. Where a call is short, every sample begins with
    an untimed one: caches then hold its data, and threads of the contestant before it sleep. A
    sample during which other processes or machines had the cores is taken again.

    Args:
        calls: by name.
        clock: takes the times that are returned.
        budget: how long.
        known: about how many seconds a call took before; one that took long needs no trial.
        others: core seconds that others have used so far, such as ``machine.seconds_of_others``;
            by default nobody watches them.
        seed: of the order.
        now: what the budget is spent by.
    """
    names = list(calls)
    once = {
        name: took if (took := (known or {}).get(name, 0.0)) >= LONG else _once(calls[name], now)
        for name in names
    }
    repeats = {name: min(MAX_REPEATS, math.ceil(SAMPLE_SECONDS / once[name])) for name in names}
    tallies = {name: _Tally() for name in names}
    rounds: list[dict[str, float]] = []

    def joins(name: str) -> bool:
        mine = tallies[name]
        left = mine.spent < budget.seconds and mine.wasted < budget.patience * budget.seconds
        return mine.joined < budget.rounds or (left and mine.joined < budget.most)

    def sample(name: str) -> float:
        mine = tallies[name]
        while True:
            start, before = now(), others and others()
            if once[name] < SETTLE_SECONDS:
                calls[name]()
            seconds = clock.seconds(calls[name], repeats[name])
            passed, after = now() - start, others and others()
            used = None if before is None or after is None else max(0.0, after - before)
            allowed = max(DISTURBED * _CORES * passed, ACCOUNT_SECONDS)
            patient = mine.wasted < budget.patience * budget.seconds
            if used is None or used <= allowed + 1e-6 or not patient:
                mine.joined += 1
                mine.spent += passed
                mine.others = None if used is None or mine.others is None else mine.others + used
                return seconds
            mine.retaken += 1
            mine.wasted += passed

    while active := [name for name in order(names, len(rounds), seed) if joins(name)]:
        rounds.append({name: sample(name) for name in active})
    return {
        name: Samples(
            [taken.get(name) for taken in rounds], repeats[name], mine.retaken, mine.share()
        )
        for name, mine in tallies.items()
    }


@dataclass
class _Tally:
    """What a contestant used of its budget, in seconds, and others of the cores meanwhile."""

    joined: int = 0
    spent: float = 0.0
    retaken: int = 0
    wasted: float = 0.0
    others: float | None = 0.0

    def share(self) -> float | None:
        """Of all cores that others used during the samples that count."""
        if self.others is None or self.spent <= 0:
            return None
        return round(min(1.0, self.others / (self.spent * _CORES)), 3)


def _once(call: Call, now: Callable[[], float]) -> float:
    """About how long a call takes; only the first is made if that is long."""
    best = math.inf
    for _ in range(4):
        start = now()
        call()
        best = min(best, max(now() - start, 1e-9))
        if best >= SETTLE_SECONDS:
            break
    return best


class Spread(NamedTuple):
    """The median with the quartiles."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles.

    Example:
        >>> spread([1.0, 2.0, 3.0, 4.0, 100.0])
        Spread(median=3.0, low=2.0, high=4.0)
    """
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Spread(float(median), float(low), float(high))


class Ratio(NamedTuple):
    """How many times as long as another a call took.

    Attributes:
        median: of the ratios within each round.
        low: lower end of an interval for the true median, by order statistics,
        high: its upper end,
        level: and the probability that it covers that median, 0.95 if there are pairs enough.
        pairs: number of rounds that both joined.
    """

    median: float
    low: float
    high: float
    level: float
    pairs: int


def paired_ratio(theirs: Samples, ours: Samples, level: float = 0.95) -> Ratio | None:
    """Their time over ours, round by round; ``None`` if they have no round in common.

    Example:
        >>> paired_ratio(Samples([2.0, 6.0, None], 1), Samples([1.0, 2.0, 9.0], 1))
        Ratio(median=2.5, low=2.0, high=3.0, level=0.5, pairs=2)
    """
    both = zip(theirs.seconds, ours.seconds, strict=False)
    ratios = sorted(a / b for a, b in both if a is not None and b is not None)
    if not ratios:
        return None
    count = len(ratios)
    inside, skipped = _coverage(count, 0), 0
    while skipped + 1 < count / 2 and _coverage(count, skipped + 1) >= level:
        skipped += 1
        inside = _coverage(count, skipped)
    median = float(np.median(ratios))
    return Ratio(median, ratios[skipped], ratios[count - 1 - skipped], inside, count)


def _coverage(count: int, skipped: int) -> float:
    """Probability that the median of a distribution lies between two order statistics.

    The interval leaves out as many of the ``count`` values on each side as ``skipped`` says.
    """
    outside = sum(math.comb(count, i) for i in range(skipped + 1)) / 2**count
    return max(0.0, 1 - 2 * outside)
