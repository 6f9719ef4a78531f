"""Parakeet-CTC: a FastConformer over log-mel features, eight-fold subsampled.

Axes: B batch, T frames, F mel bins, C channels, D width, N heads, K classes, R offsets.
"""

from dataclasses import dataclass, field

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

import kernels
from research.models.checkpoint_layers import (
    BatchNormParameters,
    Conv1d,
    DepthwiseFilters,
    FeedForward,
    LayerNorm,
    heads_of,
    interleaved_sinusoids,
)
from research.models.checkpoint_options import check_choice, check_heads
from research.models.speech_encoder import mask_frames


@dataclass(frozen=True)
class ParakeetEncoderConfig:
    """``encoder_config`` in config.json of a Parakeet checkpoint, under its names."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 8
    intermediate_size: int = 4096
    hidden_act: str = "silu"
    attention_bias: bool = True
    convolution_bias: bool = True
    conv_kernel_size: int = 9
    subsampling_factor: int = 8
    subsampling_conv_channels: int = 256
    subsampling_conv_kernel_size: int = 3
    subsampling_conv_stride: int = 2
    num_mel_bins: int = 80
    dropout: float = 0.1
    activation_dropout: float = 0.1
    scale_input: bool = True

    def __post_init__(self) -> None:
        """Check that the model below is the one described."""
        check_choice("hidden_act", self.hidden_act, ("silu", "swish"))
        check_heads(self.hidden_size, self.num_attention_heads)
        check_choice("subsampling_conv_stride", self.subsampling_conv_stride, (2,))
        check_choice("subsampling_factor", self.subsampling_factor, (2, 4, 8, 16))


@dataclass(frozen=True)
class ParakeetConfig:
    """What config.json of a Parakeet-CTC checkpoint says, under its names."""

    model_type: str = "parakeet_ctc"
    vocab_size: int = 1025
    pad_token_id: int = 1024
    encoder_config: ParakeetEncoderConfig = field(default_factory=ParakeetEncoderConfig)

    @property
    def stride(self) -> int:
        """Feature frames from one frame of logits to the next."""
        return self.encoder_config.subsampling_factor

    @property
    def input_width(self) -> int:
        """Features of an input frame."""
        return self.encoder_config.num_mel_bins

    @property
    def padding_is_inert(self) -> bool:
        """Whether an utterance gives the same logits alone as in a padded batch."""
        return True

    def frames(self, lengths):
        """Frames of logits for so many feature frames: a number, or an integer array of them."""
        for _ in range(halvings(self.encoder_config)):
            lengths = halved(lengths, self.encoder_config)
        return lengths


def halvings(config: ParakeetEncoderConfig) -> int:
    """How many strided convolutions make the subsampling factor, which is a power of two."""
    return config.subsampling_factor.bit_length() - 1


def halved(lengths, config: ParakeetEncoderConfig):
    """Valid frames after one strided convolution."""
    width, stride = config.subsampling_conv_kernel_size, config.subsampling_conv_stride
    return (lengths + (width - 1) // 2 * 2 - width) // stride + 1


class ImageConv(nn.Module):
    """A convolution over time and frequency, of all channels together or of each on its own."""

    features: int
    width: int
    stride: int
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B T F I"]) -> Float[Array, "B U G O"]:
        """Zeros beyond all edges, (width - 1) / 2 of them."""
        window, stride = (self.width, self.width), (self.stride, self.stride)
        reach = (self.width - 1) // 2
        padding = ((reach, reach), (reach, reach))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        init = nn.initializers.lecun_normal()
        if self.depthwise:
            filters = self.param("channel_filters", init, (*window, self.features))
            return kernels.depthwise_conv2d(x, filters, bias, strides=stride, padding=padding)
        filters = self.param("filters", init, (*window, x.shape[3], self.features))
        return kernels.conv2d(x, filters, bias, strides=stride, padding=padding)


class Subsampling(nn.Module):
    """relu(conv), then relu(pointwise(depthwise)) for each further halving, then a projection."""

    config: ParakeetEncoderConfig

    @nn.compact
    def __call__(
        self, features: Float[Array, "B T F"], lengths: Int[Array, " B"]
    ) -> Float[Array, "B U D"]:
        """Padded frames count as zero before each convolution."""
        c = self.config
        channels, width, stride = (
            c.subsampling_conv_channels,
            c.subsampling_conv_kernel_size,
            c.subsampling_conv_stride,
        )
        x = mask_frames(features, lengths)[:, :, :, None]
        for i in range(halvings(c)):
            # Numbered as in the checkpoint, where activations count as layers too.
            strided = 3 * i - 1 if i else 0
            conv = ImageConv(channels, width, stride, depthwise=i > 0, name=f"layers_{strided}")
            x = conv(x)
            lengths = halved(lengths, c)
            if i:
                x = ImageConv(channels, 1, 1, name=f"layers_{strided + 1}")(x)
            x = nn.relu(x)
            x = mask_frames(x.reshape(*x.shape[:2], -1), lengths).reshape(x.shape)
        x = jnp.swapaxes(x, 2, 3)  # the projection has frequencies within channels
        return nn.Dense(c.hidden_size, name="linear")(x.reshape(*x.shape[:2], -1))


class RelativeAttention(nn.Module):
    """Attention that scores contents and, by projected sinusoids, offsets (Transformer-XL)."""

    config: ParakeetEncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], frames: Int[Array, " B"]) -> Float[Array, "B T D"]:
        """Every frame looks at every valid frame."""
        c = self.config
        width, heads = c.hidden_size, c.num_attention_heads
        query, key, value = (
            heads_of(nn.Dense(width, use_bias=c.attention_bias, name=f"{name}_proj")(x), heads)
            for name in "qkv"
        )
        positions = jnp.asarray(interleaved_sinusoids(x.shape[1], width), x.dtype)
        position_key = nn.Dense(width, use_bias=False, name="relative_k_proj")(positions)
        shape = (heads, width // heads)
        content_bias, position_bias = (
            self.param(name, nn.initializers.zeros, shape) for name in ("bias_u", "bias_v")
        )
        seen = kernels.relative_attention(
            query,
            key,
            value,
            position_key.reshape(-1, *shape),
            content_bias,
            position_bias,
            query_seq_lengths=frames,
            key_value_seq_lengths=frames,
        )
        return nn.Dense(width, use_bias=c.attention_bias, name="o_proj")(seen.reshape(x.shape))


class ConvolutionModule(nn.Module):
    """W2 swish(norm(depthwise(glu(W1 x)))), with the batch norm of the checkpoint."""

    config: ParakeetEncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], frames: Int[Array, " B"]) -> Float[Array, "B T D"]:
        """Padded frames count as zero after the gate."""
        c = self.config
        width = c.hidden_size
        gated = Conv1d(2 * width, use_bias=c.convolution_bias, name="pointwise_conv1")(x)
        filters, bias = DepthwiseFilters(
            width, c.conv_kernel_size, c.convolution_bias, name="depthwise_conv"
        )()
        scale, offset, mean, variance = BatchNormParameters(width, name="norm")()
        x = kernels.conformer_convolution(
            gated,
            filters,
            scale,
            offset,
            norm="batch_inference",
            mean=mean,
            variance=variance,
            bias=bias,
            lengths=frames,
        )
        return Conv1d(width, use_bias=c.convolution_bias, name="pointwise_conv2")(x)


class Block(nn.Module):
    """A Conformer block: half a feed-forward, attention, convolution, half a feed-forward, norm."""

    config: ParakeetEncoderConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], frames: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Norms come before what they serve."""
        c = self.config

        def feed_forward(number):
            return FeedForward(
                c.intermediate_size,
                c.hidden_act,
                (c.activation_dropout, 0.0),
                names=("linear1", "linear2"),
                use_bias=c.attention_bias,
                name=f"feed_forward{number}",
            )

        y = LayerNorm(name="norm_feed_forward1")(x)
        x = x + 0.5 * feed_forward(1)(y, deterministic)
        x = x + RelativeAttention(c, name="self_attn")(LayerNorm(name="norm_self_att")(x), frames)
        x = x + ConvolutionModule(c, name="conv")(LayerNorm(name="norm_conv")(x), frames)
        y = LayerNorm(name="norm_feed_forward2")(x)
        x = x + 0.5 * feed_forward(2)(y, deterministic)
        return LayerNorm(name="norm_out")(x)


class Encoder(nn.Module):
    """Subsampling, then Conformer blocks."""

    config: ParakeetEncoderConfig

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B T F"],
        lengths: Int[Array, " B"],
        frames: Int[Array, " B"],
        deterministic: bool,
    ) -> Float[Array, "B U D"]:
        """Features and their lengths to encoded frames."""
        c = self.config
        x = Subsampling(c, name="subsampling")(features, lengths)
        if c.scale_input:
            x = x * c.hidden_size**0.5
        x = nn.Dropout(c.dropout)(x, deterministic=deterministic)
        for layer in range(c.num_hidden_layers):
            x = Block(c, name=f"layers_{layer}")(x, frames, deterministic)
        return x


class ParakeetCTC(nn.Module):
    """Parakeet for CTC: log-mel features every 10 ms to K logits every 80 ms.

    The batch norms keep the statistics of the checkpoint (collection ``batch_stats``). In training
    there is the dropout of the configuration, except on attention weights and positions; layers are
    never dropped whole (LayerDrop).

    Example:
        >>> import jax, jax.numpy as jnp
        >>> encoder = ParakeetEncoderConfig(
        ...     hidden_size=8,
        ...     num_hidden_layers=1,
        ...     num_attention_heads=2,
        ...     intermediate_size=8,
        ...     subsampling_conv_channels=4,
        ...     num_mel_bins=16,
        ... )
        >>> config = ParakeetConfig(vocab_size=5, pad_token_id=4, encoder_config=encoder)
        >>> model, features, lengths = ParakeetCTC(config), jnp.ones((1, 40, 16)), jnp.array([33])
        >>> variables = model.init(jax.random.key(0), features, lengths)
        >>> model.apply(variables, features, lengths).shape, config.frames(lengths).tolist()
        ((1, 5, 5), [5])

    Sources: Rekesh et al., "Fast Conformer with linearly scalable attention", 2023; Gulati et al.,
    "Conformer", Interspeech 2020.
    """

    config: ParakeetConfig

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B T F"],
        lengths: Int[Array, " B"],
        *,
        deterministic: bool = True,
    ) -> Float[Array, "B U K"]:
        """Logits of each frame; those of padded frames mean nothing.

        Args:
            features: log-mel, normalised per utterance and bin, (B, T, F).
            lengths: valid frames of each, (B,).
            deterministic: no dropout; else ``rngs={"dropout": key}``.

        Returns:
            (B, U, K); ``config.frames(lengths)`` of them are valid.
        """
        c = self.config
        encoder = Encoder(c.encoder_config, name="encoder")
        x = encoder(features, lengths, c.frames(lengths), deterministic)
        return Conv1d(c.vocab_size, name="ctc_head")(x)
