"""Which optimizer trains best when all are tuned equally, and how sure is that?

    python -m experiments.compare_optimizers quick

Every entrant gets the same number of independent studies on each workload and for each length of
training. A study is a search, so many points of the entrant's own search space, whose trial with
the best validation score is trained again with fresh seeds; only those runs see the test set. The
seeds are dealt to the studies in turn, the same to all entrants. Studies are compared as wholes, so
that the luck of a search counts as chance.
"""

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.command_line import Recipe, SweepOptions, check_distinct, check_seeds
from experiments.command_line import main as run_main
from research import comparison, optimizers, workloads
from research.comparison import FIRST_SEARCH_SEED, Study
from research.errors import ConfigError, RunError
from research.names import look_up
from research.optimizers import LATEST
from research.progress import show_progress
from research.report import build_report
from research.runlog import open_run
from research.sweep import Cell, Row, Task, open_backend, run_cells
from research.workloads.workload import Workload

_ROUNDING = 0.1  # how far a length may be from what was asked, to be a multiple of the evaluations


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared, on what, with which budget."""

    workloads: tuple[str, ...] = ("quadratic_1e2", "digits_mlp", "gru")
    """Names in research.workloads."""
    optimizers: tuple[str, ...] = ("sgd", "momentum", "rmsprop", "adam", "adamw")
    """Entrants: names in research.optimizers, each with @schedule if it has one of its own."""
    schedule: str = "cosine"
    """Learning-rate schedule of entrants that name none."""
    horizons: tuple[float, ...] = (1.0,)
    """Lengths of training, as multiples of each workload's usual one, rounded to a multiple of the
    evaluations; each is tuned by itself."""
    studies: int = 3
    """Independent searches of each entrant; with one, tests know the luck of the seed alone."""
    trials: int = 4
    """Points of the search space tried per study, workload and length."""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    """Seeds of final runs, dealt to the studies in turn; the same for all, and no search's."""
    evaluations: int = 20
    """Validations of each training, evenly spread: the resolution of the time to the target."""
    reference: str = "adamw"
    """The entrant that others are compared with."""
    aa_studies: int = 1
    """Further sets of so many studies of the reference, compared with it like others (A/A)."""
    search_seed: int = 0
    """Seed of the search points, and of initialisation and data order in the search."""
    space_version: int = LATEST
    """Version of the search spaces."""

    def __post_init__(self):
        """Refuse what cannot be run."""
        for name in ("studies", "trials", "evaluations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; received {getattr(self, name)}.")
        if self.aa_studies < 0:
            raise ConfigError(f"aa_studies must be at least 0; received {self.aa_studies}.")
        for name in ("workloads", "optimizers", "horizons", "seeds"):
            check_distinct(name, getattr(self, name))
        if len(self.seeds) < self.studies:
            raise ConfigError(
                f"seeds must be at least as many as studies, {self.studies}, so that every winner "
                f"is trained again; received {self.seeds}."
            )
        check_seeds((self.search_seed, *self.seeds))
        if max(self.seeds) >= FIRST_SEARCH_SEED:
            raise ConfigError(
                f"seeds must be below {FIRST_SEARCH_SEED}, as searches use those above; "
                f"received {max(self.seeds)}."
            )
        pool = range(workloads.POOL_SEED, workloads.POOL_SEED + 100)
        if any(seed in pool for seed in (self.search_seed, *self.seeds)):
            raise ConfigError(
                f"seeds must not be those that set the targets, {pool.start} to {pool.stop - 1}; "
                f"received search_seed {self.search_seed} and seeds {self.seeds}."
            )
        if not all(math.isfinite(length) and length > 0 for length in self.horizons):
            raise ConfigError(
                f"horizons must be numbers above zero, and finite; received {self.horizons}."
            )
        for name in self.workloads:
            look_up(dict.fromkeys(workloads.NAMES), name, "workload")
        found = [comparison.entrant(name, self.schedule) for name in self.optimizers]
        check_distinct("optimizers, with their schedules,", found)
        for name in self.optimizers:
            optimizers.find(name.partition("@")[0], self.space_version)
        if self.reference not in self.optimizers:
            raise ConfigError(
                f"reference must be one of the optimizers, {', '.join(self.optimizers)}; received "
                f"{self.reference!r}. Add it to --optimizers or name another with --reference."
            )


RECIPES = {
    "quick": Recipe("2 minutes on 2 cores; 5 optimizers, 3 workloads", Config()),
    "standard": Recipe(
        "30 minutes on 2 cores; 7 optimizers, two schedules more, 4 workloads, 2 lengths",
        Config(
            workloads=("digits_mlp", "autoencoder", "gru", "char_lm"),
            optimizers=(
                *("sgd", "momentum", "rmsprop", "adam", "adamw", "muon", "soap"),
                *("adam@constant", "adam@wsd"),
            ),
            horizons=(0.25, 1.0),
            studies=5,  # of 5 trials, as AlgoPerf's external tuning
            trials=5,
            seeds=tuple(range(1, 11)),
        ),
    ),
    "truths": Recipe(
        "20 minutes on 2 cores, with Fashion-MNIST; what is known of optimizers, looked for here",
        Config(
            workloads=(
                "quadratic_1e2",
                "quadratic_1e4",
                "heavy_tailed",
                "char_lm",
                "fashion_lenet",
            ),
            optimizers=("sgd", "momentum", "adam", "adamw", "muon"),
            studies=5,
            trials=5,
            seeds=tuple(range(1, 11)),
        ),
    ),
    "full": Recipe(
        "some 180 hours on 2 cores, resumable; every optimizer on every workload, 3 lengths",
        Config(
            workloads=workloads.NAMES,
            optimizers=optimizers.NAMES,
            horizons=(0.5, 1.0, 2.0),
            studies=5,
            trials=20,
            seeds=tuple(range(1, 51)),
        ),
    ),
}


def study_sets(config: Config, loaded: Mapping[str, Workload]) -> list[list[Study]]:
    """The sets of studies of a comparison: workload by workload, the reference's further ones last.

    Studies of a set are compared together, and run together, as they share a task.
    """
    made = []
    for name in config.workloads:
        for steps, every in horizons(config, loaded[name]):
            numbered = [(entrant, 0) for entrant in config.optimizers]
            numbered += [(config.reference, 1 + k) for k in range(config.aa_studies)]
            for text, set_number in numbered:
                entrant = comparison.entrant(text, config.schedule)
                task = Task(
                    workload=name,
                    sha256=loaded[name].sha256,
                    optimizer=entrant.optimizer,
                    space_version=config.space_version,
                    schedule=entrant.schedule,
                    steps=steps,
                    evaluate_every=every,
                )
                first = set_number * config.studies
                made.append([Study(task, first + k) for k in range(config.studies)])
    return made


def horizons(config: Config, workload: Workload) -> list[tuple[int, int]]:
    """Lengths of training in steps, and the steps between validations, which divide them.

    Raises:
        ConfigError: fewer steps than evaluations, a length far from what was asked for, or two
            horizons of one length.
    """
    made: dict[int, tuple[float, int]] = {}
    for multiple in config.horizons:
        asked = round(multiple * workload.steps, 6)
        every = max(1, round(asked / config.evaluations))
        steps = every * config.evaluations
        said = f"horizon {multiple:g} of {workload.name} is {asked:g} steps"
        if asked < config.evaluations:
            raise ConfigError(
                f"evaluations must be at most the steps of a training; received "
                f"{config.evaluations}, and {said}. Take fewer --evaluations or longer --horizons."
            )
        if every > 1 and abs(steps - asked) > _ROUNDING * asked:
            raise ConfigError(
                f"horizons must be within {_ROUNDING:.0%} of a multiple of the evaluations, "
                f"{config.evaluations}; {said}, and the nearest is {steps}. Take fewer "
                f"--evaluations or a horizon of {steps / workload.steps:g}."
            )
        if steps in made:
            raise ConfigError(
                f"horizons must differ in steps; {made[steps][0]:g} and {multiple:g} of "
                f"{workload.name} both become {steps}, a multiple of the {config.evaluations} "
                "evaluations. Leave one out, or take fewer --evaluations."
            )
        made[steps] = multiple, every
    return [(steps, every) for steps, (_, every) in made.items()]


def run(recipe: str, config: Config, options: SweepOptions) -> Path:
    """Run or resume the comparison; returns the path of the report."""
    loaded = {name: workloads.load(name, options.data_dir) for name in config.workloads}
    with open_run(
        options.out,
        experiment="compare_optimizers",
        recipe=recipe,
        config=described(config, loaded),
        data={name: workload.sha256 for name, workload in loaded.items()},
        seeds=[config.search_seed, *config.seeds],
        fresh=options.fresh,
    ) as run_:
        made = study_sets(config, loaded)
        trainings = config.studies * config.trials + len(config.seeds)  # of a set
        steps = sum(studies[0].task.steps for studies in made) * trainings
        cells = [cell_of(studies, config) for studies in made]
        where = options.backend, run_.path, options.data_dir, options.workers
        try:
            with (
                show_progress("Comparing optimizers", steps) as progress,
                contextlib.closing(open_backend(*where)) as backend,
            ):
                run_cells(run_.path, cells, backend, progress, expected_steps=steps)
        except RunError:
            build_report(run_.path)  # of what did not fail
            raise
        return build_report(run_.path)


def cell_of(studies: Sequence[Study], config: Config) -> Cell:
    """The trainings of a set of studies: their searches, and then each winner with its seeds."""

    def then(rows: list[Row]) -> list[Cell]:
        finals = []
        for k, study in enumerate(studies):
            searched = [row for row in rows if row["settings"]["study"] == study.number]
            finals += comparison.final(study, searched, config.seeds[k :: config.studies])
        return [Cell(tuple(finals))]

    search = [
        training
        for study in studies
        for training in comparison.search(study, trials=config.trials, seed=config.search_seed)
    ]
    return Cell(tuple(search), then)


def described(config: Config, loaded: Mapping[str, Workload]) -> dict[str, Any]:
    """The configuration with what a report must know of workloads and optimizers."""
    names = dict.fromkeys(name.partition("@")[0] for name in config.optimizers)
    entries = {name: optimizers.find(name, config.space_version) for name in names}
    return dataclasses.asdict(config) | {
        "horizons": {
            name: [steps for steps, _ in horizons(config, workload)]
            for name, workload in loaded.items()
        },
        "targets": {name: workload.target for name, workload in loaded.items()},
        "metrics": {name: workload.metric for name, workload in loaded.items()},
        "descriptions": {name: workload.description for name, workload in loaded.items()},
        "held_out": {name: of for name, of in workloads.BASES.items() if name in config.workloads},
        "search_spaces": {
            name: {key: bounds._asdict() for key, bounds in entry.space.items()}
            for name, entry in entries.items()
        },
        "papers": {name: entry.paper for name, entry in entries.items()},
    }


def main() -> None:
    """Command line."""
    run_main(
        "compare_optimizers",
        "Compare optimizers on small real problems under equal tuning budgets.\n\n"
        f"Workloads: {', '.join(workloads.NAMES)}.\n\n"
        f"Optimizers: {', '.join(optimizers.NAMES)}.\n\n"
        f"Schedules: {', '.join(optimizers.SCHEDULES)}.",
        RECIPES,
        run,
        options=SweepOptions(),
    )


if __name__ == "__main__":
    main()
