"""Data parallelism: the rows of a batch on all devices, everything else on each of them.

A step that is jitted and given a batch so placed runs on all of them: XLA adds the gradients up.
On a single device nothing is placed, and nothing changes.
"""

from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

Tree = TypeVar("Tree")


def data_mesh(devices: list[Any] | None = None) -> Mesh | None:
    """A line of all devices of this process, or of those given; None where there is only one.

    Example:
        >>> import jax
        >>> data_mesh(jax.devices()[:1]) is None
        True
    """
    found = jax.local_devices() if devices is None else devices
    return Mesh(np.array(found), ("data",)) if len(found) > 1 else None


def split_rows(batch: Tree, mesh: Mesh | None) -> Tree:
    """The arrays of a batch with their rows on the devices, as many on each.

    Args:
        batch: arrays with a common leading axis, a multiple of the devices.
        mesh: from ``data_mesh``.
    """
    return batch if mesh is None else jax.device_put(batch, NamedSharding(mesh, jax.P("data")))


def on_each(tree: Tree, mesh: Mesh | None) -> Tree:
    """The arrays as a whole on every device."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, jax.P()))
