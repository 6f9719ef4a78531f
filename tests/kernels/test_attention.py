"""What attention means: who sees whom, what must not count, and what equals what."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste

import kernels

HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="needs Triton, which is for Linux only")
BOTH = ["xla", pytest.param("triton", marks=needs_triton)]
B, T, N, H = 2, 7, 4, 4


@pytest.fixture(autouse=True)
def in_haste():
    """Each test compiles a few programs that run for microseconds."""
    with compiled_in_haste():
        yield


def normal(seed, *shape, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def inputs(keys=T, key_heads=N, queries=T, seed=0):
    return (
        normal(seed, B, queries, N, H),
        normal(seed + 1, B, keys, key_heads, H),
        normal(seed + 2, B, keys, key_heads, H),
    )


def close(found, expected, tolerance=2e-6):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


def slopes(function, *arguments):
    """Of a sum that weighs every element differently."""

    def total(*given):
        out = function(*given)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))

    return jax.jit(jax.grad(total, tuple(range(len(arguments)))))(*arguments)


def reached(options, queries=T, keys=T):
    """Which key moves the output of which query: (T, S), for row 0."""
    q, k, v = inputs(keys=keys, queries=queries)

    def per_query(v):
        return jnp.sum(jnp.asarray(kernels.attention(q, k, v, **options))[0], (1, 2))

    moved = jax.jacrev(per_query)(v)[:, 0]
    return np.abs(moved).sum((2, 3)) > 0


# ---------------------------------------------------------------------- Who sees whom


def test_causality_through_gradients():
    assert (reached({"is_causal": True}) == np.tril(np.ones((T, T), bool))).all()
    later = reached({"is_causal": True}, queries=3, keys=5)
    assert (later == np.tril(np.ones((3, 5), bool))).all()  # top-left, as in JAX
    assert (reached({"is_causal": True}, queries=5, keys=3) == np.tril(np.ones((5, 3)))).all()


@pytest.mark.parametrize("window", [1, (2, 0), (0, 3), (None, 1), (2, None), (0, 0), (1, 2)])
def test_a_window_is_its_mask(window):
    left, right = window if isinstance(window, tuple) else (window, window)
    t, s = np.indices((T, T))
    seen = (s >= t - (T if left is None else left)) & (s <= t + (T if right is None else right))
    assert (reached({"local_window_size": window}) == seen).all()
    q, k, v = inputs()
    found = kernels.attention(q, k, v, local_window_size=window)
    close(found, kernels.attention(q, k, v, mask=jnp.asarray(seen)))


def test_an_unbounded_window_is_none():
    q, k, v = inputs()
    found = kernels.attention(q, k, v, local_window_size=(None, None))
    close(found, kernels.attention(q, k, v))


@pytest.mark.parametrize("implementation", BOTH)
def test_lengths_are_calls_of_that_length(implementation):
    q, k, v = inputs()
    lengths, key_lengths = [4, 7], [3, 5]
    attend = functools.partial(kernels.attention, implementation=implementation)

    def padded(q, k, v):
        return attend(
            q, k, v,
            query_seq_lengths=jnp.array(lengths, jnp.int32),
            key_value_seq_lengths=jnp.array(key_lengths, jnp.int32),
        )  # fmt: skip

    out, moved = padded(q, k, v), slopes(padded, q, k, v)
    for b, (t, s) in enumerate(zip(lengths, key_lengths, strict=True)):
        alone = attend(q[b, :t], k[b, :s], v[b, :s])
        close(out[b, :t], alone)
        assert not np.asarray(out[b, t:]).any()
        for slope, end in zip(moved, (t, s, s), strict=True):
            assert np.asarray(slope[b, :end]).all()
            assert not np.asarray(slope[b, end:]).any()


def test_lengths_beyond_the_ends_change_nothing_and_zero_hides_all():
    q, k, v = inputs()
    long = jnp.full(B, T + 5, jnp.int32)
    close(kernels.attention(q, k, v, key_value_seq_lengths=long), kernels.attention(q, k, v))
    none = jnp.zeros(B, jnp.int32)
    assert not np.asarray(kernels.attention(q, k, v, key_value_seq_lengths=none)).any()


@pytest.mark.parametrize("implementation", BOTH)
def test_segments_are_separate_calls(implementation):
    q, k, v = inputs()
    attend = functools.partial(kernels.attention, is_causal=True, implementation=implementation)
    ids = jnp.array([[0, 0, 0, 1, 1, 1, 1], [5, 5, -1, -1, -1, -1, 2]], jnp.int32)
    out = attend(q, k, v, query_segment_ids=ids, key_value_segment_ids=ids)
    for b, parts in enumerate([[(0, 3), (3, 7)], [(0, 2), (2, 6), (6, 7)]]):
        for i, j in parts:
            close(out[b, i:j], attend(q[b, i:j], k[b, i:j], v[b, i:j]))


def test_keys_in_another_order_give_the_same():
    q, k, v = inputs()
    order = jnp.array([3, 0, 6, 1, 5, 2, 4])
    bias = normal(9, 1, N, T, T)
    found = kernels.attention(q, k[:, order], v[:, order], bias[..., order])
    close(found, kernels.attention(q, k, v, bias))
    found = kernels.attention(q[:, order], k, v, bias[:, :, order])
    close(found, jnp.asarray(kernels.attention(q, k, v, bias))[:, order])


@pytest.mark.parametrize("key_heads", [1, 2])
def test_grouped_heads_are_repeated_heads(key_heads):
    q, k, v = inputs(key_heads=key_heads)
    repeated = [jnp.repeat(a, N // key_heads, 2) for a in (k, v)]
    close(kernels.attention(q, k, v), kernels.attention(q, *repeated))
    found = slopes(kernels.attention, q, k, v)
    expected = slopes(kernels.attention, q, *repeated)
    summed = [a.reshape(B, T, key_heads, -1, H).sum(3) for a in expected[1:]]
    close(found, (expected[0], *summed))


# ---------------------------------------------------------------------- Nothing to see


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("hidden_by", ["mask", "-inf bias"])
def test_a_query_that_sees_nothing_gives_zeros_and_moves_nothing(hidden_by, implementation):
    q, k, v = inputs()
    seen = np.ones((1, 1, T, T), bool)
    seen[..., 2, :] = False
    bias = jnp.where(seen, normal(5, 1, 1, T, T), -jnp.inf if hidden_by != "mask" else 0.0)
    mask = jnp.asarray(seen) if hidden_by == "mask" else None
    out, residual = kernels.attention(
        q, k, v, bias, mask, return_residual=True, implementation=implementation
    )
    assert not np.asarray(out[:, 2]).any()
    assert (np.asarray(residual[:, 2]) == -np.inf).all()
    assert np.isfinite(residual[:, [0, 1, 3]]).all()

    def attend(q, k, v, bias):
        return kernels.attention(q, k, v, bias, mask, implementation=implementation)

    dq, dk, dv, dbias = slopes(attend, q, k, v, bias)
    assert not np.asarray(dq[:, 2]).any()
    assert not np.asarray(dbias[:, :, 2]).any()
    assert all(np.isfinite(slope).all() for slope in (dq, dk, dv, dbias))
    # The same gradients of keys and values as without that query.
    rest = jnp.array([0, 1, 3, 4, 5, 6])
    found = slopes(lambda k, v: attend(q, k, v, bias)[:, rest], k, v)
    expected = slopes(lambda k, v: kernels.attention(q[:, rest], k, v, bias[:, :, rest]), k, v)
    close(found, expected)


@pytest.mark.parametrize("implementation", BOTH)
@pytest.mark.parametrize("low", [-1e9, -3e38, -np.inf])
def test_very_negative_biases_hide_keys_without_nan(low, implementation):
    q, k, v = inputs()
    hidden = np.random.default_rng(3).random((1, 1, T, T)) < 0.4
    hidden[..., 0] = False
    bias = jnp.where(hidden, jnp.float32(low), jnp.float32(0.0))

    def attend(q, k, v):
        return kernels.attention(q, k, v, bias, implementation=implementation)

    def masked(q, k, v):
        return kernels.attention(q, k, v, mask=jnp.asarray(~hidden))

    close(attend(q, k, v), masked(q, k, v))
    close(slopes(attend, q, k, v), slopes(masked, q, k, v), 5e-6)


def test_second_derivatives_where_nothing_is_seen():
    q, k, v = inputs()
    mask = jnp.asarray(np.random.default_rng(1).random((T, T)) < 0.5).at[2].set(False)

    def total(q):
        return jnp.sum(jnp.asarray(kernels.attention(q, k, v, mask=mask)) ** 2)

    curvature = jax.jvp(jax.grad(total), (q,), (jnp.ones_like(q),))[1]
    assert np.isfinite(curvature).all()
    assert not np.asarray(curvature[:, 2]).any()


def test_nan_beyond_the_lengths_reaches_neither_values_nor_gradients():
    q, k, v = inputs()
    lengths = jnp.array([3, 5], jnp.int32)
    past = (jnp.arange(T)[None, :] >= lengths[:, None])[..., None, None]
    dirty = [jnp.where(past, jnp.nan, a) for a in (q, k, v)]

    def attend(q, k, v):
        return kernels.attention(q, k, v, query_seq_lengths=lengths, key_value_seq_lengths=lengths)

    np.testing.assert_array_equal(attend(*dirty), attend(q, k, v))
    for found, expected in zip(slopes(attend, *dirty), slopes(attend, q, k, v), strict=True):
        np.testing.assert_array_equal(found, expected)
    tangent = jax.jvp(attend, dirty, [jnp.ones_like(a) for a in dirty])[1]
    assert np.isfinite(tangent).all()


@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0), (1, 1), (1, 5), (5, 1)])
def test_tiny_sizes(queries, keys):
    q, k, v = inputs(queries=queries, keys=keys)
    out, residual = kernels.attention(q, k, v, return_residual=True)
    assert (out.shape, residual.shape) == (q.shape, q.shape[:3])
    if keys == 1:
        close(out, jnp.broadcast_to(v, q.shape))
    if keys == 0:
        assert not np.asarray(out).any()
        assert (np.asarray(residual) == -np.inf).all()
    assert [a.shape for a in slopes(kernels.attention, q, k, v)] == [q.shape, k.shape, v.shape]


# ---------------------------------------------------------------------- Options


def test_the_soft_cap_bounds_scores_after_the_bias():
    q, k, v = inputs()
    bias = 9 * normal(7, 1, N, T, T)
    scores = jnp.einsum("btnh,bsnh->bnts", q, k) * H**-0.5 + bias
    capped = 2.5 * jnp.tanh(scores / 2.5)
    seen = jnp.tril(jnp.ones((T, T), bool))
    p = jax.nn.softmax(jnp.where(seen[None, None], capped, -jnp.inf), -1)
    found = kernels.attention(q, k, v, bias, is_causal=True, logits_soft_cap=2.5)
    close(found, jnp.einsum("bnts,bsnh->btnh", p, v))


def test_without_a_batch_axis():
    q, k, v = inputs()
    mask = jnp.tril(jnp.ones((T, T), bool))
    bias = normal(3, N, 1, T)
    out, residual = kernels.attention(q, k, v, bias, mask, return_residual=True)
    one, its_residual = kernels.attention(q[0], k[0], v[0], bias, mask, return_residual=True)
    close(one, out[0])
    close(its_residual, residual[0])
    for lengths in (jnp.array([3], jnp.int32), jnp.int32(3)):
        found = kernels.attention(q[0], k[0], v[0], key_value_seq_lengths=lengths)
        close(found, kernels.attention(q[0], k[0, :3], v[0, :3]))


@pytest.mark.parametrize("axes", ["", "s", "ts", "nts", "bnts", "ns", "bs", "bts", "bns", "nt"])
def test_bias_and_mask_of_every_form(axes):
    q, k, v = inputs()
    sizes = {"b": B, "n": N, "t": T, "s": T}
    shape = tuple(sizes[a] if a in axes else 1 for a in "bnts")
    full = (B, N, T, T)
    bias, mask = normal(3, *shape), normal(4, *shape) > -0.5
    found = kernels.attention(q, k, v, bias, mask)
    wide = [jnp.broadcast_to(a, full) for a in (bias, mask)]
    close(found, kernels.attention(q, k, v, *wide))
    (slope,) = slopes(lambda bias: kernels.attention(q, k, v, bias, mask), bias)
    (full_slope,) = slopes(lambda bias: kernels.attention(q, k, v, bias, wide[1]), wide[0])
    reduced = tuple(axis for axis, size in enumerate(shape) if size == 1)
    close(slope, jnp.sum(full_slope, reduced, keepdims=True), 5e-6)
    if "b" not in axes:  # leading axes may be missing
        close(kernels.attention(q, k, v, bias[0], mask[0]), found)


def test_the_residual_is_the_logarithm_of_the_denominator_and_has_a_gradient():
    q, k, v = inputs()
    scores = jnp.einsum("btnh,bsnh->btns", q, k) * 0.3
    out, residual = kernels.attention(q, k, v, scale=0.3, return_residual=True)
    close(residual, jax.nn.logsumexp(scores, -1))
    assert residual.dtype == out.dtype

    def ours(q, k):
        return kernels.attention(q, k, v, scale=0.3, return_residual=True)[1]

    def plain(q, k):
        return jax.nn.logsumexp(jnp.einsum("btnh,bsnh->btns", q, k) * 0.3, -1)

    close(slopes(ours, q, k), slopes(plain, q, k), 5e-6)


def test_halves_join_by_their_residuals():
    """What a ring of devices does with keys that lie apart, derivatives included."""
    q, k, v = inputs()

    def joined(q, k, v):
        parts = [
            kernels.attention(q, k[:, i], v[:, i], return_residual=True)
            for i in (slice(None, 3), slice(3, None))
        ]
        weights = jax.nn.softmax(jnp.stack([residual for _, residual in parts]), 0)
        return jnp.sum(weights[..., None] * jnp.stack([out for out, _ in parts]), 0)

    close(joined(q, k, v), kernels.attention(q, k, v))
    close(slopes(joined, q, k, v), slopes(kernels.attention, q, k, v), 5e-6)
