"""What all speech encoders share: how they end, and how padding stays out of them.

A speech encoder is a Linen module with

    encoder(features (B, T, F), lengths (B,), deterministic=True) -> logits (B, U, K)
    encoder.subsampling          feature frames for each frame of logits
    encoder.output_lengths(lengths)      how many frames of logits are valid, (B,)

and the fields ``classes``, ``intermediate`` and ``self_conditioned``. With ``intermediate`` it
gives an ``EncoderOutput``, which the objectives over intermediate predictions need.

Axes: B batch, T feature frames, U frames of logits, F features, D width, K classes.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from research.objectives.ctc_auxiliary import condition
from research.objectives.ctc_terms import EncoderOutput, Outputs

Predictions = tuple[Float[Array, "B U K"], ...]


def mask_frames(
    x: Float[Array, "B T *rest"], lengths: Int[Array, " B"]
) -> Float[Array, "B T *rest"]:
    """Zero from frame ``lengths[b]`` on, whatever was there, NaN included.

    Example:
        >>> mask_frames(jnp.ones((1, 3, 1)), jnp.array([2]))[0, :, 0].tolist()
        [1.0, 1.0, 0.0]
    """
    valid = jnp.arange(x.shape[1])[None, :] < lengths[:, None]
    return jnp.where(valid.reshape(*valid.shape, *[1] * (x.ndim - 2)), x, 0)


def sinusoids(positions: Float[Array, " R"], width: int) -> Float[Array, "R D"]:
    """Sines, then cosines, of positions at D / 2 wavelengths from 2 pi to 20000 pi.

    Args:
        positions: in frames, may be negative.
        width: D, even.

    Returns:
        float32 (R, D).

    Raises:
        ValueError: an odd width.

    Example:
        >>> [f"{x:.2f}" for x in sinusoids(jnp.array([0.0, 1.0]), 2)[1]]
        ['0.84', '0.54']

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.5.
    """
    if width % 2:
        raise ValueError(f"width must be even for sinusoids; received {width}.")
    rates = 10000.0 ** (-jnp.arange(width // 2, dtype=jnp.float32) / (width // 2))
    angles = positions[:, None].astype(jnp.float32) * rates[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def head_width(width: int, heads: int) -> int:
    """How wide each of the heads is that share a width.

    Raises:
        ValueError: they cannot.

    Example:
        >>> head_width(8, 2)
        4
    """
    if heads < 1 or width % heads:
        raise ValueError(f"width must be a multiple of heads; received {width} and {heads}.")
    return width // heads


class FrameForFrame:
    """An encoder that gives a frame of logits for each frame of features."""

    @property
    def subsampling(self) -> int:
        """Feature frames for each frame of logits."""
        return 1

    def output_lengths(self, lengths: Int[Array, " B"]) -> Int[Array, " B"]:
        """How many frames of logits are valid."""
        return lengths


class Condition(nn.Module):
    """The input of the next layer of a self-conditioned encoder: see ``condition``."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "B U D"], logits: Float[Array, "B U K"]
    ) -> Float[Array, "B U D"]:
        """Add the projection of the predicted probabilities."""
        shape = (logits.shape[-1], x.shape[-1])
        projection = self.param("projection", nn.initializers.lecun_normal(), shape)
        return condition(x, logits, projection).astype(x.dtype)


class CTCHead(nn.Module):
    """Logits in float32 from the last layer, and with the same weights from some layers between.

    Attributes:
        classes: K.
        layers: how many the encoder has.
        intermediate: after which of them to predict too, counted from 1, below ``layers``.
        self_conditioned: whether the layers after such a prediction know it.
        normalise: whether a layer norm comes before the logits.

    Example:
        >>> import jax
        >>> x = jnp.ones((1, 4, 8))
        >>> class Twice(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x):
        ...         head, between = CTCHead(3, layers=2, intermediate=(1,)), ()
        ...         for layer in (1, 2):
        ...             x, between = head.after(layer, nn.Dense(8)(x), between)
        ...         return head.output(x, between)
        >>> outputs, _ = Twice().init_with_output(jax.random.key(0), x)
        >>> outputs.logits.shape, len(outputs.intermediate)
        ((1, 4, 3), 1)

    Sources: Lee, Watanabe, "Intermediate Loss Regularization for CTC-based Speech Recognition",
    ICASSP 2021; Nozaki, Komatsu, "Relaxing the Conditional Independence Assumption of CTC-based ASR
    by Conditioning on Intermediate Predictions", Interspeech 2021. Both share the weights.
    """

    classes: int
    layers: int
    intermediate: tuple[int, ...] = ()
    self_conditioned: bool = False
    normalise: bool = True

    def setup(self):
        """Refuse layers that are not there."""
        between = range(1, self.layers)
        if not set(self.intermediate) <= set(between) or len(set(self.intermediate)) < len(
            self.intermediate
        ):
            raise ValueError(
                "intermediate must name distinct layers, counted from 1, below the last of "
                f"{self.layers}; received {self.intermediate}."
            )
        if self.self_conditioned and not self.intermediate:
            raise ValueError(
                "self_conditioned needs layers to predict after; received intermediate=(). "
                f"Name some below {self.layers}."
            )
        if self.normalise:
            self.norm = nn.LayerNorm()
        self.dense = nn.Dense(self.classes)
        if self.self_conditioned:
            self.condition = Condition()

    def after(
        self, layer: int, x: Float[Array, "B U D"], between: Predictions
    ) -> tuple[Float[Array, "B U D"], Predictions]:
        """The input of the next layer, and the predictions so far."""
        if layer not in self.intermediate:
            return x, between
        logits = self._logits(x)
        if self.self_conditioned:
            x = self.condition(x, logits)
        return x, (*between, logits)

    def output(self, x: Float[Array, "B U D"], between: Predictions) -> Outputs:
        """The logits alone, or with those between."""
        logits = self._logits(x)
        return EncoderOutput(logits, between) if self.intermediate else logits

    def _logits(self, x):
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return self.dense(self.norm(x) if self.normalise else x)


def reverse_frames(x: Float[Array, "B T *rest"], lengths: Int[Array, " B"]) -> Array:
    """The valid frames of each sequence backwards, the others where they are.

    Example:
        >>> reverse_frames(jnp.arange(4.0)[None, :, None], jnp.array([3]))[0, :, 0].tolist()
        [2.0, 1.0, 0.0, 3.0]
    """
    frames = jnp.arange(x.shape[1])[None, :]
    source = jnp.where(frames < lengths[:, None], lengths[:, None] - 1 - frames, frames)
    return jnp.take_along_axis(x, source.reshape(*source.shape, *[1] * (x.ndim - 2)), axis=1)
