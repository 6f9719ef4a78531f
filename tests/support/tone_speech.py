"""A language that a tiny model learns in seconds: letters are tones, with gaps between words."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pretrained_cases import CONFIGS, TOKENS

from research.objectives.ctc import ctc
from research.speech.presets import SEAMLESS
from research.speech.pretrained import (
    Characters,
    Checkpoint,
    StackedLogMel,
    Utterances,
    initial,
    make_apply,
)
from research.train import init_state, make_train_step

RATE = 16_000
LETTER = 0.12  # seconds of each tone and of each gap
_LETTERS = "abcd"


def sentence(text):
    """Samples of a text, with a gap before and after, in a little noise."""
    time = np.arange(round(LETTER * RATE)) / RATE
    envelope = np.sin(np.pi * time / LETTER)
    tones = {" ": np.zeros_like(time)}
    for number, letter in enumerate(_LETTERS):
        tones[letter] = 0.3 * envelope * np.sin(2 * np.pi * 400 * 1.7**number * time)
    clean = np.concatenate([tones[letter] for letter in f" {text} "])
    noise = np.random.default_rng(len(clean)).normal(size=len(clean))
    return (clean + 0.003 * noise).astype(np.float32)


def utterances(vocabulary, count, seed):
    """Random sentences of two words with three to six letters together, as one padded batch."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        letters = "".join(rng.choice([*_LETTERS], size=rng.integers(3, 7)))
        gap = int(rng.integers(1, len(letters)))
        texts.append(f"{letters[:gap]} {letters[gap:]}")
    spoken = [sentence(text) for text in texts]
    written = [vocabulary.encode(text) for text in texts]
    samples = np.array([len(waveform) for waveform in spoken])
    labels = np.array([len(ids) for ids in written])
    waveforms = np.stack([np.pad(row, (0, round(9 * LETTER * RATE) - len(row))) for row in spoken])
    waveforms += 0.003 * rng.normal(size=waveforms.shape).astype(np.float32)
    padded = np.stack([np.pad(ids, (0, 7 - len(ids))) for ids in written])
    paddings = (np.arange(7)[None] >= labels[:, None]).astype(np.float32)
    return Utterances(*map(jnp.asarray, (waveforms, samples, padded, paddings)))


def untrained():
    """A small wav2vec2-BERT with random weights."""
    config = replace(CONFIGS["wav2vec2-bert-no-positions"], hidden_size=32, final_dropout=0.0)
    config = replace(config, conformer_conv_dropout=0.0)
    variables = jax.jit(lambda key: initial(config, key))(jax.random.key(0))
    return Checkpoint(config, variables, StackedLogMel(SEAMLESS, 2), Characters(TOKENS))


def train(checkpoint, optimizer, steps):
    """The checkpoint after some steps, each on new sentences, and the loss before each."""
    blank_id = checkpoint.config.pad_token_id

    def loss(outputs, batch):
        logits, frames = outputs
        return ctc(logits, frames, batch.labels, batch.label_paddings, blank_id=blank_id)

    step = jax.jit(make_train_step(make_apply(checkpoint), loss, optimizer))
    state = init_state(checkpoint.variables["params"], optimizer)
    losses = []
    for number in range(steps):
        batch = utterances(checkpoint.vocabulary, 16, seed=number)
        state, metrics = step(state, batch, jax.random.key(1))
        losses.append(float(metrics["loss"]))
    variables = {**checkpoint.variables, "params": state.params}
    return replace(checkpoint, variables=variables), losses


def trained():
    """A model that knows the language."""
    checkpoint, _ = train(untrained(), optax.adam(1e-2), 240)
    return checkpoint
