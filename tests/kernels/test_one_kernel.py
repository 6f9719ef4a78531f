"""Loops that XLA is asked to compile as one function: where it is, and that it always can.

XLA ends the process where it cannot, so any failure here is loud.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import AS_USERS_DO, compiled_in_haste

import kernels
from kernels import one_kernel
from kernels.ctc import xla

MARK = 'xla_cpu_small_call = "true"'


def moved(x, count):
    """Each row halved, and moved by its sum and its sum of squares."""

    def body(_, x, weight):
        total, squares = one_kernel.pair_reduced(x, x * x, jnp.add, 0)
        return x * weight + total[:, None] + squares[:, None]

    weight = one_kernel.computed(jnp.float32(0.5) * jnp.ones_like(x))
    return one_kernel.fori_loop(count, body, x, weight, step_bytes=x.nbytes)


def plain(x, count):
    for _ in range(count):
        x = x * 0.5 + x.sum(1, keepdims=True) + (x * x).sum(1, keepdims=True)
    return x


@pytest.mark.parametrize("shape", [(1, 2), (1, 512), (3, 300), (2, 70_000)])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_it_is_the_loop(shape, count):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32) / shape[1]
    found = jax.jit(moved, static_argnums=1, compiler_options=AS_USERS_DO)(x, count)
    chex.assert_trees_all_close(found, plain(x, count), rtol=1e-4, atol=1e-5)


def test_a_large_loop_is_marked_for_a_cpu_alone():
    def text(shape, platform):
        traced = jax.jit(lambda x: moved(x, 3)).trace(jnp.ones(shape))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert MARK in text((4, 64), "cpu")
    assert MARK not in text((4, 63), "cpu")  # XLA does so itself, and its marks do not nest
    assert MARK not in text((4, 64), "tpu")


@pytest.mark.parametrize("reason", ["option", "release"])
def test_no_mark_where_it_might_not_be_understood(monkeypatch, reason):
    if reason == "option":
        monkeypatch.setenv("XLA_FLAGS", f"--xla_backend_extra_options={one_kernel.OPTION}=4096")
    else:
        monkeypatch.setattr(jax, "__version_info__", one_kernel.UNTESTED)
    assert MARK not in jax.jit(lambda x: moved(x, 3)).lower(jnp.ones((4, 64))).as_text()


def loss(logits, labels):
    frames = jnp.zeros(logits.shape[:2])
    return kernels.ctc_loss(logits, frames, labels, jnp.zeros(labels.shape)).sum()


# Rows, frames, classes, labels: around a segment's end, of one row, of one class, without labels,
# with sums that XLA would give to a library.
CTC = [(1, 1, 3, 300), (1, 17, 3, 256), (300, 16, 2, 0), (300, 15, 1, 0), (150, 1, 3, 1)]
CTC += [(2, 33, 5, 200), (64, 17, 3, 600)]


@pytest.mark.parametrize("shape", CTC)
def test_the_ctc_loss_compiles_with_constants(shape):
    rows, frames, classes, count = shape
    # Not all alike, or XLA would know the constant for a broadcast, which it does not fold.
    labels = 1 + np.arange(rows * count).reshape(rows, count) % 5 % max(classes - 1, 1)
    zeros = np.zeros((rows, frames, classes), np.float32)
    compiled = functools.partial(jax.jit, compiler_options=AS_USERS_DO)
    with compiled_in_haste():  # What is given to a library has been by then.
        expected = compiled(jax.value_and_grad(loss))(zeros, labels)
        of_labels = compiled(jax.value_and_grad(lambda logits: loss(logits, labels)))(zeros)
        of_nothing = compiled(lambda: jax.value_and_grad(loss)(jnp.zeros_like(zeros), labels))()
    chex.assert_trees_all_close(of_labels, expected, rtol=1e-6)
    chex.assert_trees_all_close(of_nothing, expected, rtol=1e-6)


def test_a_result_may_go_unused():
    def last_of_two(x):
        given = (x, one_kernel.computed(jnp.zeros_like(x)))
        return one_kernel.fori_loop(3, lambda _, c: (c[0] * 2, c[0]), given, step_bytes=x.nbytes)

    x = jnp.arange(256.0).reshape(2, 128)
    for kept, expected in enumerate((8 * x, 4 * x)):
        compiled = jax.jit(lambda x, kept=kept: last_of_two(x)[kept], compiler_options=AS_USERS_DO)
        found = compiled(x)
        chex.assert_trees_all_equal(found, expected)


def test_the_ctc_loss_alone_compiles():
    operands = jnp.ones((8, 40, 5)), jnp.ones((8, 40)), jnp.ones((8, 32), int), jnp.full(8, 32)
    alone = jax.jit(lambda *o: xla.forward(*o, blank_id=0), compiler_options=AS_USERS_DO)
    (loss,) = alone(*operands)
    assert jnp.all(loss > 0)


def test_the_ctc_recursion_is_one_kernel_each_way():
    operands = jnp.ones((8, 40, 5)), jnp.ones((8, 40)), jnp.ones((8, 32), int), jnp.full(8, 32)
    text = jax.jit(lambda *o: xla.saving(*o, blank_id=0)).lower(*operands).as_text()
    assert text.count(MARK) == 2
