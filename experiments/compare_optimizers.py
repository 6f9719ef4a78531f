"""Which optimizer trains best when all are tuned equally, and how sure is that?

    python -m experiments.compare_optimizers quick

Every entrant gets the same number of trials, points of its own search space, on each workload and
for each length of training. The trial with the best validation score is trained again with fresh
seeds that all entrants share, and only those runs see the test set.
"""

import contextlib
import dataclasses
from collections.abc import Mapping
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
    """Lengths of training, as multiples of each workload's usual one; each is tuned by itself."""
    trials: int = 10
    """Points of the search space tried per entrant, workload and length."""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Seeds that each winner is trained again with; the same for all, and no search's."""
    evaluations: int = 20
    """Validations of each training, evenly spread: the resolution of the time to the target."""
    reference: str = "adamw"
    """The entrant that others are compared with."""
    aa_studies: int = 1
    """Further studies of the reference, compared with it as if they were others (A/A)."""
    search_seed: int = 0
    """Seed of the search points, and of initialisation and data order in the search."""
    space_version: int = LATEST
    """Version of the search spaces."""

    def __post_init__(self):
        """Refuse what cannot be run."""
        for name in ("trials", "evaluations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; received {getattr(self, name)}.")
        if self.aa_studies < 0:
            raise ConfigError(f"aa_studies must be at least 0; received {self.aa_studies}.")
        for name in ("workloads", "optimizers", "horizons", "seeds"):
            check_distinct(name, getattr(self, name))
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
        if min(self.horizons) <= 0:
            raise ConfigError(f"horizons must be above zero; received {self.horizons}.")
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
        "30 minutes on 2 cores; 7 optimizers, three schedules more, 4 workloads, 2 lengths",
        Config(
            workloads=("digits_mlp", "autoencoder", "gru", "char_lm"),
            optimizers=(
                *("sgd", "momentum", "rmsprop", "adam", "adamw", "muon", "soap"),
                *("adam@constant", "adam@step", "adam@wsd"),
            ),
            horizons=(0.5, 1.0),
            trials=20,
            seeds=tuple(range(1, 11)),
        ),
    ),
    "truths": Recipe(
        "15 minutes on 2 cores, with Fashion-MNIST; what is known of optimizers, looked for here",
        Config(
            workloads=(
                "quadratic_1e2",
                "quadratic_1e4",
                "heavy_tailed",
                "char_lm",
                "fashion_lenet",
            ),
            optimizers=("sgd", "momentum", "adam", "adamw", "muon"),
            trials=20,
            seeds=tuple(range(1, 11)),
        ),
    ),
    "full": Recipe(
        "some 100 hours on 2 cores, resumable; every optimizer on every workload, 3 lengths",
        Config(
            workloads=workloads.NAMES,
            optimizers=optimizers.NAMES,
            horizons=(0.5, 1.0, 2.0),
            trials=60,
            seeds=tuple(range(1, 21)),
            aa_studies=3,
        ),
    ),
}


def studies(config: Config, loaded: Mapping[str, Workload]) -> list[Study]:
    """All studies of a comparison: workload by workload, the reference's further ones last."""
    made = []
    for name in config.workloads:
        for steps, every in horizons(config, loaded[name]):
            numbered = [(entrant, 0) for entrant in config.optimizers]
            numbered += [(config.reference, 1 + k) for k in range(config.aa_studies)]
            for text, number in numbered:
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
                made.append(Study(task, number))
    return made


def horizons(config: Config, workload: Workload) -> list[tuple[int, int]]:
    """Lengths of training in steps, and the steps between validations, which divide them."""
    lengths = []
    for multiple in config.horizons:
        every = max(1, round(multiple * workload.steps / config.evaluations))
        lengths.append((every * config.evaluations, every))
    return lengths


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
        made = studies(config, loaded)
        steps = sum(study.task.steps for study in made) * (config.trials + len(config.seeds))
        cells = [cell_of(study, config) for study in made]
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


def cell_of(study: Study, config: Config) -> Cell:
    """The trainings of a study: its search, and then the winner with every seed."""

    def then(rows: list[Row]) -> list[Cell]:
        return [Cell(tuple(comparison.final(study, rows, config.seeds)))]

    search = comparison.search(study, trials=config.trials, seed=config.search_seed)
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
        "held_out": [name for name in config.workloads if name in workloads.VARIANTS],
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
