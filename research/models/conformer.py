"""Conformer: convolution and relative attention between two halves of a feed-forward layer.

Offline, or streaming in chunks of fixed size, with the same parameters.

Axes: B batch, T feature frames, U frames after subsampling, L frames of left context, F features,
D width, N heads, H = D / N, W taps, K classes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

import kernels
from research.models.speech_encoder import CTCHead, head_width, mask_frames, sinusoids
from research.models.time_frequency import TimeFrequencyConv, shortened
from research.objectives.ctc_terms import Outputs

_TAPS = 3  # of both convolutions of the subsampling, over frames and over bins


class BlockState(NamedTuple):
    """What a block keeps of the frames before a chunk.

    Attributes:
        keys: of the last L frames, (B, L, N, H).
        values: likewise.
        convolution: what entered the convolution in the last W - 1 frames, (B, W - 1, 2 D).
    """

    keys: Float[Array, "B L N H"]
    values: Float[Array, "B L N H"]
    convolution: Float[Array, "B S 2*D"]


class StreamState(NamedTuple):
    """What streaming carries from chunk to chunk; one row for each stream.

    Attributes:
        frames: frames of logits so far, int32 (B,).
        subsampling: the last feature frames, and the last frames between the two convolutions.
        blocks: one each.
    """

    frames: Int[Array, " B"]
    subsampling: tuple[Float[Array, "B S F 1"], Float[Array, "B S M C"]]
    blocks: tuple[BlockState, ...]


class FeedForward(nn.Module):
    """W2 swish(W1 norm(x)), with an inner width of ``expansion`` times the outer."""

    expansion: int
    dropout: float
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B U D"], deterministic: bool) -> Float[Array, "B U D"]:
        """What is added to x, or half of it."""
        width = x.shape[-1]
        y = nn.LayerNorm(dtype=self.dtype)(x)
        y = nn.silu(nn.Dense(self.expansion * width, dtype=self.dtype)(y))
        y = nn.Dropout(self.dropout)(y, deterministic=deterministic)
        y = nn.Dense(width, dtype=self.dtype)(y)
        return nn.Dropout(self.dropout)(y, deterministic=deterministic)


class RelativeAttention(nn.Module):
    """Attention of norm(x) that also scores how far each key is from the query."""

    heads: int
    dropout: float
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B U D"],
        lengths: Int[Array, " B"] | None,
        mask: Bool[Array, "#B 1 U S"] | None,
        before: tuple[Float[Array, "B L N H"], Float[Array, "B L N H"]] | None,
        deterministic: bool,
    ) -> tuple[Float[Array, "B U D"], Float[Array, "B S N H"], Float[Array, "B S N H"]]:
        """What is added to x; and all keys and values, those before the first frame included."""
        width, shape = x.shape[-1], (self.heads, head_width(x.shape[-1], self.heads))
        x = nn.LayerNorm(dtype=self.dtype)(x)
        query, key, value = (
            nn.DenseGeneral(shape, dtype=self.dtype, name=name)(x)
            for name in ("query", "key", "value")
        )
        if before is not None:
            key = jnp.concatenate([before[0].astype(key.dtype), key], axis=1)
            value = jnp.concatenate([before[1].astype(value.dtype), value], axis=1)
        # Row 0 is how far the last query is behind the first key.
        offsets = jnp.arange(key.shape[1] - 1, -query.shape[1], -1)
        project = nn.DenseGeneral(shape, use_bias=False, dtype=self.dtype, name="position")
        position_key = project(sinusoids(offsets, width).astype(x.dtype))
        zeros = nn.initializers.zeros_init()
        content_bias, position_bias = (
            self.param(name, zeros, shape).astype(query.dtype)
            for name in ("content_bias", "position_bias")
        )
        y = kernels.relative_attention(
            query,
            key,
            value,
            position_key,
            content_bias,
            position_bias,
            mask,
            key_value_seq_lengths=lengths,
        )
        y = nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype)(y)
        return nn.Dropout(self.dropout)(y, deterministic=deterministic), key, value


class ConvolutionModule(nn.Module):
    """W2 swish(norm(depthwise(GLU(W1 norm(x))))), with a layer norm instead of the batch norm."""

    size: int
    causal: bool
    dropout: float
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B U D"],
        lengths: Int[Array, " B"],
        before: Float[Array, "B S 2*D"] | None,
        deterministic: bool,
    ) -> tuple[Float[Array, "B U D"], Any]:
        """What is added to x; and after a chunk what the next one needs."""
        width = x.shape[-1]
        x = nn.Dense(2 * width, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x))
        filters = self.param("filters", nn.initializers.normal(self.size**-0.5), (self.size, width))
        ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
        scale, offset = self.param("scale", ones, (width,)), self.param("offset", zeros, (width,))
        y = kernels.conformer_convolution(
            x,
            filters.astype(x.dtype),
            scale.astype(x.dtype),
            offset.astype(x.dtype),
            padding="CAUSAL" if self.causal else "SAME",
            lengths=lengths,
            initial_state=None if before is None else before.astype(x.dtype),
            return_state=before is not None,
        )
        y, after = (y, None) if before is None else y
        y = nn.Dense(width, dtype=self.dtype)(y)
        return nn.Dropout(self.dropout)(y, deterministic=deterministic), after


class ConformerBlock(nn.Module):
    """x + FF / 2, + attention, + convolution, + FF / 2, then a layer norm."""

    heads: int
    size: int
    expansion: int
    causal: bool
    dropout: float
    dtype: DTypeLike | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B U D"],
        lengths: Int[Array, " B"],
        mask: Bool[Array, "#B 1 U S"] | None,
        state: BlockState | None,
        deterministic: bool,
    ) -> tuple[Float[Array, "B U D"], BlockState | None]:
        """With a state, x is a chunk and ``mask`` alone says which keys count."""
        options: dict[str, Any] = {"dropout": self.dropout, "dtype": self.dtype}
        x = x + 0.5 * FeedForward(self.expansion, **options)(x, deterministic)
        before = None if state is None else (state.keys, state.values)
        attention = RelativeAttention(self.heads, **options)
        y, keys, values = attention(x, None if state else lengths, mask, before, deterministic)
        x = x + y
        convolution = ConvolutionModule(self.size, self.causal, **options)
        y, after = convolution(x, lengths, state and state.convolution, deterministic)
        x = x + y
        x = x + 0.5 * FeedForward(self.expansion, **options)(x, deterministic)
        x = nn.LayerNorm(dtype=self.dtype)(x)
        if state is None:
            return x, None
        last = keys.shape[1] - state.keys.shape[1]
        return x, BlockState(keys[:, last:], values[:, last:], after)


class Conformer(nn.Module):
    """Two convolutions that shorten features by 4, Conformer blocks, K logits per frame.

    With ``chunk``, everything is causal but attention, which sees the whole chunk of the query and
    ``left`` frames before the chunk. Logits are then known ``chunk`` frames after they begin, and
    ``stream`` computes them chunk by chunk, the same as those of the whole.

    Attributes:
        classes: K, the blank among them.
        width: D, even and a multiple of ``heads``.
        layers: blocks.
        heads: N.
        size: W, taps of the depthwise convolutions; odd unless streaming.
        expansion: inner width of the feed-forward layers over D.
        dropout: rate after each part.
        chunk: frames of logits that are computed together; all of them if not given.
        left: frames before the chunk that attention sees, with ``chunk`` only.
        intermediate: blocks, counted from 1, that predict too: see ``CTCHead``.
        self_conditioned: whether later blocks know these predictions.
        dtype: of the computation; parameters and logits are float32.

    Example:
        >>> import functools, jax
        >>> features, lengths = jnp.zeros((2, 16, 6)), jnp.array([16, 7])
        >>> model = Conformer(classes=11, width=8, layers=1, heads=2, size=3, chunk=2, left=4)
        >>> key = jax.random.key(0)
        >>> logits, params = jax.eval_shape(model.init_with_output, key, features, lengths)
        >>> logits.shape
        (2, 4, 11)
        >>> state = model.begin_stream(batch=2, bins=6)
        >>> chunk, ready = features[:, :8], jnp.array([8, 7])
        >>> stream = functools.partial(model.apply, method="stream")
        >>> state, logits = jax.eval_shape(stream, params, state, chunk, ready)
        >>> logits.shape
        (2, 2, 11)

    Sources: Gulati et al., "Conformer: Convolution-augmented Transformer for Speech Recognition",
    Interspeech 2020, there with a batch norm in the convolution module: a layer norm has no running
    statistics and is the same for chunks. Chunks: Shi et al., "Emformer", ICASSP 2021; Zhang et
    al., "Unified Streaming and Non-streaming Two-pass End-to-end Model for Speech Recognition",
    2020, arXiv 2012.05481.
    """

    classes: int
    width: int = 96
    layers: int = 4
    heads: int = 4
    size: int = 15
    expansion: int = 4
    dropout: float = 0.1
    chunk: int | None = None
    left: int = 64
    intermediate: tuple[int, ...] = ()
    self_conditioned: bool = False
    dtype: DTypeLike | None = None

    @property
    def subsampling(self) -> int:
        """Feature frames for each frame of logits."""
        return 4

    def output_lengths(self, lengths: Int[Array, " B"]) -> Int[Array, " B"]:
        """How many frames of logits are valid: a quarter, rounded up."""
        return shortened(lengths, self.subsampling)

    def __call__(
        self,
        features: Float[Array, "B T F"],
        lengths: Int[Array, " B"],
        *,
        deterministic: bool = True,
    ) -> Outputs:
        """Logits of each frame after subsampling; those of padded frames mean nothing."""
        return self._encode(features, lengths, None, deterministic)[0]

    def begin_stream(self, batch: int, bins: int) -> StreamState:
        """The state before the first chunk.

        A row of it, put into the row of a stream that has ended, begins a new stream there.

        Args:
            batch: B, streams.
            bins: F, features of a frame.

        Raises:
            ValueError: the model has no ``chunk``.
        """
        if self.chunk is None:
            raise ValueError("stream needs a model with chunk; received chunk=None.")
        dtype = jnp.float32 if self.dtype is None else self.dtype

        def zeros(*shape):
            return jnp.zeros((batch, *shape), dtype)

        head = (self.left, self.heads, head_width(self.width, self.heads))
        return StreamState(
            frames=jnp.zeros(batch, jnp.int32),
            subsampling=(
                zeros(_TAPS - 1, bins, 1),
                zeros(_TAPS - 1, shortened(bins, 2), self.width),
            ),
            blocks=tuple(
                BlockState(zeros(*head), zeros(*head), zeros(self.size - 1, 2 * self.width))
                for _ in range(self.layers)
            ),
        )

    def stream(
        self,
        state: StreamState,
        features: Float[Array, "B T F"],
        lengths: Int[Array, " B"],
    ) -> tuple[StreamState, Outputs]:
        """Logits of the next chunk; chunk by chunk they are those of the whole, without dropout.

        Args:
            state: from ``begin_stream`` or the chunk before.
            features: the next ``4 chunk`` frames, (B, 4 chunk, F).
            lengths: how many of them are valid, (B,); all but in the last chunk of a stream.

        Returns:
            The state after them, and what the encoder gives for a whole, of ``chunk`` frames.

        Raises:
            ValueError: another number of frames, or a model without ``chunk``.
        """
        if self.chunk is None or features.shape[1] != self.subsampling * self.chunk:
            raise ValueError(
                f"features must hold {self.subsampling} chunk frames, chunk={self.chunk}; received "
                f"{features.shape[1]} frames. Fill up the last chunk and tell by lengths."
            )
        outputs, state = self._encode(features, lengths, state, deterministic=True)
        return state, outputs

    @nn.compact
    def _encode(self, features, lengths, state, deterministic) -> Any:
        x, lengths, shortening = self._shorten(features, lengths, state and state.subsampling)
        x = nn.Dropout(self.dropout)(x, deterministic=deterministic)
        mask = self._mask(x.shape[1], lengths, state)
        head = CTCHead(
            self.classes, self.layers, self.intermediate, self.self_conditioned, normalise=False
        )
        between, blocks = (), []
        for layer in range(1, self.layers + 1):
            block = ConformerBlock(
                self.heads, self.size, self.expansion, self.chunk is not None, self.dropout,
                self.dtype,
            )  # fmt: skip
            x, after = block(
                x, lengths, mask, None if state is None else state.blocks[layer - 1], deterministic
            )
            blocks.append(after)
            x, between = head.after(layer, x, between)
        outputs = head.output(x, between)
        if state is None:
            return outputs, None
        return outputs, StreamState(state.frames + lengths, shortening, tuple(blocks))

    def _shorten(self, features, lengths, before):
        x, after = features[:, :, :, None], []
        for i in range(2):
            layer = TimeFrequencyConv(
                self.width, (_TAPS, _TAPS), (2, 2), self.chunk is not None, self.dtype
            )
            x, lengths, last = layer(x, lengths, before and before[i])
            x = nn.relu(x)
            after.append(last)
        x = nn.Dense(self.width, dtype=self.dtype)(x.reshape(*x.shape[:2], -1))
        return mask_frames(x, lengths), lengths, tuple(after)

    def _mask(self, frames, lengths, state):
        """Which key each query sees, (#B, 1, U, S); the keys of a chunk begin with those before."""
        if self.chunk is None:
            return None
        if state is None:
            query, key = jnp.arange(frames)[:, None], jnp.arange(frames)[None, :]
            begin = query // self.chunk * self.chunk
            return ((key >= begin - self.left) & (key < begin + self.chunk))[None, None]
        key = jnp.arange(-self.left, frames)[None, :]
        seen = (key >= -state.frames[:, None]) & (key < lengths[:, None])
        seen = seen[:, None, None, :]
        return jnp.broadcast_to(seen, (*seen.shape[:2], frames, seen.shape[3]))


SIZES: Mapping[str, Mapping[str, Any]] = {
    "S": {"width": 144, "layers": 16, "heads": 4, "size": 31},
    "M": {"width": 256, "layers": 16, "heads": 4, "size": 31},
    "L": {"width": 512, "layers": 17, "heads": 8, "size": 31},
}
"""Encoders of Gulati et al. 2020, table 1: ``Conformer(classes, **SIZES["L"])``.

Their filters have 32 taps; 31 have a middle.
"""
