"""Keys after a depthwise filter along the sequence.

Axes: B rows, S keys, K key heads, H dimensions of a head, W width of the filter.
"""

from typing import Any

import jax
import jax.numpy as jnp

from kernels.convolution.api import depthwise_conv1d


def convolved_keys(
    key: Any,
    key_filter: Any,
    *,
    causal: bool,
    lengths: Any = None,
    segments: Any = None,
    implementation: str | None = None,
) -> jax.Array:
    """(B, S, K, H) and (W, K, H), (W, K, 1) or (W, K) -> (B, S, K, H)."""
    rows, keys, heads, width = key.shape
    taps = key_filter.shape[0]
    if key_filter.ndim == 2:
        key_filter = key_filter[:, :, None]
    key_filter = jnp.broadcast_to(key_filter, (taps, heads, width))
    if segments is not None:
        return _within_segments(key, key_filter, causal, lengths, segments)
    if 0 in key.shape:
        return key
    filtered = depthwise_conv1d(
        key.reshape(rows, keys, heads * width),
        key_filter.reshape(taps, heads * width),
        padding="CAUSAL" if causal else "SAME",
        lengths=lengths,
        implementation=implementation,
    )
    return jnp.asarray(filtered).reshape(key.shape)


def _within_segments(key, key_filter, causal, lengths, segments):
    """W shifted multiply-adds, each where the tap is a frame of the same sequence."""
    taps, keys = key_filter.shape[0], key.shape[1]
    left = taps - 1 if causal else (taps - 1) // 2
    s = jnp.arange(keys, dtype=jnp.int32)
    wide = jnp.float64 if key.dtype == jnp.float64 else jnp.float32
    zero = jnp.zeros((), wide)
    total = jnp.zeros(key.shape, wide)
    for tap in range(taps):
        source = s + (tap - left)
        clipped = jnp.clip(source, 0, keys - 1)
        counts = ((source >= 0) & (source < keys))[None] & (segments[:, clipped] == segments)
        if lengths is not None:
            counts &= source[None] < lengths.astype(jnp.int32)[:, None]
            counts &= s[None] < lengths.astype(jnp.int32)[:, None]
        frames = jnp.where(counts[..., None, None], key[:, clipped].astype(wide), zero)
        total += frames * key_filter[tap].astype(wide)[None, None]
    return total.astype(key.dtype)
