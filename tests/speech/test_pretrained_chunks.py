"""Long audio in chunks: what the whole gives, where a model looks no further than the overlap."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from pretrained_cases import CONFIGS, TOKENS, checkpoint_of

from research.errors import ConfigError
from research.models.parakeet import ParakeetConfig
from research.speech.presets import PARAKEET, SEAMLESS
from research.speech.pretrained import (
    Characters,
    Checkpoint,
    RawWaveform,
    StackedLogMel,
    align,
    emissions,
    initial,
    transcribe,
    transcription,
)
from research.speech.pretrained.chunks import chunks_of

pytestmark = pytest.mark.usefixtures("in_haste")

# Norms over the utterance would see the whole of it.
FRONT_ENDS = {
    "wav2vec2-layer": RawWaveform(normalise=False),
    "wav2vec2-bert": StackedLogMel(replace(SEAMLESS, norm=None), 2),
    "parakeet": StackedLogMel(replace(PARAKEET, norm=None)),
}


def without_attention(name):
    """A model whose frames know no more than a few neighbours: its convolutions alone."""
    config = CONFIGS[name]
    if isinstance(config, ParakeetConfig):
        encoder = replace(config.encoder_config, num_hidden_layers=0)
        config = replace(config, encoder_config=encoder)
    else:
        config = replace(config, num_hidden_layers=0)
    variables = jax.jit(lambda key: initial(config, key))(jax.random.key(0))
    return Checkpoint(config, variables, FRONT_ENDS[name], Characters(TOKENS))


def same_words(found, expected):
    assert [word.text for word in found] == [word.text for word in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[1:] == pytest.approx(theirs[1:], rel=1e-3)


def noise(samples):
    return 0.1 * np.random.default_rng(3).normal(size=samples).astype(np.float32)


# Of the first a frame is 1.25 ms long, of the others 20 and 80.
@pytest.mark.parametrize(
    ("name", "samples", "chunk", "stride"),
    [
        ("wav2vec2-layer", 8_013, 0.1, 0.02),
        ("wav2vec2-layer", 8_013, 0.0525, 0.0125),
        ("wav2vec2-bert", 30_011, 0.5, 0.08),
        ("parakeet", 60_007, 1.28, 0.32),
    ],
)
def test_chunks_give_what_the_whole_gives(name, samples, chunk, stride):
    checkpoint, waveform = without_attention(name), noise(samples)
    whole = np.asarray(emissions(checkpoint, waveform, chunk_seconds=None))
    found = emissions(checkpoint, waveform, chunk_seconds=chunk, stride_seconds=stride)
    np.testing.assert_allclose(found, whole, atol=2e-4)
    assert whole.std(axis=0).max() > 1e-2
    without = emissions(checkpoint, waveform, chunk_seconds=chunk, stride_seconds=0.0)
    assert without.shape == whole.shape
    if name != "wav2vec2-bert":  # what is left of it knows no neighbours
        assert np.abs(without - whole).max() > 1e-2  # the context is what it takes


def test_words_and_their_times_go_on_across_chunks():
    checkpoint, waveform = without_attention("wav2vec2-layer"), noise(8_013)
    whole = transcribe(checkpoint, waveform, chunk_seconds=None)
    found = transcribe(checkpoint, waveform, chunk_seconds=0.12)
    assert found.text == whole.text
    assert len(whole.words) > 5
    same_words(found.words, whole.words)
    text = found.text[:10]
    same_words(*(align(checkpoint, waveform, text, chunk_seconds=s).words for s in (None, 0.12)))


def test_no_more_than_a_chunk_is_heard_at_once(monkeypatch):
    heard = []

    def recorded(variables, waveforms, lengths, config, front_end):
        heard.append(waveforms.shape[1])
        frames = config.frames(front_end.inputs(waveforms.shape[1]))
        return np.zeros((1, frames, len(TOKENS)), np.float32)

    monkeypatch.setattr(transcription, "_emissions", recorded)
    checkpoint = checkpoint_of("wav2vec2-layer")
    hour = np.zeros(3600 * 16_000, np.float32)
    logits = emissions(checkpoint, hour)
    assert len(logits) == checkpoint.config.frames(len(hour))
    assert max(heard) == 30 * 16_000
    assert len(heard) == 180  # each brings 20 s

    heard.clear()
    emissions(checkpoint, hour[: 60 * 16_000])
    assert heard == [60 * 16_000]  # not long enough


@pytest.mark.parametrize("samples", [101, 160, 399, 1000])
@pytest.mark.parametrize(("size", "stride"), [(6, 0), (6, 1), (7, 2), (8, 2)])
@pytest.mark.parametrize("lost", [0, 3, 12])
def test_every_frame_is_taken_once_with_its_context(samples, size, stride, lost):
    def frames_of(count):
        return max(0, (count - lost) // 10)

    chunks = chunks_of(samples, size, stride, hop=10, frames_of=frames_of)
    taken = []
    for chunk in chunks:
        first, there = chunk.samples.start // 10, chunk.samples.stop - chunk.samples.start
        assert there <= size * 10
        assert 0 <= chunk.frames.start <= chunk.frames.stop <= frames_of(there)
        taken += range(first + chunk.frames.start, first + chunk.frames.stop)
        assert chunk.samples.start == 0 or chunk.frames.start >= stride
        assert chunk.samples.stop == samples or frames_of(there) - chunk.frames.stop >= stride
    assert taken == list(range(frames_of(samples)))
    assert chunks[-1].samples.stop == samples


def test_chunks_that_are_all_overlap():
    checkpoint = checkpoint_of("wav2vec2-layer")
    with pytest.raises(ConfigError, match="longer than the context"):
        emissions(checkpoint, noise(8_000), chunk_seconds=0.1, stride_seconds=0.05)
