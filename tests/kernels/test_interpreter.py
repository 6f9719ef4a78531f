"""The interpreter: what it computes, and that each of its detectors catches a planted fault."""

# pyright: reportMissingImports=false, reportInvalidTypeForm=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

import ml_dtypes
import numpy as np
import pytest

from kernels import interpreter

triton = pytest.importorskip("triton", reason="needs Triton, which is for Linux only")
tl = pytest.importorskip("triton.language", reason="needs Triton, which is for Linux only")


@triton.jit
def add(x, y, out, size: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(x + i, mask=i < size) + tl.load(y + i, mask=i < size)
    tl.store(out + i, total, mask=i < size)


@triton.jit
def add_unmasked(x, out, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i))


@triton.jit
def load_beyond(x, out, size: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    value = tl.load(x + i)
    tl.store(out + i, value, mask=i < size)


@triton.jit
def all_write_the_first(out):
    tl.store(out, tl.program_id(0))


@triton.jit
def read_the_neighbour(x, size: tl.constexpr):
    i = tl.program_id(0)
    tl.store(x + i, tl.load(x + (i + 1) % size))


@triton.jit
def two_lanes_one_element(out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i // 2, i)


@triton.jit
def count(out):
    tl.atomic_add(out, 1)


@triton.jit
def write_and_count(out):
    if tl.program_id(0) == 0:
        tl.store(out, 0)
    tl.atomic_add(out, 1)


@triton.jit
def leave_one_out(out, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, 1.0, mask=i != 3)


@triton.jit
def sum_to(bound, out):
    total = 0
    for i in range(tl.load(bound)):
        total += i
    tl.store(out, total)


@triton.jit
def scalar_mask(x, out, size: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, BLOCK)
    value = tl.load(x + row * BLOCK + i, mask=row < size, other=-1.0)
    tl.store(out + row * BLOCK + i, tl.where(row < size, value, -2.0))


@triton.jit
def bfloat16_arithmetic(x, y, product, larger, total, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(product + i, a * b)
    tl.store(larger + i, (a > b).to(tl.int32))
    tl.store(total, tl.sum(a.to(tl.float32), 0))


@triton.jit
def append_program(order, position, size: tl.constexpr):
    tl.store(order + tl.atomic_add(position, 1), tl.program_id(0))


def test_adds_and_leaves_the_language_as_it_was():
    before = tl.load, tl.range
    x, y = np.arange(10, dtype=np.float32), np.ones(10, np.float32)
    out = interpreter.poisoned((10,), np.float32)
    interpreter.run(add, (3,), x, y, out, size=10, BLOCK=4)
    np.testing.assert_array_equal(out, x + y)
    assert (tl.load, tl.range) == before


def test_a_store_and_a_load_out_of_bounds_are_found():
    x = np.zeros(10, np.float32)
    with pytest.raises(interpreter.OutOfBounds, match=r"outside every array \(x, out\)"):
        interpreter.run(add_unmasked, (3,), x, np.zeros(12, np.float32), BLOCK=4)
    with pytest.raises(interpreter.OutOfBounds, match="program 0 reads 6 address"):
        interpreter.run(load_beyond, (1,), x, np.zeros(10, np.float32), size=10, BLOCK=16)


def test_two_programs_that_write_one_element_are_found():
    with pytest.raises(interpreter.Race, match=r"writes out\[0\].*written by another"):
        interpreter.run(all_write_the_first, (2,), np.zeros(1, np.int32))


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
def test_a_program_that_reads_what_another_writes_is_found_in_any_order(seed):
    with pytest.raises(interpreter.Race, match="by another program"):
        interpreter.run(
            read_the_neighbour, (4,), np.arange(4.0, dtype=np.float32), size=4, seed=seed
        )


def test_two_lanes_that_write_one_element_are_found():
    with pytest.raises(interpreter.Race, match="twice in one store"):
        interpreter.run(two_lanes_one_element, (1,), np.zeros(4, np.int32), BLOCK=8)


def test_one_program_reads_what_it_wrote_and_atomics_may_meet():
    out = np.zeros(1, np.int32)
    interpreter.run(count, (5,), out)
    assert out[0] == 5
    alone = np.arange(1.0, 2.0, dtype=np.float32)
    interpreter.run(read_the_neighbour, (1,), alone, size=1)


def test_a_plain_access_to_what_atomics_update_is_found():
    with pytest.raises(interpreter.Race, match="updates out"):
        interpreter.run(write_and_count, (2,), np.zeros(1, np.int32))


def test_what_a_kernel_leaves_out_shows():
    out = interpreter.poisoned((8,), np.float32)
    interpreter.run(leave_one_out, (1,), out, BLOCK=8)
    assert np.flatnonzero(np.isnan(out)).tolist() == [3]
    assert (interpreter.poisoned((2,), np.int32) == -1).all()
    assert np.isnan(interpreter.poisoned((2,), ml_dtypes.bfloat16).astype(np.float32)).all()


def test_programs_run_in_shuffled_order():
    def order(seed):
        out, position = interpreter.poisoned((16,), np.int32), np.zeros(1, np.int32)
        interpreter.run(
            append_program, (16,), out, position, size=16, seed=seed, check_memory=False
        )
        return out.tolist()

    assert order(None) == list(range(16))
    assert sorted(order(0)) == list(range(16))
    assert order(0) == order(0) != order(None)
    assert order(1) != order(0)


def test_a_loop_runs_to_a_bound_that_was_loaded():
    out = np.zeros(1, np.int32)
    interpreter.run(sum_to, (1,), np.array([5], np.int32), out)
    assert out[0] == 10


def test_a_scalar_comparison_masks_a_block():
    x = np.arange(8, dtype=np.float32)
    out = interpreter.poisoned((8,), np.float32)
    interpreter.run(scalar_mask, (2,), x, out, size=1, BLOCK=4)
    assert out.tolist() == [0, 1, 2, 3, -2, -2, -2, -2]


def test_bfloat16_is_that_of_the_device():
    generator = np.random.default_rng(0)
    x, y = (generator.normal(size=32).astype(ml_dtypes.bfloat16) for _ in range(2))
    product, larger = interpreter.poisoned((32,), x.dtype), interpreter.poisoned((32,), np.int32)
    total = interpreter.poisoned((1,), np.float32)
    interpreter.run(bfloat16_arithmetic, (1,), x, y, product, larger, total, BLOCK=32)
    np.testing.assert_array_equal(product, x * y)
    np.testing.assert_array_equal(larger, x > y)
    np.testing.assert_allclose(total[0], x.astype(np.float32).sum(), rtol=1e-6)


def test_arrays_must_be_contiguous():
    with pytest.raises(ValueError, match="x must be C-contiguous"):
        interpreter.run(add_unmasked, (1,), np.zeros((4, 2))[:, 0], np.zeros(4), BLOCK=4)
