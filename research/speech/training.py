"""Training of one recogniser: objectives by name, its tokeniser on disk, texts that do not fit."""

import hashlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.data.utterances import Corpus
from research.errors import DataError, RunError
from research.objectives import ctc as single
from research.objectives import ctc_auxiliary as auxiliary
from research.objectives.ctc_terms import logits_of
from research.speech.recogniser import FrontEnd
from research.speech.tokenisers import CharacterTokeniser, SubwordTokeniser, load_tokeniser

AnyTokeniser = CharacterTokeniser | SubwordTokeniser


class Choice(NamedTuple):
    """An objective as ``make_recogniser`` takes it, and what it needs."""

    objective: Callable[..., Float[Array, ""]]
    views: int = 1
    intermediate: bool = False


def batch_prior_ctc(outputs, lengths, labels, label_paddings, *, blank_id=0) -> Float[Array, ""]:
    """``prior_ctc`` with the mean posterior of the batch at hand as the prior."""
    prior = single.mean_posterior(jax.lax.stop_gradient(logits_of(outputs)), lengths)
    log_priors = jnp.log(prior)
    return single.prior_ctc(
        outputs, lengths, labels, label_paddings, log_priors=log_priors, blank_id=blank_id
    )


OBJECTIVES: Mapping[str, Choice] = {
    "ctc": Choice(single.ctc),
    "label_smoothed_ctc": Choice(single.label_smoothed_ctc),
    "entropy_regularised_ctc": Choice(single.entropy_regularised_ctc),
    "focal_ctc": Choice(single.focal_ctc),
    "prior_ctc": Choice(batch_prior_ctc),
    "intermediate_ctc": Choice(auxiliary.intermediate_ctc, intermediate=True),
    "self_conditioned_ctc": Choice(auxiliary.self_conditioned_ctc, intermediate=True),
    "consistency_ctc": Choice(auxiliary.consistency_ctc, views=2),
}
"""Objectives of training by name."""


def keep_tokeniser(
    folder: Path, checkpoints: Path, make: Callable[[], AnyTokeniser]
) -> AnyTokeniser:
    """The tokeniser of a training: made and saved when it starts, read again when it goes on.

    The fingerprint lies beside the checkpoints: labels of another tokeniser would mean other text.

    Args:
        folder: of the run; the tokeniser is in `tokeniser.json`.
        checkpoints: of the training.
        make: learns it.

    Returns:
        The tokeniser that the checkpoints go with.

    Raises:
        RunError: it is gone, or is another one than the checkpoints were trained with.
        DataError: the file is damaged.
    """
    path, mark = folder / "tokeniser.json", checkpoints / "tokeniser.sha256"
    if not mark.is_file():
        tokeniser = make()
        tokeniser.save(path)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(_fingerprint(path))
        return tokeniser
    if not path.is_file() or _fingerprint(path) != mark.read_text():
        found = f"has {load_tokeniser(path).size} ids" if path.is_file() else "is gone"
        raise RunError(
            f"{path} must be the tokeniser that the checkpoints in {checkpoints} were trained "
            f"with, but it was changed: it {found}. Put the former one back, or start anew with "
            "--fresh."
        )
    return load_tokeniser(path)


def _fingerprint(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def count_too_long(
    corpus: Corpus, tokeniser: AnyTokeniser, front_end: FrontEnd, encoder: Any
) -> int:
    """How many utterances have more labels than frames, from which CTC learns nothing.

    Raises:
        DataError: all of them.
    """
    log_mel = front_end.log_mel
    samples = np.floor(corpus.seconds * log_mel.sample_rate).astype(int)
    available = encoder.output_lengths(-(-log_mel.frames(samples) // front_end.stack))
    labels = [tokeniser.encode(text) for text in corpus.texts]
    # A blank must come between two equal labels.
    needed = [len(row) + sum(one == other for one, other in pairwise(row)) for row in labels]
    too_long = int((available < np.array(needed)).sum())
    if too_long == len(corpus):
        seconds = encoder.subsampling * front_end.frame_seconds
        raise DataError(
            f"every text of {corpus.name} has more labels than its audio has frames of "
            f"{1000 * seconds:g} ms; is each the text of its audio? If so, take larger pieces."
        )
    return too_long
