"""Which speech encoder, trained with CTC, recognises digit strings of a speaker never heard?

    python -m experiments.compare_ctc quick

Recordings of single spoken digits are joined into strings; encoders learn to transcribe them and
are tested on strings of speakers that appear in no training string.
"""

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from experiments.command_line import Options, Recipe, check_distinct, check_seeds
from experiments.command_line import main as run_main
from research import checkpoint, optimizers
from research.data.digit_strings import StringBatch, StringConfig, digit_strings
from research.data.spoken_digits import (
    DigitRecordings,
    SpeakerSplit,
    default_speakers,
    load_spoken_digits,
    split_speakers,
)
from research.errors import ConfigError
from research.models.encoders import ENCODERS
from research.progress import Progress, show_progress
from research.report import build_report
from research.runlog import Run, open_run
from research.speech.error_rates import confusion_counts, error_rate
from research.speech.recogniser import (
    FrontEnd,
    Recogniser,
    example_arrays,
    make_recogniser,
    recognise,
)
from research.sweep import Trial, run_trials
from research.train import Diverged, State, fit

DIGITS = tuple("0123456789")
CLASSES = 1 + len(DIGITS)  # class 0 is the CTC blank
# One frame of logits for so many of log-mel features, whichever the encoder: those that do not
# subsample see so many of them stacked.
LOG_MEL_PER_LOGITS = 4
EACH_SPEAKER = "each"

# Strings for validation and test come from streams that no training seed uses.
_VALIDATION_SEED = 1_000_001
_TEST_SEED = 1_000_002
_EVALUATION_BATCH = 64
_EXAMPLES = 8

# Learning rates as the papers have them; in later versions some are scaled for the search.
_find = functools.partial(optimizers.find, version=1)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared, on what, with which budget."""

    data: Literal["auto", "fsdd", "espeak"] = "auto"
    """Recordings: the Free Spoken Digit Dataset, espeak-ng voices, or the first if it is there."""
    encoders: tuple[
        Literal[
            "bilstm",
            "conv_attention",
            "separable_conv",
            "deep_speech2",
            "conformer",
            "convolved_keys",
        ],
        ...,
    ] = ("conv_attention", "bilstm")
    """Encoders to train."""
    test_speakers: tuple[str, ...] = ()
    """Speakers to hold out, one training each; "each" alone takes all of FSDD's in turn. By default
    FSDD's last; synthetic voices always have ten fixed test voices."""
    seeds: tuple[int, ...] = (1,)
    """One training per encoder, test speaker and seed."""
    steps: int = 600
    """Length of each training."""
    batch_size: int = 32
    """Strings per step."""
    max_seconds: float = 4.0
    """Longest string; every waveform is padded to it."""
    strings: StringConfig = dataclasses.field(
        default_factory=lambda: StringConfig(gap_seconds=(0.0, 0.2), edge_seconds=(0.0, 0.2))
    )
    """How digits are joined."""
    optimizer: str = "adamw"
    """Name in research.optimizers."""
    learning_rate: float = 3e-3
    """Peak of the learning-rate schedule."""
    schedule: str = "warmup_cosine"
    """Name in research.optimizers."""
    weight_decay: float = 1e-2
    """Of optimizers whose search space has one; others take none."""
    clip_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    augment: tuple[Literal["gain", "noise", "mask"], ...] = ()
    """Random changes of the training strings, besides those of joining them."""
    evaluate_every: int = 50
    """Steps between validations, and between checkpoints."""
    validation_strings: int = 128
    """Strings of each validation."""
    test_strings: int = 512
    """Strings of the unseen speaker's test."""

    def __post_init__(self):
        """Refuse what cannot be run."""
        entry = _find(self.optimizer)
        if entry.evaluated is not optimizers.as_trained:
            raise ConfigError(
                "optimizer must be one that is evaluated at the parameters that it trains; "
                f"received {self.optimizer!r}."
            )
        if entry.finds_its_rate and self.learning_rate < entry.space["learning_rate"].low:
            raise ConfigError(
                f"learning_rate must be near 1 for {self.optimizer}, which finds its own and takes "
                f"this as a factor; received {self.learning_rate}. Pass --learning-rate 1."
            )
        for name in ("steps", "batch_size", "evaluate_every", "validation_strings", "test_strings"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; received {getattr(self, name)}.")
        for name in ("learning_rate", "clip_norm", "max_seconds"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} must be positive and finite; received {value}.")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"weight_decay must be finite and not negative; received {self.weight_decay}."
            )
        optimizers.find_schedule(self.schedule)
        for name in ("encoders", "seeds"):
            check_distinct(name, getattr(self, name))
        if self.test_speakers:
            check_distinct("test_speakers", self.test_speakers)
        if EACH_SPEAKER in self.test_speakers and len(self.test_speakers) > 1:
            raise ConfigError(f'test_speakers: "each" stands alone; received {self.test_speakers}.')
        check_seeds(self.seeds)


RECIPES = {
    "quick": Recipe("5 minutes on 2 cores; two encoders, one unseen speaker", Config()),
    "standard": Recipe(
        "half an hour on 2 cores with FSDD; two encoders, every speaker unseen in turn",
        Config(test_speakers=(EACH_SPEAKER,)),
    ),
}


class Fold(NamedTuple):
    """Who is tested, under one name, and which recordings are for what."""

    name: str
    split: SpeakerSplit


def make_folds(recordings: DigitRecordings, test_speakers: tuple[str, ...]) -> list[Fold]:
    """One fold per held-out speaker; by default the data set's own choice of test speakers.

    Synthetic voices have one fold only: many of them are variations of one another, so only the
    fixed lists keep near copies of a test voice out of training.

    Raises:
        ConfigError: synthetic voices chosen by name.
        DataError: a speaker that is not in the recordings.
    """
    default_test, validation = default_speakers(recordings)
    if validation and test_speakers not in ((), (EACH_SPEAKER,)):
        raise ConfigError(
            "test_speakers must be left out with synthetic voices, which have a fixed list of test "
            f"voices; received {', '.join(test_speakers)}."
        )
    if not test_speakers or validation:
        name = default_test[0] if len(default_test) == 1 else f"{len(default_test)} unseen voices"
        return [Fold(name, split_speakers(recordings, default_test, validation))]
    if test_speakers == (EACH_SPEAKER,):
        test_speakers = recordings.speaker_names
    return [Fold(speaker, split_speakers(recordings, (speaker,))) for speaker in test_speakers]


def make_strings(
    recordings: DigitRecordings,
    indices: np.ndarray,
    config: Config,
    *,
    stream: int,
    step: int,
    size: int,
) -> StringBatch:
    """The batch of digit strings that belongs to (stream, step)."""
    return digit_strings(
        recordings,
        indices,
        config.strings,
        seed=stream,
        step=step,
        batch_size=size,
        max_samples=round(config.max_seconds * recordings.sample_rate),
    )


def make_encoder(name: str) -> tuple[Any, FrontEnd]:
    """An encoder and the front end that goes with it."""
    encoder = ENCODERS[name](classes=CLASSES)
    return encoder, FrontEnd(stack=LOG_MEL_PER_LOGITS // encoder.subsampling)


def make_encoder_recogniser(encoder: Any, front_end: FrontEnd, config: Config) -> Recogniser:
    """The recogniser of an encoder under the configuration's optimizer."""
    entry = _find(config.optimizer)
    hyperparameters = {"learning_rate": config.learning_rate}
    if "weight_decay" in entry.space:
        hyperparameters["weight_decay"] = config.weight_decay
    optimizer = optimizers.build_scheduled(entry, hyperparameters, config.schedule, config.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)
    return make_recogniser(encoder, front_end, optimizer, augment=config.augment)


def train_trial(
    trial: Trial,
    recogniser: Recogniser,
    front_end: FrontEnd,
    recordings: DigitRecordings,
    split: SpeakerSplit,
    config: Config,
    run: Run,
    progress: Progress,
) -> dict[str, Any]:
    """Train from the last checkpoint, or from the start, and test on the unseen speaker."""
    seed = trial.settings["seed"]

    def make_set(indices, stream, count) -> list[StringBatch]:
        size = min(count, _EVALUATION_BATCH)
        return [
            make_strings(recordings, indices, config, stream=stream, step=step, size=size)
            for step in range(-(-count // size))
        ]

    def batches(step) -> StringBatch:
        return make_strings(
            recordings, split.train, config, stream=seed, step=step, size=config.batch_size
        )

    validation = make_set(split.validation, _VALIDATION_SEED, config.validation_strings)
    directory = run.checkpoints(trial.name)

    def on_evaluate(state: State, train_loss: float) -> None:
        found = recognise(recogniser, state.params, validation, config.validation_strings)
        if not math.isfinite(found.loss):
            raise Diverged(int(state.step))
        run.log(
            trial.name,
            int(state.step),
            train_loss=train_loss,
            validation_loss=found.loss,
            validation_label_error_rate=error_rate(found.errors),
        )
        checkpoint.save(directory, state, train_key)

    init_key, train_key = jax.random.split(jax.random.key(seed))
    state = recogniser.init(init_key, batches(0))
    restored = checkpoint.restore_latest(directory, state, train_key)
    if restored is not None:
        state, train_key = restored
        progress.start(trial.name, trial.steps, done=int(state.step))
    state = fit(
        recogniser.step,
        state,
        batches,
        key=train_key,
        steps=config.steps,
        evaluate_every=config.evaluate_every,
        on_evaluate=on_evaluate,
        on_step=progress.step,
    )
    test = make_set(split.test, _TEST_SEED, config.test_strings)
    found = recognise(recogniser, state.params, test, config.test_strings)
    run.save_examples(
        trial.name, example_arrays(recogniser, front_end, state.params, test[0], _EXAMPLES)
    )
    symbols = range(1, CLASSES)
    return {
        "label_error_rate": error_rate(found.errors),
        "validation_label_error_rate": error_rate(
            recognise(recogniser, state.params, validation, config.validation_strings).errors
        ),
        "utterance_errors": [list(counts) for counts in found.errors],
        "confusion": {
            "symbols": list(DIGITS),
            "counts": confusion_counts(found.references, found.hypotheses, symbols).tolist(),
        },
        "steps": config.steps,
    }


def count_parameters(recogniser: Recogniser, batch: StringBatch) -> int:
    """Trained numbers of a recogniser's encoder."""
    params = jax.eval_shape(recogniser.init, jax.random.key(0), batch).params
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def run(recipe: str, config: Config, options: Options) -> Path:
    """Run or resume the comparison; returns the path of the report."""
    recordings = load_spoken_digits(config.data, options.data_dir)
    folds = make_folds(recordings, config.test_speakers)
    names = tuple(fold.name for fold in folds)
    resolved = dataclasses.replace(config, data=recordings.name, test_speakers=names)
    total = len(config.encoders) * len(folds) * len(config.seeds) * config.steps
    with (
        open_run(
            options.out,
            experiment="compare_ctc",
            recipe=recipe,
            config=dataclasses.asdict(resolved),
            data={
                "name": recordings.name,
                "source": recordings.source,
                "sha256": recordings.sha256,
            },
            seeds=list(config.seeds),
            fresh=options.fresh,
        ) as run_,
        show_progress("Comparing CTC encoders", total) as progress,
    ):
        for name in config.encoders:
            encoder, front_end = make_encoder(name)
            recogniser = make_encoder_recogniser(encoder, front_end, config)
            for fold in folds:

                def execute(trial, recogniser=recogniser, front_end=front_end, fold=fold):
                    return train_trial(
                        trial,
                        recogniser,
                        front_end,
                        recordings,
                        fold.split,
                        config,
                        run_,
                        progress,
                    )

                batch = make_strings(recordings, fold.split.train, config, stream=0, step=0, size=1)
                settings = {
                    "encoder": name,
                    "test_speaker": fold.name,
                    "parameters": count_parameters(recogniser, batch),
                }
                trials = [
                    Trial(
                        f"{name}/{fold.name.replace(' ', '-')}/seed-{seed}",
                        settings | {"seed": seed},
                        config.steps,
                    )
                    for seed in config.seeds
                ]
                run_trials(run_, trials, execute, progress)
        return build_report(run_.path)


def main() -> None:
    """Command line."""
    run_main(
        "compare_ctc",
        "Compare speech encoders trained with CTC on strings of spoken digits.",
        RECIPES,
        run,
    )


if __name__ == "__main__":
    main()
