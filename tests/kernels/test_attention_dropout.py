"""Dropout: which probabilities are dropped, everywhere the same ones."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste

import kernels
from kernels.attention import dropout

HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="needs Triton, which is for Linux only")
B, T, N, H = 2, 7, 4, 4


@pytest.fixture(autouse=True)
def in_haste():
    """Each test compiles a few programs that run for microseconds."""
    with compiled_in_haste():
        yield


def inputs():
    generator = np.random.default_rng(0)
    return (jnp.asarray(generator.normal(size=(B, T, N, H)), jnp.float32) for _ in range(3))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, "5f6fb709 0d893f64 4f121f81 4f730a48"),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, "5207ddc2 45165e59 4d8ee751 8c52f662"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "4dfccaba 190a87f0 c47362ba b6b5242a",
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, words):
    """Random123's known answers for philox4x32 with 7 rounds."""
    counter, key = (tuple(map(jnp.uint32, given)) for given in (counter, key))
    found = dropout.philox(counter, key)
    assert [int(word) for word in found] == [int(word, 16) for word in words.split()]


def test_a_block_of_dropout_is_a_part_of_all():
    seeds = dropout.seeds(jax.random.key(1), 2, 3)
    every = dropout.kept(seeds, 13, 11, 0.3)
    assert every.shape == (2, 3, 13, 11)
    part = dropout.kept(seeds, 4, 5, 0.3, first_query=jnp.int32(5), first_key=jnp.int32(4))
    np.testing.assert_array_equal(part, every[:, :, 5:9, 4:9])
    with pytest.raises(ValueError, match=r"multiple of 4.*received 3"):
        dropout.kept(seeds, 4, 5, 0.3, first_key=3)


def test_dropout_drops_that_share_independently():
    kept = np.asarray(dropout.kept(dropout.seeds(jax.random.key(0), 8, 4), 64, 64, 0.3))
    assert abs(kept.mean() - 0.7) < 4 * np.sqrt(0.21 / kept.size)
    rows = kept.reshape(32, -1) - 0.7
    correlation = rows @ rows.T / (0.21 * rows.shape[1])
    assert np.abs(correlation - np.eye(32)).max() < 6 / np.sqrt(rows.shape[1])


@needs_triton
def test_every_implementation_drops_the_same():
    """With the identity as values, the output is the probabilities themselves."""
    q, k, _ = inputs()
    v = jnp.broadcast_to(jnp.eye(T)[None, :, None, :], (B, T, N, T))
    q, k = (jnp.pad(a, ((0, 0),) * 3 + ((0, T - H),)) for a in (q, k))
    options = {"dropout_rate": 0.4, "dropout_key": jax.random.key(3), "is_causal": True}
    found = [kernels.attention(q, k, v, implementation=i, **options) for i in ("xla", "triton")]
    np.testing.assert_array_equal(found[0] == 0, found[1] == 0)
    close(*found)
    kept = dropout.kept(dropout.seeds(jax.random.key(3), B, N), T, T, 0.4)
    expected = kept & jnp.tril(jnp.ones((T, T), bool))[None, None]
    np.testing.assert_array_equal(jnp.swapaxes(found[0] != 0, 1, 2), expected)


def test_dropout_keeps_the_expectation_and_repeats():
    q, k, v = inputs()

    def dropped(key):
        return kernels.attention(q, k, v, dropout_rate=0.5, dropout_key=key)

    draws = jax.jit(jax.vmap(dropped))(jax.random.split(jax.random.key(0), 4000))
    error = np.asarray(draws.mean(0) - kernels.attention(q, k, v))
    assert np.abs(error / (np.asarray(draws.std(0)) / np.sqrt(4000) + 1e-9)).max() < 5
    np.testing.assert_array_equal(dropped(jax.random.key(2)), dropped(jax.random.key(2)))
    assert (np.asarray(dropped(jax.random.key(2))) != dropped(jax.random.key(3))).any()
    np.testing.assert_array_equal(dropped(jax.random.key(2)), dropped(jax.random.PRNGKey(2)))


def test_the_residual_is_without_dropout():
    q, k, v = inputs()
    key = jax.random.key(0)
    _, found = kernels.attention(q, k, v, dropout_rate=0.5, dropout_key=key, return_residual=True)
    close(found, kernels.attention(q, k, v, return_residual=True)[1])
