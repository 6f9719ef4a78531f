import gc
import threading
import time
import weakref

import pytest

from research.data.prefetch import Prefetched
from research.errors import ConfigError, DataError


def test_every_step_gets_its_own_batch_wherever_it_begins():
    def slower_first(step):
        time.sleep(0.002 * (step % 3 == 0))
        return step

    for start in (0, 5):
        with Prefetched(slower_first, stop=20, ahead=6, workers=3) as batches:
            assert [batches(step) for step in range(start, 20)] == list(range(start, 20))


def test_the_next_batches_are_read_while_one_is_used_and_none_beyond_the_end():
    asked, read = [], threading.Event()

    def batch(step):
        asked.append(step)
        if len(asked) == 3:
            read.set()
        return step

    with Prefetched(batch, stop=3, ahead=8, workers=1) as batches:
        assert batches(0) == 0
        assert read.wait(timeout=10)
    assert sorted(asked) == [0, 1, 2]


def test_a_step_out_of_order_is_read_then():
    with Prefetched(lambda step: step, stop=100, ahead=2, workers=1) as batches:
        assert [batches(step) for step in (0, 50, 51, 3)] == [0, 50, 51, 3]


def test_what_was_read_ahead_of_another_place_is_not_kept():
    class Batch:
        pass

    read, arrived = {}, threading.Event()

    def batch(step):
        made = Batch()
        read[step] = weakref.ref(made)
        if step == 51:
            arrived.set()
        return made

    with Prefetched(batch, stop=100, ahead=2, workers=1) as batches:
        batches(50)
        assert arrived.wait(timeout=10)
        batches(3)  # read after 51 is, by the only thread
        batches(4)
        gc.collect()
        assert read[51]() is None


def test_an_error_comes_with_its_own_step():
    def broken(step):
        if step == 2:
            raise DataError("damaged")
        return step

    with Prefetched(broken, stop=10, ahead=4, workers=2) as batches:
        assert [batches(0), batches(1)] == [0, 1]
        with pytest.raises(DataError, match="damaged"):
            batches(2)


def test_no_thread_is_an_error():
    with pytest.raises(ConfigError, match="at least 1"):
        Prefetched(lambda step: step, stop=1, workers=0)
