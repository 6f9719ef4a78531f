"""Windows, lengths and segment ids of attention, however large the integers are."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilation import compiled_in_haste

import kernels

B, T, S, N, H = 2, 4, 6, 2, 8
MOST = 2**31 - 1


@pytest.fixture(autouse=True)
def in_haste():
    with compiled_in_haste():
        yield


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def inputs():
    return normal(0, B, T, N, H), normal(1, B, S, N, H), normal(2, B, S, N, H)


def attend(**options):
    return np.asarray(kernels.attention(*inputs(), **options))


@pytest.mark.parametrize("far", [MOST - 1, MOST, 2**40, sys.maxsize, 2**70])
@pytest.mark.parametrize("implementation", ["xla", None])
def test_a_side_beyond_every_key_is_no_bound(far, implementation):
    options = {"implementation": implementation}
    unbounded = attend(**options)
    for window in (far, (far, far), (None, far), (far, None)):
        found = attend(local_window_size=window, **options)
        np.testing.assert_array_equal(found, unbounded, err_msg=str(window))
    for window, nearby in (((far, 0), (None, 0)), ((1, far), (1, None))):
        found = attend(local_window_size=window, **options)
        np.testing.assert_array_equal(found, attend(local_window_size=nearby, **options))


@pytest.mark.parametrize("window", [(left, right) for left in range(6) for right in range(8)])
def test_sides_around_the_last_key_are_what_they_say(window):
    t, s = np.arange(T)[:, None], np.arange(S)[None]
    seen = (s >= t - window[0]) & (s <= t + window[1])
    found = attend(local_window_size=window)
    np.testing.assert_allclose(found, attend(mask=jnp.asarray(seen)), rtol=1e-6, atol=1e-6)


def test_windows_of_filtered_keys():
    q, k, v = inputs()
    taps = normal(3, 3, N)
    found = kernels.conv_attention(q, k, v, taps, local_window_size=(0, MOST))
    expected = kernels.conv_attention(q, k, v, taps, local_window_size=(0, None))
    np.testing.assert_array_equal(found, expected)


def relative(**options):
    r = normal(4, T + S - 1, N, H)
    return np.asarray(kernels.relative_attention(*inputs(), r, None, None, **options))


@pytest.mark.parametrize("call", [attend, relative])
@pytest.mark.parametrize("name", ["query_seq_lengths", "key_value_seq_lengths"])
@pytest.mark.parametrize(
    "lengths",
    [
        jnp.array([2**32 - 1, 2], jnp.uint32),
        np.array([2**32 - 1, 2]),
        np.array([2**40, 2]),
        [2**40, 2],
    ],
    ids=["uint32", "a wrap to -1", "int64", "a list"],
)
def test_a_length_beyond_every_frame_is_all_of_them(call, name, lengths):
    np.testing.assert_array_equal(call(**{name: lengths}), call(**{name: jnp.array([100, 2])}))


def test_lengths_of_64_bits_that_are_traced():
    with jax.enable_x64(True):
        lengths = jnp.array([2**32 + 1, 2])
        found = jax.jit(lambda n: kernels.attention(*inputs(), key_value_seq_lengths=n))(lengths)
        expected = attend(key_value_seq_lengths=jnp.array([S, 2]))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


FAR = np.array([[0, 2**32, 5, 2**32 + 5], [-(2**32), -1, 2**32 - 1, 0]])


def by_mask(query_ids, key_ids):
    return attend(mask=jnp.asarray(query_ids[:, None, :, None] == key_ids[:, None, None, :]))


def test_segments_that_32_bits_would_merge():
    query_ids, key_ids = FAR, np.concatenate([FAR, FAR[:, :2]], 1)
    expected = by_mask(query_ids, key_ids)
    with jax.enable_x64(True):
        ids = jnp.asarray(query_ids), jnp.asarray(key_ids)

        @jax.jit
        def traced(q, k):
            return kernels.attention(*inputs(), query_segment_ids=q, key_value_segment_ids=k)

        found = traced(*ids)
        assert ids[0].dtype == jnp.int64
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"query_segment_ids must fit int32.*received.*anew"):
        attend(query_segment_ids=query_ids, key_value_segment_ids=key_ids)
    small = np.array([[0, 0, 1, 1]] * B), np.array([[0, 0, 1, 1, 2, 2]] * B)
    found = attend(query_segment_ids=small[0], key_value_segment_ids=small[1])
    np.testing.assert_allclose(found, by_mask(*small), rtol=1e-6, atol=1e-6)


def test_segments_of_unsigned_integers():
    query_ids = np.array([[0, 2**32 - 1, 2**31, 7]] * B, np.uint32)
    key_ids = np.array([[7, 0, 2**32 - 1, 2**31, 1, 1]] * B, np.uint32)
    found = attend(query_segment_ids=jnp.asarray(query_ids), key_value_segment_ids=key_ids)
    np.testing.assert_allclose(found, by_mask(query_ids, key_ids), rtol=1e-6, atol=1e-6)
    signed = jnp.asarray(key_ids.astype(np.int32))  # where 2^32 - 1 would be the same as -1
    with pytest.raises(ValueError, match=r"fit one integer type; received uint32 and int32"):
        attend(query_segment_ids=jnp.asarray(query_ids), key_value_segment_ids=signed)
