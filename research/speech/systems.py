"""A CTC system as a workload: an encoder and an objective on the recordings of a fold.

The names say it all, ``corpus/encoder/objective/fold``, and for a search ``.validator`` after that,
so that any worker can build what it is to train: see ``load``.

Axes: B batch, T log-mel frames, F mel bins, U frames of logits, N labels, K classes.
"""

import dataclasses
import functools
import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

import kernels
from research.errors import ConfigError
from research.models.encoders import ENCODERS
from research.names import look_up
from research.objectives import registry
from research.objectives.ctc_terms import Outputs, logits_of
from research.speech.decoding import greedy_decode
from research.speech.edit_distance import edit_distance
from research.speech.examination import examine
from research.speech.features import stack_frames
from research.speech.material import Material, digit_material
from research.speech.spec_augment import SpecAugment, spec_augment
from research.workloads.workload import Workload

LOADER = "research.speech.systems:load"

# One frame of logits for so many of log-mel features, whichever the encoder: those that do not
# subsample see so many of them stacked.
LOG_MEL_PER_LOGITS = 4
BATCH_SIZE = 32
STEPS = 1000

# Of the views of objectives that compare two. Digits are too short for more.
_VIEWS = SpecAugment(frequency_masks=1, max_frequency_width=5, time_masks=1, max_time_width=8)


class System(NamedTuple):
    """An encoder with an objective, and who is unheard."""

    corpus: str
    encoder: str
    objective: str
    fold: str
    validator: str | None = None

    @property
    def name(self) -> str:
        """That which ``parse`` reads.

        Example:
            >>> System("fsdd", "separable_conv", "ctc", "theo", "yweweler").name
            'fsdd/separable_conv/ctc/theo.yweweler'
        """
        fold = self.fold if self.validator is None else f"{self.fold}.{self.validator}"
        return f"{self.corpus}/{self.encoder}/{self.objective}/{fold}"

    @property
    def heard(self) -> tuple[str, str, str | None]:
        """Corpus, test speaker and validator: what its material depends on."""
        return self.corpus, self.fold, self.validator


def parse(name: str) -> System:
    """The system of a name.

    Raises:
        ConfigError: a name of another form, or an encoder or objective that there is not.

    Example:
        >>> parse("fsdd/separable_conv/ctc/theo").fold
        'theo'
    """
    parts = name.split("/")
    if len(parts) != 4:
        raise ConfigError(
            f"a system must be named corpus/encoder/objective/fold; received {name!r}."
        )
    corpus, encoder, objective, fold = parts
    look_up(ENCODERS, encoder, "encoder")
    registry.find(objective)
    fold, dot, validator = fold.partition(".")
    return System(corpus, encoder, objective, fold, validator if dot else None)


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Workload:
    """The workload of a system.

    Args:
        name: of a system.
        data_dir: where data lie.

    Raises:
        ConfigError: no such system.
        DataError: recordings that are missing or cannot be used.
    """
    system = parse(name)
    material = digit_material(*system.heard, data_dir)
    return build(system, material)


def build(system: System, material: Material) -> Workload:
    """Encoder, objective and arrays put together."""
    objective = registry.find(system.objective)
    model = make_encoder(system.encoder, system.objective, 1 + len(material.symbols))

    def stacked(features, frames):
        stack = LOG_MEL_PER_LOGITS // model.subsampling
        return stack_frames(features.astype(jnp.float32), frames, stack)

    def encode(params, features, frames, **options) -> tuple[Outputs, Int[Array, " B"]]:
        inputs, lengths = stacked(features, frames)
        outputs = model.apply({"params": params}, inputs, lengths, **options)
        return outputs, model.output_lengths(lengths)

    def init(key):
        features, frames = (
            jnp.asarray(material.train[name][:1]) for name in ("features", "frames")
        )
        return model.init(key, *stacked(features, frames))["params"]

    def loss(params, batch, key):
        view_key, dropout_key = jax.random.split(key)
        if objective.views > 1:
            batch = {
                name: jnp.concatenate([array] * objective.views) for name, array in batch.items()
            }
        features, frames = batch["features"], batch["frames"]
        if objective.views > 1:
            features = spec_augment(view_key, features.astype(jnp.float32), frames, _VIEWS)
        outputs, lengths = encode(
            params, features, frames, deterministic=False, rngs={"dropout": dropout_key}
        )
        return objective.loss(outputs, lengths, batch["labels"], batch["label_paddings"])

    def recognise(params, batch) -> tuple[Float[Array, "B U K"], Int[Array, " B"]]:
        outputs, lengths = encode(params, batch["features"], batch["frames"])
        return logits_of(outputs), lengths

    def measure(params, batch):
        logits, lengths = recognise(params, batch)
        padded = jnp.arange(logits.shape[1])[None, :] >= lengths[:, None]
        losses = kernels.ctc_loss(logits, padded, batch["labels"], batch["label_paddings"])
        labels = jnp.sum(batch["label_paddings"] == 0, axis=1)
        edits = edit_distance(batch["labels"], labels, *greedy_decode(logits, lengths))
        return {"loss": losses / labels, "score": edits / labels}

    frame_seconds = LOG_MEL_PER_LOGITS * material.front_end.hop_seconds
    return Workload(
        name=system.name,
        description=f"{system.encoder} with {objective.label} on {material.description}",
        metric="label error rate, mean over strings",
        target=math.nan,
        steps=STEPS,
        batch_size=BATCH_SIZE,
        source=material.source,
        sha256=material.sha256,
        train=material.train,
        validation=material.validation,
        test=material.test,
        init=init,
        loss=loss,
        measure=measure,
        examine=functools.partial(examine, jax.jit(recognise), material, frame_seconds),
    )


def make_encoder(name: str, objective: str, classes: int) -> Any:
    """The encoder of that name as an objective needs it: predicting after its middle layer or not.

    Args:
        name: in ``research.models.encoders``.
        objective: in ``research.objectives.registry``.
        classes: K, the blank among them.

    Raises:
        ConfigError: no such encoder or objective, or an encoder of one layer with an objective that
            needs a prediction between layers.

    Example:
        >>> make_encoder("separable_conv", "intermediate_ctc", 11).intermediate
        (2,)
    """
    model = look_up(ENCODERS, name, "encoder")(classes=classes)
    asked = registry.find(objective)
    if not asked.intermediate:
        return model
    layers = getattr(model, "layers", None) or model.conv_blocks
    if layers < 2:
        raise ConfigError(
            f"{objective} needs an encoder of two layers or more; {name} has {layers}. Leave one "
            "of them out."
        )
    options = {"intermediate": (layers // 2,), "self_conditioned": asked.self_conditioned}
    return dataclasses.replace(model, **options)
