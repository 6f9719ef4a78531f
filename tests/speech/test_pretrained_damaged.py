"""Published recognisers whose files are damaged, of other models, or left over from others."""

import json

import numpy as np
import pytest
from pretrained_cases import TOKENS, checkpoint_of

from research.errors import ConfigError, DataError
from research.models.wav2vec2 import Wav2Vec2Config
from research.speech.pretrained import load, save
from research.speech.pretrained.files import read_tensors

pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")
from safetensors.numpy import save_file

FRONT_END = "preprocessor_config.json"


def rewrite(directory, name, values):
    """Change one JSON file of a checkpoint and read the checkpoint again."""
    path = directory / name
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **values}))
    return load(directory)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("config.json", {"hidden_size": "x"}, "hidden_size .* whole number from 1 on, but is 'x'"),
        ("config.json", {"hidden_size": True}, "hidden_size .* but is True"),
        ("config.json", {"hidden_size": 16.0}, r"hidden_size .* but is 16\.0"),
        ("config.json", {"intermediate_size": -24}, "intermediate_size .* but is -24"),
        ("config.json", {"conv_dim": 7}, "conv_dim .* must be a list, but is 7"),
        ("config.json", {"conv_dim": [8, "12", 12]}, "all of conv_dim .* but is '12'"),
        ("config.json", {"conv_stride": [5, 0, 2]}, "all of conv_stride .* but is 0"),
        ("config.json", {"conv_bias": "no"}, "conv_bias .* must be true or false"),
        ("config.json", {"hidden_act": 3}, "hidden_act .* must be a text"),
        ("config.json", {"layer_norm_eps": "1e-5"}, "layer_norm_eps .* must be a finite number"),
        ("config.json", {"layer_norm_eps": float("nan")}, "layer_norm_eps .* but is nan"),
        ("config.json", {"adapter_attn_dim": [1]}, "adapter_attn_dim .* whole number"),
        ("config.json", {"pad_token_id": 12}, "pad_token_id .* from 0 to 11, but is 12"),
        ("config.json", {"pad_token_id": -1}, "pad_token_id .* from 0 on, but is -1"),
        (FRONT_END, {"sampling_rate": "16k"}, "sampling_rate .* but is '16k'"),
        (FRONT_END, {"sampling_rate": 0}, "sampling_rate .* from 1 on, but is 0"),
        (FRONT_END, {"do_normalize": "yes"}, "do_normalize .* must be true or false"),
        ("added_tokens.json", {"X": "a"}, r"'X' in added_tokens\.json must be a whole number"),
        ("added_tokens.json", {"X": -1}, "'X' .* but is -1"),
        ("vocab.json", {"a": True}, "gives 'a' the number True"),
        ("tokenizer_config.json", {"word_delimiter_token": 5}, "word_delimiter_token .* a text"),
        ("tokenizer_config.json", {"word_delimiter_token": {"x": 1}}, "word_delimiter_token"),
        ("tokenizer_config.json", {"do_lower_case": "no"}, "do_lower_case .* true or false"),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path, name, values, message):
    save(tmp_path, checkpoint_of("wav2vec2-layer"))
    with pytest.raises(DataError, match=message):
        rewrite(tmp_path, name, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": []}, "model_type .* must be one of"),
        ({"architectures": 7}, "architectures .* must be"),
    ],
)
def test_a_model_of_no_kind_is_named(tmp_path, values, message):
    save(tmp_path, checkpoint_of("wav2vec2-layer"))
    with pytest.raises(ConfigError, match=message):
        rewrite(tmp_path, "config.json", values)


@pytest.mark.parametrize(
    ("model", "name", "values", "message"),
    [
        ("parakeet", "config.json", {"encoder_config": 5}, "encoder_config .* must be an object"),
        ("parakeet", "config.json", {"encoder_config": {"dropout": "x"}}, "dropout .* but is 'x'"),
        ("parakeet", FRONT_END, {"n_fft": "512"}, "n_fft .* but is '512'"),
        ("parakeet", FRONT_END, {"preemphasis": "x"}, "preemphasis .* must be a finite number"),
        ("wav2vec2-bert", FRONT_END, {"stride": 0}, "stride .* from 1 on, but is 0"),
        ("wav2vec2-bert", FRONT_END, {"num_mel_bins": None}, "num_mel_bins .* but is None"),
    ],
)
def test_so_is_one_of_other_models(tmp_path, model, name, values, message):
    save(tmp_path, checkpoint_of(model))
    with pytest.raises(DataError, match=message):
        rewrite(tmp_path, name, values)


def test_whole_numbers_do_where_a_fraction_may_be(tmp_path):
    save(tmp_path, checkpoint_of("wav2vec2-layer"))
    config = rewrite(tmp_path, "config.json", {"hidden_dropout": 0}).config
    assert isinstance(config, Wav2Vec2Config)
    assert config.hidden_dropout == 0


def test_a_preprocessor_that_is_no_object_is_missing(tmp_path):
    save(tmp_path, checkpoint_of("wav2vec2-layer"))
    (tmp_path / FRONT_END).unlink()
    with pytest.raises(DataError, match="with a feature_extractor"):
        rewrite(tmp_path, "processor_config.json", {"feature_extractor": 3})


@pytest.mark.parametrize("names", [{}, {"<pad>": 0}, {"<pad>": 0, "a": 0}])
def test_a_vocabulary_that_names_nothing_is_refused(tmp_path, names):
    save(tmp_path, checkpoint_of("wav2vec2-layer"))
    (tmp_path / "vocab.json").write_text(json.dumps(names))
    with pytest.raises(DataError, match=r"vocab\.json must name the 12 labels"):
        load(tmp_path)


def test_a_tokenizer_that_is_not_text_is_an_error(tmp_path):
    save(tmp_path, checkpoint_of("parakeet"))
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"tokenizer\.json must be readable UTF-8 text"):
        load(tmp_path)


def test_word_pieces_that_the_model_has_not_are_refused(tmp_path):
    save(tmp_path, checkpoint_of("parakeet"))
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["zz"] = 12
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(DataError, match=r"tokenizer\.json must .* 0 to 11.* gives 'zz' .* 12"):
        load(tmp_path)


def test_an_index_that_names_no_files_is_an_error(tmp_path):
    save(tmp_path, checkpoint_of("wav2vec2-layer"))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DataError, match="in which file each tensor is"):
        rewrite(tmp_path, "model.safetensors.index.json", {"weight_map": {"a": [1]}})


def test_an_adapter_without_a_head_is_an_error(tmp_path):
    save(tmp_path, checkpoint_of("wav2vec2-adapter"))
    save_file({"a": np.ones(1, np.float32)}, tmp_path / "adapter.deu.safetensors")
    with pytest.raises(DataError, match=r"has no lm_head\.weight"):
        load(tmp_path, language="deu")


@pytest.mark.parametrize("first", ["parakeet", "wav2vec2-layer"])
@pytest.mark.parametrize("second", ["parakeet", "wav2vec2-layer"])
def test_what_is_saved_over_another_checkpoint_is_what_is_loaded(tmp_path, first, second):
    save(tmp_path, checkpoint_of(first))
    # More of what may lie beside it, all of which would be taken for the new one's.
    (tmp_path / "added_tokens.json").write_text(json.dumps({"X": 3}))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"do_lower_case": True}))
    (tmp_path / "processor_config.json").write_text("{}")
    index = {"weight_map": dict.fromkeys(read_tensors(tmp_path), "model-1.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "notes.txt").write_text("mine")
    save(tmp_path, checkpoint_of(second))
    fresh = tmp_path / "fresh"
    save(fresh, checkpoint_of(second))
    there = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert there == {path.name for path in fresh.iterdir()} | {"notes.txt"}
    assert load(tmp_path).vocabulary == checkpoint_of(second).vocabulary


def test_a_vocabulary_for_no_language_is_refused(tmp_path):
    save(tmp_path, checkpoint_of("wav2vec2-layer"))
    english = {token: number for number, token in enumerate(TOKENS)}
    (tmp_path / "vocab.json").write_text(json.dumps({"eng": english, "deu": 3}))
    for language in ([], "deu"):
        with pytest.raises(DataError, match="choose one"):
            rewrite(tmp_path, "tokenizer_config.json", {"target_lang": language})
