"""Normalisation layers by name, so that a configuration can choose one without knowing Flax."""

from collections.abc import Callable, Mapping

from flax import linen as nn
from jaxtyping import Array, Float

from research.names import look_up

NORMS: Mapping[str, Callable[[], nn.Module]] = {
    "layer": nn.LayerNorm,
    "rms": nn.RMSNorm,
    "group": lambda: nn.GroupNorm(num_groups=2),
}


def normalise(x: Float[Array, "*B C"], norm: str | None) -> Float[Array, "*B C"]:
    """A new layer of that name applied to ``x``; for use within a compact module.

    - ``layer``: each position on its own, over the channels (Ba, Kiros & Hinton, 2016)
    - ``rms``: the same without centring (Zhang & Sennrich, NeurIPS 2019)
    - ``group``: over all positions and each half of the channels (Wu & He, ECCV 2018)
    - ``None``: ``x`` itself

    Raises:
        ConfigError: no such layer.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> class Net(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x):
        ...         return normalise(x, "rms")
        >>> y, _ = Net().init_with_output(jax.random.key(0), jnp.array([[6.0, 8.0]]))
        >>> print(f"{y[0, 0]:.2f} {y[0, 1]:.2f}")
        0.85 1.13
    """
    return x if norm is None else look_up(NORMS, norm, "norm")()(x)
