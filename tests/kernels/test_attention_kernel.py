"""The attention kernels, interpreted, against the definition in float64: forms and gradients."""

import functools
import importlib
import importlib.util
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import FORMS, STATIC, Case, kernel, lengths, relative

from kernels import launch
from kernels.attention import dropout
from kernels.attention.configs import TUNABLES, Config, SquareConfig
from kernels.attention.operands import Operands
from kernels.dispatch import Operation

pytestmark = [
    pytest.mark.usefixtures("in_haste"),
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="needs Triton, which is for Linux only"
    ),
]
slow = pytest.mark.slow

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


@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_what_lies_in_padding_changes_no_bit(soft_cap):
    options: dict[str, Any] = {
        "rows": 3, "queries": 18, "query_lengths": lengths(17, 0, 5), "causal": True,
        "key_lengths": lengths(2, 3, 0), "bias": (3, 1, 18, 18), "soft_cap": soft_cap,
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
    ("inside", "change"),
    [
        (True, {}),
        (True, {"causal": True, "key_lengths": (1,)}),
        (False, {"queries": 513}),
        (False, {"taps": 10}),
        (False, {"width": 65}),
        (False, {"bias": (1, 1, 1, 4)}),
    ],
)
def test_keys_are_filtered_inside_where_that_fits(inside, change):
    """In one launch instead of two, and never for the gradient, which needs them whole."""
    sizes = {"queries": 512, "width": 64, "taps": 9} | change
    queries, width, taps = (sizes.pop(name) for name in ("queries", "width", "taps"))
    case = Case(1, queries, 4, width=width, key_filter=(1, taps, 1, width), **sizes)
    value = functools.partial(kernel.attention.forward, **case.static)
    text = str(jax.make_jaxpr(value)(*case.operands))
    assert ("depthwise_conv1d" in text) != inside
    everything = str(jax.make_jaxpr(case.function())(case.operands, case.cotangents))
    assert "depthwise_conv1d_gradient" in everything


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
    for heads in (1, 4):  # of a bias; a head of it has fewer than 2^31 places
        bias = jax.ShapeDtypeStruct((1, heads, 2**15, 2**14), np.dtype("float32"))
        assert (refusal(2**15, 2**14, bias=bias) is None) == (heads == 1)
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
