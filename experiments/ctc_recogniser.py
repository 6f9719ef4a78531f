"""What `experiments.train_ctc` trains: the configuration, the data and recogniser it describes."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import jax.numpy as jnp
import numpy as np
import optax

from experiments.command_line import check_distinct, check_seeds
from research import optimizers
from research.data.speech_sets import SpeechSet, check_rates, load_speech_set
from research.errors import ConfigError
from research.models.conformer import Conformer
from research.objectives import registry
from research.speech.presets import preset
from research.speech.recogniser import FrontEnd, Recogniser, make_recogniser
from research.speech.spec_augment import POLICIES
from research.speech.tokenisers import CharacterTokeniser, SubwordTokeniser

LOG_MEL = preset("kaldi")


@dataclasses.dataclass(frozen=True)
class Config:
    """What is learned from what, by what, for how long."""

    corpus: Literal["librispeech", "common_voice", "prompts"] = "librispeech"
    """Where the speech comes from: a name in research.data.speech_sets."""
    train_parts: tuple[str, ...] = ("train-clean-100",)
    """Parts of LibriSpeech to train on."""
    language: str = "en"
    """Folder of Common Voice, under common_voice/ in the data directory."""
    resample: bool = False
    """Take audio files of any rate; by default one of another rate than 16 kHz is an error."""
    seconds: tuple[float, float] = (0.5, 17.0)
    """Utterances of other lengths are not trained on; all are tested."""
    tokeniser: Literal["characters", "subwords"] = "subwords"
    """What is predicted; both are learned from the training transcripts."""
    pieces: int = 256
    """How many subwords."""
    width: int = 256
    """Of the Conformer."""
    layers: int = 16
    """Its blocks."""
    heads: int = 4
    """Of its attention."""
    taps: int = 31
    """Of its depthwise convolutions."""
    dropout: float = 0.1
    """After each part of a block."""
    intermediate: tuple[int, ...] = ()
    """Blocks that predict too, for the objectives that need it."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Of the computation; parameters, logits and loss are float32."""
    objective: str = "ctc"
    """What is minimised: a name in research.objectives.registry."""
    augment: tuple[Literal["speed", "gain", "noise", "mask"], ...] = ("speed", "mask")
    """Random changes of the training utterances."""
    policy: Literal["LB", "LD", "SM", "SS", "AlgoPerf"] = "AlgoPerf"
    """Of SpecAugment ("mask"). AlgoPerf's is that of the Conformer's paper."""
    batch_seconds: float = 600.0
    """Audio in a batch, padding included."""
    buckets: int = 8
    """Groups of similar length; the step is compiled for each."""
    optimizer: str = "adamw"
    """Name in research.optimizers."""
    learning_rate: float = 1e-3
    """Peak of the learning-rate schedule."""
    schedule: str = "warmup_cosine"
    """Name in research.optimizers."""
    b2: float = 0.98
    """Decay of the second moment, of optimizers whose search space has it."""
    weight_decay: float = 1e-2
    """Of optimizers whose search space has it."""
    clip_norm: float = 5.0
    """Gradients with a larger norm are scaled down to it."""
    steps: int = 100_000
    """Length of the training."""
    evaluate_every: int = 2000
    """Steps between validations, and between checkpoints."""
    validation_utterances: int = 500
    """Of each validation part, evenly chosen: for watching, and for the n-gram model's weight."""
    beam_width: int = 16
    """Labellings that beam search keeps."""
    ngram_order: int = 3
    """Labels that the n-gram model looks at."""
    ngram_weights: tuple[float, ...] = (0.2, 0.4, 0.6)
    """Of its log-probabilities, to choose from."""
    ngram_bonuses: tuple[float, ...] = (0.5, 1.0)
    """For each label, in nats, to choose from besides none."""
    seed: int = 1
    """Of parameters, order of the data, augmentation and dropout."""

    def __post_init__(self):
        """Refuse what cannot be run."""
        entry = optimizers.find(self.optimizer)
        if entry.evaluated is not optimizers.as_trained:
            raise ConfigError(
                "optimizer must be one that is evaluated at the parameters that it trains; "
                f"received {self.optimizer!r}."
            )
        optimizers.find_schedule(self.schedule)
        for name in ("pieces", "layers", "heads", "taps", "buckets", "steps", "evaluate_every",
                     "validation_utterances", "beam_width", "ngram_order"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; received {getattr(self, name)}.")
        for name in ("learning_rate", "clip_norm", "batch_seconds"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} must be positive and finite; received {value}.")
        if not 0 <= self.b2 < 1:
            raise ConfigError(f"b2 must be at least 0 and below 1; received {self.b2}.")
        for name in ("weight_decay", "ngram_weights"):
            value = getattr(self, name)
            if not all(0 <= number < math.inf for number in np.atleast_1d(value)):
                raise ConfigError(f"{name} must be at least 0 and finite; received {value}.")
        if not all(map(math.isfinite, self.ngram_bonuses)):
            raise ConfigError(f"ngram_bonuses must be finite; received {self.ngram_bonuses}.")
        if self.width < 2 or self.width % 2 or self.width % self.heads:
            raise ConfigError(
                "width must be even and a multiple of heads; received width "
                f"{self.width} and heads {self.heads}."
            )
        if self.taps % 2 == 0:
            raise ConfigError(f"taps must be odd; received {self.taps}.")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout must be at least 0 and below 1; received {self.dropout}.")
        if not 0 < self.seconds[0] < self.seconds[1] < math.inf:
            raise ConfigError(
                f"seconds must be a shortest and a longest length; received {self.seconds}."
            )
        if len(set(self.intermediate)) < len(self.intermediate) or not set(
            self.intermediate
        ) <= set(range(1, self.layers)):
            raise ConfigError(
                f"intermediate must name distinct blocks in 1 to {self.layers - 1}; received "
                f"{self.intermediate}."
            )
        choice = registry.find(self.objective)
        if choice.intermediate and not self.intermediate:
            raise ConfigError(
                f"{self.objective} needs blocks that predict too; received intermediate=(). Name "
                f"some, such as --intermediate {max(1, self.layers // 2)}."
            )
        if choice.views > 1 and "mask" in self.augment and POLICIES[self.policy].time_warp:
            raise ConfigError(
                f"{self.objective} compares two views frame by frame, which the time warp of "
                f"policy {self.policy!r} moves apart. Take --policy AlgoPerf, which has none."
            )
        check_distinct("train_parts", self.train_parts)
        check_distinct("ngram_weights", self.ngram_weights)
        check_seeds((self.seed,))


def load_parts(config: Config, folder: Path) -> SpeechSet:
    """The corpus, with only those training utterances that are of the length asked for."""
    parts = load_speech_set(
        config.corpus, folder, train_parts=config.train_parts, language=config.language
    )
    if not config.resample:
        check_rates(parts, LOG_MEL.sample_rate)
    low, high = config.seconds
    kept = parts.train.between(low, high)
    source = f"{parts.train.source}; trained on {len(kept):,} of {low:g} to {high:g} s"
    return dataclasses.replace(parts, train=dataclasses.replace(kept, source=source))


def make_tokeniser(config: Config, texts: list[str]) -> CharacterTokeniser | SubwordTokeniser:
    """The tokeniser that is learned from the training transcripts; the blank is class 0."""
    if config.tokeniser == "characters":
        return CharacterTokeniser.from_texts(texts, unknown="replace")
    return SubwordTokeniser.train(texts, config.pieces, blank="first")


def make_conformer(config: Config, classes: int) -> tuple[Conformer, FrontEnd]:
    """The encoder and the front end that goes with it."""
    encoder = Conformer(
        classes=classes,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        size=config.taps,
        dropout=config.dropout,
        intermediate=config.intermediate,
        self_conditioned=registry.find(config.objective).self_conditioned,
        dtype=jnp.bfloat16 if config.precision == "bfloat16" else None,
    )
    return encoder, FrontEnd(LOG_MEL, stack=1, policy=POLICIES[config.policy])


def make_training(config: Config, classes: int) -> tuple[Recogniser, Conformer, FrontEnd]:
    """The recogniser under the configuration's objective and optimizer, and its parts."""
    entry = optimizers.find(config.optimizer)
    chosen = {"learning_rate": config.learning_rate}
    chosen |= {k: getattr(config, k) for k in ("b2", "weight_decay") if k in entry.space}
    optimizer = optimizers.build_scheduled(entry, chosen, config.schedule, config.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    encoder, front_end = make_conformer(config, classes)
    choice = registry.find(config.objective)
    recogniser = make_recogniser(
        encoder,
        front_end,
        optimizer,
        augment=config.augment,
        objective=choice.loss,
        views=choice.views,
    )
    return recogniser, encoder, front_end
