"""wav2vec 2.0 and HuBERT with a CTC head, from raw waveforms.

Axes: B batch, S samples, T frames, D width, N heads, K classes.
"""

from dataclasses import dataclass
from math import prod

from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

import kernels
from research.errors import ConfigError
from research.models.checkpoint_layers import (
    ACTIVATIONS,
    BatchNormParameters,
    Conv1d,
    FeedForward,
    LayerNorm,
    batch_norm,
    heads_of,
    mask_latents,
)
from research.models.checkpoint_options import check_choice, check_heads
from research.models.speech_encoder import mask_frames


@dataclass(frozen=True)
class Wav2Vec2Config:
    """What config.json of a wav2vec2 or HuBERT checkpoint says, under its names.

    ``feat_extract_norm`` is "group" (statistics of each channel over all frames, padded ones too:
    a padded batch gives other logits than its parts) or "layer". ``adapter_attn_dim`` is the width
    of the adapters of MMS. ``feat_proj_layer_norm`` and ``conv_pos_batch_norm`` are HuBERT's.
    """

    model_type: str = "wav2vec2"
    vocab_size: int = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float = 0.1
    activation_dropout: float = 0.1
    attention_dropout: float = 0.1
    feat_proj_dropout: float = 0.0
    final_dropout: float = 0.1
    layer_norm_eps: float = 1e-5
    feat_proj_layer_norm: bool = True
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: tuple[int, ...] = (512, 512, 512, 512, 512, 512, 512)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    conv_pos_batch_norm: bool = False
    do_stable_layer_norm: bool = False
    mask_time_prob: float = 0.05
    mask_feature_prob: float = 0.0
    adapter_attn_dim: int | None = None
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        """Check that the model below is the one described."""
        check_choice("feat_extract_norm", self.feat_extract_norm, ("group", "layer"))
        check_choice("hidden_act", self.hidden_act, tuple(ACTIVATIONS))
        check_choice("feat_extract_activation", self.feat_extract_activation, tuple(ACTIVATIONS))
        check_heads(self.hidden_size, self.num_attention_heads)
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel) > 0:
            raise ConfigError(
                "conv_dim, conv_stride and conv_kernel must have one number for each convolution, "
                f"but have {len(self.conv_dim)}, {len(self.conv_stride)} and "
                f"{len(self.conv_kernel)}"
            )
        if self.adapter_attn_dim is not None and not self.do_stable_layer_norm:
            raise ConfigError(
                "adapter_attn_dim is for models with do_stable_layer_norm, which this one has not"
            )

    @property
    def stride(self) -> int:
        """Samples from one frame of logits to the next."""
        return prod(self.conv_stride)

    @property
    def input_width(self) -> None:
        """Features of an input frame; None, since inputs are samples."""
        return None

    @property
    def padding_is_inert(self) -> bool:
        """Whether an utterance gives the same logits alone as in a padded batch."""
        return self.feat_extract_norm == "layer" and not self.conv_pos_batch_norm

    def frames(self, lengths):
        """Frames of logits for so many samples: a number, or an integer array of them."""
        for width, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            count = (lengths - width) // stride + 1
            lengths = count * (count > 0)
        return lengths


class FeatureEncoder(nn.Module):
    """Strided convolutions from samples to frames, the first with a norm, or all of them."""

    config: Wav2Vec2Config

    @nn.compact
    def __call__(self, waveforms: Float[Array, "B S"]) -> Float[Array, "B T I"]:
        """Frame t sees its own samples only, so that a valid one never sees padding."""
        x = waveforms[:, :, None]
        for layer in range(len(self.config.conv_dim)):
            x = ConvLayer(self.config, layer, name=f"conv_layers_{layer}")(x)
        return x


class ConvLayer(nn.Module):
    """act(norm(conv(x)))."""

    config: Wav2Vec2Config
    layer: int

    @nn.compact
    def __call__(self, x: Float[Array, "B S I"]) -> Float[Array, "B T O"]:
        """Filter without padding, then normalise as the configuration says."""
        c, i = self.config, self.layer
        channels = c.conv_dim[i]
        conv = Conv1d(
            channels, c.conv_kernel[i], c.conv_stride[i], use_bias=c.conv_bias, name="conv"
        )
        x = conv(x)
        if c.feat_extract_norm == "layer":
            x = LayerNorm(name="layer_norm")(x)
        elif i == 0:
            norm = nn.GroupNorm(channels, epsilon=1e-5, use_fast_variance=False, name="layer_norm")
            x = norm(x)
        return ACTIVATIONS[c.feat_extract_activation](x)


class FeatureProjection(nn.Module):
    """From the channels of the feature encoder to the width of the Transformer."""

    config: Wav2Vec2Config

    @nn.compact
    def __call__(self, x: Float[Array, "B T I"], deterministic: bool) -> Float[Array, "B T D"]:
        """Normalise (HuBERT may not) and project."""
        c = self.config
        if c.feat_proj_layer_norm:
            x = LayerNorm(c.layer_norm_eps, name="layer_norm")(x)
        x = nn.Dense(c.hidden_size, name="projection")(x)
        return nn.Dropout(c.feat_proj_dropout)(x, deterministic=deterministic)


class PositionalConvolution(nn.Module):
    """act(conv(x)) with filters so wide that they tell frames where they are."""

    config: Wav2Vec2Config

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """As many frames as came in."""
        c = self.config
        width = c.num_conv_pos_embeddings
        if c.conv_pos_batch_norm:
            x = batch_norm(x, *BatchNormParameters(c.hidden_size, name="batch_norm")())
        conv = Conv1d(
            c.hidden_size,
            width,
            padding=(width // 2, (width - 1) // 2),
            groups=c.num_conv_pos_embedding_groups,
            weight_norm=not c.conv_pos_batch_norm,
            name="conv",
        )
        return ACTIVATIONS[c.feat_extract_activation](conv(x))


class SelfAttention(nn.Module):
    """Every frame looks at every valid frame."""

    config: Wav2Vec2Config

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], frames: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Project, attend, project back."""
        c = self.config
        query, key, value = (
            heads_of(nn.Dense(c.hidden_size, name=f"{name}_proj")(x), c.num_attention_heads)
            for name in "qkv"
        )
        rate = 0.0 if deterministic else c.attention_dropout
        seen = kernels.attention(
            query,
            key,
            value,
            key_value_seq_lengths=frames,
            dropout_rate=rate,
            dropout_key=self.make_rng("dropout") if rate else None,
        )
        return nn.Dense(c.hidden_size, name="out_proj")(seen.reshape(x.shape))


class Adapter(nn.Module):
    """W2 relu(W1 norm(x)): the few weights of a language in a multilingual checkpoint (MMS)."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Each frame on its own."""
        y = nn.Dense(self.width, name="linear_1")(LayerNorm(name="norm")(x))
        return nn.Dense(x.shape[-1], name="linear_2")(nn.relu(y))


class Layer(nn.Module):
    """A Transformer layer: norms before what they serve (stable) or after the sum."""

    config: Wav2Vec2Config

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], frames: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Attention, then the feed-forward network."""
        c = self.config
        norm = LayerNorm(c.layer_norm_eps, name="layer_norm")
        final_norm = LayerNorm(c.layer_norm_eps, name="final_layer_norm")
        attention = SelfAttention(c, name="attention")
        rates = (c.activation_dropout, c.hidden_dropout)
        feed_forward = FeedForward(c.intermediate_size, c.hidden_act, rates, name="feed_forward")
        y = attention(norm(x) if c.do_stable_layer_norm else x, frames, deterministic)
        x = x + nn.Dropout(c.hidden_dropout)(y, deterministic=deterministic)
        if not c.do_stable_layer_norm:
            x = norm(x)
            return final_norm(x + feed_forward(x, deterministic))
        x = x + feed_forward(final_norm(x), deterministic)
        if c.adapter_attn_dim is not None:
            x = x + Adapter(c.adapter_attn_dim, name="adapter_layer")(x)
        return x


class Encoder(nn.Module):
    """Positions, then Transformer layers, normalised before them or, if stable, after."""

    config: Wav2Vec2Config

    @nn.compact
    def __call__(
        self, x: Float[Array, "B T D"], frames: Int[Array, " B"], deterministic: bool
    ) -> Float[Array, "B T D"]:
        """Padded frames enter as zero."""
        c = self.config
        norm = LayerNorm(c.layer_norm_eps, name="layer_norm")
        x = mask_frames(x, frames)
        x = x + PositionalConvolution(c, name="pos_conv_embed")(x)
        if not c.do_stable_layer_norm:
            x = norm(x)
        x = nn.Dropout(c.hidden_dropout)(x, deterministic=deterministic)
        for layer in range(c.num_hidden_layers):
            x = Layer(c, name=f"layers_{layer}")(x, frames, deterministic)
        return norm(x) if c.do_stable_layer_norm else x


class Backbone(nn.Module):
    """Waveforms to frames, without a head."""

    config: Wav2Vec2Config

    @nn.compact
    def __call__(
        self,
        waveforms: Float[Array, "B S"],
        frames: Int[Array, " B"],
        masked: Bool[Array, "B T"] | None,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        """Features, masked if asked for, through the Transformer."""
        c = self.config
        embedding = None
        if c.mask_time_prob > 0 or c.mask_feature_prob > 0:
            init = nn.initializers.uniform(1.0)
            embedding = self.param("masked_spec_embed", init, (c.hidden_size,))
        x = FeatureEncoder(c, name="feature_extractor")(waveforms)
        x = FeatureProjection(c, name="feature_projection")(x, deterministic)
        x = mask_latents(x, masked, embedding)
        return Encoder(c, name="encoder")(x, frames, deterministic)


class Wav2Vec2CTC(nn.Module):
    """wav2vec 2.0 or HuBERT for CTC: normalised samples to K logits every 20 ms.

    Dropout is that of the configuration; layers are never dropped whole (LayerDrop), and masks are
    the caller's. Padded frames never reach valid ones, except through the "group" norm (see
    `Wav2Vec2Config.padding_is_inert`), as in the original.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> config = Wav2Vec2Config(
        ...     vocab_size=5,
        ...     hidden_size=8,
        ...     num_hidden_layers=1,
        ...     num_attention_heads=2,
        ...     intermediate_size=8,
        ...     conv_dim=(4, 4),
        ...     conv_kernel=(10, 3),
        ...     conv_stride=(5, 2),
        ...     num_conv_pos_embeddings=4,
        ...     num_conv_pos_embedding_groups=2,
        ... )
        >>> model, waveforms, lengths = Wav2Vec2CTC(config), jnp.ones((1, 100)), jnp.array([100])
        >>> params = model.init(jax.random.key(0), waveforms, lengths)["params"]
        >>> (
        ...     model.apply({"params": params}, waveforms, lengths).shape,
        ...     config.frames(lengths).tolist(),
        ... )
        ((1, 9, 5), [9])

    Sources: Baevski, Zhou, Mohamed, Auli, "wav2vec 2.0", NeurIPS 2020; Hsu et al., "HuBERT", 2021;
    adapters, Pratap et al., "Scaling speech technology to 1,000+ languages", 2023.
    """

    config: Wav2Vec2Config

    @nn.compact
    def __call__(
        self,
        waveforms: Float[Array, "B S"],
        lengths: Int[Array, " B"],
        *,
        masked: Bool[Array, "B T"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B T K"]:
        """Logits of each frame; those of padded frames mean nothing.

        Args:
            waveforms: samples at 16 kHz as the checkpoint wants them (normalised or not), (B, S).
            lengths: valid samples of each, (B,).
            masked: frames that the learned mask embedding replaces, for training, (B, T).
            deterministic: no dropout; else ``rngs={"dropout": key}``.

        Returns:
            (B, T, K); ``config.frames(lengths)`` of them are valid.
        """
        c = self.config
        backbone = Backbone(c, name=c.model_type)
        x = backbone(waveforms, c.frames(lengths), masked, deterministic)
        x = nn.Dropout(c.final_dropout)(x, deterministic=deterministic)
        return nn.Dense(c.vocab_size, name="lm_head")(x)
