"""A character language model on the texts that ``help()`` of Python shows, which come with it.

Axes: B batch, T positions, K symbols.
"""

import math
import os
import platform
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import UInt8

from research.models.transformer_lm import TransformerLM
from research.workloads.classification import fingerprint
from research.workloads.workload import Examples, Workload

SYMBOLS = 97  # the 95 printable characters of ASCII, the end of a line, anything else
LENGTH = 32  # characters that are predicted in an example

_NEWLINE, _OTHER = 95, 96
_HELD_OUT = 0.05  # of the text, for validation; and again for test
_EVALUATED = 256  # examples of each


class Text(NamedTuple):
    """The text and where it is from."""

    characters: str
    source: str


def help_topics() -> Text:
    """All help topics of this Python, in the order of their names.

    They are revised with every version of Python: the hash of a workload's data says which it was.
    """
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))
    source = f"pydoc_data.topics (Python {platform.python_version()}, {len(text):,} characters)"
    return Text(text, source)


def encode(text: str) -> UInt8[np.ndarray, " N"]:
    r"""Symbols of a text: 0..94 for printable ASCII, 95 for the end of a line, 96 for the rest.

    Example:
        >>> encode(" ~\n…").tolist()
        [0, 94, 95, 96]
    """
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64) - 32
    symbols = np.where((codes >= 0) & (codes < _NEWLINE), codes, _OTHER)
    return np.where(codes == ord("\n") - 32, _NEWLINE, symbols).astype(np.uint8)


def windows(symbols: UInt8[np.ndarray, " N"]) -> Examples:
    """The text cut into examples of LENGTH + 1 symbols that share none."""
    count = len(symbols) // (LENGTH + 1)
    return {"text": symbols[: count * (LENGTH + 1)].reshape(count, LENGTH + 1)}


def build(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    *,
    width: int = 48,
    norm: str = "layer",
) -> Workload:
    """Two blocks; validation and test texts are the last of the topics, not mixed with training."""
    del data_dir
    text = help_topics()
    symbols = encode(text.characters)
    held_out = int(_HELD_OUT * len(symbols))
    train, validation, test = map(windows, np.split(symbols, [-2 * held_out, -held_out]))
    validation, test = (_spread(part, _EVALUATED) for part in (validation, test))
    model = TransformerLM(SYMBOLS, LENGTH, width=width, norm=norm)

    def init(key):
        return model.init(key, jnp.zeros((1, LENGTH), jnp.int32))["params"]

    def losses(params, batch):
        """Nats of each character, (B, T)."""
        text = jnp.asarray(batch["text"]).astype(jnp.int32)
        logits = jnp.asarray(model.apply({"params": params}, text[:, :-1]))
        return optax.softmax_cross_entropy_with_integer_labels(logits, text[:, 1:])

    def loss(params, batch, key):
        del key
        return jnp.mean(losses(params, batch))

    def measure(params, batch):
        nats = jnp.mean(losses(params, batch), axis=1)
        return {"loss": nats, "score": nats / math.log(2)}

    return Workload(
        name=name,
        description=f"Transformer (2 blocks, width {width}) on Python's help texts, 32 characters",
        metric="bits per character",
        target=math.nan,
        steps=400,
        batch_size=16,
        source=text.source,
        sha256=fingerprint((train, validation, test)),
        train=train,
        validation=validation,
        test=test,
        init=init,
        loss=loss,
        measure=measure,
    )


def _spread(examples: Examples, count: int) -> Examples:
    """So many of them, at equal distances."""
    size = len(examples["text"])
    return {"text": examples["text"][np.linspace(0, size - 1, min(count, size)).astype(int)]}
