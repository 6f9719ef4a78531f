"""What a measurement says of the machine, and the ceilings it is held against."""

import pytest

from kernels import machine


def test_a_device_has_no_name_of_its_host(monkeypatch):
    monkeypatch.setattr(machine.platform, "node", lambda: pytest.fail("asked for the host's name"))
    described = machine.describe_machine()
    assert described["cpus"] >= 1
    assert described["driver"] is None


def test_ceilings_are_rates_of_the_clock_that_times_the_contestants():
    class OneSecond:
        name = "invented"

        def seconds(self, call, repeats):
            call()
            return 1.0

    found = machine.measure_ceilings(["float32", "bfloat16"], OneSecond(), (2**16, 16))
    assert found == {"copy": 2 * 2**16, "float32": 2 * 16**3, "bfloat16": 2 * 16**3}


def test_one_sample_that_lost_part_of_the_work_does_not_set_the_ceiling():
    class Losing:
        name = "invented"

        def __init__(self):
            self.samples = 0

        def seconds(self, call, repeats):
            self.samples += 1
            return 1e-3 if self.samples == 5 else 1.0

    assert machine.measure_ceilings([], Losing(), (2**16, 16)) == {"copy": 2 * 2**16}


def test_the_work_of_others_is_what_is_left_of_all_work(monkeypatch):
    # user nice system idle iowait irq softirq steal, and guests, who are users already
    monkeypatch.setattr(machine.Path, "read_text", lambda *_, **__: "cpu  100 20 50 900 7 3 1 40 9")
    monkeypatch.setattr(machine.time, "process_time", lambda: 0.75)
    monkeypatch.setattr(machine.os, "sysconf", {"SC_CLK_TCK": 100}.__getitem__)
    assert machine.seconds_of_others() == pytest.approx(2.14 - 0.75)


def test_without_the_kernels_account_it_is_not_known(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(machine.Path, "read_text", missing)
    assert machine.seconds_of_others() is None
