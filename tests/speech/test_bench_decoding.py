import jax.numpy as jnp
import numpy as np
import pytest

from research.speech import bench_decoding
from research.speech.beam_search import beam_search

SMALL = ["--batch", "2", "--frames", "20", "--classes", "5", "--width", "8", "--rounds", "2"]


def test_every_decoder_that_is_there_has_a_row(capsys):
    bench_decoding.main(SMALL)
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("│")]
    names = [row.split("│")[1].strip() for row in rows]
    assert names[:3] == ["beam_search", "beam_search, top_classes=8", "greedy"]
    assert rows[0].split("│")[4].strip() == "1.00"
    others = ("ctc-beam-decoder", "fast-ctc-decode", "flashlight")
    for name in others:
        found = any(row.startswith(name) for row in names)
        assert found or f"left out: {name.replace('-', '_')}" in printed or "pip install" in printed


def test_all_decoders_find_the_same_where_there_is_no_doubt():
    log_probs, lengths = bench_decoding.utterances(2, 20, 5)
    sharp = 4 * log_probs
    sharp -= np.logaddexp.reduce(sharp, axis=2, keepdims=True)
    decoders, _ = bench_decoding.contestants(sharp, lengths, 8)
    found = {name: decode() for name, decode in decoders.items()}
    for name, labels in found.items():
        assert labels == found["beam_search"], name


def test_the_exact_log_probability_is_that_of_a_wide_beam():
    log_probs, lengths = bench_decoding.utterances(2, 6, 3)
    state = beam_search(jnp.asarray(log_probs), jnp.asarray(lengths), width=200)
    labels = [state.labels[i, 0, : state.counts[i, 0]].tolist() for i in range(2)]
    exact = bench_decoding.exact_log_probs(log_probs, labels)
    assert exact == pytest.approx(np.asarray(state.log_probs[:, 0]), abs=1e-5)
