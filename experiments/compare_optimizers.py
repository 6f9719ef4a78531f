"""Which optimizer trains a small image classifier best when all are tuned equally?

    python -m experiments.compare_optimizers quick

Every optimizer gets the same number of trials, points of its own search space; the trial with the
best validation accuracy is trained again with fresh seeds, and only those runs see the test set.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.command_line import Options, Recipe, check_distinct, check_seeds
from experiments.command_line import main as run_main
from research import optimizers
from research.data import image_augment
from research.data.images import ImageDataset, ImageSplit, load_images
from research.data.sampler import batch_indices
from research.errors import ConfigError
from research.models.lenet import LeNet
from research.models.mlp import MLP
from research.objectives.classification import cross_entropy
from research.progress import Progress, show_progress
from research.report import build_report
from research.runlog import Run, open_run
from research.sweep import Trial, run_trials
from research.train import (
    Diverged,
    State,
    evaluate,
    fit,
    init_state,
    make_train_step,
    padded_batches,
)

_EVALUATION_BATCH = 512

# The search spaces that the committed results were drawn from.
_find = functools.partial(optimizers.find, version=1)

MODELS: Mapping[str, Callable[..., Any]] = {"mlp": MLP, "lenet": LeNet}


@dataclasses.dataclass(frozen=True)
class Config:
    """What is compared, on what, with which budget."""

    data: Literal["digits", "fashion_mnist", "mnist", "cifar10"] = "digits"
    """Images; digits come with scikit-learn, the others from the data directory."""
    workloads: tuple[Literal["mlp", "lenet"], ...] = ("mlp", "lenet")
    """Models that each optimizer trains."""
    optimizers: tuple[str, ...] = ("sgd", "momentum", "rmsprop", "adam", "adamw")
    """Names in research.optimizers."""
    trials: int = 10
    """Points of the search space tried per optimizer and workload."""
    seeds: tuple[int, ...] = (1, 2, 3)
    """Seeds that the best trial is trained again with; not the search's."""
    steps: int = 300
    """Length of each training."""
    batch_size: int = 64
    """Images per step."""
    schedule: str = "cosine"
    """Learning-rate schedule of all trainings; a name in research.optimizers."""
    augment: tuple[Literal["flip", "crop", "rotation"], ...] = ()
    """Random changes of the training images."""
    evaluate_every: int = 20
    """Steps between validations, and so the resolution of steps-to-target."""
    target_accuracy: float = 0.95
    """Validation accuracy that steps-to-target waits for."""
    search_seed: int = 0
    """Seed of initialisation, data order and search points in the search."""

    def __post_init__(self):
        """Refuse what cannot be run."""
        for name in ("trials", "steps", "batch_size", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; received {getattr(self, name)}.")
        for name in ("workloads", "optimizers", "seeds"):
            check_distinct(name, getattr(self, name))
        check_seeds((self.search_seed, *self.seeds))
        if not 0 < self.target_accuracy <= 1:
            raise ConfigError(
                f"target_accuracy must lie in (0, 1]; received {self.target_accuracy}."
            )
        optimizers.find_schedule(self.schedule)
        if self.search_seed in self.seeds:
            raise ConfigError(
                f"seeds must be fresh, but {self.search_seed} is also the search_seed: the final "
                "runs would repeat the run they were chosen by."
            )
        for name in self.optimizers:
            _find(name)


RECIPES = {
    "quick": Recipe("2 minutes on 2 cores; 5 optimizers, MLP and LeNet, digits >= 95 %", Config()),
    "standard": Recipe(
        "15 minutes on 2 cores; 7 optimizers, 20 trials and 5 seeds each",
        Config(
            optimizers=("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"),
            trials=20,
            seeds=(1, 2, 3, 4, 5),
            steps=600,
        ),
    ),
}


class Workload(NamedTuple):
    """A model on a dataset as jitted functions that every optimizer shares.

    ``init(key)`` -> params; ``apply(params, batch, key)`` -> logits of augmented images;
    ``measure(params, batch)`` -> loss and accuracy per image; ``predict(params, batch)`` ->
    classes.
    """

    init: Callable[..., Any]
    apply: Callable[..., jax.Array]
    measure: Callable[..., dict[str, jax.Array]]
    predict: Callable[..., jax.Array]


def make_workload(name: str, dataset: ImageDataset, config: Config) -> Workload:
    """Compile-once functions of a named model."""
    model = MODELS[name](classes=len(dataset.classes))

    def logits(params, images):
        return model.apply({"params": params}, images)

    def init(key):
        return model.init(key, dataset.normalise(jnp.asarray(dataset.train.images[:1])))["params"]

    def apply(params, batch, key):
        images = _augment(key, dataset.normalise(batch["images"]), config.augment)
        return logits(params, images)

    def measure(params, batch):
        outputs = logits(params, dataset.normalise(batch["images"]))
        losses = optax.softmax_cross_entropy_with_integer_labels(outputs, batch["labels"])
        return {"loss": losses, "accuracy": jnp.argmax(outputs, axis=-1) == batch["labels"]}

    def predict(params, batch):
        return jnp.argmax(logits(params, dataset.normalise(batch["images"])), axis=-1)

    return Workload(jax.jit(init), apply, jax.jit(measure), jax.jit(predict))


def build_optimizer(name: str, hyperparameters: Mapping[str, Any], config: Config):
    """The optimizer with its learning-rate schedule; hyperparameters may be traced."""
    return optimizers.build_scheduled(_find(name), hyperparameters, config.schedule, config.steps)


def make_step(workload: Workload, optimizer: str, config: Config) -> Callable[..., Any]:
    """One jitted step for all trials of an optimizer: hyperparameters are an argument."""

    def loss(outputs, batch):
        return cross_entropy(outputs, batch["labels"])

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state, batch, key, hyperparameters):
        transformation = build_optimizer(optimizer, hyperparameters, config)
        return make_train_step(workload.apply, loss, transformation)(state, batch, key)

    return step


def _augment(key, images, names):
    if not names:
        return images
    keys = dict(zip(("flip", "crop", "rotation"), jax.random.split(key, 3), strict=True))
    if "flip" in names:
        images = image_augment.random_flip(keys["flip"], images)
    if "crop" in names:
        padding = max(1, images.shape[1] // 8)
        images = image_augment.random_crop(keys["crop"], images, padding)
    if "rotation" in names:
        images = image_augment.random_rotation(keys["rotation"], images, 10.0)
    return images


def train_trial(
    trial: Trial,
    workload: Workload,
    compiled_step: Callable[..., Any],
    dataset: ImageDataset,
    config: Config,
    run: Run,
    progress: Progress,
) -> dict[str, Any]:
    """Train once and measure; only final trials touch the test set."""
    seed = trial.settings["seed"]
    hyperparameters = {
        name: jnp.float32(value) for name, value in trial.settings["hyperparameters"].items()
    }
    init_key, train_key = jax.random.split(jax.random.key(seed))
    evaluations: list[dict[str, float]] = []

    def batches(step):
        index = batch_indices(seed, step, len(dataset.train.labels), config.batch_size)
        return {"images": dataset.train.images[index], "labels": dataset.train.labels[index]}

    def step(state, batch, key):
        return compiled_step(state, batch, key, hyperparameters)

    def evaluated(state: State) -> Any:
        return _find(trial.settings["optimizer"]).evaluated(state.opt_state, state.params)

    def on_evaluate(state: State, train_loss: float) -> None:
        values = evaluate(workload.measure, evaluated(state), _all_of(dataset.validation))
        if not math.isfinite(values["loss"]):
            raise Diverged(int(state.step))
        evaluations.append({"step": int(state.step), **values})
        run.log(
            trial.name,
            int(state.step),
            train_loss=train_loss,
            validation_loss=values["loss"],
            validation_accuracy=values["accuracy"],
        )

    optimizer = build_optimizer(trial.settings["optimizer"], hyperparameters, config)
    state = fit(
        step,
        init_state(workload.init(init_key), optimizer),
        batches,
        key=train_key,
        steps=config.steps,
        evaluate_every=config.evaluate_every,
        on_evaluate=on_evaluate,
        on_step=progress.step,
    )
    reached = [e["step"] for e in evaluations if e["accuracy"] >= config.target_accuracy]
    result = {
        "validation_accuracy": evaluations[-1]["accuracy"],
        "validation_loss": evaluations[-1]["loss"],
        "steps_to_target": min(reached, default=None),
        "steps": config.steps,
    }
    if trial.settings["phase"] == "final":
        result |= _test(workload, evaluated(state), dataset)
    return result


def _all_of(split: ImageSplit):
    return padded_batches({"images": split.images, "labels": split.labels}, _EVALUATION_BATCH)


def _test(workload: Workload, params: Any, dataset: ImageDataset) -> dict[str, Any]:
    values = evaluate(workload.measure, params, _all_of(dataset.test))
    confusion = np.zeros((len(dataset.classes), len(dataset.classes)), np.int64)
    for batch, valid in _all_of(dataset.test):
        predicted = np.asarray(workload.predict(params, batch))
        np.add.at(confusion, (batch["labels"][valid], predicted[valid]), 1)
    return {
        "test_accuracy": values["accuracy"],
        "test_loss": values["loss"],
        "confusion": confusion.tolist(),
    }


def search_trials(workload: str, optimizer: str, config: Config) -> list[Trial]:
    """The search of one optimizer on one workload: equal in number for all."""
    points = optimizers.draw_trials(_find(optimizer).space, config.trials, seed=config.search_seed)
    return [
        Trial(
            f"{workload}/{optimizer}/search-{index:02d}",
            {
                "workload": workload,
                "optimizer": optimizer,
                "phase": "search",
                "index": index,
                "seed": config.search_seed,
                "hyperparameters": hyperparameters,
            },
            config.steps,
        )
        for index, hyperparameters in enumerate(points)
    ]


def final_trials(search_records: list[dict[str, Any]], config: Config) -> list[Trial]:
    """The best search trial again, with seeds the search never used; none if all diverged."""
    finished = [record for record in search_records if record["status"] == "finished"]
    if not finished:
        return []

    def rank(record):
        return record["result"]["validation_accuracy"], -record["result"]["validation_loss"]

    settings = max(finished, key=rank)["settings"]
    return [
        Trial(
            f"{settings['workload']}/{settings['optimizer']}/final-{seed:02d}",
            settings | {"phase": "final", "seed": seed},
            config.steps,
        )
        for seed in config.seeds
    ]


def run(recipe: str, config: Config, options: Options) -> Path:
    """Run or resume the comparison; returns the path of the report."""
    dataset = load_images(config.data, options.data_dir)
    cells = len(config.workloads) * len(config.optimizers)
    total = cells * (config.trials + len(config.seeds)) * config.steps
    spaces = {
        name: {key: bounds._asdict() for key, bounds in _find(name).space.items()}
        for name in config.optimizers
    }
    data = {
        "name": dataset.name,
        "source": dataset.source,
        "sha256": dataset.sha256,
        "classes": dataset.classes,
    }
    with (
        open_run(
            options.out,
            experiment="compare_optimizers",
            recipe=recipe,
            config=dataclasses.asdict(config) | {"search_spaces": spaces},
            data=data,
            seeds=[config.search_seed, *config.seeds],
            fresh=options.fresh,
        ) as run_,
        show_progress("Comparing optimizers", total) as progress,
    ):
        for name in config.workloads:
            workload = make_workload(name, dataset, config)
            for optimizer in config.optimizers:
                step = make_step(workload, optimizer, config)

                def execute(trial, workload=workload, step=step):
                    return train_trial(trial, workload, step, dataset, config, run_, progress)

                search = run_trials(run_, search_trials(name, optimizer, config), execute, progress)
                finals = final_trials(search, config)
                run_trials(run_, finals, execute, progress)
                progress.skip((len(config.seeds) - len(finals)) * config.steps)
        return build_report(run_.path)


def main() -> None:
    """Command line."""
    run_main(
        "compare_optimizers",
        "Compare optimizers on image classification under equal tuning budgets.",
        RECIPES,
        run,
    )


if __name__ == "__main__":
    main()
