"""A recurrent layer in both directions at once.

Axes: T frames, B batch, F features, D width, G gates, 2 directions.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from research.models.speech_encoder import reverse_frames

GATES = {"lstm": 4, "gru": 3}


class BothDirections(nn.Module):
    """Two recurrent networks over the valid frames, one forwards and one from the last backwards.

    LSTM: i, f, o = sigmoid(W x + U h + b), g = tanh(...), c' = f c + i g, h' = o tanh(c')
    GRU:  r, z = sigmoid(W x + U h + b), n = tanh(W x + b + r (U h + b')), h' = (1 - z) n + z h

    W x of all frames is one product before the loop. The two directions take their steps together,
    so that a step is one batched product with U.

    Attributes:
        width: D, units of each direction.
        cell: what a unit is.
        normalise: whether W x of each frame and direction passes through a layer norm.
        dtype: of the computation; parameters stay float32.

    Example:
        >>> x, lengths = jnp.zeros((2, 9, 5)), jnp.array([9, 4])
        >>> layer = BothDirections(8, "gru")
        >>> (forwards, backwards), _ = layer.init_with_output(jax.random.key(0), x, lengths)
        >>> forwards.shape, backwards.shape
        ((2, 9, 8), (2, 9, 8))

    Sources: Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation 1997, with the
    forget gate of Gers et al. 2000; Cho et al., "Learning Phrase Representations using RNN
    Encoder-Decoder", EMNLP 2014, with the reset gate after the product, as cuDNN has it.
    """

    width: int
    cell: Literal["lstm", "gru"] = "lstm"
    normalise: bool = False
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self, x_BTF: Float[Array, "B T F"], lengths: Int[Array, " B"]
    ) -> tuple[Float[Array, "B T D"], Float[Array, "B T D"]]:
        """The hidden states of both directions, frame by frame; padded frames mean nothing."""
        gates, width = GATES[self.cell], self.width
        shape = (2, gates * width)
        driven = nn.DenseGeneral(shape, use_bias=not self.normalise, dtype=self.dtype)(x_BTF)
        if self.normalise:
            norm = nn.LayerNorm(reduction_axes=-1, feature_axes=(-2, -1), dtype=self.dtype)
            driven = norm(driven)
        ahead, behind = driven[:, :, 0], reverse_frames(driven[:, :, 1], lengths)
        driven_T2BG = jnp.stack([ahead, behind]).transpose(2, 0, 1, 3)
        recurrent = self.param("recurrent", _orthogonal, (2, gates, width, width))
        recurrent = recurrent.transpose(0, 2, 1, 3).reshape(2, width, gates * width)
        recurrent = recurrent.astype(driven.dtype)
        zeros = jnp.zeros((2, x_BTF.shape[0], width), driven.dtype)
        if self.cell == "lstm":
            step, start = functools.partial(_lstm, recurrent), (zeros, zeros)
        else:
            bias = self.param("bias", nn.initializers.zeros_init(), (2, 1, width))
            step, start = functools.partial(_gru, recurrent, bias.astype(driven.dtype)), zeros
        _, hidden_T2BD = jax.lax.scan(step, start, driven_T2BG)
        ahead, behind = hidden_T2BD.transpose(1, 2, 0, 3)
        return ahead, reverse_frames(behind, lengths)


def _lstm(recurrent, carry, driven):
    hidden, cell = carry
    i, f, g, o = jnp.split(driven + hidden @ recurrent, 4, axis=-1)
    cell = nn.sigmoid(f) * cell + nn.sigmoid(i) * jnp.tanh(g)
    hidden = nn.sigmoid(o) * jnp.tanh(cell)
    return (hidden, cell), hidden


def _gru(recurrent, bias, hidden, driven):
    r, z, n = jnp.split(driven, 3, axis=-1)
    of_r, of_z, of_n = jnp.split(hidden @ recurrent, 3, axis=-1)
    r, z = nn.sigmoid(r + of_r), nn.sigmoid(z + of_z)
    hidden = (1 - z) * jnp.tanh(n + r * (of_n + bias)) + z * hidden
    return hidden, hidden


def _orthogonal(key, shape):
    keys = jax.random.split(key, shape[:-2])
    square = nn.initializers.orthogonal()
    return jax.vmap(jax.vmap(lambda key: square(key, shape[-2:])))(keys)
