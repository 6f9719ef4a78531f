"""SpecAugment: warping and masking of features. Pure and jitted.

Axis suffixes: B batch, T frames, F mel bins, M masks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from research.errors import ConfigError


@dataclass(frozen=True)
class SpecAugment:
    """How much is warped and masked. The defaults are for short strings of digits.

    Attributes:
        time_warp: farthest that a frame is moved (W in the paper); 0 leaves time alone.
        frequency_masks: masks over bins (m_F).
        max_frequency_width: widest of them, in bins (F).
        time_masks: masks over frames (m_T).
        max_time_width: widest of them, in frames (T).
        max_time_fraction: widest of them, as a part of the valid frames (p).
        fill: what masked entries become: 0, which is the mean of normalised features, or the
            example's own mean over its valid frames and all bins.
    """

    time_warp: int = 0
    frequency_masks: int = 2
    max_frequency_width: int = 7
    time_masks: int = 1
    max_time_width: int = 12
    max_time_fraction: float = 1.0
    fill: Literal["zero", "mean"] = "zero"

    def __post_init__(self) -> None:
        """Check the ranges."""
        numbers = (
            self.time_warp,
            self.frequency_masks,
            self.max_frequency_width,
            self.time_masks,
            self.max_time_width,
        )
        fraction = self.max_time_fraction
        if min(numbers) < 0 or not 0 <= fraction <= 1 or self.fill not in ("zero", "mean"):
            raise ConfigError(
                "masks need numbers and widths >= 0, a time fraction in 0..1 and a fill of 'zero' "
                f"or 'mean', but got {numbers}, {fraction} and {self.fill!r}"
            )


POLICIES: Mapping[str, SpecAugment] = MappingProxyType(
    {
        "LB": SpecAugment(80, 1, 27, 1, 100, 1.0),
        "LD": SpecAugment(80, 2, 27, 2, 100, 1.0),
        "SM": SpecAugment(40, 2, 15, 2, 70, 0.2),
        "SS": SpecAugment(40, 2, 27, 2, 70, 0.2),
        "AlgoPerf": SpecAugment(0, 2, 27, 10, 2**20, 0.05),
    }
)
"""Published ones, for frames of 10 ms and 80 bins.

Basic and double for LibriSpeech, mild and strong for Switchboard (Park et al. 2019, table 1); and
that of the AlgoPerf speech workloads, whose time masks are limited by their fraction alone.
"""


_DEFAULT = SpecAugment()


def spec_augment(
    key: Array,
    features: Float[Array, "B T F"],
    lengths: Int[Array, " B"],
    policy: SpecAugment = _DEFAULT,
) -> Float[Array, "B T F"]:
    """Warp time, then mask random bands of bins and stretches of frames, others in each example.

    A frequency mask covers bins [f0, f0 + f): f is uniform in 0..max_frequency_width and f0 in
    0..F - f. A time mask covers frames [t0, t0 + t) in the same way, with t no more than
    max_time_fraction of the valid frames and the mask within them. Masks may overlap.

    Args:
        key: random key.
        features: (B, T, F); zero in padded frames.
        lengths: valid frames, (B,).
        policy: how much, such as one of `POLICIES`.

    Returns:
        Features of the same shape; padded frames as they were.

    Source: Park et al. 2019, "SpecAugment: A Simple Data Augmentation Method for Automatic Speech
    Recognition", arXiv:1904.08779.

    Example:
        >>> x = jnp.ones((1, 20, 8))
        >>> masked = spec_augment(jax.random.key(0), x, jnp.array([15]), SpecAugment(time_masks=0))
        >>> bool(jnp.all(masked[0, 15:] == 1)), set(masked.ravel().tolist()) <= {0.0, 1.0}
        (True, True)
    """
    return _spec_augment(key, features, lengths, policy)


@partial(jax.jit, static_argnames="policy")
def _spec_augment(key: Array, features: Array, lengths: Array, policy: SpecAugment) -> Array:
    batch, frames, bins = features.shape
    frequency_key, time_key, warp_key = jax.random.split(key, 3)
    lengths = lengths.astype(jnp.int32)
    if policy.time_warp:
        features = time_warp(warp_key, features, lengths, policy.time_warp)
    widest = jnp.full((batch,), min(policy.max_frequency_width, bins), jnp.int32)
    sizes = jnp.full((batch,), bins, jnp.int32)
    masked_BF = _stretches(frequency_key, policy.frequency_masks, widest, sizes, bins)
    allowed = jnp.floor(policy.max_time_fraction * lengths).astype(jnp.int32)
    widest = jnp.minimum(policy.max_time_width, allowed)
    masked_BT = _stretches(time_key, policy.time_masks, widest, lengths, frames)
    valid_BT = jnp.arange(frames)[None, :] < lengths[:, None]
    masked = (masked_BF[:, None, :] | masked_BT[:, :, None]) & valid_BT[:, :, None]
    if policy.fill == "zero":
        return jnp.where(masked, 0.0, features).astype(features.dtype)
    total = jnp.where(valid_BT[:, :, None], features, 0.0).sum(axis=(1, 2))
    mean = total / jnp.maximum(lengths * bins, 1)
    return jnp.where(masked, mean[:, None, None], features).astype(features.dtype)


def _stretches(
    key: Array, masks: int, widest: Array, sizes: Array, positions: int
) -> Bool[Array, "B N"]:
    """Whether each of N positions lies in one of the masks within the first `sizes`."""
    batch = sizes.shape[0]
    width_key, start_key = jax.random.split(key)
    widths = jax.random.randint(width_key, (batch, masks), 0, widest[:, None] + 1)
    starts = jax.random.randint(start_key, (batch, masks), 0, sizes[:, None] - widths + 1)
    at = jnp.arange(positions)[None, None, :]
    inside_BMN = (starts[..., None] <= at) & (at < (starts + widths)[..., None])
    return inside_BMN.any(axis=1)


@partial(jax.jit, static_argnames="farthest")
def time_warp(
    key: Array, features: Float[Array, "B T F"], lengths: Int[Array, " B"], farthest: int
) -> Float[Array, "B T F"]:
    """Move a frame in the middle, and with it all others in proportion; both ends stay.

    Frame c, uniform in W..T' - W, moves to c + w, w uniform in -W..W. What lies between an end and
    c is stretched or squeezed evenly, with linear interpolation between frames (the paper's spline
    through the same points is as straight to within a frame). T' of no more than 2 W frames stays.

    Args:
        key: random key.
        features: (B, T, F).
        lengths: valid frames T', (B,).
        farthest: W, in frames, >= 1.

    Returns:
        Features of the same shape; padded frames as they were.

    Source: Park et al. 2019, section 2, 1.

    Example:
        >>> ramp = jnp.arange(9.0)[None, :, None]
        >>> warped = time_warp(jax.random.key(0), ramp, jnp.array([9]), 2)[0, :, 0]
        >>> float(warped[0]), float(warped[8]), bool((jnp.diff(warped) > 0).all())
        (0.0, 8.0, True)
    """
    batch, frames, _ = features.shape
    centre_key, move_key = jax.random.split(key)
    lengths = lengths.astype(jnp.int32)
    warped = lengths > 2 * farthest
    last = jnp.where(warped, lengths, 2 * farthest + 1)[:, None] - 1
    centre = jax.random.randint(centre_key, (batch, 1), farthest, last - farthest + 1)
    # Strictly between the ends, or one side would be squeezed to nothing.
    target = centre + jax.random.randint(move_key, (batch, 1), -farthest, farthest + 1)
    target = jnp.clip(target, 1, last - 1)
    at = jnp.arange(frames)[None, :]
    before = at * centre / target
    after = centre + (at - target) * (last - centre) / (last - target)
    source = jnp.where(at < target, before, after)
    moves = warped[:, None] & (at < lengths[:, None])
    source = jnp.where(moves, source, at.astype(source.dtype))
    left = jnp.clip(jnp.floor(source).astype(jnp.int32), 0, frames - 1)
    # Not the padding, which may be anything: zero times it need not be zero.
    right = jnp.minimum(left + 1, jnp.maximum(lengths[:, None] - 1, left))
    part = (source - left)[..., None].astype(features.dtype)
    take = partial(jnp.take_along_axis, features, axis=1)
    mixed = take(left[..., None]) * (1 - part) + take(right[..., None]) * part
    return jnp.where(moves[..., None], mixed, features)
