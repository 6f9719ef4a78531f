"""Small, real training problems on which optimizers are compared.

>>> quadratic = load("quadratic_1e2")
>>> quadratic.metric
'log10 of f / mean f at the start'

``NAMES`` lists all; those in ``VARIANTS`` differ from an original (``BASES``) in one thing and are
held out: no search space was chosen on them. Nothing heavy is imported before ``load``.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

from research.names import look_up
from research.workloads.catalogue import BASES, ENTRIES, POOL_SEED, VARIANTS

if TYPE_CHECKING:
    from research.workloads.workload import Workload

__all__ = ["BASES", "NAMES", "POOL_SEED", "VARIANTS", "load"]

NAMES: tuple[str, ...] = tuple(ENTRIES)


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Workload:
    """The workload of that name, with its data in memory and its target.

    Args:
        name: one of ``NAMES``.
        data_dir: where data lie; see ``research.data.data_dir``.

    Raises:
        ConfigError: no such workload; the message names the nearest.
        DataError: its data are missing or damaged, or no target was set on them.

    Example:
        >>> digits = load("digits_mlp")
        >>> sorted(digits.train), len(digits.train["labels"])
        (['images', 'labels'], 1079)
    """
    from research.workloads.targets import find_target

    workload = build(name, data_dir)
    return workload._replace(target=find_target(workload))


def build(name: str, data_dir: str | os.PathLike[str] | None = None) -> Workload:
    """The same without a target (NaN), for the pool that sets it."""
    entry = look_up(ENTRIES, name, "workload")
    module = import_module(f"research.workloads.{entry.module}")
    return module.build(name, data_dir, **entry.options)
