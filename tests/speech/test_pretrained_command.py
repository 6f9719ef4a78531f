"""A recogniser that was trained here: what it hears, through files, commands and transformers."""

import json
import re
import warnings

import jax
import numpy as np
import optax
import pytest
import soundfile
from pretrained_cases import checkpoint_of
from tone_speech import LETTER, RATE, sentence, train, trained, untrained

from research.speech.pretrained import emissions, freeze, load, read_speech, save, transcribe
from research.speech.pretrained.__main__ import main

pytest.importorskip("safetensors")
TEXT = "cab bad"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A model that has learnt the language of tones, on disk."""
    folder = tmp_path_factory.mktemp("trained")
    save(folder, trained())
    return folder


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """A sentence it has not heard."""
    path = tmp_path_factory.mktemp("audio") / "a.wav"
    soundfile.write(path, sentence(TEXT), RATE)
    return path


def test_a_trained_model_is_heard_through_its_files(directory, audio, capsys):
    assert main([str(directory), str(audio), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["text"] == TEXT
    assert [word["text"] for word in found["words"]] == TEXT.split()
    # The first word is letters 1 to 3 and the second 5 to 7, after a gap of one letter.
    for word, (start, end) in zip(found["words"], [(1, 4), (5, 8)], strict=True):
        assert word["start"] == pytest.approx(start * LETTER, abs=0.1)
        assert word["end"] == pytest.approx(end * LETTER, abs=0.15)


def test_words_are_printed_with_their_times(directory, audio, capsys):
    assert main([str(directory), str(audio), str(audio), "--text", "cab bad"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{audio}: cab bad"
    assert lines[1].split() == ["start", "end", "prob", "word"]
    assert [line.split()[-1] for line in lines[2:4]] == ["cab", "bad"]
    assert lines[4:] == lines[:4]


def test_long_audio_is_heard_in_chunks(directory, tmp_path, capsys):
    """Three sentences in chunks of one and a half: words keep their places in the whole."""
    spoken = sentence(TEXT)
    soundfile.write(tmp_path / "long.wav", np.concatenate([spoken] * 3), RATE)
    options = ["--chunk-seconds", "1.5", "--json"]
    assert main([str(directory), str(tmp_path / "long.wav"), *options]) == 0
    words = json.loads(capsys.readouterr().out)["words"]
    assert [word["text"] for word in words] == 3 * TEXT.split()
    firsts = [round(len(spoken) / RATE * i + LETTER, 3) for i in range(3)]
    assert [word["start"] for word in words[::2]] == pytest.approx(firsts, abs=0.1)
    with pytest.raises(SystemExit, match="2"):
        main([str(directory), "long.wav", "--chunk-seconds", "-1"])
    assert "seconds must be 0 or a larger number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--chunk-seconds", "abc"], "seconds must be 0 or a larger number, .* received 'abc'"),
        (["--chunk-seconds", "nan"], "seconds must be 0 or a larger number, .* received 'nan'"),
        (["--text", ""], "the text must have a word; received ''"),
        (["--text", "  "], "Leave --text out"),
    ],
)
def test_an_option_that_says_nothing_is_refused(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["model", "a.wav", *options])
    assert re.search(message, " ".join(capsys.readouterr().err.split()))


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_audio_of_any_rate_is_resampled(tmp_path, rate):
    seconds = np.arange(rate) / rate
    soundfile.write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 300 * seconds), rate)
    samples = read_speech(tmp_path / "a.wav", RATE)
    assert samples.dtype == np.float32
    assert samples.shape == (RATE,)
    expected = 0.5 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(samples[500:-500], expected[500:-500], atol=2e-3)


def test_fine_tuning_lowers_the_loss_and_leaves_frozen_modules_alone():
    checkpoint = untrained()
    before = checkpoint.variables["params"]
    frozen = ["feature_projection", "conv_module"]
    after, losses = train(checkpoint, freeze(optax.adam(1e-2), before, frozen), 12)
    assert losses[-1] < 0.5 * losses[0]
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after.variables["params"])[
        "wav2vec2_bert"
    ]
    layer = changed["encoder"]["layers_0"]
    assert not any(jax.tree.leaves((changed["feature_projection"], layer["conv_module"])))
    assert any(jax.tree.leaves(layer["self_attn"]))


@pytest.mark.parametrize(
    ("model", "sound", "options", "message"),
    [
        ("nowhere", "a.wav", [], "there is none at"),
        ("model", "b.wav", [], "none at .*b.wav"),
        ("model", "text.wav", [], "libsndfile can read"),
        ("model", "stereo.wav", [], "mono.*2 channels"),
        ("model", "short.wav", [], "long enough for one frame"),
        ("model", "a.wav", ["--text", "Zürich"], "tokens of the vocabulary"),
        ("model", "a.wav", ["--language", "deu"], r"adapter.<language>.safetensors"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, capsys, model, sound, options, message):
    save(tmp_path / "model", checkpoint_of("wav2vec2-layer"))
    soundfile.write(tmp_path / "a.wav", sentence("ab"), RATE)
    soundfile.write(tmp_path / "stereo.wav", np.zeros((99, 2)), RATE)
    soundfile.write(tmp_path / "short.wav", np.zeros(9), RATE)
    (tmp_path / "text.wav").write_text("not audio")
    assert main([str(tmp_path / model), str(tmp_path / sound), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert re.search(message, captured.err)


@pytest.fixture(scope="module")
def transformers():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torch")
        return pytest.importorskip("transformers")


def heard_by(transformers, folder, waveform):
    """Logits and transcript of transformers, and what it missed in the files."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, report = transformers.AutoModelForCTC.from_pretrained(
            folder, output_loading_info=True
        )
        processor = transformers.AutoProcessor.from_pretrained(folder)
        inputs = processor(waveform, sampling_rate=RATE, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits
    return logits[0].numpy(), processor.batch_decode(logits.argmax(-1))[0], report


def test_a_trained_model_says_the_same_in_transformers(directory, transformers):
    waveform = sentence(TEXT)
    _, text, _ = heard_by(transformers, directory, waveform)
    assert text == TEXT == transcribe(load(directory), waveform).text


@pytest.mark.parametrize("name", ["wav2vec2", "hubert-layer", "wav2vec2-bert", "parakeet"])
def test_saved_files_are_complete_for_transformers(name, transformers, tmp_path):
    checkpoint = checkpoint_of(name)
    save(tmp_path, checkpoint)
    rng = np.random.default_rng(0)
    waveform = (0.2 * rng.normal(size=9000)).astype(np.float32)
    theirs, text, report = heard_by(transformers, tmp_path, waveform)
    assert not any(report.values())
    ours = np.asarray(emissions(checkpoint, waveform))
    # From samples on; the features alone agree to 1e-3.
    assert np.abs(ours - theirs[: len(ours)]).max() <= 1e-3 * np.abs(theirs).max()
    assert transcribe(checkpoint, waveform).text == text.strip()
