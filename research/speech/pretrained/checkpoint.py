"""A published CTC recogniser as one value: what it is, its weights, its features, its labels."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from research.errors import DataError
from research.speech.pretrained import configuration, front_end
from research.speech.pretrained.configuration import Model, ModelConfig
from research.speech.pretrained.files import (
    INDEX,
    read_json,
    read_safetensors,
    read_tensors,
    write_tensors,
)
from research.speech.pretrained.front_end import FrontEnd
from research.speech.pretrained.vocabulary import FILES, Vocabulary, read_vocabulary
from research.speech.pretrained.weights import Variables, from_tensors, to_tensors


@dataclass(frozen=True)
class Checkpoint:
    """A model with everything that belongs to it.

    Attributes:
        config: of the model, with the names of config.json.
        variables: ``{"params": ...}``, and ``"batch_stats"`` in models with batch norms.
        front_end: waveforms and lengths to inputs of the model and theirs.
        vocabulary: labels to text and back. The blank is ``config.pad_token_id``.
    """

    config: ModelConfig
    variables: Variables
    front_end: FrontEnd
    vocabulary: Vocabulary

    @property
    def model(self) -> Model:
        """The Linen module: ``model.apply(variables, inputs, lengths)`` gives logits."""
        return configuration.model_of(self.config)

    @property
    def frame_seconds(self) -> float:
        """Seconds from one frame of logits to the next."""
        return self.config.stride * self.front_end.hop / self.front_end.sample_rate


def load(
    directory: str | os.PathLike[str], *, dtype: Any = jnp.float32, language: str | None = None
) -> Checkpoint:
    """Read a checkpoint in the layout of transformers: wav2vec2, HuBERT, w2v-BERT, Parakeet-CTC.

    The folder holds config.json, model.safetensors (or parts of it with their index),
    preprocessor_config.json (or processor_config.json), and vocab.json or tokenizer.json. Nothing
    is downloaded, and no pickle is read.

    Args:
        directory: the folder.
        dtype: of all parameters, whatever the files have: float16 and bfloat16 become float32.
        language: in a multilingual checkpoint (MMS), which vocabulary and which adapter,
            ``adapter.<language>.safetensors``; by default those it is set to.

    Returns:
        The checkpoint.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others.
        ConfigError: another kind of model, or an option that ours has not; or a library is missing.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise DataError(f"a checkpoint must be a folder, but there is none at {directory}")
    described, tensors = read_json(directory / "config.json"), read_tensors(directory)
    if language is not None:
        tensors |= _adapter(directory, language)
        described["vocab_size"] = len(tensors["lm_head.weight"])
    config = configuration.config_of(described)
    return Checkpoint(
        config,
        from_tensors(tensors, shapes_of(config), dtype=dtype),
        front_end.front_end_of(_preprocessor(directory)),
        read_vocabulary(directory, config.vocab_size, language),
    )


def save(directory: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint that `load` and transformers read.

    Files of the same names are replaced. Those of another checkpoint that `load` or transformers
    would take for this one's are removed: its vocabulary, its processor and the index of its parts.

    Args:
        directory: the folder; made if it is not there.
        checkpoint: what to write.

    Raises:
        ConfigError: features that the layout cannot describe, or a library is missing.
    """
    directory = Path(directory)
    files = {
        "config.json": _text(configuration.described(checkpoint.config)),
        "preprocessor_config.json": _text(front_end.described(checkpoint.front_end)),
        **checkpoint.vocabulary.files(checkpoint.config.pad_token_id),
    }
    directory.mkdir(parents=True, exist_ok=True)
    write_tensors(directory, to_tensors(checkpoint.variables))
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    for name in {*FILES, INDEX, "processor_config.json"} - files.keys():
        (directory / name).unlink(missing_ok=True)


def shapes_of(config: ModelConfig) -> Variables:
    """The variables of a model as shapes, without computing any.

    Example:
        >>> from research.models.parakeet import ParakeetConfig, ParakeetEncoderConfig
        >>> config = ParakeetConfig(encoder_config=ParakeetEncoderConfig(num_hidden_layers=1))
        >>> sorted(shapes_of(config))
        ['batch_stats', 'params']
    """
    return jax.eval_shape(lambda key: initial(config, key), jax.random.key(0))


def initial(config: ModelConfig, key: Key[Array, ""]) -> Variables:
    """Random variables for a model of this configuration, to train from scratch.

    Args:
        config: of the model.
        key: decides all of them.

    Returns:
        ``{"params": ...}``, and ``"batch_stats"`` in models with batch norms.
    """
    model = configuration.model_of(config)
    inputs, lengths = _smallest_inputs(config)
    return dict(model.init(key, inputs, lengths))


def with_vocabulary(
    checkpoint: Checkpoint, vocabulary: Vocabulary, key: Key[Array, ""], *, blank_id: int = 0
) -> Checkpoint:
    """The same encoder with a new head for other labels, to be fine-tuned.

    Args:
        checkpoint: whose encoder to keep.
        vocabulary: the new labels.
        key: decides the weights of the head.
        blank_id: which label is CTC's blank.

    Returns:
        A checkpoint whose head has random weights.
    """
    config = replace(checkpoint.config, vocab_size=len(vocabulary.tokens), pad_token_id=blank_id)
    head = configuration.head_of(config)
    # Only the head is used, so that XLA computes nothing else.
    new = jax.jit(lambda key: initial(config, key)["params"][head])(key)
    old = checkpoint.variables["params"]
    dtype = jax.tree.leaves(old[head])[0].dtype
    params = {**old, head: jax.tree.map(lambda weights: weights.astype(dtype), new)}
    variables = {**checkpoint.variables, "params": params}
    return replace(checkpoint, config=config, variables=variables, vocabulary=vocabulary)


def _smallest_inputs(config: ModelConfig) -> tuple[Float[Array, "1 T *F"], Int[Array, " 1"]]:
    """Zeros of any length that gives a frame; parameters do not depend on it."""
    inputs = 1
    while config.frames(inputs) < 2:
        inputs *= 2
    width = config.input_width
    return jnp.zeros((1, inputs) if width is None else (1, inputs, width)), jnp.array([inputs])


def _preprocessor(directory: Path) -> dict[str, Any]:
    if (directory / "preprocessor_config.json").is_file():
        return read_json(directory / "preprocessor_config.json")
    both = read_json(directory / "processor_config.json", {})
    if not isinstance(both.get("feature_extractor"), dict):
        raise DataError(
            "a checkpoint needs preprocessor_config.json, or processor_config.json with a "
            f"feature_extractor, but {directory} has neither; copy it from where the weights come "
            "from"
        )
    return both["feature_extractor"]


def _adapter(directory: Path, language: str) -> dict[str, Any]:
    """The tensors of a language: adapters and head."""
    path = directory / f"adapter.{language}.safetensors"
    if path.parent != directory or not path.is_file():
        there = sorted(file.name.split(".")[1] for file in directory.glob("adapter.*.safetensors"))
        raise DataError(
            f"a language needs adapter.<language>.safetensors, but {directory} has that of "
            f"{', '.join(there) or 'none'}, not of {language!r}"
        )
    tensors = read_safetensors(path)
    if "lm_head.weight" not in tensors:
        raise DataError(
            f"the adapter of a language must have its head, but {path} has no lm_head.weight; "
            "fetch it again"
        )
    return tensors


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
