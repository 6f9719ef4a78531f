"""wav2vec2-BERT with a CTC head: a Conformer with causal convolutions over log-mel features.

Axes: B batch, T frames, F features, D width, N heads, H dimensions of a
head, K classes, R offsets.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

import kernels
from research.models.checkpoint_layers import (
    ACTIVATIONS,
    Conv1d,
    DepthwiseFilters,
    FeedForward,
    LayerNorm,
    NormParameters,
    heads_of,
    interleaved_sinusoids,
    mask_latents,
)
from research.models.checkpoint_options import check_choice, check_heads
from research.models.speech_encoder import mask_frames


@dataclass(frozen=True)
class Wav2Vec2BertConfig:
    """What config.json of a wav2vec2-BERT checkpoint says, under its names.

    ``position_embeddings_type`` is "relative_key" (a learned key for each offset from
    -``left_max_position_embeddings`` to ``right_max_position_embeddings``, beyond which the
    outermost is taken), "relative" (Transformer-XL) or None. With ``add_adapter``, each of
    ``num_adapter_layers`` divides the frame rate by ``adapter_stride``.
    """

    model_type: str = "wav2vec2-bert"
    vocab_size: int = 32
    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    feature_projection_input_dim: int = 160
    hidden_act: str = "swish"
    hidden_dropout: float = 0.0
    activation_dropout: float = 0.0
    attention_dropout: float = 0.0
    feat_proj_dropout: float = 0.0
    final_dropout: float = 0.1
    conformer_conv_dropout: float = 0.1
    layer_norm_eps: float = 1e-5
    position_embeddings_type: str | None = "relative_key"
    left_max_position_embeddings: int = 64
    right_max_position_embeddings: int = 8
    conv_depthwise_kernel_size: int = 31
    mask_time_prob: float = 0.05
    mask_feature_prob: float = 0.0
    add_adapter: bool = False
    adapter_kernel_size: int = 3
    adapter_stride: int = 2
    num_adapter_layers: int = 1
    adapter_act: str = "relu"
    use_intermediate_ffn_before_adapter: bool = False
    output_hidden_size: int | None = None
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        """Check that the model below is the one described."""
        positions = ("relative_key", "relative", None)
        check_choice("position_embeddings_type", self.position_embeddings_type, positions)
        check_choice("hidden_act", self.hidden_act, ("swish", "silu"))
        check_choice("adapter_act", self.adapter_act, tuple(ACTIVATIONS))
        check_heads(self.hidden_size, self.num_attention_heads)
        check_heads(self.output_width, self.num_attention_heads)

    @property
    def output_width(self) -> int:
        """Width of what the head sees."""
        if self.add_adapter and self.output_hidden_size is not None:
            return self.output_hidden_size
        return self.hidden_size

    @property
    def stride(self) -> int:
        """Feature frames from one frame of logits to the next."""
        return self.adapter_stride**self.num_adapter_layers if self.add_adapter else 1

    @property
    def input_width(self) -> int:
        """Features of an input frame."""
        return self.feature_projection_input_dim

    @property
    def padding_is_inert(self) -> bool:
        """Whether an utterance gives the same logits alone as in a padded batch."""
        return not self.add_adapter

    def frames(self, lengths):
        """Frames of logits for so many feature frames: a number, or an integer array of them."""
        for _ in range(self.num_adapter_layers if self.add_adapter else 0):
            lengths = self.adapted(lengths)
        return lengths

    def adapted(self, lengths):
        """Valid frames after one layer of the adapter."""
        width = self.adapter_kernel_size
        return (lengths + width // 2 * 2 - width) // self.adapter_stride + 1


class SelfAttention(nn.Module):
    """Attention that also scores offsets, in one of the ways of `Wav2Vec2BertConfig`."""

    config: Wav2Vec2BertConfig
    positions: str | None

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"], frames: Int[Array, " B"]) -> Float[Array, "B T D"]:
        """Every frame looks at every valid frame."""
        width, heads = x.shape[2], self.config.num_attention_heads
        query, key, value = (
            heads_of(nn.Dense(width, name=f"linear_{name}")(x), heads) for name in "qkv"
        )
        if self.positions is None:
            seen = kernels.attention(query, key, value, key_value_seq_lengths=frames)
        else:
            relative = self._learned if self.positions == "relative_key" else self._sinusoidal
            position_key, content_bias, position_bias = relative(x)
            seen = kernels.relative_attention(
                query,
                key,
                value,
                position_key,
                content_bias,
                position_bias,
                key_value_seq_lengths=frames,
            )
        return nn.Dense(width, name="linear_out")(seen.reshape(x.shape))

    def _learned(self, x):
        """A key for each offset that the table has; farther ones share the outermost."""
        c, frames = self.config, x.shape[1]
        left, right = c.left_max_position_embeddings, c.right_max_position_embeddings
        width = x.shape[2] // c.num_attention_heads
        table = nn.Embed(left + right + 1, width, name="distance_embedding")
        offsets = jnp.clip(jnp.arange(1 - frames, frames), -left, right) + left
        keys_RH = table(offsets).astype(x.dtype)
        keys_RNH = jnp.broadcast_to(keys_RH[:, None], (len(offsets), c.num_attention_heads, width))
        return keys_RNH, None, None

    def _sinusoidal(self, x):
        heads = self.config.num_attention_heads
        shape = (heads, x.shape[2] // heads)
        positions = jnp.asarray(interleaved_sinusoids(x.shape[1], x.shape[2]), x.dtype)
        keys = nn.Dense(x.shape[2], use_bias=False, name="linear_pos")(positions)
        biases = [
            self.param(name, nn.initializers.zeros, shape) for name in ("pos_bias_u", "pos_bias_v")
        ]
        return keys.reshape(-1, *shape), *biases


class ConvolutionModule(nn.Module):
    """W2 swish(norm(depthwise(glu(W1 norm(x))))), causal: no frame sees a later one."""

    config: Wav2Vec2BertConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], frames: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Padded frames enter as zero, but come out as what the original makes of them.

        No valid frame sees those, only the adapter does.
        """
        c = self.config
        x = mask_frames(LayerNorm(c.layer_norm_eps, name="layer_norm")(x), frames)
        gated = Conv1d(2 * c.hidden_size, use_bias=False, name="pointwise_conv1")(x)
        filters, _ = DepthwiseFilters(
            c.hidden_size, c.conv_depthwise_kernel_size, use_bias=False, name="depthwise_conv"
        )()
        scale, offset = NormParameters(c.hidden_size, name="depthwise_layer_norm")()
        x = kernels.conformer_convolution(
            gated,
            filters,
            scale,
            offset,
            epsilon=c.layer_norm_eps,
            padding="CAUSAL",
        )
        x = Conv1d(c.hidden_size, use_bias=False, name="pointwise_conv2")(x)
        return nn.Dropout(c.conformer_conv_dropout)(x, deterministic=deterministic)


class Layer(nn.Module):
    """A Conformer block: half a feed-forward, attention, convolution, half a feed-forward, norm."""

    config: Wav2Vec2BertConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], frames: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Norms come before what they serve."""
        c = self.config

        def norm(name):
            return LayerNorm(c.layer_norm_eps, name=f"{name}_layer_norm")

        def feed_forward(name):
            return feed_forward_of(c, c.hidden_act, name)

        x = x + 0.5 * feed_forward("ffn1")(norm("ffn1")(x), deterministic)
        attention = SelfAttention(c, c.position_embeddings_type, name="self_attn")
        y = attention(norm("self_attn")(x), frames)
        x = x + nn.Dropout(c.attention_dropout)(y, deterministic=deterministic)
        x = x + ConvolutionModule(c, name="conv_module")(x, frames, deterministic)
        x = x + 0.5 * feed_forward("ffn2")(norm("ffn2")(x), deterministic)
        return norm("final")(x)


class AdapterLayer(nn.Module):
    """A Transformer layer whose input and shortcut both go through a strided, gated convolution."""

    config: Wav2Vec2BertConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], frames: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B U D"]:
        """Fewer frames than came in; ``frames`` counts those that come out."""
        c = self.config

        def pooled(name):
            y = LayerNorm(c.layer_norm_eps, name=f"{name}_layer_norm")(x)
            reach = c.adapter_stride // 2
            conv = Conv1d(
                2 * c.output_width,
                c.adapter_kernel_size,
                c.adapter_stride,
                (reach, reach),
                name=f"{name}_conv",
            )
            return nn.glu(conv(y))

        y = SelfAttention(c, None, name="self_attn")(pooled("self_attn"), frames)
        y = nn.Dropout(c.conformer_conv_dropout)(y, deterministic=deterministic)
        y = y + pooled("residual")
        z = LayerNorm(c.layer_norm_eps, name="ffn_layer_norm")(y)
        return y + feed_forward_of(c, c.adapter_act, "ffn")(z, deterministic)


def feed_forward_of(config: Wav2Vec2BertConfig, activation: str, name: str) -> FeedForward:
    """The feed-forward network of this name, with the width and dropout of the configuration."""
    rates = (config.activation_dropout, config.hidden_dropout)
    return FeedForward(config.intermediate_size, activation, rates, name=name)


class FeatureProjection(nn.Module):
    """From features to the width of the Conformer."""

    config: Wav2Vec2BertConfig

    @nn.compact
    def __call__(self, x: Float[Array, "B T F"], deterministic: bool) -> Float[Array, "B T D"]:
        """Normalise and project."""
        c = self.config
        x = LayerNorm(c.layer_norm_eps, name="layer_norm")(x)
        x = nn.Dense(c.hidden_size, name="projection")(x)
        return nn.Dropout(c.feat_proj_dropout)(x, deterministic=deterministic)


class Encoder(nn.Module):
    """Conformer blocks."""

    config: Wav2Vec2BertConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], frames: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Padded frames enter as zero."""
        c = self.config
        x = nn.Dropout(c.hidden_dropout)(mask_frames(x, frames), deterministic=deterministic)
        for layer in range(c.num_hidden_layers):
            x = Layer(c, name=f"layers_{layer}")(x, frames, deterministic)
        return x


class Adapter(nn.Module):
    """Another width, if there is one, then layers that lower the frame rate."""

    config: Wav2Vec2BertConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], frames: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B U E"]:
        """``frames`` counts those that come in."""
        c = self.config
        if c.output_width != c.hidden_size:
            x = nn.Dense(c.output_width, name="proj")(x)
            x = LayerNorm(c.layer_norm_eps, name="proj_layer_norm")(x)
        for layer in range(c.num_adapter_layers):
            frames = c.adapted(frames)
            x = AdapterLayer(c, name=f"layers_{layer}")(x, frames, deterministic)
        return x


class Backbone(nn.Module):
    """Features to frames, without a head."""

    config: Wav2Vec2BertConfig

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B T F"],
        lengths: Int[Array, " B"],
        masked: Bool[Array, "B T"] | None,
        deterministic: bool,
    ) -> Float[Array, "B U E"]:
        """Projected features, masked if asked for, through Conformer and adapter."""
        c = self.config
        embedding = None
        if c.mask_time_prob > 0 or c.mask_feature_prob > 0:
            init = nn.initializers.uniform(1.0)
            embedding = self.param("masked_spec_embed", init, (c.hidden_size,))
        x = FeatureProjection(c, name="feature_projection")(features, deterministic)
        x = mask_latents(x, masked, embedding)
        x = Encoder(c, name="encoder")(x, lengths, deterministic)
        if c.use_intermediate_ffn_before_adapter:
            x = x + 0.5 * feed_forward_of(c, "relu", "intermediate_ffn")(x, deterministic)
        if c.add_adapter:
            x = Adapter(c, name="adapter")(x, lengths, deterministic)
        return x


class Wav2Vec2BertCTC(nn.Module):
    """wav2vec2-BERT for CTC: pairs of log-mel frames to K logits every 20 ms (without adapter).

    In training there is the dropout of the configuration, except on attention weights; layers are
    never dropped whole (LayerDrop), and masks are the caller's. Padded frames never reach valid
    ones, except through the strided convolutions of an adapter, as in the original.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> config = Wav2Vec2BertConfig(
        ...     vocab_size=5,
        ...     hidden_size=8,
        ...     num_hidden_layers=1,
        ...     num_attention_heads=2,
        ...     intermediate_size=8,
        ...     feature_projection_input_dim=6,
        ...     conv_depthwise_kernel_size=3,
        ... )
        >>> model, features, lengths = Wav2Vec2BertCTC(config), jnp.ones((1, 9, 6)), jnp.array([7])
        >>> params = model.init(jax.random.key(0), features, lengths)["params"]
        >>> (
        ...     model.apply({"params": params}, features, lengths).shape,
        ...     config.frames(lengths).tolist(),
        ... )
        ((1, 9, 5), [7])

    Source: Barrault et al., "Seamless: multilingual expressive and streaming speech translation",
    2023, section 3.2.
    """

    config: Wav2Vec2BertConfig

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "B T F"],
        lengths: Int[Array, " B"],
        *,
        masked: Bool[Array, "B T"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B U K"]:
        """Logits of each frame; those of padded frames mean nothing.

        Args:
            features: log-mel frames, normalised per utterance and bin, stacked by two, (B, T, F).
            lengths: valid frames of each, (B,).
            masked: frames that the learned mask embedding replaces, for training, (B, T).
            deterministic: no dropout; else ``rngs={"dropout": key}``.

        Returns:
            (B, U, K); ``config.frames(lengths)`` of them are valid.
        """
        c = self.config
        x = Backbone(c, name="wav2vec2_bert")(features, lengths, masked, deterministic)
        x = nn.Dropout(c.final_dropout)(x, deterministic=deterministic)
        return nn.Dense(c.vocab_size, name="lm_head")(x)
