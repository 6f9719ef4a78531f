"""Strings of spoken digits with CTC: which digits were said, without being told when.

Axes: B batch, T frames, F features, N labels, K classes.
"""

import hashlib
import json
import math
import os
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np

import kernels
from research.data.digit_strings import StringConfig, digit_strings
from research.data.spoken_digits import (
    DigitRecordings,
    default_speakers,
    load_spoken_digits,
    split_speakers,
)
from research.models.conv_attention_encoder import ConvAttentionEncoder
from research.objectives.ctc import ctc
from research.speech.decoding import greedy_decode
from research.speech.edit_distance import edit_distance
from research.speech.recogniser import FrontEnd
from research.workloads.workload import Examples, Workload

CLASSES = 11  # the CTC blank and ten digits
STRINGS = StringConfig(max_digits=4, gap_seconds=(0.0, 0.1), edge_seconds=(0.0, 0.1))

_SECONDS = 2.0  # longest string
SIZES = (2048, 256, 256)  # strings for training, validation and test
_SEED = 20_060_625  # of the strings; validation and test follow


def build(name: str, data_dir: str | os.PathLike[str] | None, *, width: int = 64) -> Workload:
    """Strings of the Free Spoken Digit Dataset where it is, else of espeak-ng's voices.

    Validation has other recordings of the training speakers (FSDD) or other voices (espeak-ng), the
    test has speakers that neither has.
    """
    recordings = load_spoken_digits("auto", data_dir)
    split = split_speakers(recordings, *default_speakers(recordings))
    front_end = FrontEnd()
    train, validation, test = (
        _strings(recordings, indices, front_end, size, _SEED + part)
        for part, (indices, size) in enumerate(zip(split, SIZES, strict=True))
    )
    model = ConvAttentionEncoder(CLASSES, width=width, conv_blocks=3)

    def logits_of(params, batch, **options) -> jax.Array:
        features = jnp.asarray(batch["features"]).astype(jnp.float32)
        return jnp.asarray(model.apply({"params": params}, features, batch["frames"], **options))

    def init(key):
        features = jnp.asarray(train["features"][:1]).astype(jnp.float32)
        return model.init(key, features, jnp.asarray(train["frames"][:1]))["params"]

    def loss(params, batch, key):
        logits = logits_of(params, batch, deterministic=False, rngs={"dropout": key})
        return ctc(logits, batch["frames"], batch["labels"], batch["label_paddings"])

    def measure(params, batch):
        logits, frames = logits_of(params, batch), batch["frames"]
        padded = jnp.arange(logits.shape[1])[None, :] >= frames[:, None]
        losses = kernels.ctc_loss(logits, padded, batch["labels"], batch["label_paddings"])
        labels = jnp.sum(batch["label_paddings"] == 0, axis=1)
        edits = edit_distance(batch["labels"], labels, *greedy_decode(logits, frames))
        return {"loss": losses / labels, "score": edits / labels}

    definition = [recordings.sha256, asdict(STRINGS), _SECONDS, SIZES, _SEED, asdict(front_end)]
    return Workload(
        name=name,
        description=f"convolution and attention (width {width}) with CTC on strings of 1 to 4 "
        "spoken digits",
        metric="label error rate, mean over strings",
        target=math.nan,
        steps=400,
        batch_size=16,
        source=recordings.source,
        # Of the recordings and how they are joined: features differ in the last bit by machine.
        sha256=hashlib.sha256(json.dumps(definition).encode()).hexdigest(),
        train=train,
        validation=validation,
        test=test,
        init=init,
        loss=loss,
        measure=measure,
    )


def _strings(
    recordings: DigitRecordings, indices: np.ndarray, front_end: FrontEnd, size: int, seed: int
) -> Examples:
    """Features of strings, in half precision, which is finer than the noise in them."""
    parts = []
    step_size = 128
    make_features = jax.jit(front_end.__call__)
    for step in range(-(-size // step_size)):
        strings = digit_strings(
            recordings,
            indices,
            STRINGS,
            seed=seed,
            step=step,
            batch_size=step_size,
            max_samples=round(_SECONDS * recordings.sample_rate),
        )
        features, frames = make_features(strings.waveforms, strings.lengths)
        parts.append(
            {
                "features": np.asarray(features, np.float16),
                "frames": np.asarray(frames),
                "labels": strings.labels,
                "label_paddings": strings.label_paddings,
            }
        )
    return {name: np.concatenate([part[name] for part in parts])[:size] for name in parts[0]}
