"""Attention's XLA path: the plain and the blocked form against the definition in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste

from kernels.attention import derivatives, xla, xla_backward, xla_blocks
from kernels.attention.operands import DIFFERENTIABLE, Operands
from kernels.attention.xla_scores import Static, heads_first

B, T, S, N, K, H = 2, 37, 53, 4, 2, 8
R = T + S - 1
DEFAULTS = {"causal": False, "window": None, "soft_cap": None, "dropout_rate": 0.0}


def _normal(name, *shape):
    """Numbers that depend on the name, so that forms differ in nothing else."""
    generator = np.random.default_rng([*name.encode()])
    return generator.normal(size=shape)


def _query_key_value(rows=B, key_rows=None, queries=T, keys=S, heads=N, key_heads=K, width=H):
    key_rows = rows if key_rows is None else key_rows
    return {
        "query": _normal("query", rows, queries, heads, width),
        "key": _normal("key", key_rows, keys, key_heads, width),
        "value": _normal("value", key_rows, keys, key_heads, width),
    }


def _bias(*shape):
    return {"bias": _normal("bias", *shape)}


def _position(rows=1):
    return {
        "position_query": _normal("position_query", B, T, N, H),
        "position_key": _normal("position_key", rows, R, N, H),
    }


def _mask(*shape):
    """With some queries that see nothing."""
    mask = _normal("mask", *shape) > -0.3
    if shape[2] == T:
        mask[:, :, 5:20] = False
    return {"mask": mask}


def _segments(rows=B):
    query = np.sort(np.random.default_rng(1).integers(0, 3, (rows, T)), 1).astype(np.int32)
    key = np.sort(np.random.default_rng(2).integers(0, 4, (rows, S)), 1).astype(np.int32)
    return {"query_segments": query, "key_segments": key}


def _dropout():
    words = np.random.default_rng(3).integers(0, 2**32, (B, N, 2), np.uint32)
    return {"dropout_seeds": words}


def _lengths(query, key):
    return {
        "query_lengths": None if query is None else np.array(query, np.int32),
        "key_lengths": None if key is None else np.array(key, np.int32),
    }


def _very_negative():
    """-inf in places and in a whole row; a whole row, and the keys of a block, at the lowest."""
    bias = _normal("bias", B, N, T, S)
    bias[:, :, 3], bias[:, :, ::5, 1::3] = -np.inf, -np.inf
    bias[:, :, 9], bias[:, :, 12, :16] = -1e300, -1e300
    return {"bias": bias}


FORMS = {
    "causal": ({}, {"causal": True, "scale": 0.9}),
    "window": (_bias(1, N, T, S), {"window": (6, 2)}),
    "window far from some": (_bias(1, 1, 1, 1), {"window": (None, -30)}),
    "more queries": (_query_key_value(queries=S, keys=T), {"causal": True, "window": (20, None)}),
    "one query": (_query_key_value(queries=1, key_heads=1), {}),
    "one key": (_query_key_value(keys=1), {"causal": True}),
    "keys for two rows": (_query_key_value(4, 2) | _bias(2, 1, T, S), {"causal": True}),
    "bias by query": (_bias(B, N, T, 1), {}),
    "bias by key": (_bias(1, 1, 1, S), {}),
    "very negative bias": (_very_negative(), {}),
    "offset bias": ({"offset_bias": _normal("offset_bias", 1, N, R)}, {"causal": True}),
    "offset bias of rows": ({"offset_bias": _normal("offset_bias", B, 1, R)}, {}),
    "relative": (_position(B), {}),
    "mask": (_mask(B, N, T, S), {}),
    "lengths": (_lengths([17, 0], [33, 53]) | _mask(1, 1, T, 1), {}),
    "lengths of keys": (_lengths(None, [7]) | _mask(B, 1, 1, S), {"causal": True}),
    "segments": (_segments(), {"soft_cap": 0.7}),
    "dropout": (_dropout(), {"dropout_rate": 0.4}),
    "everything": (
        _bias(1, N, 1, S) | {"offset_bias": _normal("offset_bias", 1, 1, R)} | _position()
        | _mask(B, 1, T, S) | _lengths([35, 29], [50, 41]) | _segments(1) | _dropout(),
        {"causal": True, "window": (25, 3), "soft_cap": 2.0, "dropout_rate": 0.25, "scale": 0.8},
    ),
}  # fmt: skip


@pytest.fixture(params=["plain", "blocks"])
def form(request, monkeypatch):
    """Both forms at the sizes of these tests: a block of everything, and blocks of 16."""
    if request.param == "blocks":
        _blocks_of(16, monkeypatch)
        monkeypatch.setattr(xla_backward, "FEW", 0)  # as for long sequences
    return request.param


def _blocks_of(size, monkeypatch):
    for name, value in {"WHOLE": 0, "SCORES": 0, "SHORTEST": size, "LONGEST": size}.items():
        monkeypatch.setattr(xla_blocks, name, value)


def _given(changes, dtype=jnp.float64):
    arrays = _query_key_value() | changes
    cast = {
        name: jnp.asarray(array, dtype) if array.dtype == np.float64 else jnp.asarray(array)
        for name, array in arrays.items()
        if array is not None
    }
    return Operands(**cast)


def _wide(dtype):
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def _value_and_gradients(implementation, given, options):
    """Outputs and gradients by name, for cotangents of both outputs."""
    static = {"scale": given.query.shape[3] ** -0.5} | DEFAULTS | options
    names = [name for name in DIFFERENTIABLE if getattr(given, name) is not None]
    wanted = tuple(name in names for name in Operands._fields)
    out_slope = _normal("slopes", *given.query.shape)
    residual_slope = _normal("residual slopes", *given.query.shape[:3])

    @jax.jit
    def run(given):
        dtype = given.query.dtype
        slopes = jnp.asarray(out_slope, dtype), jnp.asarray(residual_slope, _wide(dtype))
        if implementation is xla.attention:
            outputs, saved = xla.saving(*given, **static)
            return outputs, xla.gradient(given, saved, slopes, wanted, **static)

        def of_some(*values):
            changed = given._replace(**dict(zip(names, values, strict=True)))
            return implementation.forward(*changed, **static)

        outputs, transposed = jax.vjp(of_some, *(getattr(given, name) for name in names))
        return outputs, transposed(slopes)

    outputs, gradients = run(given)
    assert len(gradients) == len(names)
    for name, found in zip(names, gradients, strict=True):
        assert found.shape == getattr(given, name).shape, name
        assert found.dtype == getattr(given, name).dtype, name
    return {"out": outputs[0], "residual": outputs[1], **dict(zip(names, gradients, strict=True))}


@functools.cache
def _expected(case, dtype):
    changes, options = FORMS[case]
    with jax.enable_x64(True), compiled_in_haste():
        return _value_and_gradients(derivatives.attention, _given(changes, dtype), options)


@pytest.mark.parametrize("case", FORMS)
@pytest.mark.usefixtures("form")
def test_value_and_every_gradient_are_the_definitions(case):
    changes, options = FORMS[case]
    with jax.enable_x64(True), compiled_in_haste():
        found = _value_and_gradients(xla.attention, _given(changes), options)
        for name, value in _expected(case, jnp.float64).items():
            np.testing.assert_allclose(found[name], value, 1e-9, 1e-11, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_errors_are_at_most_twice_the_definitions(dtype, monkeypatch):
    changes, options = _query_key_value(width=32) | _bias(1, N, T, S), {"causal": True}
    given = _given(changes, dtype)
    plain = _value_and_gradients(derivatives.attention, given, options)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(np.asarray(a, np.float64)), given)
        true = _value_and_gradients(derivatives.attention, wide, options)
    _blocks_of(16, monkeypatch)
    found = _value_and_gradients(xla.attention, given, options)
    for name, value in true.items():
        value = np.asarray(value)
        error, allowed = (
            np.max(np.abs(np.asarray(side[name], np.float64) - value)) for side in (found, plain)
        )
        assert error <= 2 * allowed + 1e-6 * np.max(np.abs(value)), name


@pytest.mark.usefixtures("form")
def test_large_residuals_keep_the_digits_of_float32():
    """A padded row of a model that masks with -1e9: its gradient is that of uniform weights."""
    bias = np.zeros((B, 1, T, S))
    bias[:, :, 20:], bias[:, :, :5] = -1e9, 3000.0
    with compiled_in_haste():
        found = _value_and_gradients(xla.attention, _given({"bias": bias}, jnp.float32), {})
    with jax.enable_x64(True), compiled_in_haste():
        # In float32 the scores of such a row are all -1e9, so they are here.
        query = _query_key_value()["query"]
        query[:, 20:] = 0
        given = _given({"bias": bias, "query": query})
        true = _value_and_gradients(derivatives.attention, given, {})
    np.testing.assert_allclose(found["value"], true["value"], 1e-3, 1e-3)
    np.testing.assert_allclose(found["query"], true["query"], 1e-3, 1e-3)


@pytest.mark.parametrize("soft_cap", [None, 5.0])
@pytest.mark.usefixtures("form")
def test_padding_may_hold_anything(soft_cap):
    """NaN in queries and keys beyond the lengths, and in the cotangents of such queries."""
    of_query, of_key = np.array([20, 0]), np.array([33, 9])
    clean = _given(_lengths(of_query, of_key), jnp.float32)
    pad_query = np.arange(T)[None, :] >= of_query[:, None]
    pad_key = np.arange(S)[None, :] >= of_key[:, None]
    dirty = clean._replace(
        query=jnp.where(pad_query[:, :, None, None], jnp.nan, clean.query),
        key=jnp.where(pad_key[:, :, None, None], jnp.nan, clean.key),
        value=jnp.where(pad_key[:, :, None, None], jnp.inf, clean.value),
    )
    static = {"scale": 0.3} | DEFAULTS | {"soft_cap": soft_cap}
    wanted = tuple(name in ("query", "key", "value") for name in Operands._fields)

    @jax.jit
    def run(given, padding):
        outputs, saved = xla.saving(*given, **static)
        slopes = (
            jnp.where(pad_query[:, :, None, None], padding, 1.0),
            jnp.where(pad_query[:, :, None], padding, 1.0),
        )
        return outputs, xla.gradient(given, saved, slopes, wanted, **static)

    with compiled_in_haste():
        outputs, gradients = run(clean, jnp.float32(0))
    others = jax.tree.leaves(run(dirty, jnp.float32(jnp.nan)))
    for found, expected in zip(others, [*outputs, *gradients], strict=True):
        np.testing.assert_array_equal(found, expected)
    assert np.all(np.asarray(outputs[0])[pad_query] == 0)
    assert np.all(np.asarray(outputs[1])[pad_query] == -np.inf)
    assert np.all(np.asarray(gradients[0])[pad_query] == 0)
    assert np.all(np.asarray(gradients[1])[pad_key] == 0)


def test_few_queries_may_have_blocks_of_keys(monkeypatch):
    """Then the sums of keys are in rows, and begin elsewhere than in columns."""
    _blocks_of(16, monkeypatch)
    given = _given({}, jnp.float32)
    in_rows = _value_and_gradients(xla.attention, given, {})
    monkeypatch.setattr(xla_backward, "FEW", 0)
    in_columns = _value_and_gradients(xla.attention, given, {})
    for name, expected in in_columns.items():
        np.testing.assert_allclose(in_rows[name], expected, 1e-5, 1e-5)


@pytest.mark.parametrize(
    ("options", "seen"),
    [({"causal": True}, slice(0, 32)), ({"window": (3, 3)}, slice(0, 32))],
)
def test_blocks_that_nothing_sees_are_not_visited(options, seen, monkeypatch):
    """Infinite values there would give NaN: zero times infinity."""
    _blocks_of(16, monkeypatch)
    arrays = _query_key_value(queries=29, keys=64)
    arrays["value"][:, seen.stop :] = np.inf
    static = {"scale": 0.3} | DEFAULTS | options
    out, _ = jax.jit(functools.partial(xla.forward, **static))(*_given(arrays, jnp.float32))
    assert np.all(np.isfinite(out))


@pytest.mark.usefixtures("form")
def test_only_what_is_wanted_is_given():
    given = _given(_position() | _bias(1, N, 1, S), jnp.float32)
    static = {"scale": 0.3} | DEFAULTS
    outputs, saved = jax.eval_shape(functools.partial(xla.saving, **static), *given)
    for names in [("value",), ("position_key",), ("query", "bias")]:
        wanted = tuple(name in names for name in Operands._fields)
        gradient = functools.partial(xla.gradient, wanted=wanted, **static)
        found = jax.eval_shape(gradient, given, saved, outputs)
        assert [a.shape for a in found] == [getattr(given, name).shape for name in names]


def test_memory_is_linear_in_the_length():
    """At 16384 queries and keys, where one matrix of scores has 1 GiB for each head."""
    length, width = 16384, 64
    shape = jax.ShapeDtypeStruct((1, length, 1, width), jnp.float32)
    static = {"scale": 0.125} | DEFAULTS | {"causal": True}
    wanted = tuple(name in ("query", "key", "value") for name in Operands._fields)

    def value(*given):
        return xla.forward(*given, **static)

    def value_and_gradient(slope, *given):
        outputs, saved = xla.saving(*given, **static)
        slopes = slope, jnp.zeros_like(outputs[1])
        given = Operands(*given)
        return outputs, xla.gradient(given, saved, slopes, wanted, **static)

    operand = length * width * 4
    for function, copies, arguments in [
        (value, 6, [shape] * 3),
        (value_and_gradient, 12, [shape] * 4),
    ]:
        memory = jax.jit(function).lower(*arguments).compile().memory_analysis()
        assert memory is not None
        assert memory.temp_size_in_bytes < copies * operand, function.__name__


@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize(
    ("queries", "keys"), [(1, 100_000), (100_000, 1), (129, 4097), (3000, 3000)]
)
def test_blocks_cover_all_and_stay_small(rows, queries, keys):
    p, length = xla_blocks.block_sizes(rows, 8, queries, keys)
    assert 1 <= p <= queries
    assert 1 <= length <= keys
    smallest = rows * 8 * (1.75 * xla_blocks.SHORTEST) ** 2
    assert rows * 8 * p * length <= max(xla_blocks.WHOLE, 1.75**2 * xla_blocks.SCORES, smallest)


def test_little_of_the_blocks_lies_outside():
    for size in range(1, 3000):
        block, _ = xla_blocks.block_sizes(64, 8, size, 128)
        assert -(-size // block) * block <= 1.14 * size, (size, block)
    assert xla_blocks.block_sizes(16, 16, 257, 257) == (88, 88)
    assert xla_blocks.block_sizes(1, 16, 4096, 4096) == (256, 256)


def plan_of(queries, keys, pass_, **given):
    """Of eight rows and eight heads of 64 dimensions, of which only one row is made."""
    arrays = {"query": queries, "key": keys, "value": keys}
    arrays = {name: jnp.zeros((1, length, 8, 64)) for name, length in arrays.items()}
    options = {"scale": 1.0, "causal": False, "window": None, "soft_cap": None, "dropout_rate": 0.0}
    options |= {name: given.pop(name) for name in tuple(given) if name in options}
    heads = heads_first(Operands(**arrays, **given))
    heads = heads._replace(query=jnp.broadcast_to(heads.query, (8, queries, 8, 64)))
    return xla_blocks.Plan.of(heads, Static(**options), pass_=pass_)


@pytest.mark.parametrize(
    ("queries", "keys", "saving", "backward"),
    [
        (1, 9000, True, True),
        (64, 9000, True, True),
        (9000, 64, False, True),
        (9000, 65, False, False),
    ],
)
def test_one_block_where_scores_are_no_more_than_an_operand(queries, keys, saving, backward):
    for pass_, expected in [("saving", saving), ("backward", backward)]:
        plan = plan_of(queries, keys, pass_)
        assert ((plan.queries, plan.keys) == (queries, keys)) == expected


def test_all_keys_at_once_for_values_where_each_query_sees_each_key():
    plan = plan_of(9000, 500, "forward")
    assert (plan.queries, plan.keys) == (64, 500)
    assert plan_of(197, 9000, "forward")[:2] == (197, 9000)
    mask = jnp.ones((1, 1, 1, 500), bool)
    bias = jnp.zeros((1, 1, 1, 500))
    for more in [{"causal": True}, {"window": (9, None)}, {"soft_cap": 9.0}]:
        assert plan_of(9000, 500, "forward", **more).keys < 500
    for more in [{"mask": mask}, {"bias": bias}, {"key_lengths": jnp.array([7])}]:
        assert plan_of(9000, 500, "forward", **more).keys < 500
