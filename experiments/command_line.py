"""The command line that every experiment shares: a recipe's name, overrides, where to run."""

import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

import tyro

from research.errors import ConfigError, TrellisError
from research.names import suggestion

_INTERRUPTED = 130


class Recipe(NamedTuple):
    """A named configuration and one line on its cost and its expected result."""

    description: str
    config: Any


@dataclasses.dataclass(frozen=True)
class Options:
    """Where to run; these change nothing in the result."""

    out: Path = Path("runs")
    """Folder of all runs; this one goes to OUT/<experiment>/<recipe>-<id>."""
    data_dir: Path | None = None
    """Where data lies; by default $TRELLIS_DATA, else ~/.cache/trellis."""
    fresh: bool = False
    """Start anew instead of resuming; an earlier run is moved aside, not deleted."""


@dataclasses.dataclass(frozen=True)
class SweepOptions(Options):
    """Where to run, and on what; these change nothing in the result."""

    backend: Literal["local", "slurm", "ray"] = "local"
    """What runs the trainings: processes here, a SLURM cluster by submitit, or a Ray cluster."""
    workers: int | None = None
    """Processes (local) or jobs (slurm) at a time. By default as many processes as this machine has
    cores, one where JAX computes on an accelerator, or 32 jobs; ray takes all CPUs of its cluster
    and no number."""


def main(
    experiment: str,
    description: str,
    recipes: Mapping[str, Recipe],
    run: Callable[[str, Any, Any], Path | None],
    arguments: Sequence[str] | None = None,
    options: Options | None = None,
) -> None:
    """Parse a recipe and its overrides, run, and say where the report is.

    Exits with status 2 and a message on bad input, 130 when interrupted.

    Args:
        experiment: module name, for --help.
        description: shown by --help.
        recipes: name -> recipe; all of one configuration class.
        run: (recipe name, configuration, options) -> path of the report, or None where none was
            asked for.
        arguments: instead of the process's own, for tests.
        options: the defaults of where to run, where an experiment has more of them.
    """
    is_process = arguments is None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    recipe, config, chosen = _parse(
        experiment, description, recipes, arguments, options or Options()
    )
    # A cluster stops a job with SIGTERM: leave by the same door as Ctrl-C.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        report = run(recipe, config, chosen)
    except TrellisError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on where this one stopped.", file=sys.stderr)
        if is_process:
            # An interrupted XLA computation can crash the interpreter while it shuts down. All
            # records are on disk, and the system releases the lock.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(_INTERRUPTED)
        raise SystemExit(_INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
    if report is not None:
        print(f"Report: {report}")


def check_distinct(name: str, values: Sequence[Any]) -> None:
    """Refuse an empty list, and one that names something twice.

    Raises:
        ConfigError: as it says.
    """
    if not values or len(set(values)) < len(values):
        raise ConfigError(f"{name} must name at least one, and none twice; received {values}.")


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that a random generator would reject, or take for another seed.

    Raises:
        ConfigError: a seed outside 0 to 2^31 - 1.
    """
    for seed in seeds:
        if not 0 <= seed < 2**31:
            raise ConfigError(f"a seed must lie in 0 to {2**31 - 1}; received {seed}.")


def _parse(experiment, description, recipes, arguments, options) -> tuple[str, Any, Any]:
    program = f"python -m experiments.{experiment}"
    if not arguments or arguments[0] not in recipes:
        _explain_recipes(program, description, recipes, arguments)
    recipe = recipes[arguments[0]]
    command_class = dataclasses.make_dataclass(
        "Command", [("recipe", type(recipe.config)), ("run", type(options))], frozen=True
    )
    command = tyro.cli(
        command_class,
        default=command_class(recipe.config, options),
        args=arguments[1:],
        prog=f"{program} {arguments[0]}",
        description=f"{description}\n\n{arguments[0]}: {recipe.description}",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return arguments[0], command.recipe, command.run


def _explain_recipes(program, description, recipes, arguments) -> NoReturn:
    """Print how to name a recipe, and leave: with status 0 when asked for help, else 2."""
    asked = any(argument in ("-h", "--help") for argument in arguments)
    lines = [f"usage: {program} {{{','.join(recipes)}}} [options]", "", description, ""]
    lines += [f"  {name:10}  {recipe.description}" for name, recipe in recipes.items()]
    lines += ["", f"Options of a recipe: {program} {next(iter(recipes))} --help"]
    if not asked:
        received = repr(arguments[0]) if arguments else "nothing"
        hint = suggestion(arguments[0], recipes) if arguments else ""
        choices = ", ".join(recipes)
        lines += [
            "",
            f"error: the first argument must be a recipe ({choices}); received {received}.{hint}",
        ]
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    raise SystemExit(0 if asked else 2)
