"""Biases by offset, relative positions and filtered keys, each against its definition in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste

import kernels

B, T, N, H = 2, 6, 4, 4


@pytest.fixture(autouse=True)
def in_haste():
    """Each test compiles a few programs that run for microseconds."""
    with compiled_in_haste():
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def inputs(keys=T, key_heads=N):
    return (
        normal(0, B, T, N, H),
        normal(1, B, keys, key_heads, H),
        normal(2, B, keys, key_heads, H),
    )


def softmax_over(scores, values):
    p = jax.nn.softmax(scores, -1)
    return jnp.einsum("bnts,bsnh->btnh", p, values)


def content(q, k):
    return jnp.einsum("btnh,bsnh->bnts", q, k)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=5e-6, atol=5e-6)


# ---------------------------------------------------------------------- Biases by offset


def matrix(bias_fn, queries, keys):
    """(N, T, S), one offset at a time."""
    rows = [
        [np.asarray(bias_fn(jnp.array([s - t], jnp.int32)))[:, 0] for s in range(keys)]
        for t in range(queries)
    ]
    return jnp.asarray(np.moveaxis(np.array(rows), 2, 0))


@pytest.mark.parametrize(
    "bias_fn",
    [
        kernels.alibi(N),
        kernels.t5_bias(normal(5, 8, N), max_distance=6),
        kernels.t5_bias(normal(5, 5, N), bidirectional=False, max_distance=4),
        kernels.clamped_bias(normal(6, 5, N)),
    ],
    ids=["alibi", "t5", "t5 causal", "clamped"],
)
@pytest.mark.parametrize("keys", [T, 3, 11])
def test_a_bias_function_is_its_matrix(bias_fn, keys):
    q, k, v = inputs(keys)
    bias = matrix(bias_fn, T, keys)[None]
    found = kernels.attention(q, k, v, bias_fn=bias_fn)
    close(found, kernels.attention(q, k, v, bias))
    other = normal(8, 1, N, T, keys)
    found = kernels.attention(q, k, v, other, bias_fn=bias_fn)
    close(found, kernels.attention(q, k, v, other + bias))


def test_a_function_for_all_heads():
    q, k, v = inputs()
    found = kernels.attention(q, k, v, bias_fn=lambda offsets: -jnp.abs(offsets).astype("float32"))
    expected = kernels.attention(q, k, v, bias_fn=kernels.alibi(jnp.ones(N)))
    close(found, expected)


def test_tables_have_gradients_through_attention():
    q, k, v = inputs()
    table = normal(6, 5, N)

    def by_function(table):
        return jnp.sum(kernels.attention(q, k, v, bias_fn=kernels.clamped_bias(table)) ** 2)

    offsets = np.clip(np.arange(T)[None, :] - np.arange(T)[:, None], -2, 2) + 2

    def by_matrix(table):
        bias = jnp.moveaxis(table[offsets], 2, 0)[None]
        return jnp.sum(softmax_over(content(q, k) * H**-0.5 + bias, v) ** 2)

    close(jax.grad(by_function)(table), jax.grad(by_matrix)(table))


def test_the_slopes_of_alibi_are_the_papers():
    def slopes(heads):
        return -np.asarray(kernels.alibi(heads)(jnp.array([1])))[:, 0]

    close(slopes(8), [2.0**-n for n in range(1, 9)])
    close(slopes(3), [2**-4, 2**-8, 2**-2])  # those of 2, then the first of every other of 4


@pytest.mark.parametrize(("buckets", "distance"), [(32, 128), (16, 64), (32, 20)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_t5_buckets_are_those_of_the_paper(buckets, distance, bidirectional):
    """Mesh TensorFlow's formula in whole numbers: step j from n = m (d / m)^(j / J) on."""
    names = jnp.arange(float(buckets))[:, None]
    offsets = np.arange(-distance - 40, distance + 41)
    bias = kernels.t5_bias(names, bidirectional=bidirectional, max_distance=distance)
    found = np.asarray(bias(jnp.asarray(offsets, jnp.int32)))[0]

    def bucket(offset):
        count, first, n = buckets, 0, -offset
        if bidirectional:
            count //= 2
            first, n = (count, -n) if n < 0 else (0, n)
        n, exact = max(n, 0), count // 2
        if n < exact:
            return first + n
        steps = count - exact
        # n^steps m^-steps >= (d / m)^j, without rounding.
        j = max(j for j in range(steps + 1)
                if n**steps * exact**j >= distance**j * exact**steps)  # fmt: skip
        return first + min(exact + j, count - 1)

    np.testing.assert_array_equal(found, [bucket(int(offset)) for offset in offsets])


# ---------------------------------------------------------------------- Relative positions


@pytest.mark.parametrize("keys", [T, 9, 2])
def test_relative_attention_is_its_formula(keys):
    q, k, v = inputs(keys)
    u, w, r = normal(3, N, H), normal(4, N, H), normal(5, T + keys - 1, N, H)
    shifted = np.arange(T - 1, -1, -1)[:, None] + np.arange(keys)[None, :]  # T - 1 - (t - s)
    by_position = jnp.einsum("btnh,tsnh->bnts", q + w[None, None], r[shifted])
    scores = (content(q + u[None, None], k) + by_position) * H**-0.5
    close(kernels.relative_attention(q, k, v, r, u, w), softmax_over(scores, v))


def test_offsets_start_with_the_last_query_at_the_first_key():
    """As the sinusoids of Transformer-XL are laid out: T - 1 down to -(T - 1)."""
    q, k, v = inputs()
    r = jnp.zeros((2 * T - 1, N, H)).at[0].set(1e4 * jnp.sign(q[0, T - 1]))
    found = kernels.relative_attention(q, jnp.zeros_like(k), v, r, None, None)
    close(found[0, T - 1], v[0, 0])


def test_shaw_is_relative_attention_with_clipped_keys():
    q, k, v = inputs()
    table = normal(7, 5, N, H)
    clipped = np.clip(np.arange(T)[None, :] - np.arange(T)[:, None], -2, 2) + 2
    keys = k[:, None] + table[clipped][None]  # (B, T, S, N, H), the paper's equation 4
    scores = jnp.einsum("btnh,btsnh->bnts", q, keys) * H**-0.5
    positions = kernels.shaw_position_keys(table, T)
    found = kernels.relative_attention(q, k, v, positions, None, None)
    close(found, softmax_over(scores, v))


def test_every_position_has_a_gradient():
    q, k, v = inputs()
    arguments = q, k, v, normal(5, 2 * T - 1, N, H), normal(3, N, H), normal(4, N, H)

    def ours(*arguments):
        return jnp.sum(kernels.relative_attention(*arguments, is_causal=True, scale=0.4) ** 2)

    shifted = np.arange(T - 1, -1, -1)[:, None] + np.arange(T)[None, :]

    def plain(q, k, v, r, u, w):
        by_position = jnp.einsum("btnh,tsnh->bnts", q + w[None, None], r[shifted])
        scores = (content(q + u[None, None], k) + by_position) * 0.4
        seen = jnp.tril(jnp.ones((T, T), bool))[None, None]
        return jnp.sum(softmax_over(jnp.where(seen, scores, -jnp.inf), v) ** 2)

    found, expected = (jax.jit(jax.grad(f, range(6)))(*arguments) for f in (ours, plain))
    for a, b in zip(found, expected, strict=True):
        close(a, b)
    assert not np.asarray(found[3][T:]).any()  # keys after the query


# ---------------------------------------------------------------------- Filtered keys


def filtered(k, taps, left, lengths=None, ids=None):
    """(B, S, K, H) and (W, K, H), one multiplication at a time."""
    k, taps = np.asarray(k, np.float64), np.asarray(taps, np.float64)
    out = np.zeros_like(k)
    rows, frames = k.shape[:2]
    for b, s, w in np.ndindex(rows, frames, len(taps)):
        source, end = s + w - left, frames if lengths is None else lengths[b]
        together = ids is None or (0 <= source < frames and ids[b, source] == ids[b, s])
        if 0 <= source < end and s < end and together:
            out[b, s] += k[b, source] * taps[w]
    return jnp.asarray(out, jnp.float32)


@pytest.mark.parametrize("width", [1, 2, 3, 9])
@pytest.mark.parametrize("causal", [True, False])
def test_conv_attention_is_attention_to_filtered_keys(width, causal):
    q, k, v = inputs(key_heads=2)
    taps = normal(3, width, 2, H)
    left = width - 1 if causal else (width - 1) // 2
    found = kernels.conv_attention(q, k, v, taps, is_causal=causal)
    close(found, kernels.attention(q, filtered(k, taps, left), v, is_causal=causal))


def test_a_filter_for_each_head_serves_its_channels():
    q, k, v = inputs()
    taps = normal(3, 3, N)
    full = jnp.broadcast_to(taps[..., None], (3, N, H))
    expected = kernels.conv_attention(q, k, v, full)
    close(kernels.conv_attention(q, k, v, taps), expected)
    close(kernels.conv_attention(q, k, v, taps[..., None]), expected)
    close(kernels.conv_attention(q[0], k[0], v[0], taps), expected[0])


@pytest.mark.parametrize("causal", [True, False])
def test_filters_stop_at_lengths_and_between_segments(causal):
    q, k, v = inputs()
    taps, lengths = normal(3, 4, N, H), np.array([4, 6], np.int32)
    left = 3 if causal else 1
    given = {"key_value_seq_lengths": jnp.asarray(lengths), "is_causal": causal}
    dirty = k.at[0, 4:].set(jnp.nan)
    found = kernels.conv_attention(q, dirty, v, taps, **given)
    close(found, kernels.attention(q, filtered(k, taps, left, lengths), v, **given))
    ids = np.array([[0, 0, 0, 1, 1, 1], [2, 2, 3, 3, 3, 4]], np.int32)
    given |= dict.fromkeys(("query_segment_ids", "key_value_segment_ids"), jnp.asarray(ids))
    expected = kernels.attention(q, filtered(k, taps, left, lengths, ids), v, **given)
    close(kernels.conv_attention(q, dirty, v, taps, **given), expected)


def test_a_causal_filter_knows_nothing_of_later_keys():
    q, k, v = inputs()
    taps = normal(3, 3, N, H)

    def at(k, t):
        out = kernels.conv_attention(q, k, v, taps, is_causal=True)
        return jnp.sum(out[:, t])

    for t in (0, 3):
        slope = np.asarray(jax.grad(at)(k, t))
        assert not slope[:, t + 1 :].any()
        assert t == 0 or slope[:, t].any()


def test_the_gradient_filters_keys_again_instead_of_keeping_them():
    q, k, v = inputs()
    taps = normal(3, 3, N, H)
    out, pullback = jax.vjp(kernels.conv_attention, q, k, v, taps)
    kept = [np.asarray(array) for array in jax.tree.leaves(pullback)]
    keys = np.asarray(filtered(k, taps, 1))
    assert any(array.shape == k.shape and np.allclose(array, k) for array in kept)
    assert not any(array.shape == keys.shape and np.allclose(array, keys) for array in kept)
    expected = jax.vjp(lambda k, w: kernels.attention(q, filtered_by_jax(k, w), v), k, taps)[1](out)
    for found, slope in zip(pullback(out)[1::2], expected, strict=True):
        close(found, slope)


def filtered_by_jax(k, taps):
    padded = jnp.pad(k, ((0, 0), (1, 1), (0, 0), (0, 0)))
    return jnp.stack([padded[:, w : w + T] * taps[w][None, None] for w in range(3)]).sum(0)


def test_filters_may_be_mapped_over():
    q, k, v = inputs()
    taps = normal(3, 5, 3, N, H)
    found = jax.vmap(kernels.conv_attention, (None, None, None, 0))(q, k, v, taps)
    each = [kernels.conv_attention(q, k, v, one) for one in taps]
    close(found, jnp.stack([jnp.asarray(one) for one in each]))
