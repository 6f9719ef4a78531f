"""Compare beam searches: ours and those of other libraries on the CPU, where installed.

    python -m research.speech.bench_decoding
    pip install ctc-beam-decoder flashlight-text fast-ctc-decode    # whom to compare with

All decode the same utterances with the same beam width, one after the other in rounds, so that what
else the machine does meets all alike. Ratios are taken within each round. Since beam searches prune
differently, the table also says how likely what they found is: the mean, over the utterances, of
the exact log-probability of their best labelling, relative to the likeliest that any of them found
(0 is best), and the share of utterances in which they found that one.
"""

import argparse
import importlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import kernels
from research.speech.beam_search import beam_search
from research.speech.decoding import greedy_decode
from research.speech.language_model import WordDecoder

Decoder = Callable[[], list[list[int]]]
_FIRST_SYMBOL = 0x100  # classes become letters from here on: no spaces, no controls


def utterances(
    batch: int, frames: int, classes: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities like those of a trained model: blanks, short peaks and some confusion.

    Args:
        batch: how many utterances.
        frames: of each.
        classes: the blank, 0, among them.
        seed: of the random numbers.

    Returns:
        float32 (B, T, K) and the lengths, all T, (B,).

    Example:
        >>> log_probs, lengths = utterances(2, 50, 5)
        >>> log_probs.shape, lengths.tolist(), bool(np.isfinite(log_probs).all())
        ((2, 50, 5), [50, 50], True)
    """
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(batch, frames, classes))
    spoken = rng.random((batch, frames)) < 0.2
    logits[:, :, 0] += np.where(spoken, 1.0, 6.0)
    truth = rng.integers(1, classes, (batch, frames))
    rows, times = np.nonzero(spoken)
    logits[rows, times, truth[rows, times]] += rng.uniform(2.0, 6.0, len(rows))
    log_probs = logits - np.logaddexp.reduce(logits, axis=2, keepdims=True)
    return log_probs.astype(np.float32), np.full(batch, frames, np.int32)


def contestants(
    log_probs: np.ndarray, lengths: np.ndarray, width: int
) -> tuple[dict[str, Decoder], list[str]]:
    """Decoders by name, ours first, and what is not installed."""
    logits, counts = jnp.asarray(log_probs), jnp.asarray(lengths)

    def ours(**options: Any) -> Decoder:
        def decode():
            state = beam_search(logits, counts, width=width, **options)
            labels, used = jax.device_get((state.labels[:, 0], state.counts[:, 0]))
            return [row[:count].tolist() for row, count in zip(labels, used, strict=True)]

        return decode

    def greedy():
        labels, used = jax.device_get(greedy_decode(logits, counts))
        return [row[:count].tolist() for row, count in zip(labels, used, strict=True)]

    found: dict[str, Decoder] = {
        "beam_search": ours(),
        "beam_search, top_classes=8": ours(top_classes=min(8, log_probs.shape[2])),
        "greedy": greedy,
    }
    absent = []
    for add in (_ctc_beam_decoder, _fast_ctc_decode, _flashlight):
        try:
            found |= add(log_probs, width)
        except (ImportError, ValueError) as error:
            absent.append(f"{add.__name__.strip('_')}: {error}")
    return found, absent


def _symbols(classes: int) -> list[str]:
    return ["", *(chr(_FIRST_SYMBOL + k) for k in range(1, classes))]


def _labels(text: str) -> list[int]:
    return [ord(symbol) - _FIRST_SYMBOL for symbol in text]


def _ctc_beam_decoder(log_probs: np.ndarray, width: int) -> dict[str, Decoder]:
    decoder = WordDecoder(_symbols(log_probs.shape[2]))
    lengths = np.full(len(log_probs), log_probs.shape[1])

    def decode(**options: Any) -> Decoder:
        return lambda: [
            _labels(best[0].text) for best in decoder(log_probs, lengths, width=width, **options)
        ]

    return {
        "ctc-beam-decoder, pruned": decode(),
        "ctc-beam-decoder": decode(prune_below=-1e4, min_log_prob=-1e4),
    }


def _fast_ctc_decode(log_probs: np.ndarray, width: int) -> dict[str, Decoder]:
    package: Any = importlib.import_module("fast_ctc_decode")
    alphabet = "".join(["_", *_symbols(log_probs.shape[2])[1:]])
    probs = np.exp(log_probs)
    return {
        "fast-ctc-decode": lambda: [
            _labels(package.beam_search(p, alphabet, width, 0.0)[0]) for p in probs
        ]
    }


def _flashlight(log_probs: np.ndarray, width: int) -> dict[str, Decoder]:
    package: Any = importlib.import_module("flashlight.lib.text.decoder")
    frames, classes = log_probs.shape[1:]
    options = package.LexiconFreeDecoderOptions(
        beam_size=width,
        beam_size_token=classes,
        beam_threshold=1e4,
        lm_weight=0.0,
        sil_score=0.0,
        log_add=True,
        criterion_type=package.CriterionType.CTC,
    )
    # No class is silence; the last argument is for models over transitions.
    decoder = package.LexiconFreeDecoder(options, package.ZeroLM(), -1, 0, [])

    def decode():
        best = [decoder.decode(p.ctypes.data, frames, classes)[0].tokens for p in log_probs]
        paths = [np.asarray(path) for path in best]
        return [
            [int(k) for k, before in zip(path, [-1, *path], strict=False) if k > 0 and k != before]
            for path in paths
        ]

    return {"flashlight-text": decode}


def exact_log_probs(log_probs: np.ndarray, found: Sequence[Sequence[int]]) -> np.ndarray:
    """Of each labelling, summed over all paths, (B,).

    Example:
        >>> exact_log_probs(np.log(np.full((1, 2, 2), 0.5, np.float32)), [[1]]).round(3)
        array([-0.288], dtype=float32)
    """
    longest = max(1, *(len(labels) for labels in found))
    labels = np.ones((len(found), longest), np.int32)
    paddings = np.ones((len(found), longest), bool)
    for row, ids in enumerate(found):
        labels[row, : len(ids)], paddings[row, : len(ids)] = ids, False
    frames = jnp.zeros(log_probs.shape[:2], bool)
    losses = kernels.ctc_loss(
        jnp.asarray(log_probs), frames, jnp.asarray(labels), jnp.asarray(paddings)
    )
    return -np.asarray(losses)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m research.speech.bench_decoding",
        description="Compare CTC beam searches on the CPU.",
    )
    for name, default in (
        ("batch", 16),
        ("frames", 400),
        ("classes", 32),
        ("width", 16),
        ("rounds", 7),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    options = parser.parse_args(arguments)
    log_probs, lengths = utterances(options.batch, options.frames, options.classes)
    decoders, absent = contestants(log_probs, lengths, options.width)
    found = {name: decode() for name, decode in decoders.items()}  # and whatever is compiled
    seconds: dict[str, list[float]] = {name: [] for name in decoders}
    for _ in range(options.rounds):
        for name, decode in decoders.items():
            start = time.perf_counter()
            decode()
            seconds[name].append(time.perf_counter() - start)
    exact = {name: exact_log_probs(log_probs, labels) for name, labels in found.items()}
    best = np.max(list(exact.values()), axis=0)
    ours = np.array(next(iter(seconds.values())))
    table = Table(
        title=f"{options.batch} utterances of {options.frames} frames, {options.classes} classes, "
        f"beam width {options.width}; {jax.default_backend()}, {options.rounds} rounds"
    )
    table.add_column("decoder", no_wrap=True)
    for column in ("ms, median", "of rounds", "× ours", "of rounds", "log-prob", "best"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, times in seconds.items():
        measured = 1e3 * np.array(times)
        ratios = np.array(times) / ours
        table.add_row(
            name,
            f"{np.median(measured):.1f}",
            f"{measured.min():.1f} to {measured.max():.1f}",
            f"{np.median(ratios):.2f}",
            f"{ratios.min():.2f} to {ratios.max():.2f}",
            f"{np.mean(exact[name] - best):.3f}",
            f"{np.mean(exact[name] >= best - 1e-3):.0%}",
        )
    console = Console()
    console.width = max(console.width, 110)  # in a file, too, no name is cut
    console.print(table)
    for reason in absent:
        console.print(f"left out: {reason}")


if __name__ == "__main__":
    main()
