"""Which CTC objective, encoder and optimizer recognises speakers that were never heard?

    python -m experiments.compare_ctc quick

Recordings of single spoken digits are joined into strings. A system is an encoder with an objective
and an optimizer; it is tuned on strings of one speaker that it does not train on, then trained with
seeds that all systems share, and tested on a speaker that neither its training nor its tuning
heard.
"""

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from experiments.command_line import Recipe, SweepOptions, check_distinct, check_seeds
from experiments.command_line import main as run_main
from research import comparison, optimizers
from research.comparison import Entrant, Study
from research.data import data_dir as resolve_data_dir
from research.data.fsdd import recordings_folder
from research.data.spoken_digits import DigitRecordings
from research.errors import ConfigError, RunError
from research.objectives import registry
from research.optimizers import Range
from research.progress import show_progress
from research.report import build_report
from research.runlog import open_run
from research.speech.material import digit_recordings, fingerprint, folds, validator
from research.speech.systems import BATCH_SIZE, LOADER, System, make_encoder
from research.sweep import Cell, Plan, Row, Task, Training, open_backend, run_cells

EACH, LAST = "each", "last"

_TUNED_WITH = "ctc"  # the objective of the searches where tuning is shared

# A training takes minutes: nothing is gained by several in one call.
_PLAN = Plan("scan")

# Hyperparameters as the papers have them, and of these the ones that few trials can tune, in ranges
# that suit networks of this size. Other optimizers are tuned over their whole space.
_VERSION = 1
SPACES: Mapping[str, Mapping[str, Range]] = {
    "adam": {"learning_rate": Range(1e-3, 3e-2)},
    "adamw": {"learning_rate": Range(1e-3, 3e-2), "weight_decay": Range(1e-3, 1e-1)},
    "nadamw": {"learning_rate": Range(1e-3, 3e-2), "weight_decay": Range(1e-3, 1e-1)},
}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared, on what, with which budget."""

    corpus: Literal["auto", "fsdd", "espeak", "fsdd+espeak"] = "auto"
    """Recordings: the Free Spoken Digit Dataset; espeak-ng voices; the first, with the second in
    half of the training strings; or the last of these if the first is there, else the second."""
    encoders: tuple[str, ...] = ("bilstm",)
    """Names in research.models.encoders."""
    objectives: tuple[str, ...] = ("ctc", "intermediate_ctc")
    """Names in research.objectives.registry."""
    optimizers: tuple[str, ...] = ("adamw",)
    """Names in research.optimizers, each with @schedule if it has one of its own."""
    schedule: str = "warmup_cosine"
    """Learning-rate schedule of optimizers that name none."""
    test_speakers: tuple[str, ...] = (LAST,)
    """Speakers to hold out in turn; "each" for all, "last" for the last. Synthetic voices always
    have one fixed list of test voices."""
    seeds: tuple[int, ...] = (1,)
    """Seeds of the trainings that are tested; the same for all systems."""
    crossed: bool = False
    """Every seed with every test speaker; otherwise seed i goes with speaker i, in turn."""
    steps: int = 400
    """Length of these trainings, for objectives that see an utterance once in a step."""
    match: Literal["compute", "steps"] = "compute"
    """Whether objectives that see utterances twice in a step get half the steps, or as many."""
    trials: int = 2
    """Points of the search space tried in each search."""
    search_steps: int = 100
    """Length of the trainings of a search."""
    tuning: Literal["shared", "each"] = "shared"
    """Whether all objectives of an encoder, optimizer and test speaker use the winner of one search
    with plain CTC, or have searches of their own."""
    evaluations: int = 10
    """Validations of each training."""
    reference: str = "ctc"
    """The objective that others are compared with."""
    search_seed: int = 0
    """Seed of the search points, and of initialisation and data order in the search."""

    def __post_init__(self):
        """Refuse what cannot be run."""
        for name in ("steps", "search_steps", "trials", "evaluations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; received {getattr(self, name)}.")
        for name in ("steps", "search_steps"):
            least = 2 * self.evaluations
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name} must be at least twice the evaluations, {least}; received "
                    f"{getattr(self, name)}."
                )
        for name in ("encoders", "objectives", "optimizers", "seeds", "test_speakers"):
            check_distinct(name, getattr(self, name))
        check_seeds((self.search_seed, *self.seeds))
        if max(self.seeds) >= comparison.FIRST_SEARCH_SEED:
            raise ConfigError(
                f"seeds must be below {comparison.FIRST_SEARCH_SEED}, as searches use those above; "
                f"received {max(self.seeds)}."
            )
        for encoder in self.encoders:
            for objective in self.objectives:
                make_encoder(encoder, objective, classes=2)
        for text in self.optimizers:
            name = comparison.entrant(text, self.schedule).optimizer
            optimizers.find(name, _VERSION)
        if self.reference not in self.objectives:
            raise ConfigError(
                f"reference must be one of the objectives, {', '.join(self.objectives)}; received "
                f"{self.reference!r}. Add it to --objectives or name another with --reference."
            )
        if {EACH, LAST} & {*self.test_speakers} and len(self.test_speakers) > 1:
            raise ConfigError(
                f'test_speakers: "{EACH}" and "{LAST}" stand alone; received {self.test_speakers}.'
            )


RECIPES = {
    "quick": Recipe("3 minutes on 2 cores; two objectives, one unseen speaker", Config()),
    "standard": Recipe(
        "46 minutes on 2 cores, beside other work; four objectives, every speaker unseen in turn",
        Config(
            objectives=("ctc", "label_smoothed_ctc", "intermediate_ctc", "consistency_ctc"),
            test_speakers=(EACH,),
            seeds=(1, 2, 3, 4, 5),
            steps=1000,
            trials=6,
            search_steps=250,
        ),
    ),
    "full": Recipe(
        "some 350 hours on 2 cores, resumable; all objectives, encoders and three optimizers",
        Config(
            encoders=(
                *("bilstm", "separable_conv", "pooled_conv", "conv_attention"),
                *("deep_speech2", "conformer", "convolved_keys"),
            ),
            objectives=tuple(registry.OBJECTIVES),
            optimizers=("adamw", "momentum", "muon"),
            test_speakers=(EACH,),
            seeds=(1, 2, 3, 4, 5),
            crossed=True,
            steps=1000,
            trials=10,
            search_steps=300,
            tuning="each",
        ),
    ),
}


class Design(NamedTuple):
    """A configuration with what the recordings add to it."""

    config: Config
    corpus: str
    recordings: DigitRecordings
    folds: tuple[str, ...]
    data_dir: Path | None

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """(test speaker, seed) of the trainings that are tested, for every system."""
        seeds = self.config.seeds
        if self.config.crossed:
            return [(fold, seed) for fold in self.folds for seed in seeds]
        most = max(len(self.folds), len(seeds))
        return [(self.folds[i % len(self.folds)], seeds[i % len(seeds)]) for i in range(most)]

    @property
    def entrants(self) -> list[Entrant]:
        """The optimizers with their schedules."""
        return [comparison.entrant(text, self.config.schedule) for text in self.config.optimizers]

    def steps_of(self, objective: str) -> int:
        """How long an objective trains, so that none costs more than another if that is asked."""
        views = registry.find(objective).views if self.config.match == "compute" else 1
        return self._whole(self.config.steps // views)

    def task(self, system: System, entrant: Entrant, steps: int) -> Task:
        """Of the trainings of a system for so many steps."""
        return Task(
            workload=system.name,
            sha256=fingerprint(*system.heard, self.data_dir),
            optimizer=entrant.optimizer,
            space_version=_VERSION,
            schedule=entrant.schedule,
            steps=self._whole(steps),
            evaluate_every=steps // self.config.evaluations,
        )

    def _whole(self, steps: int) -> int:
        return steps - steps % self.config.evaluations

    def cells(self) -> list[Cell]:
        """The searches; each is followed by the trainings that use its winner."""
        shared = self.config.tuning == "shared"
        groups = [self.config.objectives] if shared else [(o,) for o in self.config.objectives]
        return [
            self._search(encoder, entrant, fold, group)
            for fold in self.folds
            for encoder in self.config.encoders
            for entrant in self.entrants
            for group in groups
        ]

    def _search(self, encoder: str, entrant: Entrant, fold: str, objectives: Sequence[str]) -> Cell:
        tuned_with = _TUNED_WITH if self.config.tuning == "shared" else objectives[0]
        voice = validator(self.recordings, fold)
        system = System(self.corpus, encoder, tuned_with, fold, voice)
        task = self.task(system, entrant, self.config.search_steps)
        search = comparison.search(
            Study(task),
            trials=self.config.trials,
            seed=self.config.search_seed,
            space=_space(entrant.optimizer),
        )

        def then(rows: list[Row]) -> list[Cell]:
            best = comparison.winner(rows)
            if best is None:
                return []
            return [
                self._final(System(self.corpus, encoder, name, fold), entrant, best["settings"])
                for name in objectives
            ]

        return Cell(tuple(search), then, _PLAN)

    def _final(self, system: System, entrant: Entrant, won: Mapping[str, Any]) -> Cell:
        task = self.task(system, entrant, self.steps_of(system.objective))
        point = won["hyperparameters"]
        seeds = [seed for fold, seed in self.pairs if fold == system.fold]
        trainings = [Training(task, "final", 0, won["trial"], seed, point) for seed in seeds]
        return Cell(tuple(trainings), plan=_PLAN)

    def steps(self) -> int:
        """Of all trainings together."""
        systems = len(self.config.encoders) * len(self.entrants)
        searches = 1 if self.config.tuning == "shared" else len(self.config.objectives)
        searched = searches * len(self.folds) * self.config.trials
        search_steps = self._whole(self.config.search_steps)
        final = sum(self.steps_of(name) for name in self.config.objectives) * len(self.pairs)
        return systems * (searched * search_steps + final)

    def described(self) -> dict[str, Any]:
        """The configuration with what a report must know besides."""
        found = {name: registry.find(name) for name in self.config.objectives}
        spaces = {e.optimizer: _space(e.optimizer) for e in self.entrants}
        return dataclasses.asdict(self.config) | {
            "corpus": self.corpus,
            "source": self.recordings.source,
            "folds": list(self.folds),
            "tuned_with": _TUNED_WITH if self.config.tuning == "shared" else None,
            "steps_of": {name: self.steps_of(name) for name in found},
            "views": {name: objective.views for name, objective in found.items()},
            "labels": {name: objective.label for name, objective in found.items()},
            "sources": {name: objective.source for name, objective in found.items()},
            "search_spaces": {
                optimizer: {name: bounds._asdict() for name, bounds in space.items()}
                for optimizer, space in spaces.items()
            },
            "batch_size": BATCH_SIZE,
            "metric": "label error rate",
        }


def _space(optimizer: str) -> Mapping[str, Range]:
    return SPACES.get(optimizer) or optimizers.find(optimizer, _VERSION).space


def make_design(config: Config, data_dir: Path | None) -> Design:
    """Choose the recordings and who is held out.

    Raises:
        ConfigError: a test speaker that is not among the recordings', or who is reserved.
        DataError: recordings that are missing or cannot be used.
    """
    corpus = config.corpus
    if corpus == "auto":
        there = recordings_folder(resolve_data_dir(data_dir)).exists()
        corpus = "fsdd+espeak" if there else "espeak"
    recordings = digit_recordings(corpus, data_dir)
    every = folds(recordings)
    chosen = config.test_speakers
    if chosen == (EACH,):
        chosen = every
    elif chosen == (LAST,):
        chosen = every[-1:]
    else:
        unknown = sorted({*chosen} - {*every})
        if unknown:
            raise ConfigError(
                f"test_speakers must be among {', '.join(every)}, or {EACH} or {LAST}; received "
                f"{', '.join(unknown)}."
            )
    return Design(config, corpus, recordings, chosen, data_dir)


def run(recipe: str, config: Config, options: SweepOptions) -> Path:
    """Run or resume the comparison; returns the path of the report."""
    design = make_design(config, options.data_dir)
    with open_run(
        options.out,
        experiment="compare_ctc",
        recipe=recipe,
        config=design.described(),
        data={
            "name": design.corpus,
            "source": design.recordings.source,
            "sha256": design.recordings.sha256,
        },
        seeds=[config.search_seed, *config.seeds],
        fresh=options.fresh,
    ) as run_:
        where = options.backend, run_.path, options.data_dir, options.workers
        try:
            with (
                show_progress("Comparing CTC systems", design.steps()) as progress,
                contextlib.closing(open_backend(*where)) as backend,
            ):
                run_cells(
                    run_.path,
                    design.cells(),
                    backend,
                    progress,
                    expected_steps=design.steps(),
                    loader=LOADER,
                )
        except RunError:
            build_report(run_.path)  # of what did not fail
            raise
        return build_report(run_.path)


def main() -> None:
    """Command line."""
    run_main(
        "compare_ctc",
        "Compare CTC objectives, encoders and optimizers on speakers that were never heard.",
        RECIPES,
        run,
        options=SweepOptions(),
    )


if __name__ == "__main__":
    main()
