"""Attention's XLA path: the plain and the blocked form against the definition in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_matrix import compiled_in_haste

from kernels.attention import derivatives, xla, xla_blocks
from kernels.attention.operands import DIFFERENTIABLE, Operands

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
    "full": ({}, {}),
    "scaled": ({}, {"scale": 0.9}),
    "causal": ({}, {"causal": True}),
    "window": ({}, {"window": (6, 2)}),
    "window far from some": ({}, {"window": (None, -30)}),
    "window left, causal": ({}, {"window": (20, None), "causal": True}),
    "more queries": (_query_key_value(queries=S, keys=T), {"causal": True}),
    "one query": (_query_key_value(queries=1), {}),
    "one key": (_query_key_value(keys=1), {"causal": True}),
    "one head of keys": (_query_key_value(key_heads=1), {}),
    "keys for all rows": (_query_key_value(4, 1), {}),
    "keys for two rows": (_query_key_value(4, 2), {"causal": True}),
    **{
        f"bias {'x'.join(map(str, shape))}": (_bias(*shape), {})
        for shape in [
            (B, N, T, S), (1, N, T, S), (B, 1, T, S), (1, 1, T, S), (B, N, 1, S), (B, N, T, 1),
            (1, 1, 1, S), (1, N, 1, 1), (1, 1, 1, 1),
        ]
    },
    "bias of two rows of four": (_query_key_value(4) | _bias(2, 1, T, S), {}),
    "very negative bias": (_very_negative(), {}),
    "offset bias": ({"offset_bias": _normal("offset_bias", 1, N, R)}, {"causal": True}),
    "offset bias of rows": ({"offset_bias": _normal("offset_bias", B, 1, R)}, {}),
    "relative": (_position(), {}),
    "relative, rows, causal": (_position(B), {"causal": True}),
    "mask": (_mask(B, N, T, S), {}),
    "mask of queries": (_mask(1, 1, T, 1), {}),
    "mask of keys": (_mask(B, 1, 1, S), {}),
    "lengths": (_lengths([30, 0], [40, 53]), {}),
    "lengths, none reach the end": (_lengths([17, 1], [33, 0]), {"causal": True}),
    "lengths of keys": (_lengths(None, [7]), {}),
    "segments": (_segments(), {}),
    "segments of all": (_segments(1), {"causal": True}),
    "soft cap": ({}, {"soft_cap": 0.7}),
    "dropout": (_dropout(), {"dropout_rate": 0.4}),
    "everything": (
        _bias(1, N, 1, S) | {"offset_bias": _normal("offset_bias", 1, 1, R)} | _position()
        | _mask(B, 1, T, S) | _lengths([35, 29], [50, 41]) | _segments() | _dropout(),
        {"causal": True, "window": (25, 3), "soft_cap": 2.0, "dropout_rate": 0.25, "scale": 0.8},
    ),
}  # fmt: skip


@pytest.fixture(params=["plain", "blocks"])
def form(request, monkeypatch):
    """Both forms at the sizes of these tests: a block of everything, and blocks of 16."""
    if request.param == "blocks":
        monkeypatch.setattr(xla_blocks, "WHOLE", 0)
        monkeypatch.setattr(xla_blocks, "SCORES", 0)
        monkeypatch.setattr(xla_blocks, "SHORTEST", 16)
        monkeypatch.setattr(xla_blocks, "LONGEST", 16)
    return request.param


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
    """Outputs, and by name what has a gradient, for cotangents of both outputs."""
    static = {"scale": given.query.shape[3] ** -0.5} | DEFAULTS | options
    names = [name for name in DIFFERENTIABLE if getattr(given, name) is not None]
    wanted = tuple(name in names for name in Operands._fields)
    out_slope = _normal("slopes", *given.query.shape)
    residual_slope = _normal("residual slopes", *given.query.shape[:3])

    @jax.jit
    def run(given):
        dtype = given.query.dtype
        slopes = jnp.asarray(out_slope, dtype), jnp.asarray(residual_slope, _wide(dtype))
        if implementation.gradient is not None:
            outputs, saved = implementation.saving(*given, **static)
            return outputs, implementation.gradient(given, saved, slopes, wanted, **static)

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
def test_value_and_every_gradient_are_the_definitions(case, form):
    changes, options = FORMS[case]
    with jax.enable_x64(True), compiled_in_haste():
        found = _value_and_gradients(xla.attention, _given(changes), options)
        for name, value in _expected(case, jnp.float64).items():
            np.testing.assert_allclose(found[name], value, 1e-9, 1e-11, err_msg=name)
