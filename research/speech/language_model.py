"""Decoding with word n-grams and hotwords on the CPU, by ``ctc-beam-decoder``.

An optional package with C++ and KenLM inside: ``pip install ctc-beam-decoder``. It is not among the
extras, because its wheels need newer systems (glibc 2.35, macOS 14) than the rest. For n-grams over
the labels themselves, ``beam_search`` takes an automaton and needs nothing else.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from research.errors import ConfigError


class Hypothesis(NamedTuple):
    """A transcript, the log-probability of its kept paths, and that with what words added."""

    text: str
    log_prob: float
    score: float


class WordDecoder:
    """Beam search over texts that looks at words, with pruning as in pyctcdecode.

    Args:
        symbols: the text of each class, "" for the blank; " " separates words. With a language
            model there must be a " ".
        language_model: an n-gram model in ARPA format, or binary of KenLM.
        weight: of the language model's log-probability (alpha).
        word_bonus: added for each word (beta); both matter with a language model only.

    Raises:
        ConfigError: the package is not installed, there is not exactly one blank, or the language
            model cannot be read.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        language_model: str | Path | None = None,
        weight: float = 0.5,
        word_bonus: float = 1.5,
    ) -> None:
        if list(symbols).count("") != 1:
            raise ConfigError(
                f'symbols must have the blank, "", exactly once; received {list(symbols)}.'
            )
        package: Any = _package()
        try:
            self._decoder = package.build_ctcdecoder(
                list(symbols),
                kenlm_model_path=None if language_model is None else str(language_model),
                alpha=weight,
                beta=word_bonus,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"the decoder could not be built with language_model={language_model}: {error}"
            ) from error

    def __call__(
        self,
        log_probs: Float[np.ndarray, "B T K"],
        lengths: Int[np.ndarray, " B"],
        *,
        width: int = 100,
        prune_below: float = -10.0,
        min_log_prob: float = -5.0,
        hotwords: Sequence[str] = (),
        hotword_weight: float = 10.0,
    ) -> list[list[Hypothesis]]:
        """The likeliest texts of each sequence, best first.

        Args:
            log_probs: log probabilities of the classes, (B, T, K).
            lengths: valid frames, (B,).
            width: how many texts to keep.
            prune_below: texts that are worse than the best by more than this are dropped, nats.
            min_log_prob: classes less likely in a frame than this are not looked at, nats.
            hotwords: words to prefer.
            hotword_weight: how much.

        Returns:
            For each sequence its hypotheses.
        """
        return [
            [
                Hypothesis(text, log_prob, score)
                for text, _, _, log_prob, score in self._decoder.decode_beams(
                    np.asarray(frames[:length], np.float32),
                    beam_width=width,
                    beam_prune_logp=prune_below,
                    token_min_logp=min_log_prob,
                    hotwords=list(hotwords),
                    hotword_weight=hotword_weight,
                )
            ]
            for frames, length in zip(np.asarray(log_probs), np.asarray(lengths), strict=True)
        ]


def _package() -> Any:
    try:
        return importlib.import_module("ctc_beam_decoder")
    except ImportError as error:
        raise ConfigError(
            "WordDecoder needs a package that is not installed: pip install ctc-beam-decoder"
        ) from error
