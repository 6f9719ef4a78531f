"""config.json of a checkpoint to the configuration of one of our models, and back."""

from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, NamedTuple, get_args, get_type_hints

from research.errors import ConfigError, DataError
from research.models.parakeet import ParakeetConfig, ParakeetCTC
from research.models.wav2vec2 import Wav2Vec2Config, Wav2Vec2CTC
from research.models.wav2vec2_bert import Wav2Vec2BertConfig, Wav2Vec2BertCTC
from research.speech.pretrained.files import typed

ModelConfig = Wav2Vec2Config | Wav2Vec2BertConfig | ParakeetConfig
Model = Wav2Vec2CTC | Wav2Vec2BertCTC | ParakeetCTC


class _Family(NamedTuple):
    architecture: str
    config: Any
    model: Any
    head: str


_FAMILIES = {
    "wav2vec2": _Family("Wav2Vec2ForCTC", Wav2Vec2Config, Wav2Vec2CTC, "lm_head"),
    "hubert": _Family("HubertForCTC", Wav2Vec2Config, Wav2Vec2CTC, "lm_head"),
    "wav2vec2-bert": _Family("Wav2Vec2BertForCTC", Wav2Vec2BertConfig, Wav2Vec2BertCTC, "lm_head"),
    "parakeet_ctc": _Family("ParakeetForCTC", ParakeetConfig, ParakeetCTC, "ctc_head"),
}
# Whole numbers that may be 0; all others count or measure something that is there.
_FROM_ZERO = frozenset(
    {
        "pad_token_id",
        "num_hidden_layers",
        "num_adapter_layers",
        "left_max_position_embeddings",
        "right_max_position_embeddings",
    }
)


def config_of(described: Mapping[str, Any]) -> ModelConfig:
    """The configuration that config.json describes; what it leaves out has the usual default.

    Args:
        described: the contents of the file.

    Returns:
        The configuration of our model.

    Raises:
        ConfigError: another kind of model, one without a CTC head, or an option that ours has not.
        DataError: a value of another type or out of range, such as a blank that is no label.

    Example:
        >>> config_of({"model_type": "hubert", "vocab_size": 40}).vocab_size
        40
    """
    kind = described.get("model_type")
    if not isinstance(kind, str) or kind not in _FAMILIES:
        raise ConfigError(
            f"model_type in config.json must be one of {', '.join(_FAMILIES)}, but is {kind!r}"
        )
    family = _FAMILIES[kind]
    architectures = described.get("architectures") or [family.architecture]
    if not isinstance(architectures, list) or family.architecture not in architectures:
        raise ConfigError(
            f"architectures in config.json must be [{family.architecture}], but are "
            f"{architectures}: only models with a CTC head can transcribe; take one that was "
            "fine-tuned for it"
        )
    if kind != "wav2vec2-bert" and described.get("add_adapter"):
        raise ConfigError(
            f"add_adapter must be false in a {kind} model, but is true; of the models here, only "
            "wav2vec2-bert has adapters after its encoder"
        )
    config = _built(family.config, described)
    if config.pad_token_id >= config.vocab_size:
        raise DataError(
            "pad_token_id in config.json, the blank, must be a label of the model, from 0 to "
            f"{config.vocab_size - 1}, but is {config.pad_token_id}; copy config.json from where "
            "the weights come from"
        )
    return config


def described(config: ModelConfig) -> dict[str, Any]:
    """The contents of config.json, for `config_of` and transformers to read.

    Example:
        >>> config = config_of({"model_type": "wav2vec2", "vocab_size": 5})
        >>> config_of(described(config)) == config
        True
    """
    architecture = _FAMILIES[config.model_type].architecture
    return {"architectures": [architecture], **asdict(config)}


def model_of(config: ModelConfig) -> Model:
    """The Linen module of a configuration.

    Example:
        >>> type(model_of(config_of({"model_type": "parakeet_ctc"}))).__name__
        'ParakeetCTC'
    """
    return _FAMILIES[config.model_type].model(config)


def head_of(config: ModelConfig) -> str:
    """The name of the module that gives the logits.

    Example:
        >>> head_of(config_of({"model_type": "hubert"}))
        'lm_head'
    """
    return _FAMILIES[config.model_type].head


def _built(kind: Any, values: Mapping[str, Any]) -> Any:
    types = get_type_hints(kind)
    chosen = {}
    for name in (field.name for field in fields(kind) if field.name in values):
        value, wanted, where = values[name], types[name], f"{name} in config.json"
        if value is None and type(None) not in get_args(wanted):
            raise ConfigError(f"{where} must be set, but is null")
        if is_dataclass(wanted):
            if not isinstance(value, Mapping):
                raise DataError(
                    f"{where} must be an object, but is {value!r}; copy the file from where the "
                    "weights come from"
                )
            chosen[name] = _built(wanted, value)
        else:
            chosen[name] = typed(value, wanted, where, least=0 if name in _FROM_ZERO else 1)
    return kind(**chosen)
