"""Transformers by their properties: what each position can see, and what order means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_matrix import compiled_in_haste

from research.models.transformer import TransformerBlock
from research.models.transformer_lm import TransformerLM
from research.models.vit import ViT, patches


@pytest.fixture(autouse=True)
def haste():
    with compiled_in_haste():
        yield


def random(shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("causal", [True, False])
def test_what_a_position_sees_by_its_gradient(causal):
    block, x = TransformerBlock(heads=2, causal=causal), random((1, 6, 8))
    params = jax.jit(block.init)(jax.random.key(0), x)

    def outputs(x):
        return jnp.sum(jnp.asarray(block.apply(params, x)), axis=(0, 2))

    reach = jnp.abs(jax.jit(jax.jacobian(outputs))(x)).sum(axis=(1, 3)) > 1e-6
    expected = np.tril(np.ones((6, 6), bool)) if causal else np.ones((6, 6), bool)
    np.testing.assert_array_equal(reach, expected)


def test_a_block_without_a_mask_knows_no_order():
    block, x = TransformerBlock(heads=2, causal=False), random((1, 6, 8))
    params = jax.jit(block.init)(jax.random.key(0), x)
    order = jnp.array([3, 0, 5, 1, 4, 2])
    apply = jax.jit(block.apply)
    np.testing.assert_allclose(apply(params, x[:, order]), apply(params, x)[:, order], atol=1e-5)


def test_the_future_of_a_text_changes_no_prediction_and_its_past_each():
    model = TransformerLM(symbols=11, max_length=8, width=8, heads=2, blocks=2)
    text = np.arange(8)[None]
    params = jax.jit(model.init)(jax.random.key(0), text)["params"]
    apply = jax.jit(lambda text: model.apply({"params": params}, text))
    before = np.asarray(apply(text))
    for position in range(8):
        changed = np.where(np.arange(8) == position, 10, text)
        change = np.abs(apply(changed) - before)[0].max(axis=1)
        assert (change[:position] == 0).all()
        assert (change[position:] > 0).all()


def test_a_short_text_is_the_beginning_of_a_long_one():
    model = TransformerLM(symbols=5, max_length=8, width=8, heads=2, blocks=1)
    text = jnp.array([[0, 1, 2, 3, 4, 3, 2, 1]])
    params = jax.jit(model.init)(jax.random.key(0), text)
    apply = jax.jit(model.apply)
    whole, part = (np.asarray(apply(params, text[:, :length])) for length in (8, 3))
    np.testing.assert_allclose(whole[:, :3], part, atol=1e-5)
    with pytest.raises(ValueError, match="at most max_length = 8 symbols; received 9"):
        model.init(jax.random.key(0), jnp.zeros((1, 9), jnp.int32))


def test_patches_are_put_together_again_by_hand():
    images = random((2, 6, 9, 2))
    cut = np.asarray(patches(images, 3))
    assert cut.shape == (2, 6, 18)
    for row in range(2):
        for column in range(3):
            square = images[:, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            np.testing.assert_array_equal(cut[:, 3 * row + column], square.reshape(2, -1))
    with pytest.raises(ValueError, match="multiples of the patch of 4 pixels; received 6x9"):
        patches(images, 4)


def test_a_vision_transformer_knows_where_patches_are_by_their_positions_alone():
    model = ViT(classes=3, patch=2, width=8, heads=2, blocks=1)
    images = np.asarray(random((1, 4, 4, 1)))
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]
    moved = images[:, ::-1, ::-1].reshape(1, 2, 2, 2, 2, 1)[:, :, ::-1, :, ::-1]
    moved = moved.reshape(1, 4, 4, 1)  # the patches in another order, each as it was
    without = {**params, "positions": jnp.zeros_like(params["positions"])}

    logits = jax.jit(lambda params, images: model.apply({"params": params}, images))

    np.testing.assert_allclose(logits(without, moved), logits(without, images), atol=1e-5)
    assert np.abs(logits(params, moved) - logits(params, images)).max() > 1e-4


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="multiple of the number of heads; received 8 and 3"):
        TransformerBlock(heads=3, causal=True).init(jax.random.key(0), random((1, 2, 8)))
