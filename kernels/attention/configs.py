"""What each attention kernel runs with on a GPU: for ``kernels.tune``, and without a table by rule.

The rules are the largest tiles that compile without spilled registers (``python -m
kernels.static_report attention``), which no measurement has confirmed.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kernels.configurations import Tunable, bucket, round_up


@dataclass(frozen=True)
class Config:
    """A tile of scores, and how a program works on it.

    Attributes:
        block_queries: its queries.
        block_keys: its keys.
        num_warps: warps per program.
        num_stages: of the pipeline of loads.
    """

    block_queries: int = 64
    block_keys: int = 64
    num_warps: int = 4
    num_stages: int = 2

    def __post_init__(self) -> None:
        blocks = (self.block_queries, self.block_keys)
        powers = all(n >= 1 and n.bit_count() == 1 for n in (*blocks, self.num_warps))
        if not powers or min(blocks) < 16 or self.num_warps > 16 or self.num_stages < 1:
            raise ValueError(
                "a configuration must have powers of two from 16 on as blocks, one to 16 warps, "
                f"and a stage or more; received {self}."
            )


@dataclass(frozen=True)
class SquareConfig(Config):
    """A tile with as many keys as queries, for sums along diagonals."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_queries != self.block_keys:
            raise ValueError(f"block_queries must equal block_keys; received {self}.")


def sizes(form: Any) -> dict[str, Any]:
    """What a configuration is chosen by, of a ``kernels.attention.form.Form``."""
    return {
        "rows": form.rows, "queries": form.queries, "keys": form.keys, "heads": form.heads,
        "key_heads": form.key_heads, "width": form.width, "dtype": form.dtype,
        "extras": form.extras,
    }  # fmt: skip


def launched(form: Any) -> tuple[Tunable, ...]:
    """The kernels that the value and every gradient of a form need."""
    more = ((form.per.bias, BIAS_GRADIENT), (form.per.offset_bias, OFFSET_GRADIENT))
    more = (*more, (form.per.position_key, POSITION_GRADIENT))
    always = (FORWARD, KEY_GRADIENT, QUERY_GRADIENT)
    return (*always, *(tunable for there, tunable in more if there))


def _bucket(
    *, dtype: str, extras: str, rows: int, heads: int, queries: int, keys: int, width: int, **_: Any
) -> str:
    return bucket(dtype, extras, batch=rows * heads, queries=queries, keys=keys, width=width)


def _forward(**sizes: Any) -> Config:
    return Config(64, 64, 4, 2)


_key_gradient = _query_gradient = _bias_gradient = _forward


def _along_offsets(**sizes: Any) -> SquareConfig:
    return SquareConfig(64, 64, 4, 2)


def _candidates(*, queries: int, keys: int, **_: Any) -> Iterator[Config]:
    most = [max(16, min(128, round_up(size))) for size in (queries, keys)]
    for m, n, warps, stages in itertools.product(
        (16, 32, 64, 128), (16, 32, 64, 128), (4, 8), (1, 2, 3)
    ):
        if m <= most[0] and n <= most[1] and 2 * max(m, n) >= 64:
            yield Config(m, n, warps, stages)


def _square_candidates(**sizes: Any) -> Iterator[SquareConfig]:
    for config in _candidates(**sizes):
        if config.block_queries == config.block_keys:
            yield SquareConfig(*vars(config).values())


_KERNEL = "kernels.attention.kernel"
FORWARD = Tunable("attention.forward", Config, _forward, _candidates, _bucket, _KERNEL)
KEY_GRADIENT = Tunable(
    "attention.key_gradient", Config, _key_gradient, _candidates, _bucket, _KERNEL
)
QUERY_GRADIENT = Tunable(
    "attention.query_gradient", Config, _query_gradient, _candidates, _bucket, _KERNEL
)
BIAS_GRADIENT = Tunable(
    "attention.bias_gradient", Config, _bias_gradient, _candidates, _bucket, _KERNEL
)
OFFSET_GRADIENT = Tunable(
    "attention.offset_gradient", SquareConfig, _along_offsets, _square_candidates, _bucket, _KERNEL
)
POSITION_GRADIENT = Tunable(
    "attention.position_gradient", SquareConfig, _along_offsets, _square_candidates, _bucket,
    _KERNEL,
)  # fmt: skip
TUNABLES = (
    FORWARD, KEY_GRADIENT, QUERY_GRADIENT, BIAS_GRADIENT, OFFSET_GRADIENT, POSITION_GRADIENT,
)  # fmt: skip
