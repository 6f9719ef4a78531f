"""How many words does one recogniser, trained by CTC on hours of audio files, get wrong?

    python -m experiments.train_ctc prompts
    python -m experiments.train_ctc librispeech_100 --plan

A Conformer learns from audio files, read while it trains, in batches of utterances of similar
length. It is watched on the validation parts, goes on from its last checkpoint to the same bits,
and at the end writes down the test parts: by the best path, by beam search, and by beam search with
an n-gram model of the training transcripts. Where there are several devices, each batch is divided
among them.

``librispeech_100`` is of full size: LibriSpeech's train-clean-100 and a Conformer of the medium
size of Gulati et al. 2020, without their decoder. ``--plan`` says what it would cost, without data.
This project has not run it. For comparison, ESPnet states for the same 100 hours, with an
E-Branchformer of 26 million parameters trained by CTC on 5000 word pieces, word error rates of
9.6 % on test-clean and 23.1 % on test-other (espnet/espnet, egs2/librispeech_100/asr1/README.md).
"""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.command_line import Options, Recipe
from experiments.command_line import main as run_main
from experiments.ctc_recogniser import Config, load_parts, make_tokeniser, make_training
from research import checkpoint, mesh
from research.data import data_dir
from research.data.buckets import make_buckets
from research.data.prefetch import Prefetched
from research.data.speech_sets import (
    PUBLISHED_HOURS,
    SpeechSet,
    merge,
    positions,
    thinned,
)
from research.data.speech_stream import SpeechStream
from research.data.utterances import Corpus
from research.errors import ConfigError
from research.names import look_up
from research.progress import Progress, show_progress
from research.report import build_report
from research.runlog import Run, open_run
from research.speech.error_rates import error_rate
from research.speech.recogniser import FrontEnd, Recogniser, example_arrays, mean_loss
from research.speech.tokenisers import CharacterTokeniser, SubwordTokeniser
from research.speech.training import count_too_long, keep_tokeniser
from research.speech.training_plan import plan_training
from research.speech.transcripts import (
    Heard,
    beam,
    choose_fusion,
    error_lists,
    greedy,
    hear,
    ngram_automaton,
    weighted,
    write_down,
)
from research.train import Diverged, State, fit

TRIAL = "conformer"
_EXAMPLES = 4
_TRANSCRIPTS = 40  # of each test part, kept for the report


@dataclasses.dataclass(frozen=True)
class TrainOptions(Options):
    """Where to run; these change nothing in the result."""

    plan: bool = False
    """Say what the recipe would cost, and stop. Needs no data."""
    peak_teraflops: float = 989.0
    """For the plan: what a GPU can do at most; by its data sheet an H100 or H200 in bfloat16."""
    utilisation: float = 0.05
    """For the plan: the part of it that is assumed to be reached."""
    readers: int = 4
    """Threads that read audio files ahead of the training."""


RECIPES = {
    "prompts": Recipe(
        "17 minutes on 2 cores, beside other work; a quarter of an hour of prompts by one speaker, "
        "a demonstration: it gets three of ten characters of other texts wrong",
        Config(
            corpus="prompts",
            seconds=(0.5, 8.0),
            tokeniser="characters",
            width=96,
            layers=4,
            taps=15,
            dropout=0.2,
            precision="float32",
            augment=("speed",),
            batch_seconds=32.0,
            buckets=3,
            learning_rate=2e-3,
            steps=2000,
            evaluate_every=100,
            ngram_order=5,
        ),
    ),
    "librispeech_100": Recipe(
        "for GPUs, see --plan; LibriSpeech train-clean-100, Conformer of 27 million parameters",
        Config(),
    ),
    "common_voice": Recipe(
        "for GPUs, see --plan; a language of Common Voice, Conformer of 27 million parameters",
        Config(corpus="common_voice", resample=True, seconds=(1.0, 15.0)),
    ),
}


@dataclasses.dataclass(frozen=True)
class Session:
    """What a training is made of; ``devices`` is None where there is only one."""

    config: Config
    parts: SpeechSet
    tokeniser: CharacterTokeniser | SubwordTokeniser
    recogniser: Recogniser
    front_end: FrontEnd
    devices: jax.sharding.Mesh | None
    readers: int

    def place(self, batch: Any) -> Any:
        """The batch on the devices, as many rows on each."""
        return mesh.split_rows(batch, self.devices)

    def stream(self, corpus: Corpus) -> SpeechStream:
        """Batches of a corpus, each of as many rows as the devices can share."""
        buckets = make_buckets(
            corpus.seconds,
            buckets=self.config.buckets,
            batch_seconds=self.config.batch_seconds,
            multiple=self.devices.size if self.devices else 1,
        )
        rate = self.front_end.log_mel.sample_rate
        return SpeechStream(corpus, buckets, self.tokeniser, rate, self.config.seed)

    def hear(self, params: Any, stream: SpeechStream) -> Iterator[Heard]:
        """Every utterance of a stream once."""
        return hear(self.recogniser, params, stream, self.place)

    @functools.cached_property
    def trained(self) -> SpeechStream:
        """The training utterances."""
        return self.stream(self.parts.train)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        state = jax.eval_shape(self.recogniser.init, jax.random.key(0), self.trained(0))
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))

    @functools.cached_property
    def watched(self) -> SpeechStream:
        """The utterances of validation, of all parts; one stream, so that few shapes compile."""
        count = self.config.validation_utterances
        parts = {name: thinned(corpus, count) for name, corpus in self.parts.validation.items()}
        return self.stream(merge("validation", parts))


def train(session: Session, run_: Run, progress: Progress) -> State:
    """Train from the last checkpoint, or from the start."""
    config, directory = session.config, run_.checkpoints(TRIAL)
    stream = session.trained
    watched = positions(session.watched.corpus, session.parts.validation)

    def on_evaluate(state: State, train_loss: float) -> None:
        heard = list(session.hear(state.params, session.watched))
        losses = np.concatenate([batch.losses[: len(batch.indices)] for batch in heard])
        if np.isnan(losses).any():
            raise Diverged(int(state.step))
        texts = session.watched.corpus.texts
        found = write_down(heard, texts, session.tokeniser, {"greedy": greedy()})["greedy"]
        metrics: dict[str, float] = {"validation_texts_too_long": int(np.isposinf(losses).sum())}
        for part, indices in watched.items():
            metrics[f"{part}_word_error_rate"] = error_rate(found.of(indices).words)
            metrics[f"{part}_character_error_rate"] = error_rate(found.of(indices).characters)
        if np.isfinite(loss := mean_loss(losses)):  # not so where no text fits its audio
            metrics["validation_loss"] = loss
        run_.log(TRIAL, int(state.step), train_loss=train_loss, **metrics)
        checkpoint.save(directory, state, train_key)

    init_key, train_key = jax.random.split(jax.random.key(config.seed))
    state = mesh.on_each(session.recogniser.init(init_key, stream(0)), session.devices)
    restored = checkpoint.restore_latest(directory, state, train_key)
    if restored is not None:
        state, train_key = restored
        progress.start(TRIAL, config.steps, done=int(state.step))
    ahead = 2 * session.readers
    with Prefetched(
        lambda step: session.place(stream(step)),
        stop=config.steps,
        workers=session.readers,
        ahead=ahead,
    ) as batches:
        return fit(
            session.recogniser.step,
            state,
            batches,
            key=train_key,
            steps=config.steps,
            evaluate_every=config.evaluate_every,
            on_evaluate=on_evaluate,
            on_step=progress.step,
        )


def test(session: Session, params: Any, run_: Run) -> dict[str, Any]:
    """Write down the test parts in every way, and count."""
    config, tokeniser = session.config, session.tokeniser
    ngram = ngram_automaton(tokeniser, session.parts.train.texts, config.ngram_order)
    heard = list(session.hear(params, session.watched))

    def measure(automaton) -> float:
        decoders = {"beam": beam(config.beam_width, automaton=automaton)}
        found = write_down(heard, session.watched.corpus.texts, tokeniser, decoders)
        return error_rate(found["beam"].words)

    fusion = choose_fusion(measure, ngram, config.ngram_weights, config.ngram_bonuses)
    tested = session.stream(merge("test", session.parts.test))
    decoders = {
        "greedy": greedy(),
        "beam": beam(config.beam_width),
        "beam_ngram": beam(
            config.beam_width, automaton=weighted(ngram, fusion.weight, fusion.bonus)
        ),
    }
    found = write_down(session.hear(params, tested), tested.corpus.texts, tokeniser, decoders)
    arrays = example_arrays(session.recogniser, session.front_end, params, tested(0), _EXAMPLES)
    run_.save_examples(TRIAL, arrays)
    return {
        "steps": config.steps,
        "fusion": fusion._asdict(),
        "symbols": [tokeniser.decode([label]) for label in range(1, tokeniser.size)],
        "parts": {
            part: {
                "audio_seconds": float(session.parts.test[part].seconds.sum()),
                "errors": {
                    name: {
                        "words": error_lists(texts.of(indices).words),
                        "characters": error_lists(texts.of(indices).characters),
                    }
                    for name, texts in found.items()
                },
                "transcripts": [
                    {"said": found["greedy"].said[i]}
                    | {name: texts.heard[i] for name, texts in found.items()}
                    for i in indices[:: math.ceil(len(indices) / _TRANSCRIPTS)]
                ],
            }
            for part, indices in positions(tested.corpus, session.parts.test).items()
        },
    }


def plan(recipe: str, config: Config, options: TrainOptions) -> str:
    """What a recipe costs, in words; nothing is read, and nothing computed but shapes."""
    if not (0 < options.peak_teraflops < math.inf and 0 < options.utilisation <= 1):
        raise ConfigError(
            "a plan needs a finite peak above zero and a utilisation in 0 to 1; received "
            f"{options.peak_teraflops} TFLOP/s and {options.utilisation}."
        )
    known = config.corpus == "librispeech"
    parts = config.train_parts if known else ()
    hours = sum(look_up(PUBLISHED_HOURS, part, "a plan's --train-parts") for part in parts)
    # As many as a language has letters, where they are to be found in the texts.
    classes = 1 + (config.pieces if config.tokeniser == "subwords" else 28)
    recogniser, _, front_end = make_training(config, classes)
    longest = config.seconds[1]
    made = plan_training(
        recogniser,
        batch_seconds=config.batch_seconds,
        longest=longest,
        sample_rate=front_end.log_mel.sample_rate,
        steps=config.steps,
    )
    epochs = f", {made.audio_hours / hours:.0f} times the {hours:g} h of its parts" if known else ""
    needed = made.hours(1e12 * options.peak_teraflops, options.utilisation)
    lines = {
        "encoder": f"Conformer of {config.layers} blocks, width {config.width}: "
        f"{made.parameters:,} parameters, {classes} classes",
        "state": f"{made.state_bytes / 1e6:,.0f} MB of parameters and optimizer, in float32; "
        "activations come on top",
        "a step": f"{made.step_seconds:g} s of audio with padding, {made.step_flops:.3g} operations"
        f" in matrix products and convolutions (of utterances of {longest:g} s; fewer of others)",
        "in all": f"{config.steps:,} steps: {made.audio_hours:,.0f} h of audio to be read"
        f"{epochs}; {made.flops:.3g} operations",
        "time": f"an estimate, not a measurement: {needed:,.1f} h on one GPU of "
        f"{options.peak_teraflops:g} TFLOP/s of which {100 * options.utilisation:g} % are reached.",
    }
    made_lines = [f"  {name:8} {text}" for name, text in lines.items()]
    note = (
        "No GPU has been measured with this recipe: the utilisation is an assumption, and the time "
        "goes with its inverse. Set --peak-teraflops and --utilisation to those of your machine."
    )
    return "\n".join([f"{recipe}: what it would cost", "", *made_lines, "", note])


def train_and_test(
    parts: SpeechSet, config: Config, readers: int, run_: Run, progress: Progress
) -> None:
    """The whole training of a run, recorded when it ends, well or diverged."""
    started = time.perf_counter()
    tokeniser = keep_tokeniser(
        run_.path, run_.checkpoints(TRIAL), lambda: make_tokeniser(config, parts.train.texts)
    )
    recogniser, encoder, front_end = make_training(config, tokeniser.size)
    too_long = count_too_long(parts.train, tokeniser, front_end, encoder)
    if too_long:
        progress.say(
            f"{too_long:,} of {len(parts.train):,} training texts have more labels than their "
            "audio has frames: nothing is learned from these."
        )
    devices = mesh.data_mesh()
    session = Session(config, parts, tokeniser, recogniser, front_end, devices, readers)
    settings = {
        "seed": config.seed,
        "objective": config.objective,
        "parameters": session.parameters,
        "classes": tokeniser.size,
        "texts_too_long": too_long,
    }
    progress.start(TRIAL, config.steps)
    try:
        params = train(session, run_, progress).params
        progress.say("Trained. Decoding the validation parts to choose a weight, then the tests.")
        result, status = test(session, params, run_), "finished"
    except Diverged as divergence:
        result = {"diverged_at": divergence.step, "steps": config.steps}
        status = "diverged"
    finally:
        seconds = time.perf_counter() - started
        run_.log_time(TRIAL, seconds=seconds, steps=progress.steps_of_trial)
    run_.finish(TRIAL, settings=settings, status=status, result=result)
    progress.finish()


def run(recipe: str, config: Config, options: TrainOptions) -> Path | None:
    """Run or resume the training; returns the path of the report, or None for a plan."""
    if options.readers < 1:
        raise ConfigError(f"--readers must be at least 1; received {options.readers}.")
    if options.plan:
        print(plan(recipe, config, options))
        return None
    parts = load_parts(config, data_dir(options.data_dir))
    with (
        open_run(
            options.out,
            experiment="train_ctc",
            recipe=recipe,
            config=dataclasses.asdict(config),
            data={"name": config.corpus, "source": parts.train.source, "sha256": parts.sha256},
            seeds=[config.seed],
            fresh=options.fresh,
        ) as run_,
        show_progress("Training", config.steps) as progress,
    ):
        if run_.finished(TRIAL) is None:
            train_and_test(parts, config, options.readers, run_, progress)
        return build_report(run_.path)


def main() -> None:
    """Command line."""
    run_main(
        "train_ctc",
        "Train one CTC recogniser on a corpus of audio files, and measure it.",
        RECIPES,
        run,
        options=TrainOptions(),
    )


if __name__ == "__main__":
    main()
