"""What attention says of arguments that do not fit: what must hold, what came, what to do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels

B, T, S, N, K, H = 2, 5, 6, 4, 2, 8
Q, KEY = jnp.ones((B, T, N, H)), jnp.ones((B, S, K, H))


def refused(message, *arguments, operation=kernels.attention, **options):
    with pytest.raises(ValueError, match=rf"(?s){message}.*received") as caught:
        operation(*(arguments or (Q, KEY, KEY)), **options)
    return str(caught.value)


def test_the_message_has_all_sizes_and_the_advice():
    message = refused("key_value_seq_lengths", key_value_seq_lengths=jnp.ones(3, jnp.int32))
    assert "key_value_seq_lengths (3,) int32" in message
    assert "B 2, T 5, S 6, N 4, K 2, H 8" in message
    assert "Check the order of the axes" in message


@pytest.mark.parametrize(
    ("query", "key", "value", "message"),
    [
        (Q[0], KEY, KEY, "all of them without B"),
        (Q[0, 0], KEY[0, 0], KEY[0, 0], "all of them without B"),
        (Q, jnp.ones((B, S, 3, H)), jnp.ones((B, S, 3, H)), "multiple of the heads of key"),
        (Q, jnp.ones((B, S, 0, H)), jnp.ones((B, S, 0, H)), "multiple of the heads of key"),
        (Q, KEY, KEY[:, :, :1], "and value does not"),
        (Q, KEY[..., :4], KEY, "and key does not"),
        (Q, KEY, KEY.astype(jnp.bfloat16), "value must have the dtype of query, float32"),
        (Q.astype(int), KEY.astype(int), KEY.astype(int), "query must be floating"),
    ],
)
def test_query_key_and_value(query, key, value, message):
    refused(message, query, key, value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": jnp.ones((B, N, T, S + 1))}, "and bias does not"),
        ({"bias": jnp.ones((3, 1, 1, 1))}, "and bias does not"),
        ({"bias": jnp.ones((1, 1, 1, 1, 1))}, "and bias does not"),
        ({"bias": jnp.ones((T, S), bool)}, "bias must be floating"),
        ({"mask": jnp.ones((B, T, S), bool)}, "and mask does not"),
        ({"mask": jnp.ones((T, S))}, "mask must be bool"),
        ({"query_seq_lengths": jnp.ones((B, 1), jnp.int32)}, "and query_seq_lengths does not"),
        ({"query_seq_lengths": jnp.ones(B)}, "query_seq_lengths must be integer"),
        ({"query_segment_ids": jnp.ones((B, T), int)}, "belong together"),
        ({"key_value_segment_ids": jnp.ones((B, S), int)}, "belong together"),
        (
            dict.fromkeys(("query_segment_ids", "key_value_segment_ids"), jnp.ones((B, S), int)),
            "and query_segment_ids does not",
        ),
        ({"local_window_size": -1}, "local_window_size must be one integer or a pair"),
        ({"local_window_size": (1, 2, 3)}, "local_window_size must be one integer or a pair"),
        ({"local_window_size": 1.5}, "local_window_size must be one integer or a pair"),
        ({"logits_soft_cap": 0.0}, "logits_soft_cap must be positive"),
        ({"logits_soft_cap": "10"}, "logits_soft_cap must be"),
        ({"scale": float("inf")}, "scale must be a finite number"),
        ({"is_causal": 1}, "is_causal must be True or False"),
        ({"return_residual": None}, "return_residual must be True or False"),
        ({"dropout_rate": 1.0}, r"dropout_rate must be in \[0, 1\)"),
        ({"dropout_rate": 0.1}, "dropout_key must be given"),
        ({"dropout_rate": 0.1, "dropout_key": jnp.ones(3)}, "dropout_key must be one key"),
        ({"dropout_key": jnp.ones((2, 2), jnp.uint32)}, "dropout_key must be one key"),
        ({"bias_fn": lambda offsets: jnp.ones((3, len(offsets)))}, "bias_fn must turn the 10"),
        ({"bias_fn": lambda offsets: offsets}, "bias_fn must turn the 10"),
        ({"implementation": "cuda"}, "implementation must be None or one of"),
    ],
)  # fmt: skip
def test_options(options, message):
    refused(message, **options)


@pytest.mark.parametrize(
    ("key", "value"), [(KEY[..., :6], KEY[..., :6]), (KEY, KEY[..., :6]), (KEY[..., :6], KEY)]
)
def test_heads_of_another_width_are_no_matter_of_order(key, value):
    message = refused("does not", Q, key, value)
    assert message.endswith("Project query, key and value to heads of one width, here H 8.")
    assert "order of the axes" not in message
    both = refused("does not", Q, key, value, mask=jnp.ones((B, T, S), bool))
    assert "order of the axes" in both


@pytest.mark.parametrize("name", ["query", "key"])
def test_implementations_are_checked_where_nothing_is_computed(name):
    q, k = (Q[:, :0], KEY) if name == "query" else (Q, KEY[:, :0])
    refused("implementation must be None or one of", q, k, k, implementation="nonsense")


def test_what_to_do_about_masks_and_segments():
    message = refused("mask must be bool", mask=jnp.ones((T, S)))
    assert message.endswith("compare with != 0, or pass it as bias.")
    message = refused("belong together", query_segment_ids=jnp.ones((B, T), int))
    assert "Pass key_value_segment_ids too" in message


@pytest.mark.parametrize("name", ["scale", "logits_soft_cap", "dropout_rate"])
def test_numbers_must_be_known_while_tracing(name):
    def attend(number):
        return kernels.attention(Q, KEY, KEY, **{name: number})

    with pytest.raises(ValueError, match=f"{name} must be a finite number that is known while"):
        jax.jit(attend)(0.5)


def test_keys_of_another_shape_are_named():
    keys = jax.random.split(jax.random.key(0), 2)
    refused("dropout_key must be one key", dropout_rate=0.1, dropout_key=keys)


def test_relative_positions_and_filters():
    u, r = jnp.ones((N, H)), jnp.ones((T + S - 1, N, H))
    relative = kernels.relative_attention
    refused("and position_key does not", Q, KEY, KEY, r[1:], u, u, operation=relative)
    refused("and position_bias does not", Q, KEY, KEY, r, u, u[:1], operation=relative)
    refused("content_bias must have the dtype", Q, KEY, KEY, r, u.astype(jnp.bfloat16), u,
            operation=relative)  # fmt: skip
    for wrong in (jnp.ones((3, N, H)), jnp.ones((0, K)), jnp.ones(3), jnp.ones((3, K, 2))):
        refused("and key_filter does not", Q, KEY, KEY, wrong, operation=kernels.conv_attention)
    with pytest.raises(TypeError, match=r"conv_attention takes .* received \['scales'\]"):
        kernels.conv_attention(Q, KEY, KEY, jnp.ones((3, K)), scales=2.0)


@pytest.mark.parametrize(
    ("name", "call", "message"),
    [
        ("alibi", lambda: kernels.alibi(0), "at least one head"),
        ("alibi", lambda: kernels.alibi(jnp.int32(0)), "at least one head"),
        ("alibi", lambda: kernels.alibi(jnp.ones((2, 2))), "one floating point number per head"),
        ("t5_bias", lambda: kernels.t5_bias(jnp.ones((2, 3))), "2 buckets in each direction"),
        ("t5_bias", lambda: kernels.t5_bias(jnp.ones((32, 3)), max_distance=8), "max_distance"),
        ("t5_bias", lambda: kernels.t5_bias(jnp.ones(32)), r"table \(buckets, N\)"),
        ("clamped_bias", lambda: kernels.clamped_bias(jnp.ones((4, 2))), "odd number of rows"),
        ("shaw", lambda: kernels.shaw_position_keys(jnp.ones((4, 2, 2)), 3), "odd number of rows"),
        ("shaw", lambda: kernels.shaw_position_keys(jnp.ones((3, 2)), 3), r"\(2 c \+ 1, N, H\)"),
    ],
)
def test_tables_of_biases(name, call, message):
    with pytest.raises(ValueError, match=f"{message}.*received"):
        call()


def test_heads_in_any_integer():
    offsets = jnp.arange(-2, 1)
    several: list[Any] = [np.int64(4), jnp.int32(4)]
    for heads in several:
        assert (kernels.alibi(heads)(offsets) == kernels.alibi(4)(offsets)).all()
