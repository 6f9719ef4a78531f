"""Clocks, turns and paired statistics, on invented machines whose time is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.profiler import ProfileData

from kernels import timing
from kernels.timing import Budget, Call, ClockError, Samples


class Machine:
    """Invented time: a call of a contestant lasts its cost, times the slowness of the moment."""

    name = "invented"

    def __init__(self, **costs):
        self.time, self.slowness, self.costs = 0.0, 1.0, costs
        self.log, self.sampled = [], []

    def now(self):
        return self.time

    def calls(self):
        return {
            name: Call(lambda name=name: self.work(name), lambda _: None) for name in self.costs
        }

    def work(self, name):
        self.log.append(name)
        self.time += self.costs[name] * self.slowness
        return name

    def seconds(self, call, repeats):
        start = self.time
        self.sampled += {call() for _ in range(repeats)}
        return (self.time - start) / repeats

    def measure(self, others=None, **budget):
        calls = self.calls()
        return timing.interleave(calls, self, Budget(**budget), others=others, now=self.now)


# ---------------------------------------------------------------- Clocks


@pytest.mark.parametrize(
    ("platform", "kind"),
    [("cpu", timing.WallClock), ("gpu", timing.DeviceClock), ("cuda", timing.DeviceClock)],
)
def test_each_platform_has_its_clock(platform, kind):
    assert type(timing.clock_for(platform)) is kind


def test_the_clocks_have_different_names():
    assert timing.WallClock.name != timing.DeviceClock.name


def test_a_platform_without_a_clock_is_refused():
    with pytest.raises(ClockError, match="received 'tpu'"):
        timing.clock_for("tpu")


def test_the_wall_clock_gives_the_mean_and_waits_for_each_call():
    machine = Machine(a=2.0)
    waited = []
    call = Call(lambda: machine.work("a"), waited.append)
    assert timing.WallClock(machine.now).seconds(call, 5) == 2.0
    assert waited == ["a"] * 5


def trace(*planes):
    """A trace: (plane, line, [(start, duration) in microseconds])."""
    text = ""
    for plane, line, events in planes:
        written = "".join(
            f"events {{ metadata_id: 1 offset_ps: {int(s * 1e6)} duration_ps: {int(d * 1e6)} }} "
            for s, d in events
        )
        text += (
            f'planes {{ name: "{plane}" lines {{ name: "{line}" timestamp_ns: 5000 {written} }} '
            'event_metadata { key: 1 value { id: 1 name: "kernel" } } }\n'
        )
    return text


@pytest.mark.parametrize(
    ("planes", "microseconds"),
    [
        ([("/device:GPU:0", "Stream #7(Compute)", [(0, 3), (10, 4)])], 7),
        # Kernels of one stream, then of two, that overlap; one inside another.
        ([("/device:GPU:0", "Stream #7(Compute)", [(4, 4), (0, 5), (1, 2)])], 8),
        (
            [
                ("/device:GPU:0", "Stream #7(Compute)", [(0, 5)]),
                ("/device:GPU:0", "Stream #9(MemcpyD2D)", [(3, 5), (20, 1)]),
            ],
            9,
        ),
        # Another GPU counts when the first is idle.
        (
            [
                ("/device:GPU:0", "Stream #7", [(0, 5)]),
                ("/device:GPU:1", "Stream #7", [(2, 10)]),
            ],
            12,
        ),
        # The host, other devices and what a GPU's other lines say of the same work do not count.
        (
            [
                ("/host:CPU", "Stream #7", [(0, 50)]),
                ("/device:CUSTOM:x", "Stream #7", [(0, 60)]),
                ("/device:GPU:0", "XLA Modules", [(0, 90)]),
                ("/device:GPU:0", "Steps", [(0, 90)]),
                ("/device:GPU:0", "Stream #7", [(0, 5)]),
            ],
            5,
        ),
    ],
)
def test_the_device_was_busy_while_anything_ran_on_a_gpu(planes, microseconds):
    profile = ProfileData.from_text_proto(trace(*planes))
    assert timing.busy_seconds(profile) == pytest.approx(microseconds * 1e-6, abs=1e-12)


@pytest.mark.parametrize(
    "planes",
    [[], [("/host:CPU", "python", [(0, 5)])], [("/device:GPU:0", "Stream #7", [])]],
)
def test_a_trace_without_work_on_a_gpu_is_an_error(planes):
    with pytest.raises(ClockError, match="Stream") as error:
        timing.busy_seconds(ProfileData.from_text_proto(trace(*planes)))
    assert not planes or planes[0][0] in str(error.value)


def test_the_device_clock_refuses_to_time_a_cpu():
    """Through JAX's own profiler: a real trace, in which no GPU is."""
    double = jax.jit(lambda x: 2 * x)
    with pytest.raises(ClockError, match="/host:CPU"):
        timing.DeviceClock().seconds(Call(lambda: double(jnp.ones(3))), 1)


def test_the_device_clock_divides_by_the_calls_and_waits_before_the_trace_ends(monkeypatch):
    events = []

    class Tracing:
        def __init__(self, folder, **_):
            self.folder = folder

        def __enter__(self):
            events.append("begin")

        def __exit__(self, *_):
            events.append("end")
            text = trace(("/device:GPU:0", "Stream #7", [(0, 3), (5, 3)]))
            data = ProfileData.text_proto_to_serialized_xspace(text)
            with open(f"{self.folder}/host.xplane.pb", "wb") as file:
                file.write(data)

    monkeypatch.setattr(jax.profiler, "trace", Tracing)
    call = Call(lambda: events.append("start"), lambda _: events.append("wait"))
    assert timing.DeviceClock().seconds(call, 2) == pytest.approx(3e-6)
    assert events == ["begin", "start", "start", "wait", "end"]


def test_a_profiler_that_writes_nothing_is_an_error(monkeypatch):
    import contextlib

    monkeypatch.setattr(jax.profiler, "trace", lambda *_, **__: contextlib.nullcontext())
    with pytest.raises(ClockError, match="wrote none"):
        timing.DeviceClock().seconds(Call(lambda: None), 1)


# ---------------------------------------------------------------- Turns


def test_in_a_block_of_rounds_everyone_has_every_place_once():
    names = ["a", "b", "c", "d"]
    for block in range(5):
        rounds = [timing.order(names, 4 * block + turn) for turn in range(4)]
        assert all(sorted(each) == names for each in rounds)
        assert all(sorted(place) == names for place in zip(*rounds, strict=True))


def test_the_order_depends_on_block_and_seed_alone():
    names = list("abcdef")
    orders = [timing.order(names, 0, seed) for seed in range(5)]
    assert orders == [timing.order(names, 0, seed) for seed in range(5)]
    assert len(set(map(tuple, orders))) > 1
    assert timing.order(names, 0) not in [timing.order(names, turn) for turn in range(6, 12)]


def test_contestants_take_turns_in_that_order():
    machine = Machine(a=0.2, b=0.2, c=0.2)
    machine.measure(seconds=0.5, rounds=3)
    rounds = [machine.sampled[i : i + 3] for i in range(0, len(machine.sampled), 3)]
    assert rounds == [timing.order(["a", "b", "c"], turn) for turn in range(len(rounds))]


def test_a_slow_contestant_leaves_after_the_least_rounds_and_the_others_go_on():
    taken = Machine(slow=50.0, quick=0.5).measure(seconds=4.0, rounds=3)
    assert len(taken["slow"].taken) == 3
    assert len(taken["quick"].taken) == 8
    assert taken["slow"].seconds == [50.0] * 3 + [None] * 5


def test_a_quick_contestant_stops_at_the_most_rounds():
    assert len(Machine(a=1e-4).measure(seconds=1e9, most=12)["a"].taken) == 12


def test_short_calls_are_repeated_and_preceded_by_an_untimed_one():
    machine = Machine(short=1e-3, long=0.3)
    taken = machine.measure(seconds=1e-9, rounds=3)
    assert taken["short"].repeats == 20
    assert taken["long"].repeats == 1
    assert taken["short"].seconds == pytest.approx([1e-3] * 3)
    first = 4  # calls before the first round, made to see how long one takes
    assert machine.log.count("short") == first + 3 * (1 + 20)
    assert machine.log.count("long") == 1 + 3


def test_a_call_known_to_be_long_is_made_only_to_be_timed():
    machine = Machine(long=5.0, other=5.0)
    taken = timing.interleave(
        machine.calls(), machine, Budget(1.0, 3), known={"long": 5.2}, now=machine.now
    )
    assert machine.log.count("long") == len(taken["long"].taken) == 3
    assert machine.log.count("other") == 1 + 3


def test_a_machine_that_changes_its_speed_leaves_the_ratios_alone():
    machine = Machine(ours=0.2, theirs=0.6)
    seconds = machine.seconds

    def drifting(call, repeats):
        machine.slowness = 1.0 + len(machine.sampled) // 2
        return seconds(call, repeats)

    machine.seconds = drifting
    taken = machine.measure(seconds=20.0, rounds=5)
    assert max(taken["ours"].taken) > 2 * min(taken["ours"].taken)
    ratio = timing.paired_ratio(taken["theirs"], taken["ours"])
    assert ratio is not None
    assert (ratio.low, ratio.median, ratio.high) == pytest.approx((3.0, 3.0, 3.0))


class Neighbour:
    """Others on the cores of an invented machine, at work during every third sample or so."""

    def __init__(self, machine, busy):
        self.machine, self.busy, self.used, self.readings = machine, busy, 0.0, 0

    def __call__(self):
        self.readings += 1
        if self.readings % 2 == 0 and self.busy(self.readings // 2):
            self.used += 0.5 * timing._CORES  # of the second that a call takes
        return self.used


def test_a_sample_that_others_disturbed_is_taken_again():
    machine = Machine(only=1.0)
    neighbour = Neighbour(machine, lambda sample: sample % 3 == 1)
    only = machine.measure(others=neighbour, seconds=4.5, rounds=1)["only"]
    assert (len(only.taken), only.retaken, only.others) == (5, 3, 0.0)
    assert machine.log.count("only") == 1 + 5 + 3


def test_where_others_never_rest_patience_ends_and_the_record_says_so():
    machine = Machine(only=1.0)
    always = Neighbour(machine, lambda sample: True)
    only = machine.measure(others=always, seconds=2.0, rounds=3, patience=4.0)["only"]
    assert (len(only.taken), only.retaken, only.others) == (3, 8, 0.5)


def test_what_the_account_of_the_system_cannot_tell_is_no_disturbance():
    machine = Machine(short=0.001)
    neighbour = Neighbour(machine, lambda sample: False)
    jitter = iter([0.0, timing.ACCOUNT_SECONDS, 0.0, -timing.ACCOUNT_SECONDS] * 50)
    short = machine.measure(others=lambda: neighbour() + next(jitter), seconds=1e-9)["short"]
    assert (len(short.taken), short.retaken) == (3, 0)


def test_a_system_without_such_an_account_repeats_nothing():
    only = Machine(only=1.0).measure(others=lambda: None, seconds=2.0)["only"]
    assert (len(only.taken), only.retaken, only.others) == (3, 0, None)


# ---------------------------------------------------------------- Statistics


def test_only_rounds_that_both_joined_are_paired():
    ratio = timing.paired_ratio(Samples([4.0, None, 9.0], 1), Samples([2.0, 5.0, 3.0, 7.0], 1))
    assert ratio == (2.5, 2.0, 3.0, 0.5, 2)


def test_without_a_round_in_common_there_is_no_ratio():
    assert timing.paired_ratio(Samples([None, 1.0], 1), Samples([1.0], 1)) is None


@pytest.mark.parametrize(
    ("count", "low", "high", "level"),
    # Order statistics around the median, from tables of the sign test.
    [(3, 1, 3, 0.75), (6, 1, 6, 0.96875), (9, 2, 8, 0.9609375), (20, 6, 15, 0.9586105)],
)
def test_the_interval_of_a_ratio_states_its_level(count, low, high, level):
    values = [float(i) for i in range(1, count + 1)]
    ratio = timing.paired_ratio(Samples(list(values[::-1]), 1), Samples([1.0] * count, 1))
    assert ratio is not None
    assert (ratio.low, ratio.high, ratio.pairs) == (low, high, count)
    assert ratio.level == pytest.approx(level, abs=1e-6)
