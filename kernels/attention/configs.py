"""What each attention kernel runs with on a GPU: for ``kernels.tune``, and without a table by rule.

The rules are the largest tiles that compile without spilled registers (``python -m
kernels.static_report attention``), which no measurement has confirmed.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kernels.configurations import Tunable, architecture, bucket, round_up


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


# Queries and keys of a tile, warps, stages: the largest that spill no register, by kernel, word for
# extras and dimensions up to; and where an architecture has room for more, or for less.
_HALF: dict[str, dict[tuple[str, int], tuple[int, int, int, int]]] = {
    "forward": {
        ("plain", 64): (128, 64, 4, 3), ("plain", 128): (128, 128, 8, 2),
        ("plain", 256): (64, 64, 8, 2),
        ("more", 64): (64, 64, 4, 2), ("more", 128): (64, 64, 8, 2), ("more", 256): (64, 32, 8, 2),
        ("filtered", 64): (64, 32, 4, 2), ("filtered", 128): (64, 32, 8, 2),
        ("relative", 64): (64, 64, 8, 2), ("relative", 128): (32, 32, 8, 1),
    },
    "key_gradient": {
        ("plain", 64): (64, 128, 8, 2), ("plain", 128): (64, 64, 8, 2),
        ("plain", 256): (32, 32, 8, 1),
        ("more", 64): (32, 64, 8, 1), ("more", 128): (32, 32, 8, 1), ("more", 256): (32, 32, 8, 1),
        ("relative", 64): (32, 32, 4, 2), ("relative", 128): (32, 32, 8, 1),
    },
    "query_gradient": {
        ("plain", 64): (128, 64, 4, 2), ("plain", 128): (64, 64, 4, 2),
        ("plain", 256): (32, 32, 8, 1),
        ("more", 64): (64, 64, 4, 2), ("more", 128): (64, 64, 8, 2), ("more", 256): (32, 32, 8, 1),
        ("relative", 64): (32, 32, 4, 2), ("relative", 128): (32, 32, 8, 1),
    },
    "bias_gradient": {
        ("more", 64): (64, 64, 4, 2), ("more", 128): (64, 64, 8, 2), ("more", 256): (16, 16, 8, 1),
        ("relative", 64): (32, 32, 4, 2), ("relative", 128): (16, 16, 8, 1),
    },
    "offset_gradient": {
        ("more", 64): (64, 64, 8, 2), ("more", 128): (32, 32, 8, 1), ("more", 256): (16, 16, 8, 1),
        ("relative", 64): (32, 32, 4, 2), ("relative", 128): (16, 16, 8, 1),
    },
    "position_gradient": {
        ("relative", 64): (32, 32, 4, 2), ("relative", 128): (16, 16, 8, 1),
    },
}  # fmt: skip
_BY_ARCHITECTURE: dict[tuple[str, str, str, int], tuple[int, int, int, int]] = {
    ("sm_80", "forward", "plain", 128): (128, 64, 8, 3),
    ("sm_90", "forward", "plain", 256): (128, 64, 8, 2),
    ("sm_90", "forward", "more", 128): (64, 64, 4, 2),
    ("sm_100", "forward", "more", 128): (64, 64, 4, 2),
    ("sm_80", "forward", "relative", 64): (32, 32, 4, 2),
    ("sm_100", "forward", "relative", 128): (64, 64, 8, 1),
    ("sm_100", "key_gradient", "plain", 128): (64, 128, 8, 2),
    ("sm_100", "key_gradient", "plain", 256): (64, 64, 8, 1),
    ("sm_80", "key_gradient", "more", 128): (32, 64, 8, 1),
    ("sm_100", "key_gradient", "more", 128): (32, 64, 8, 1),
    ("sm_100", "key_gradient", "relative", 64): (64, 64, 8, 2),
    ("sm_80", "query_gradient", "plain", 64): (64, 64, 4, 2),
    ("sm_80", "query_gradient", "plain", 128): (64, 64, 8, 2),
    ("sm_80", "query_gradient", "more", 256): (64, 32, 8, 1),
    ("sm_80", "query_gradient", "more", 64): (64, 32, 8, 2),
    ("sm_80", "bias_gradient", "more", 64): (64, 64, 8, 2),
    ("sm_80", "bias_gradient", "more", 128): (32, 32, 4, 2),
    ("sm_80", "position_gradient", "relative", 128): (32, 32, 8, 1),
}
# Products of float32 are not for the matrix units: each thread has whole rows of operands.
_SINGLE: dict[tuple[str, int], tuple[int, int, int, int]] = {
    ("forward", 64): (32, 32, 8, 1), ("forward", 128): (16, 32, 8, 1),
    ("query_gradient", 128): (16, 32, 8, 1),
    ("bias_gradient", 64): (32, 32, 8, 1), ("bias_gradient", 128): (16, 32, 8, 1),
    ("offset_gradient", 64): (32, 32, 4, 1),
}  # fmt: skip


def relative_refusal(form: Any) -> str | None:
    """Why a GPU must not run this: some kernel has no configuration that spills no register."""
    most = 16 if form.dtype == "float32" else 128
    if form.per.position_key and form.padded > most:
        return (
            f"with relative positions its gradients keep at most {most} dimensions of "
            f"{form.dtype} in registers, and {form.width} were given"
        )
    return None


def filters_inside(form: Any) -> bool:
    """Whether the value is computed from keys that are filtered as tiles of them are loaded.

    Each block of queries filters them again. For few blocks and taps that costs less than a pass
    over the keys before (by arithmetic: it has not been measured). More taps or dimensions, or
    anything else beside the products, would not fit into the registers.
    """
    fits = form.padded <= most_filtered(form.dtype, architecture())
    short = form.queries <= 512 and form.taps <= 9
    return form.extras == "filtered" and fits and short


def most_filtered(dtype: str, arch: str) -> int:
    """Up to how many dimensions of a head keys can be filtered without spilled registers."""
    return 64 if dtype == "float32" or arch.startswith("sm_8") else 128


def _tile(
    kernel: str,
    *,
    arch: str,
    width: int,
    dtype: str,
    extras: str,
    queries: int,
    keys: int,
    **_: Any,
) -> tuple[int, int, int, int]:
    wide = next(most for most in (64, 128, 256) if width <= most or most == 256)
    if dtype == "float32":
        small = (16, 16, 4 if wide == 64 else 8, 1)
        chosen = small if extras == "relative" else _SINGLE.get((kernel, wide), small)
    else:
        word = extras if extras in ("plain", "filtered", "relative") else "more"
        table = _HALF[kernel]
        chosen = table.get((word, wide)) or table.get(("more", wide)) or (16, 16, 8, 1)
        chosen = _BY_ARCHITECTURE.get((arch, kernel, word, wide), chosen)
    m, n, warps, stages = chosen
    # Of a short sequence not more than there is.
    most_m, most_n = (max(16, round_up(size)) for size in (queries, keys))
    return min(m, most_m), min(n, most_n), warps, stages


def _rule(kernel: str) -> Callable[..., Config]:
    return lambda **sizes: Config(*_tile(kernel, **sizes))


def _square_rule(kernel: str) -> Callable[..., SquareConfig]:
    def rule(**sizes: Any) -> SquareConfig:
        m, n, *rest = _tile(kernel, **sizes)
        return SquareConfig(min(m, n), min(m, n), *rest)

    return rule


def _candidates(*, queries: int, keys: int, **_: Any) -> Iterator[Config]:
    most_m, most_n = (max(16, min(128, round_up(size))) for size in (queries, keys))
    tiles = itertools.product((16, 32, 64, 128), (16, 32, 64, 128))
    for (m, n), warps, stages in itertools.product(tiles, (4, 8), (1, 2, 3)):
        fits = m <= most_m and n <= most_n
        # Not the smallest where there is more to do, and enough for each warp.
        enough = m >= min(64, most_m) and n >= min(32, most_n) and m * n >= 64 * warps
        if fits and enough:
            yield Config(m, n, warps, stages)


def _square_candidates(*, queries: int, keys: int, **_: Any) -> Iterator[SquareConfig]:
    most = max(16, min(64, round_up(min(queries, keys))))
    blocks = [block for block in (16, 32, 64) if block <= most]
    for block, warps, stages in itertools.product(blocks, (4, 8), (1, 2)):
        yield SquareConfig(block, block, warps, stages)


_KERNEL = "kernels.attention.kernel"


def _tunable(name: str) -> Tunable:
    return Tunable(f"attention.{name}", Config, _rule(name), _candidates, _bucket, _KERNEL)


def _square_tunable(name: str) -> Tunable:
    rule = _square_rule(name)
    return Tunable(f"attention.{name}", SquareConfig, rule, _square_candidates, _bucket, _KERNEL)


FORWARD = _tunable("forward")
KEY_GRADIENT = _tunable("key_gradient")
QUERY_GRADIENT = _tunable("query_gradient")
BIAS_GRADIENT = _tunable("bias_gradient")
OFFSET_GRADIENT = _square_tunable("offset_gradient")
POSITION_GRADIENT = _square_tunable("position_gradient")
TUNABLES = (
    FORWARD, KEY_GRADIENT, QUERY_GRADIENT, BIAS_GRADIENT, OFFSET_GRADIENT, POSITION_GRADIENT,
)  # fmt: skip
