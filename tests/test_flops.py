"""The count of matrix products, against formulas and against XLA's own."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest
from compilation import compiled_in_haste

import kernels
from research.flops import matrix_flops
from research.models.conformer import Conformer
from research.objectives.ctc import ctc


def shaped(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def test_batched_products_and_their_gradients():
    x, y = shaped(7, 2, 3), shaped(7, 3, 5)

    def product(x, y):
        return jnp.einsum("bij,bjk->bik", x, y)

    assert matrix_flops(product, x, y) == 2 * 7 * 2 * 3 * 5
    every = jax.value_and_grad(lambda x, y: product(x, y).sum(), argnums=(0, 1))
    # Each of the two gradients is as dear as the product.
    assert matrix_flops(jax.jit(every), x, y) == 3 * 2 * 7 * 2 * 3 * 5


def test_a_loop_counts_as_often_as_it_runs():
    def rolled(x):
        return jax.lax.fori_loop(0, 6, lambda _, y: y @ x, x)

    def scanned(x):
        return jax.lax.scan(lambda y, _: (jax.checkpoint(jnp.matmul)(y, x), None), x, length=6)[0]

    assert matrix_flops(rolled, shaped(4, 4)) == 6 * 2 * 4**3
    assert matrix_flops(scanned, shaped(4, 4)) == 6 * 2 * 4**3


def test_the_dearest_branch_counts():
    def either(condition, x):
        return jax.lax.cond(condition, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert matrix_flops(either, shaped(dtype=jnp.bool_), shaped(4, 4)) == 2 * 2 * 4**3


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups):
    x, w = shaped(2, 9, 6, 4), shaped(3, 3, 4 // groups, 8)

    def convolve(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (1, 1), "SAME", feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    assert matrix_flops(convolve, x, w) == 2 * (2 * 9 * 6 * 8) * (3 * 3 * 4 // groups)


def test_our_own_operations_count_as_xla_computes_them():
    x, w = shaped(2, 8, 6, 4), shaped(3, 3, 4, 8)
    forward = 2 * (2 * 8 * 6 * 8) * (3 * 3 * 4)
    assert matrix_flops(kernels.conv2d, x, w) == forward
    gradients = jax.value_and_grad(lambda x, w: kernels.conv2d(x, w).sum(), argnums=(0, 1))
    assert matrix_flops(gradients, x, w) == 3 * forward


def test_a_training_step_is_what_xla_counts_of_the_compiled_program():
    encoder = Conformer(classes=11, width=32, layers=1, heads=2, size=3)
    features, lengths = shaped(2, 64, 20), shaped(2, dtype=jnp.int32)
    labels, paddings = shaped(2, 4, dtype=jnp.int32), shaped(2, 4)
    params = jax.eval_shape(encoder.init, jax.random.key(0), features, lengths)

    def loss(params, features, lengths, labels, paddings):
        logits: Any = encoder.apply(params, features, lengths)
        return ctc(logits, encoder.output_lengths(lengths), labels, paddings)

    step = jax.jit(jax.value_and_grad(loss))
    arguments = params, features, lengths, labels, paddings
    with compiled_in_haste():
        analysis: Any = step.lower(*arguments).compile().cost_analysis()
    counted = matrix_flops(step, *arguments)
    # XLA counts what is not a matrix product too.
    assert 0.85 < counted / analysis["flops"] <= 1.0
