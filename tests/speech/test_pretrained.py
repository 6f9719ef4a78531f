"""Published recognisers on disk: round trips, word times, every file that can be wrong."""

import json
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretrained_cases import CONFIGS, FAMILIES, TOKENS, checkpoint_of, variables_of, word_pieces

from research.errors import ConfigError, DataError
from research.speech.presets import WHISPER
from research.speech.pretrained import (
    Characters,
    RawWaveform,
    StackedLogMel,
    align,
    emissions,
    freeze,
    load,
    save,
    transcribe,
    with_vocabulary,
)
from research.speech.pretrained.configuration import config_of, described
from research.speech.pretrained.files import read_tensors
from research.speech.pretrained.weights import to_tensors

safetensors = pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")
from safetensors.numpy import save_file  # noqa: E402


def same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
    checkpoint = checkpoint_of(request.param)
    directory = tmp_path_factory.mktemp("saved")
    save(directory, checkpoint)
    return directory, checkpoint


@pytest.fixture
def wav2vec2(tmp_path):
    save(tmp_path, checkpoint_of("wav2vec2-layer"))
    return tmp_path


@pytest.fixture
def rewrite(wav2vec2):
    """Change one JSON file of a checkpoint and read the checkpoint again."""

    def change(name, **values):
        path = wav2vec2 / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return load(wav2vec2)

    return change


def test_what_is_saved_is_loaded_again(saved):
    directory, checkpoint = saved
    loaded = load(directory)
    assert loaded.config == checkpoint.config
    assert loaded.front_end == checkpoint.front_end
    assert loaded.vocabulary == checkpoint.vocabulary
    same(loaded.variables, checkpoint.variables)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_survives_its_json(name):
    assert config_of(json.loads(json.dumps(described(CONFIGS[name])))) == CONFIGS[name]


def test_a_checkpoint_in_parts_is_the_same(saved, tmp_path):
    directory, checkpoint = saved
    shutil.copytree(directory, tmp_path / "parts")
    tensors = read_tensors(directory)
    (tmp_path / "parts" / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, held in parts.items():
        save_file({name: tensors[name] for name in held}, tmp_path / "parts" / part)
    placed = {name: part for part, held in parts.items() for name in held}
    index = tmp_path / "parts" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    same(load(tmp_path / "parts").variables, checkpoint.variables)
    (tmp_path / "parts" / "b.safetensors").unlink()
    with pytest.raises(DataError, match=r"names b\.safetensors"):
        load(tmp_path / "parts")
    index.write_text(json.dumps({"weight_map": {names[0]: "../model.safetensors"}}))
    with pytest.raises(DataError, match="files beside it"):
        load(tmp_path / "parts")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_becomes_what_is_asked_for(wav2vec2, dtype):
    variables = variables_of("wav2vec2-layer")
    tensors = {key: value.astype(dtype) for key, value in to_tensors(variables).items()}
    save_file(tensors, wav2vec2 / "model.safetensors")
    rounded = jax.tree.map(lambda x: x.astype(dtype), variables)
    same(load(wav2vec2, dtype=dtype).variables, rounded)
    same(load(wav2vec2).variables, jax.tree.map(lambda x: x.astype(jnp.float32), rounded))


def test_weights_and_norms_of_old_checkpoints_are_found(wav2vec2):
    tensors = read_tensors(wav2vec2)
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        key = f"wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.{new}"
        tensors[key.replace(f"parametrizations.weight.{new}", old)] = tensors.pop(key)
    del tensors["wav2vec2.masked_spec_embed"]
    tensors["quantizer.codevectors"] = np.zeros((1, 2, 3), np.float32)
    save_file(tensors, wav2vec2 / "model.safetensors")
    expected = variables_of("wav2vec2-layer")["params"]["wav2vec2"]
    loaded = load(wav2vec2).variables["params"]["wav2vec2"]
    same(loaded["encoder"], expected["encoder"])
    assert not loaded["masked_spec_embed"].any()


def test_weights_that_do_not_fit_are_errors(wav2vec2):
    path, tensors = wav2vec2 / "model.safetensors", read_tensors(wav2vec2)
    for change, message in [
        ({"lm_head.weight": None}, r"1 tensors are missing \(first: lm_head.weight\)"),
        ({"classifier.weight": np.zeros(3, np.float32)}, "have no place.*classifier.weight"),
        ({"lm_head.bias": np.zeros(3, np.float32)}, r"lm_head.bias of shape \(12,\).*\(3,\)"),
        ({"lm_head.bias": np.zeros(12, np.int8)}, "floating.*lm_head.bias is int8"),
    ]:
        kept = {key: value for key, value in {**tensors, **change}.items() if value is not None}
        save_file(kept, path)
        with pytest.raises(DataError, match=message):
            load(wav2vec2)


def test_weights_that_are_missing_or_damaged_are_errors(wav2vec2):
    path = wav2vec2 / "model.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-1], content[:20], b"", b"junk" * 100):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="whole and in the safetensors format"):
            load(wav2vec2)
    path.unlink()
    with pytest.raises(DataError, match="neither"):
        load(wav2vec2)
    (wav2vec2 / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(DataError, match=r"pytorch_model\.bin: that is a pickle.*save_pretrained"):
        load(wav2vec2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"needs config\.json"),
        ("preprocessor_config.json", r"needs preprocessor_config\.json"),
        ("vocab.json", r"needs vocab\.json or tokenizer\.json"),
    ],
)
def test_a_missing_file_is_named(wav2vec2, name, message):
    (wav2vec2 / name).unlink()
    with pytest.raises(DataError, match=message):
        load(wav2vec2)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="there is none at"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["[1, 2]", "{", ""])
def test_a_damaged_json_file_is_an_error(wav2vec2, content):
    (wav2vec2 / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json must"):
        load(wav2vec2)


@pytest.mark.parametrize(
    ("name", "values", "error", "message"),
    [
        ("config.json", {"model_type": "whisper"}, ConfigError, "one of wav2vec2.*'whisper'"),
        (
            "config.json",
            {"architectures": ["Wav2Vec2ForPreTraining"]},
            ConfigError,
            "Wav2Vec2ForCTC.*PreTraining.*CTC head",
        ),
        ("config.json", {"add_adapter": True}, ConfigError, "add_adapter must be false"),
        ("config.json", {"hidden_act": "mish"}, ConfigError, "hidden_act.*'mish'"),
        ("config.json", {"hidden_size": None}, ConfigError, "hidden_size.*null"),
        ("config.json", {"hidden_size": 32}, DataError, "of shape.*but the checkpoint has"),
        ("vocab.json", {"zz": 12}, DataError, "from 0 to 11"),
        (
            "preprocessor_config.json",
            {"feature_extractor_type": "WhisperFeatureExtractor"},
            ConfigError,
            "one of Wav2Vec2FeatureExtractor.*'WhisperFeatureExtractor'",
        ),
    ],
)
def test_what_cannot_be_run_is_an_error(rewrite, name, values, error, message):
    with pytest.raises(error, match=message):
        rewrite(name, **values)


def test_labels_without_a_name_are_unknown_and_added_tokens_count(wav2vec2):
    numbers = {token: number for number, token in enumerate(TOKENS[:8])}
    (wav2vec2 / "vocab.json").write_text(json.dumps(numbers))
    (wav2vec2 / "added_tokens.json").write_text(json.dumps({"x": 8, "y": 40}))
    assert load(wav2vec2).vocabulary.tokens == (*TOKENS[:8], "x", "<unk>", "<unk>", "<unk>")


def test_a_language_has_its_own_adapter_head_and_vocabulary(tmp_path):
    base = checkpoint_of("wav2vec2-adapter")
    save(tmp_path, base)
    tensors = read_tensors(tmp_path)
    own = {key: value + 1 for key, value in tensors.items() if "adapter_layer" in key}
    own |= {"lm_head.weight": np.ones((3, 16), np.float32), "lm_head.bias": np.ones(3, np.float32)}
    save_file(own, tmp_path / "adapter.deu.safetensors")
    german = {"<pad>": 0, "|": 1, "ß": 2}
    english = {token: number for number, token in enumerate(TOKENS)}
    (tmp_path / "vocab.json").write_text(json.dumps({"eng": english, "deu": german}))
    loaded = load(tmp_path, language="deu")
    assert loaded.vocabulary.tokens == ("<pad>", "|", "ß")
    same(
        {key: value for key, value in to_tensors(loaded.variables).items() if key in own},
        dict(own),
    )
    with pytest.raises(DataError, match=r"that of deu, not of 'fra'"):
        load(tmp_path, language="fra")
    with pytest.raises(DataError, match="each of deu, eng; choose one"):
        load(tmp_path)


def test_front_ends_that_the_layout_cannot_describe_are_not_saved(tmp_path):
    checkpoint = replace(checkpoint_of("parakeet"), front_end=StackedLogMel(WHISPER))
    with pytest.raises(ConfigError, match="differ from the presets"):
        save(tmp_path / "new", checkpoint)
    assert not (tmp_path / "new").exists()


def test_characters_go_both_ways():
    vocabulary = Characters(("<pad>", "|", "A", "B", "CH"), lower=True)
    labels = vocabulary.encode("  ach  bab ")
    assert labels == [2, 4, 1, 3, 2, 3]
    assert vocabulary.decode(labels) == "ach bab"
    assert [vocabulary.decode(labels[w.start : w.stop]) for w in vocabulary.words(labels)] == [
        "ach",
        "bab",
    ]
    assert vocabulary.words([]) == []
    assert vocabulary.words([1, 1]) == []
    with pytest.raises(DataError, match="'é', 'ö'"):
        Characters(("<pad>", "|", "a")).encode("aöé")


def test_word_pieces_go_both_ways():
    vocabulary = word_pieces()
    labels = vocabulary.encode("ab abc a")
    assert vocabulary.decode(labels) == "ab abc a"
    assert [vocabulary.decode(labels[w.start : w.stop]) for w in vocabulary.words(labels)] == [
        "ab",
        "abc",
        "a",
    ]
    assert vocabulary.words([]) == []
    inner = vocabulary.tokens.index("b")
    assert vocabulary.words([inner, *labels])[0] == range(1)
    with pytest.raises(DataError, match=r"tokenizer\.json must be .* cannot be read"):
        type(vocabulary)("{}")


@pytest.mark.parametrize("name", ["wav2vec2-layer", "wav2vec2-bert", "parakeet"])
def test_frames_cover_the_audio(name):
    checkpoint = checkpoint_of(name)
    waveform = 0.1 * np.random.default_rng(0).normal(size=9000).astype(np.float32)
    logits = emissions(checkpoint, waveform)
    seconds = len(logits) * checkpoint.frame_seconds
    assert abs(seconds - 9000 / 16_000) < 2 * checkpoint.frame_seconds
    with pytest.raises(DataError, match="long enough for one frame"):
        emissions(checkpoint, waveform[:0])


def test_the_times_of_words_are_those_of_their_labels():
    checkpoint = checkpoint_of("wav2vec2-layer")
    waveform = 0.1 * np.random.default_rng(0).normal(size=1000).astype(np.float32)
    found = transcribe(checkpoint, waveform)
    path = np.asarray(emissions(checkpoint, waveform)).argmax(axis=-1)
    runs = np.flatnonzero(np.diff(path, prepend=-1))
    labels = [int(path[start]) for start in runs if path[start] != 0]
    assert found.text == checkpoint.vocabulary.decode(labels)
    starts = [start * checkpoint.frame_seconds for start in runs if path[start] != 0]
    expected = [starts[word.start] for word in checkpoint.vocabulary.words(labels)]
    assert [word.start for word in found.words] == pytest.approx(expected)
    assert all(0 < word.probability <= 1 and word.start < word.end for word in found.words)


def test_a_known_text_is_placed_in_order():
    checkpoint = checkpoint_of("wav2vec2-layer")
    waveform = 0.1 * np.random.default_rng(0).normal(size=2000).astype(np.float32)
    found = align(checkpoint, waveform, "abba cab")
    assert found.text == "abba cab"
    assert [word.text for word in found.words] == ["abba", "cab"]
    assert found.words[0].end <= found.words[1].start < found.words[1].end <= 2000 / 16_000
    with pytest.raises(DataError, match="need 120 frames and there are 99"):
        align(checkpoint, waveform, "ab" * 60)
    with pytest.raises(DataError, match="'z'"):
        align(checkpoint, waveform, "zab")


def test_a_new_head_keeps_the_encoder():
    checkpoint = checkpoint_of("wav2vec2-layer")
    vocabulary = Characters(("x", "y", "<pad>"))
    changed = with_vocabulary(checkpoint, vocabulary, jax.random.key(0), blank_id=2)
    assert changed.config == replace(checkpoint.config, vocab_size=3, pad_token_id=2)
    params, before = changed.variables["params"], checkpoint.variables["params"]
    same(params["wav2vec2"], before["wav2vec2"])
    assert params["lm_head"]["kernel"].shape == (16, 3)
    assert len(np.unique(params["lm_head"]["kernel"])) > 40


def test_a_new_head_has_the_precision_of_the_old():
    checkpoint = checkpoint_of("wav2vec2-layer")
    halved = jax.tree.map(lambda weights: weights.astype(jnp.bfloat16), checkpoint.variables)
    vocabulary = Characters(("x", "y", "<pad>"))
    changed = with_vocabulary(replace(checkpoint, variables=halved), vocabulary, jax.random.key(0))
    assert {weights.dtype.name for weights in jax.tree.leaves(changed.variables)} == {"bfloat16"}


def test_only_modules_that_exist_can_be_frozen():
    import optax

    params = checkpoint_of("wav2vec2-layer").variables["params"]
    with pytest.raises(ConfigError, match=r"feature_extractor.*but got decoder"):
        freeze(optax.sgd(0.1), params, ["decoder"])


def test_raw_waveforms_are_normalised_over_their_own_samples():
    rng = np.random.default_rng(0)
    one, two = rng.normal(3.0, 2.0, 50), rng.normal(-1.0, 0.1, 30)
    padded = jnp.asarray(np.stack([one, np.pad(two, (0, 20), constant_values=9.0)]), jnp.float32)
    inputs, lengths = RawWaveform()(padded, jnp.array([50, 30]))
    assert lengths.tolist() == [50, 30]
    for row, samples in enumerate((one, two)):
        expected = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        np.testing.assert_allclose(inputs[row, : len(samples)], expected, atol=1e-4)
    assert not np.asarray(inputs[1, 30:]).any()
