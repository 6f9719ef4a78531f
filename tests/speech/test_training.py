from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tone_corpus import write_librispeech

from research.data.digit_strings import StringBatch
from research.data.librispeech import load_librispeech
from research.errors import DataError, RunError
from research.models.conformer import Conformer
from research.objectives.ctc import ctc
from research.objectives.ctc_terms import EncoderOutput
from research.objectives.registry import OBJECTIVES
from research.speech.log_mel_config import LogMel
from research.speech.recogniser import (
    FrontEnd,
    Output,
    Recogniser,
    example_arrays,
    make_recogniser,
)
from research.speech.tokenisers import CharacterTokeniser
from research.speech.training import count_too_long, keep_tokeniser
from research.speech.training_plan import Plan

ONE, OTHER = CharacterTokeniser("ab"), CharacterTokeniser("ba")


def test_the_tokeniser_of_the_start_is_used_ever_after(tmp_path):
    checkpoints = tmp_path / "checkpoints"
    assert keep_tokeniser(tmp_path, checkpoints, lambda: ONE) == ONE
    assert keep_tokeniser(tmp_path, checkpoints, lambda: OTHER) == ONE
    OTHER.save(tmp_path / "tokeniser.json")
    with pytest.raises(RunError, match="was changed: it has 3 ids"):
        keep_tokeniser(tmp_path, checkpoints, lambda: ONE)
    (tmp_path / "tokeniser.json").unlink()
    with pytest.raises(RunError, match="was changed: it is gone"):
        keep_tokeniser(tmp_path, checkpoints, lambda: ONE)


def test_texts_that_do_not_fit_their_frames_are_counted_as_ctc_loses_them(tmp_path):
    corpus = load_librispeech(write_librispeech(tmp_path, train=12), "train-clean-100")
    tokeniser = CharacterTokeniser(" abcd")
    front_end = FrontEnd(LogMel(sample_rate=16_000, n_fft=512, window=400, hop=160), stack=4)
    encoder = Conformer(classes=tokeniser.size)
    found = count_too_long(corpus, tokeniser, front_end, encoder)
    lost = 0
    for utterance in corpus.utterances:
        labels = jnp.array([tokeniser.encode(utterance.text)])
        _, frames = front_end(jnp.zeros((1, utterance.frames)), jnp.array([utterance.frames]))
        frames = encoder.output_lengths(frames)
        logits = jnp.zeros((1, int(frames[0]), tokeniser.size))
        lost += float(ctc(logits, frames, labels, jnp.zeros(labels.shape))) == 0
    assert found == lost
    assert 0 < found < len(corpus)
    slow = FrontEnd(front_end.log_mel, stack=40)
    with pytest.raises(DataError, match="frames of 1600 ms"):
        count_too_long(corpus, tokeniser, slow, encoder)


def test_the_loss_of_a_batch_is_that_of_the_objective():
    rng = np.random.default_rng(0)
    logits, frames = jnp.asarray(rng.normal(size=(2, 6, 4))), jnp.array([6, 2])
    labels, paddings = jnp.array([[1, 2, 0], [1, 1, 1]]), jnp.array([[0.0, 0, 1], [0, 0, 0]])
    alone = [
        float(ctc(logits[i : i + 1], frames[i : i + 1], labels[i : i + 1], paddings[i : i + 1]))
        for i in range(2)
    ]
    assert alone[1] == 0  # its labels do not fit
    expected = ctc(logits, frames, labels, paddings)
    losses = jnp.array([alone[0], jnp.inf])
    assert Output(logits, frames, losses).loss == pytest.approx(float(expected))


def test_examples_are_read_with_the_blank_of_their_recogniser():
    path = jnp.array([2, 0, 2, 0, 1])
    logits, frames = 9.0 * jax.nn.one_hot(path, 3)[None], jnp.array([5])
    recogniser = Recogniser(
        init=lambda key, batch: pytest.fail("nothing is trained"),
        step=lambda state, batch, key: pytest.fail("nothing is trained"),
        evaluate=lambda params, batch: Output(logits, frames, jnp.zeros(1)),
        frame_seconds=0.04,
        blank_id=2,
    )
    labels = np.array([[0, 0, 1]], np.int32)
    waveforms = np.zeros((1, 1600), np.float32)
    batch = StringBatch(waveforms, np.array([1600], np.int32), labels, np.zeros((1, 3), np.float32))
    front_end = FrontEnd(LogMel(sample_rate=8000, n_fft=256, window=200, hop=80), stack=4)
    arrays = example_arrays(recogniser, front_end, {}, batch, count=1)
    assert arrays["hypothesis_0"].tolist() == [0, 0, 1]
    assert arrays["alignment_0"].tolist() == path.tolist()


def test_where_no_text_fits_the_loss_is_not_that_of_a_perfect_recogniser():
    logits, frames = jnp.zeros((2, 1, 3)), jnp.array([1, 1])
    assert Output(logits, frames, jnp.array([jnp.inf, jnp.inf])).loss == np.inf
    assert np.isnan(Output(logits, frames, jnp.array([jnp.inf, jnp.nan])).loss)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_by_name_take_what_an_encoder_gives(name):
    logits = jax.random.normal(jax.random.key(0), (2, 6, 4))
    outputs = EncoderOutput(logits, (logits,)) if OBJECTIVES[name].intermediate else logits
    labels = jnp.array([[1, 2], [3, 1]])
    value = OBJECTIVES[name].loss(outputs, jnp.array([6, 5]), labels, jnp.zeros((2, 2)))
    assert bool(jnp.isfinite(value))
    assert value.shape == ()


def test_a_plan_adds_up():
    plan = Plan(parameters=10, state_bytes=120, step_flops=10**12, steps=3600, step_seconds=600.0)
    assert plan.flops == 3600 * 10**12
    assert plan.audio_hours == 600
    assert plan.hours(1e12, 0.5) == pytest.approx(2.0)


def test_a_second_view_and_a_blank_elsewhere_reach_the_objective():
    seen = {}

    def objective(logits, lengths, labels, paddings, *, blank_id):
        seen.update(rows=logits.shape[0], labels=labels.shape, blank=blank_id)
        return jnp.mean(logits)

    encoder = Conformer(classes=5, width=8, layers=1, heads=2, size=3)
    recogniser = make_recogniser(
        encoder, FrontEnd(stack=1), optax.sgd(0.1), augment=("speed", "mask"), objective=objective,
        views=2, blank_id=4,
    )  # fmt: skip
    shapes = (3, 4000), (3,), (3, 6), (3, 6)
    kinds: Any = map(jax.ShapeDtypeStruct, shapes, ("f4", "i4", "i4", "f4"))
    batch = StringBatch(*kinds)
    state = jax.eval_shape(recogniser.init, jax.random.key(0), batch)
    jax.eval_shape(recogniser.step, state, batch, jax.random.key(0))
    assert seen == {"rows": 6, "labels": (6, 6), "blank": 4}
