"""The parts of speech encoders beside other definitions of the same: Linen's, NumPy's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from kernel_matrix import compiled_in_haste

from research.models.recurrent import BothDirections
from research.models.separable_conv import DepthwiseConv
from research.models.speech_encoder import sinusoids
from research.models.time_frequency import TimeFrequencyConv

LENGTHS = jnp.array([7, 4])
FEATURES = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 3)), jnp.float32)


def linen_parameters(params, direction, cell):
    """Our parameters of one direction, under the names of Linen's cell."""
    of_input, bias = (params["DenseGeneral_0"][k][..., direction, :] for k in ("kernel", "bias"))
    names = "ifgo" if cell == "lstm" else "rzn"
    kernels = dict(zip(names, jnp.split(of_input, len(names), axis=-1), strict=True))
    biases = dict(zip(names, jnp.split(bias, len(names)), strict=True))
    recurrent = dict(zip(names, params["recurrent"][direction], strict=True))
    theirs = {f"h{k}": {"kernel": recurrent[k]} for k in names}
    theirs |= {f"i{k}": {"kernel": kernels[k]} for k in names}
    for k in names:  # an LSTM of Linen has its biases beside U, a GRU beside W
        theirs[f"h{k}" if cell == "lstm" else f"i{k}"]["bias"] = biases[k]
    if cell == "gru":
        theirs["hn"]["bias"] = params["bias"][direction, 0]
    return {"params": theirs}


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_both_directions_are_linens_cells(cell):
    layer = BothDirections(4, cell)
    theirs = nn.OptimizedLSTMCell(4) if cell == "lstm" else nn.GRUCell(4)

    def both(key):
        params = layer.init(key, FEATURES, LENGTHS)["params"]
        params = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), params)
        ours = layer.apply({"params": params}, FEATURES, LENGTHS)
        expected = []
        for direction in (0, 1):
            rnn = nn.RNN(theirs, reverse=bool(direction), keep_order=True)
            inner = linen_parameters(params, direction, cell)["params"]
            expected.append(rnn.apply({"params": {"cell": inner}}, FEATURES, seq_lengths=LENGTHS))
        return ours, expected

    with compiled_in_haste():
        ours, expected = jax.jit(both)(jax.random.key(3))
    for found, wanted in zip(ours, expected, strict=True):
        for row, length in enumerate(LENGTHS):
            np.testing.assert_allclose(found[row, :length], wanted[row, :length], atol=1e-5)
    assert jnp.abs(ours[0] - ours[1]).max() > 0.01


@pytest.mark.parametrize("size", [1, 4, 7])
def test_depthwise_convolution_is_numpy_correlation_per_channel(size):
    rng = np.random.default_rng(size)
    x, filters = rng.normal(size=(1, 6, 2)), rng.normal(size=(size, 2))
    params = {"params": {"filters": jnp.asarray(filters, jnp.float32)}}
    actual = jnp.asarray(DepthwiseConv(size).apply(params, jnp.asarray(x, jnp.float32)))
    for channel in range(2):
        before = size // 2
        padded = np.pad(x[0, :, channel], (before, size - 1 - before))
        expected = np.correlate(padded, filters[:, channel], "valid")
        np.testing.assert_allclose(actual[0, :, channel], expected, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("frames", [7, 8])
def test_shortened_spectrograms_are_sums_over_windows(frames, causal):
    rng = np.random.default_rng(frames)
    x = rng.normal(size=(1, frames, 4, 2)).astype(np.float32)
    filters = rng.normal(size=(3, 3, 2, 1)).astype(np.float32)
    params = {"params": {"filters": jnp.asarray(filters), "bias": jnp.array([0.5])}}
    layer = TimeFrequencyConv(1, (3, 3), (2, 2), causal)
    applied: Any = layer.apply(params, jnp.asarray(x), jnp.array([frames]))
    y, lengths, _ = applied
    assert lengths.tolist() == [4]
    assert y.shape == (1, 4, 2, 1)
    padded = np.pad(x[0], ((2, 0) if causal else (1, 2), (1, 2), (0, 0)))
    for u in range(4):
        for n in range(2):
            window = padded[2 * u : 2 * u + 3, 2 * n : 2 * n + 3]
            window = np.pad(window, ((0, 3 - len(window)), (0, 0), (0, 0)))
            expected = 0.5 + np.sum(window * filters[..., 0])
            np.testing.assert_allclose(y[0, u, n, 0], expected, atol=1e-4)


def test_sinusoids_turn_with_the_offset_and_need_an_even_width():
    """The product of two positions depends on their distance alone."""
    at = sinusoids(jnp.array([-3.0, 0.0, 5.0, 8.0]), 16)
    np.testing.assert_allclose(at[0] @ at[1], at[2] @ at[3], rtol=1e-5)
    np.testing.assert_allclose(at[1], np.repeat([0.0, 1.0], 8))
    with pytest.raises(ValueError, match="even"):
        sinusoids(jnp.zeros(1), 3)
