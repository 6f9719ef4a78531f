"""Calls of attention's kernels with operands, and the definition to compare them with.

Blocks have 16 positions here, so that sizes around 20 have several; the interpreter takes about as
long for a block of any size.
"""

import importlib
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.attention import derivatives
from kernels.attention.configs import TUNABLES, SquareConfig
from kernels.attention.operands import DIFFERENTIABLE, Operands
from kernels.configurations import override

kernel: Any = None
if importlib.util.find_spec("triton") is not None:
    kernel = importlib.import_module("kernels.attention.kernel")

STATIC = {"causal": False, "window": None, "soft_cap": None, "dropout_rate": 0.0}


class Case:
    """Operands and options of a call, with what is expected of it.

    Args:
        rows, queries, keys, heads, key_heads, width: sizes.
        dtype: of queries, keys and values.
        blocks: of queries and of keys in every kernel that can have them.
        seed: of the operands.
        **options: static options; the others are operands: shapes of those that are random, arrays.
    """

    def __init__(
        self, rows=1, queries=20, keys=18, heads=1, key_heads=1, width=5, *, dtype="float32",
        blocks=(16, 16), seed=0, **options,
    ):  # fmt: skip
        generator = np.random.default_rng(seed)
        self.blocks, self.dtype = blocks, dtype
        self.static = STATIC | {"scale": width**-0.5}
        self.static |= {n: options.pop(n) for n in list(options) if n in self.static}
        shapes = {
            "query": (rows, queries, heads, width),
            "key": (rows, keys, key_heads, width),
            "value": (rows, keys, key_heads, width),
        }
        given: dict[str, Any] = {}
        for name, value in (shapes | options).items():
            if isinstance(value, tuple) and name in DIFFERENTIABLE:
                given[name] = jnp.asarray(generator.normal(size=value), dtype)
            elif name == "mask" and isinstance(value, tuple):
                given[name] = jnp.asarray(generator.random(value) < 0.7)
            elif name == "dropout_seeds":
                words = generator.integers(0, 2**32, (rows, heads, 2), dtype=np.uint32)
                given[name] = jnp.asarray(words)
            else:
                given[name] = jnp.asarray(value)
        self.operands = Operands(**given)
        out = self.operands.query.shape
        self.cotangents = tuple(
            jnp.asarray(generator.normal(size=shape), kind)
            for shape, kind in ((out, dtype), (out[:3], "float32"))
        )

    @property
    def wanted(self):
        return tuple(
            array is not None and name in DIFFERENTIABLE
            for name, array in self.operands._asdict().items()
        )

    @property
    def results(self):
        chosen = [n for n, w in zip(Operands._fields, self.wanted, strict=True) if w]
        return ["out", "residual", *chosen]

    def configured(self):
        m, n = self.blocks
        square = max(m, n)
        return override(
            {
                t.name: t.config(square, square) if t.config is SquareConfig else t.config(m, n)
                for t in TUNABLES
            }
        )

    def function(self):
        """Value, residual and every gradient, by the kernels."""

        def everything(operands, cotangents):
            outputs, saved = kernel.attention.saving(*operands, **self.static)
            slopes = kernel.attention.gradient(
                operands, saved, cotangents, self.wanted, **self.static
            )
            return *outputs, *slopes

        return jax.jit(everything)

    def found(self):
        with self.configured():
            results = self.function()(self.operands, self.cotangents)
        return dict(zip(self.results, results, strict=True))

    def defined(self, dtype):
        """The same by the definition, from the same numbers."""
        chosen = self.wanted

        def definition(moving):
            given = iter(moving)
            operands = [next(given) if c else a for c, a in zip(chosen, self.operands, strict=True)]
            return derivatives.forward(*operands, **self.static)

        def everything(moving, cotangents):
            outputs, pullback = jax.vjp(definition, moving)
            of_residual = cotangents[1].astype(outputs[1].dtype)
            return *outputs, *pullback((cotangents[0].astype(outputs[0].dtype), of_residual))[0]

        with jax.enable_x64(dtype == "float64"):
            moving = [a for c, a in zip(chosen, self.operands, strict=True) if c]
            moving = [jnp.asarray(np.asarray(a)).astype(dtype) for a in moving]
            cotangents = [jnp.asarray(np.asarray(c)).astype(dtype) for c in self.cotangents]
            results = jax.jit(everything)(moving, cotangents)
            return {
                name: np.asarray(result).astype(np.float64)
                for name, result in zip(self.results, results, strict=True)
            }

    def check(self, *, plain=False):
        """At most twice the error of the definition in the same precision, or near rounding."""
        found, exact = self.found(), self.defined("float64")
        half = self.dtype != "float32"
        rounded = self.defined(self.dtype) if plain or half else exact
        for name, array in found.items():
            operand = getattr(self.operands, name, None)
            if operand is not None:
                assert (array.shape, array.dtype) == (operand.shape, operand.dtype), name
            none = np.isneginf(exact[name])
            array = np.asarray(array, np.float64)
            np.testing.assert_array_equal(np.isneginf(array), none, err_msg=name)
            array, true, near = (a[~none] for a in (array, exact[name], rounded[name]))
            scale = np.abs(true).max(initial=1e-3)
            # The largest of few roundings to 8 bits is luck, their mean is not.
            measure = rms if half else largest
            # The definition in float32 is a few times 1e-7 off as well.
            allowed = 2 * measure(near - true) + (1e-6 if plain or half else 2e-6) * scale
            assert measure(array - true) <= allowed, (name, measure(array - true), allowed)
        return found


def largest(array):
    return np.abs(array).max(initial=0)


def rms(array):
    return np.sqrt(np.mean(array**2))


def segments(*runs):
    """Ids by the lengths of their runs."""
    return np.concatenate([np.full(n, i) for i, n in enumerate(runs)])[None].astype(np.int32)


def lengths(*values):
    return np.asarray(values, np.int32)


def relative(rows=1, queries=20, keys=18, heads=1, width=5, of=1) -> dict[str, Any]:
    return {
        "position_query": (rows, queries, heads, width),
        "position_key": (of, queries + keys - 1, heads, width),
    }


# ---------------------------------------------------------------------- Forms

FORMS: dict[str, dict[str, Any]] = {
    "plain": {"rows": 2, "queries": 17},
    "whole blocks": {"queries": 32, "keys": 32, "width": 16},
    "blocks that differ": {"queries": 40, "keys": 33, "blocks": (16, 32), "width": 33},
    "one query": {"queries": 1, "keys": 19, "bias": (1, 1, 1, 19)},
    "one key": {"queries": 19, "keys": 1, "bias": (1, 1, 19, 1)},
    "one of each": {"queries": 1, "keys": 1, "width": 1, **relative(1, 1, 1, 1, 1)},
    "causal": {"queries": 33, "keys": 33, "causal": True},
    "causal, more keys": {"queries": 17, "keys": 35, "causal": True, "blocks": (32, 16)},
    "causal, more queries": {"queries": 35, "keys": 17, "causal": True, "blocks": (16, 32)},
    "window": {"queries": 50, "keys": 49, "window": (18, 5)},
    "window to the left": {"queries": 36, "keys": 20, "window": (3, None)},
    "window to the right": {"queries": 20, "keys": 36, "window": (None, 17)},
    "causal window": {"queries": 49, "keys": 49, "causal": True, "window": (20, 9)},
    "groups of heads": {"rows": 2, "queries": 5, "heads": 4, "key_heads": 2},
    "one key head": {"queries": 17, "keys": 5, "heads": 3, "key_heads": 1},
    "lengths": {
        "rows": 3, "queries": 18, "query_lengths": lengths(18, 0, 5),
        "key_lengths": lengths(4, 17, 0), "causal": True,
    },
    "key lengths": {"keys": 50, "key_lengths": lengths(33)},
    "mask": {"rows": 2, "queries": 6, "heads": 2, "key_heads": 2, "mask": (2, 2, 6, 18)},
    "mask of keys": {"rows": 2, "mask": (2, 1, 1, 18)},
    "mask of queries": {"mask": (1, 1, 20, 1)},
    "segments": {"query_segments": segments(3, 9, 8), "key_segments": segments(9, 1, 8)},
    "negative scale": {"scale": -0.7, "queries": 5},
    "no scale": {"scale": 0.0, "queries": 5},
    # The log of such a row's sum has no digits left for the number of its keys.
    "bias that leaves nothing": {
        "scale": 0.0, "bias": np.full((1, 1, 20, 1), -1e9, np.float32),
    },
    "bias": {"rows": 2, "queries": 7, "heads": 2, "key_heads": 2, "bias": (2, 2, 7, 18)},
    "bias of heads": {"rows": 2, "heads": 2, "key_heads": 1, "keys": 5, "bias": (1, 2, 20, 5)},
    "bias of all": {"rows": 2, "queries": 17, "heads": 2, "bias": (1, 1, 17, 18), "causal": True},
    "bias of keys": {"rows": 2, "heads": 2, "queries": 17, "bias": (2, 1, 1, 18)},
    "bias of queries": {"rows": 2, "bias": (1, 1, 20, 1), "window": (1, 4)},
    "bias of keys, windowed": {"queries": 34, "bias": (1, 1, 1, 18), "window": (4, 1)},
    "bias of a head": {"rows": 2, "queries": 17, "heads": 2, "bias": (1, 2, 1, 1)},
    "one bias": {"rows": 2, "queries": 17, "bias": (1, 1, 1, 1), "soft_cap": 1.5},
    "soft cap": {"queries": 17, "soft_cap": 0.7},
    "soft cap of bias": {
        "queries": 5, "soft_cap": 2.0, "bias": (1, 1, 5, 18), "mask": (1, 1, 5, 18),
    },
    "offsets": {"rows": 2, "offset_bias": (1, 1, 37)},
    "offsets of heads": {"heads": 2, "keys": 5, "offset_bias": (1, 2, 24), "window": (2, 2)},
    "relative": {"rows": 2, "queries": 5, "heads": 2, **relative(2, 5, 18, 2)},
    "relative, causal": {"queries": 35, "keys": 20, "causal": True, **relative(1, 35, 20)},
    "relative, blocks that differ": {
        "queries": 18, "keys": 18, "key_lengths": lengths(17), "blocks": (32, 16),
        **relative(1, 18, 18),
    },
    "relative of rows": {"rows": 2, "queries": 3, "keys": 4, **relative(2, 3, 4, of=2)},
    "dropout": {"rows": 2, "dropout_seeds": None, "dropout_rate": 0.3},
    "dropout of most": {"queries": 6, "dropout_seeds": None, "dropout_rate": 0.75, "causal": True},
    "filtered keys": {
        "rows": 2, "queries": 17, "keys": 33, "heads": 2, "key_heads": 2, "causal": True,
        "key_filter": (1, 3, 2, 5), "key_lengths": lengths(33, 30),
    },
    "filters of rows": {"rows": 2, "queries": 5, "key_filter": (2, 4, 1, 5)},
    "filtered keys of sequences": {
        "rows": 2, "queries": 5, "keys": 19, "key_lengths": lengths(17, 4),
        "query_segments": segments(3, 2), "key_segments": segments(9, 1, 9),
        "key_filter": (2, 4, 1, 5),
    },
    "everything": {
        "rows": 2, "queries": 18, "keys": 19, "heads": 2, "key_heads": 1, "causal": True,
        "window": (17, 3), "soft_cap": 3.0, "dropout_rate": 0.2, "dropout_seeds": None,
        "bias": (2, 1, 18, 1), "mask": (1, 2, 18, 19), "offset_bias": (2, 2, 36),
        "query_lengths": lengths(18, 17), "key_lengths": lengths(18, 19),
        "query_segments": segments(9, 9), "key_segments": segments(12, 7),
        **relative(2, 18, 19, 2),
    },
}  # fmt: skip
