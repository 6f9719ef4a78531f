"""Contestants with invented times, and one tiny problem, for the tests of the benchmark."""

import contextlib
import functools

import pytest

from kernels import bench, contestants, problems
from kernels.contestants import Contestant, find_truth
from kernels.convolution.depthwise1d import tuning
from kernels.convolution.depthwise1d.tuning import Shape
from kernels.peers import JaxPeer
from kernels.timing import Budget, Call

TINY = Shape(2, 6, 3, 2)
CEILINGS = {"copy": 1e9, "float32": 1e10, "bfloat16": 2e10, "float16": 3e10}


@functools.cache
def call(dtype="float32"):
    return tuning.problem("depthwise_conv1d", "tiny", TINY, dtype)


@functools.cache
def truth(dtype="float32"):
    return find_truth(call(dtype))


class FakeClock:
    """Seconds that a test chose, by what the call returns."""

    name = "invented"

    def __init__(self, **seconds):
        self.left = {name: list(values) for name, values in seconds.items()}

    def seconds(self, call, repeats):
        return self.left[call()].pop(0)


def entrant(name, *, ours=False, results=None):
    """A contestant whose call returns its name and whose results are right."""
    exact = truth().exact if results is None else results
    return Contestant(
        name, ours, Call(lambda: name, lambda _: None), lambda _: exact, 0.5, 2**20, 2**21
    )


def setting(clock, rounds=3, longest=1e9):
    common = {"run": "r", "device": "a device", "sizes": {}}
    return bench.Setting(clock, Budget(1e-9, rounds), CEILINGS, longest, common)


def record(**changes):
    """A record of one contestant that took a millisecond each time."""
    clock = FakeClock(**{"ours/xla": [1e-3] * 3})
    only = [entrant("ours/xla", ours=True)]
    (made,) = bench.measure(call(), True, truth(), setting(clock), only)
    about = {"driver": None, "versions": {"jax": "1"}, "cpus": 2, "load": 0.5, "commit": None}
    return {**made, **about, "time": "t", **changes}


@pytest.fixture
def small_bench(monkeypatch):
    """One tiny shape of one operation, known ceilings, no library peer, the cache of the tests."""
    monkeypatch.setattr(problems, "FAMILIES", {"convolution": ("depthwise_conv1d",)})
    monkeypatch.setattr(contestants, "compiled_afresh", contextlib.nullcontext)
    monkeypatch.setattr(tuning, "SHAPES", {"tiny": TINY})
    monkeypatch.setattr(bench, "measure_ceilings", lambda *_: CEILINGS)
    monkeypatch.setattr(contestants, "find_truth", lambda problem: truth(problem.dtype))
    monkeypatch.setattr(contestants, "peers", lambda _: {"plain": plain})


def plain(problem, gradient):
    del gradient
    return JaxPeer(problem.plain(), "a remark on the peer")


def main(*arguments):
    """The command line's exit status."""
    return bench.main([*arguments])
