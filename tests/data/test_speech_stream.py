from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from research.data.buckets import bucketed_batch, make_buckets
from research.data.speech_stream import SpeechStream
from research.data.utterances import Corpus, describe_audio, make_corpus
from research.errors import DataError
from research.speech.audio import read_audio
from research.speech.tokenisers import CharacterTokeniser

TOKENISER = CharacterTokeniser(" abcdefghij", blank="last")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Tones whose pitch says which utterance it is, some at another rate."""
    folder: Path = tmp_path_factory.mktemp("audio")
    utterances = []
    for i in range(10):
        rate = 8000 if i % 3 else 16_000
        time = np.arange(round((0.1 + 0.03 * i) * rate)) / rate
        path = folder / f"{i}.flac"
        soundfile.write(path, 0.4 * np.sin(2 * np.pi * 100 * (i + 5) * time), rate)
        utterances.append(describe_audio(str(i), path, "abcdefghij"[: i + 1], f"speaker {i}"))
    return make_corpus("tones", utterances, "tones")


def stream_of(corpus: Corpus, **settings) -> SpeechStream:
    buckets = make_buckets(corpus.seconds, buckets=3, batch_seconds=0.8)
    return SpeechStream(corpus, buckets, TOKENISER, 8000, **settings)


def test_batches_hold_audio_and_labels_of_the_same_utterance(corpus):
    stream = stream_of(corpus)
    heard = set()
    for step in range(stream.buckets.steps_before(2)):
        batch = stream(step)
        for i, length in enumerate(batch.lengths):
            wave = batch.waveforms[i, :length]
            hz = np.fft.rfftfreq(length, 1 / 8000)[np.abs(np.fft.rfft(wave)).argmax()]
            which = round(hz / 100) - 5
            labels = batch.labels[i][batch.label_paddings[i] == 0]
            assert len(labels) == which + 1
            assert TOKENISER.decode(labels) == "abcdefghij"[: which + 1]
            assert abs(length - 8000 * (0.1 + 0.03 * which)) <= 1
            assert not batch.waveforms[i, length:].any()
            heard.add(which)
        assert (batch.labels[batch.label_paddings == 1] == TOKENISER.blank_id).all()
    assert heard == set(range(10))


def test_few_shapes_and_the_same_bits_for_the_same_step(corpus):
    stream = stream_of(corpus, seed=5)
    steps = range(stream.buckets.steps_before(3))
    shapes = {(stream(i).waveforms.shape, stream(i).labels.shape) for i in steps}
    assert len(shapes) == 3
    again = stream_of(corpus, seed=5)(4)
    for one, other in zip(stream(4), again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_texts_without_labels_or_with_unknown_characters_are_errors_before_training(corpus):
    for text, message in [("?!", "that of 3 has none"), ("xyz", "3: text must be made of")]:
        broken = list(corpus.utterances)
        broken[3] = replace(broken[3], text=text)
        with pytest.raises(DataError, match=message):
            stream_of(replace(corpus, utterances=tuple(broken)))


def test_buckets_of_another_corpus_are_an_error(corpus):
    buckets = make_buckets(corpus.seconds[:5], buckets=2, batch_seconds=1.0)
    with pytest.raises(DataError, match="all 10 utterances of tones, but they group 5"):
        SpeechStream(corpus, buckets, TOKENISER, 8000)


def test_a_bucket_shorter_than_an_utterance_would_cut_it_and_is_an_error(corpus):
    buckets = make_buckets(corpus.seconds, buckets=3, batch_seconds=1.0)
    short = replace(buckets, longest=(*buckets.longest[:2], corpus.seconds.max() - 0.05))
    with pytest.raises(DataError, match=r"longer than its bucket, but \d has 0\.3"):
        SpeechStream(corpus, short, TOKENISER, 8000)


def test_once_gives_every_utterance_once_in_the_shapes_of_the_stream(corpus):
    stream = stream_of(corpus)
    shapes = {stream(i).waveforms.shape for i in range(stream.buckets.steps_before(3))}
    seen = []
    for batch, indices in stream.once():
        assert batch.waveforms.shape in shapes
        assert 0 < len(indices) <= len(batch.lengths)
        seen += indices.tolist()
        for row, index in enumerate(indices):
            labels = batch.labels[row][batch.label_paddings[row] == 0]
            assert TOKENISER.decode(labels) == corpus.utterances[int(index)].text
        for row in range(len(indices), len(batch.lengths)):
            np.testing.assert_array_equal(batch.waveforms[row], batch.waveforms[len(indices) - 1])
    assert sorted(seen) == list(range(10))


def test_a_file_that_was_damaged_since_is_an_error(corpus, tmp_path):
    path = tmp_path / "x.flac"
    path.write_bytes(corpus.utterances[0].path.read_bytes()[:200])
    utterances = (replace(corpus.utterances[0], path=path), *corpus.utterances[1:])
    stream = stream_of(replace(corpus, utterances=utterances))
    found = (
        step
        for step in range(100)
        if 0 in bucketed_batch(stream.buckets, seed=0, step=step).indices
    )
    with pytest.raises(DataError, match=r"x\.flac"):
        stream(next(found))


def test_another_rate_is_an_error_unless_it_is_to_be_resampled(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.sin(np.arange(3200) * 0.05) * 0.5, 16_000)
    with pytest.raises(DataError, match="must be sampled at 8000 Hz"):
        read_audio(path, sample_rate=8000)
    samples = read_audio(path, sample_rate=8000, resample=True)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(
        samples[100:-100], np.sin(np.arange(1600) * 0.1)[100:-100] * 0.5, atol=1e-3
    )


def test_an_mp3_that_overshoots_is_clipped(tmp_path):
    if "MP3" not in soundfile.available_formats():
        pytest.skip("this libsndfile writes no MP3")
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.sign(np.sin(np.arange(8000) * 0.05)), 16_000)
    assert soundfile.read(path)[0].max() > 1
    assert np.abs(read_audio(path, sample_rate=16_000)).max() == 1
