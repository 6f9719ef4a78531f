"""The attention kernels, interpreted, against the definition in float64: forms and gradients.

Blocks have 16 positions here, so that sizes around 20 have several; the interpreter takes about as
long for a block of any size.
"""

import functools
import importlib
import importlib.util
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import launch
from kernels.attention import derivatives, dropout
from kernels.attention.configs import TUNABLES, Config, SquareConfig
from kernels.attention.operands import DIFFERENTIABLE, Operands
from kernels.configurations import override
from kernels.dispatch import Operation

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux only"
)
slow = pytest.mark.slow
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
    "everything": {
        "rows": 2, "queries": 18, "keys": 19, "heads": 2, "key_heads": 1, "causal": True,
        "window": (17, 3), "soft_cap": 3.0, "dropout_rate": 0.2, "dropout_seeds": None,
        "bias": (2, 1, 18, 1), "mask": (1, 2, 18, 19), "offset_bias": (2, 2, 36),
        "query_lengths": lengths(18, 17), "key_lengths": lengths(18, 19),
        "query_segments": segments(9, 9), "key_segments": segments(12, 7),
        **relative(2, 18, 19, 2),
    },
}  # fmt: skip


# Their parts are in others, and they take seconds.
SLOW = (
    "everything", "causal, more queries", "window to the right", "mask", "bias", "dropout",
    "window", "bias of keys, windowed", "bias of a head", "mask of queries", "offsets of heads",
    "relative, blocks that differ", "relative of rows", "dropout of most", "no scale",
    "one of each",
    "key lengths", "blocks that differ", "one key head", "soft cap", "bias of queries", "one key",
)  # fmt: skip


@pytest.mark.parametrize("form", [pytest.param(f, marks=slow if f in SLOW else ()) for f in FORMS])
def test_every_form_and_every_gradient(form):
    Case(**FORMS[form]).check()


@pytest.mark.parametrize("form", ["soft cap of bias", pytest.param("everything", marks=slow)])
def test_error_is_at_most_twice_the_definitions(form):
    Case(**FORMS[form], seed=1).check(plain=True)


@pytest.mark.parametrize(
    ("dtype", "more"),
    [
        ("bfloat16", {"causal": True}),
        ("bfloat16", {"soft_cap": 3.0, "bias": (1, 1, 20, 18), **relative()}),
        pytest.param("float16", {"offset_bias": (1, 1, 37)}, marks=slow),
    ],
)
def test_half_precision_accumulates_in_float32(dtype, more):
    case = Case(**more, dtype=dtype)
    found = case.check()
    assert found["residual"].dtype == jnp.float32


def test_a_bias_may_have_another_precision():
    case = Case(queries=5, dtype="bfloat16")
    bias = jnp.asarray(np.random.default_rng(3).normal(size=(1, 1, 5, 18)), jnp.float32)
    case.operands = case.operands._replace(bias=bias)
    case.check()


# ---------------------------------------------------------------------- Rows


def test_rows_that_share_an_operand_with_some_others():
    """Row b uses row b // (B / b); a gradient is a sum over the rows that share."""
    case = Case(
        rows=4, queries=3, keys=5, heads=2, key_heads=2, bias=(2, 1, 3, 5), mask=(2, 1, 1, 5),
        key_lengths=lengths(5, 3), query_segments=np.zeros((2, 3), np.int32),
        key_segments=np.zeros((1, 5), np.int32), **relative(4, 3, 5, 2, of=2),
    )  # fmt: skip
    key, value = case.operands.key[:2], case.operands.value[:1]
    case.operands = case.operands._replace(key=key, value=value)
    case.check()


@pytest.mark.parametrize("programs", [pytest.param(1, marks=slow), 3])
def test_sums_over_rows_and_heads_in_parts(programs, monkeypatch):
    """However many programs share a reduction, uneven shares too."""
    monkeypatch.setattr(kernel, "_PROGRAMS", programs)
    more: dict[str, Any] = {"bias": (1, 1, 1, 5), "offset_bias": (1, 1, 7)}
    Case(rows=5, queries=3, keys=5, heads=1, **more).check()


# ---------------------------------------------------------------------- What does not count


def test_what_lies_in_padding_changes_no_bit():
    options: dict[str, Any] = {
        "rows": 3, "queries": 18, "query_lengths": lengths(17, 0, 5), "causal": True,
        "key_lengths": lengths(2, 3, 0), "bias": (3, 1, 18, 18),
    }  # fmt: skip
    case = Case(**options)
    clean = case.found()
    t = np.arange(18)[None, :] >= np.asarray([17, 0, 0])[:, None]
    s = np.arange(18)[None, :] >= np.asarray([2, 0, 0])[:, None]

    def spoilt(array, mask):
        return jnp.where(mask.reshape(*mask.shape, *[1] * (array.ndim - 2)), jnp.nan, array)

    case.operands = case.operands._replace(
        query=spoilt(case.operands.query, t),
        key=spoilt(case.operands.key, s),
        value=spoilt(case.operands.value, s),
        bias=jnp.where(t[:, None, :, None] | s[:, None, None, :], jnp.nan, case.operands.bias),
    )
    case.cotangents = tuple(spoilt(c, t) for c in case.cotangents)
    for name, array in case.found().items():
        np.testing.assert_array_equal(array, clean[name], err_msg=name)
    for name, mask in (("out", t), ("query", t), ("key", s), ("value", s)):
        assert not np.asarray(clean[name])[mask].any(), name


def test_queries_that_see_nothing():
    mask = np.ones((1, 1, 20, 18), bool)
    mask[0, 0, [0, 7, 19]] = False
    bias = np.random.default_rng(0).normal(size=(1, 1, 20, 18)).astype(np.float32)
    bias[0, 0, [1, 8]] = -np.inf  # as good as not seen
    bias[0, 0, 3, ::2] = -np.inf
    case = Case(mask=mask)
    case.operands = case.operands._replace(bias=jnp.asarray(bias))
    found = {name: np.asarray(array) for name, array in case.check().items()}
    nothing = [0, 1, 7, 8, 19]
    assert not found["out"][0, nothing].any()
    assert np.isneginf(found["residual"][0, nothing]).all()
    assert not found["query"][0, nothing].any()
    assert not found["bias"][0, 0, nothing].any()
    assert all(np.isfinite(array).all() for n, array in found.items() if n != "residual")


def test_a_nan_that_is_seen_is_not_hidden():
    case = Case(rows=2, queries=5, causal=True)
    case.operands = case.operands._replace(key=case.operands.key.at[0, 3].set(jnp.nan))
    out = np.asarray(case.found()["out"])
    assert np.isnan(out[0, 3:]).all()
    assert np.isfinite(out[0, :3]).all()
    assert np.isfinite(out[1]).all()


def test_scores_of_any_size():
    case = Case(queries=5, scale=30.0)
    query = case.operands.query.at[0, 0].multiply(1e5)
    bias = jnp.zeros((1, 1, 5, 18)).at[0, 0, 1].set(-1e30).at[0, 0, 2, 3:].set(-1e30)
    case.operands = case.operands._replace(query=query, bias=bias)
    found = {name: np.asarray(array) for name, array in case.found().items()}
    exact = case.defined("float64")
    for name in ("out", "residual"):
        assert (abs(found[name] - exact[name]) <= 1e-5 * np.maximum(1, abs(exact[name]))).all()
    assert all(np.isfinite(array).all() for array in found.values())


# ---------------------------------------------------------------------- Dropout


def test_the_very_bits_of_dropout():
    """With equal probabilities and keys' numbers as values, the output tells which were kept."""
    case = Case(
        queries=18, keys=37, heads=2, key_heads=1, width=37, dropout_seeds=None, dropout_rate=0.6,
        blocks=(16, 32), scale=0.0,
    )  # fmt: skip
    case.operands = case.operands._replace(value=jnp.eye(37)[None, :, None])
    with case.configured():
        out, residual = kernel.attention.forward(*case.operands, **case.static)
    kept = np.asarray(dropout.kept(case.operands.dropout_seeds, 18, 37, 0.6))
    found = np.asarray(out).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(found != 0, kept)
    np.testing.assert_allclose(found[kept], 1 / 37 / 0.4, rtol=1e-6)
    np.testing.assert_allclose(residual, np.log(37), rtol=1e-6)


# ---------------------------------------------------------------------- Launches


def launches(function, *arguments):
    """Names of the kernels in a program, of either branch for a platform."""
    text = str(jax.make_jaxpr(function)(*arguments))
    return sorted(set(re.findall(r"kernel=JITFunction\([\w.]*?:?(\w+)\)", text)))


def test_only_what_is_wanted_is_launched():
    case = Case(rows=2, queries=3, keys=4, bias=(1, 1, 3, 4), **relative(2, 3, 4))
    saved = (case.operands.query, case.cotangents[1], case.cotangents[1])

    def launched(*names):
        wanted = tuple(name in names for name in Operands._fields)

        def function(operands):
            return kernel.attention.gradient(
                operands, saved, case.cotangents, wanted, **case.static
            )

        return launches(function, case.operands)

    assert launched("key") == launched("value") == ["key_value_gradient"]
    assert launched("query", "position_query") == ["query_gradient"]
    assert launched("bias") == ["bias_gradient"]
    assert launched("position_key") == ["offset_gradient"]
    assert launched("query", "bias", "value") == [
        "bias_gradient", "key_value_gradient", "query_gradient",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wanted", ["position_query", *(pytest.param(n, marks=slow) for n in ("key", "value", "query"))]
)
def test_one_gradient_alone_is_the_same(wanted):
    case = Case(rows=1, queries=5, keys=4, heads=2, key_heads=1, **relative(1, 5, 4, 2))
    everything = case.found()
    chosen = tuple(name == wanted for name in Operands._fields)
    with case.configured():
        _, saved = kernel.attention.saving(*case.operands, **case.static)
        (alone,) = kernel.attention.gradient(
            case.operands, saved, case.cotangents, chosen, **case.static
        )
    np.testing.assert_allclose(alone, everything[wanted], rtol=1e-5, atol=1e-6)


def test_the_same_bits_twice_and_in_any_order_of_programs(monkeypatch):
    case = Case(rows=2, queries=17, keys=5, bias=(1, 1, 1, 5), **relative(2, 17, 5))
    interpreter = importlib.import_module("kernels.interpreter")
    run, found = interpreter.run, []
    with case.configured():
        function = case.function()
        for seed in (0, 0, 5):
            monkeypatch.setattr(interpreter, "run", functools.partial(run, seed=seed))
            results = function(case.operands, case.cotangents)
            found.append([np.asarray(array).tobytes() for array in results])
    assert found[0] == found[1] == found[2]


def test_as_an_operation_under_jit_vmap_and_grad():
    modules = {"xla": "kernels.attention.xla", "triton": "kernels.attention.kernel"}
    operation = Operation(
        "attention", modules, derivatives="kernels.attention.derivatives", outputs=2, saves=True
    )
    case = Case(rows=1, queries=4, keys=3, bias=(1, 1, 4, 3))
    queries = jnp.stack([case.operands.query, -case.operands.query])

    def total(query, bias):
        operands = case.operands._replace(query=query, bias=bias)
        out, residual = operation(*operands, implementation="triton", **case.static)
        return jnp.sum(out * case.cotangents[0]) + jnp.sum(residual * case.cotangents[1])

    mapped = jax.vmap(jax.grad(total, argnums=(0, 1)), in_axes=(0, None))
    slopes, of_bias = jax.jit(mapped)(queries, case.operands.bias)
    for i, query in enumerate(queries):
        case.operands = case.operands._replace(query=query)
        exact = case.defined("float64")
        np.testing.assert_allclose(slopes[i], exact["query"], atol=1e-6)
        np.testing.assert_allclose(of_bias[i], exact["bias"], atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "queries", "keys"), [(0, 3, 4), (2, 0, 4), (2, 3, 0)], ids=["rows", "queries", "keys"]
)
def test_nothing_to_do(rows, queries, keys):
    case = Case(rows, queries, keys, bias=(1, 1, 1, 1))
    found = case.found()
    assert found["residual"].shape == (rows, queries, 1)
    assert np.isneginf(np.asarray(found["residual"])).all()
    assert not any(np.asarray(a).any() for n, a in found.items() if n != "residual")


# ---------------------------------------------------------------------- Refusals, configurations


def test_what_it_refuses():
    def refusal(queries=8, keys=8, width=64, dtypes=("float32",) * 3, **more):
        shapes = [(2, queries, 4, width), (2, keys, 4, width), (2, keys, 4, width)]
        arrays = [
            jax.ShapeDtypeStruct(s, jnp.dtype(d)) for s, d in zip(shapes, dtypes, strict=True)
        ]
        return kernel.attention.refusal(*Operands(*arrays, **more), **STATIC, scale=1.0)

    assert refusal(2**14, 2**14) is None
    assert refusal(width=256) is None
    assert "256 dimensions in it, and 257" in refusal(width=257)
    assert "float64" in refusal(dtypes=("float64",) * 3)
    assert "float64" in refusal(bias=jax.ShapeDtypeStruct((1, 1, 8, 8), np.dtype("float64")))
    assert "bfloat16" in refusal(dtypes=("float32", jnp.bfloat16, "float32"))
    assert "32 bits" in refusal(2**16, 2**16)
    assert "32 bits" in refusal(2**23, 8, 64)
    positions: dict[str, Any] = {
        "position_query": jax.ShapeDtypeStruct((2, 8, 4, 64), np.dtype("float32")),
        "position_key": jax.ShapeDtypeStruct((1, 15, 4, 64), np.dtype("float32")),
    }
    assert refusal(**positions) is None
    with launch.compute_capability(90):
        assert "at most 16 dimensions of float32" in refusal(**positions)


def test_configurations():
    sizes = {"rows": 2, "heads": 4, "key_heads": 2}
    for tunable in TUNABLES:
        for dtype in ("float32", "bfloat16"):
            for extras in ("plain", "biased", "dropout", "relative"):
                for queries, keys, width in ((1, 1, 1), (1, 900, 64), (333, 17, 128), (9, 9, 256)):
                    asked = sizes | {
                        "dtype": dtype, "extras": extras, "queries": queries, "keys": keys,
                        "width": width,
                    }  # fmt: skip
                    candidates = list(tunable.candidates(**asked))
                    assert 1 <= len(candidates) == len(set(candidates)) <= 40
                    for arch in ("sm_80", "sm_90", "sm_100"):
                        chosen = tunable.heuristic(arch=arch, **asked)
                        assert isinstance(chosen, tunable.config)
                        assert chosen.block_queries <= max(64, 2 * queries)
    for wrong in ((8, 64), (64, 48), (64, 64, 3), (64, 64, 4, 0)):
        with pytest.raises(ValueError, match="must have powers of two from 16 on"):
            Config(*wrong)
    with pytest.raises(ValueError, match="must equal block_keys"):
        SquareConfig(32, 64)
    case = Case(bias=(1, 1, 20, 18), queries=20)
    words = str(kernel.attention.tuning(*case.operands, **case.static))
    assert "attention.forward" in words
    assert "attention.bias_gradient" in words
    assert "attention.offset_gradient" not in words
