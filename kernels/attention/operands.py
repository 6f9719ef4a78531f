"""What every implementation of attention is given.

Axes: B rows, T queries, S keys, N heads, K key heads (N is a multiple of K), H dimensions of a
head, R = T + S - 1 offsets, b rows of an operand: a divisor of B, mostly B or 1
(``kernels.dispatch``). Query t and key s meet at offset s - t, whose index is s - t + T - 1: index
0 is the last query at the first key.
"""

from typing import Any, NamedTuple


class Operands(NamedTuple):
    """Arrays, ``None`` where absent.

    score[t, s] = (query[t] . key[s] + position_query[t] . position_key[s - t + T - 1]) scale
                  + bias[t, s] + offset_bias[s - t + T - 1], then the soft cap

    Query t sees key s where all that is given agrees: the mask, both lengths, equal segments, the
    causal order s <= t and the window. A score of -inf counts as not seen.

    Attributes:
        query: (B, T, N, H) in the dtype of key and value.
        key: (b, S, K, H); head n of the queries uses n // (N / K).
        value: (b, S, K, H).
        bias: (b, 1 or N, 1 or T, 1 or S), any floating dtype.
        offset_bias: (b, 1 or N, R), any floating dtype.
        position_query: (B, T, N, H); present exactly where ``position_key`` is.
        position_key: (b, R, N, H).
        mask: (b, 1 or N, 1 or T, 1 or S), bool.
        query_lengths: (b,), int32; a query from there on sees nothing.
        key_lengths: (b,), int32; a key from there on is seen by none.
        query_segments: (b, T), int32; present exactly where ``key_segments`` is.
        key_segments: (b, S), int32.
        dropout_seeds: (B, N, 2), uint32; see ``kernels.attention.dropout``.
        key_filter: (b, W, K, H) in the dtype of the key. Where there is one, a key s stands for
            the sum over taps j of key[s + j - before] key_filter[j], as far as these are keys of
            the same sequence; ``taps_before`` says how many come before.
    """

    query: Any
    key: Any
    value: Any
    bias: Any = None
    offset_bias: Any = None
    position_query: Any = None
    position_key: Any = None
    mask: Any = None
    query_lengths: Any = None
    key_lengths: Any = None
    query_segments: Any = None
    key_segments: Any = None
    dropout_seeds: Any = None
    key_filter: Any = None


# What has a gradient; the others are integers or truth values.
DIFFERENTIABLE = (
    "query",
    "key",
    "value",
    "bias",
    "offset_bias",
    "position_query",
    "position_key",
    "key_filter",
)


def taps_before(taps: int, causal: bool) -> int:
    """How many keys before its own a filter reaches: all of them where none may come after."""
    return taps - 1 if causal else (taps - 1) // 2
