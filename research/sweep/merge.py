"""Bring what several machines have trained of one comparison into one run directory.

    python -m research.sweep.merge RUN OTHER [OTHER ...]

RUN takes over the rows of the others that it lacks, with their arrays. A row is named by the hash
of its settings, so that merging twice changes nothing, and the experiment's command goes on with
what nobody has yet. Timings, those of recognition too, and plans stay where they were measured:
what a report says of seconds is of RUN's machine, and of the trainings that ran there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from research.errors import RunError, TrellisError
from research.runlog import Records, read_run
from research.sweep.store import store_of


def merge_run(run: Path, other: Path) -> int:
    """Take over the rows of another run of the same configuration; how many were not here.

    Args:
        run: the run directory that gets the rows.
        other: the run directory that has them; it is only read.

    Raises:
        RunError: the same directory twice, one that is no run, a run of another configuration, on
            other data or by another version, none with a row, a damaged row, or a directory that
            cannot be written.
    """
    if run.resolve() == other.resolve():
        raise RunError(f"two different run directories are needed; received {run} twice.")
    mine, theirs = read_run(run), read_run(other)
    _check_same(mine, theirs)
    if not mine.rows and not theirs.rows:
        raise RunError(
            "one of the runs must have rows to merge, as those of a sweep do once it trains; "
            f"neither {run} nor {other} has any. Other experiments keep no rows: read their "
            "reports side by side."
        )
    try:
        return store_of(run).merge(store_of(other))
    except OSError as error:
        raise RunError(
            f"the run directory {run} must be writable and {other} readable; the system says: "
            f"{error}. Mend that and merge again; what was taken over already is kept."
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 with what was taken over printed, 2 with a message where runs do not fit."""
    parser = argparse.ArgumentParser(
        prog="python -m research.sweep.merge",
        description="Take over finished trainings from other runs of the same configuration.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run directory that gets them")
    parser.add_argument(
        "others", metavar="OTHER", type=Path, nargs="+", help="those that have them"
    )
    options = parser.parse_args(arguments)
    try:
        for other in options.others:
            print(f"{merge_run(options.run, other)} new trainings from {other}")
    except TrellisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"The report of all: python -m research.report {options.run}")
    return 0


def _check_same(run: Records, other: Records) -> None:
    """A RunError that says in what two runs differ, as far as it changes what is trained."""
    if run.experiment != other.experiment:
        what = f"experiment {run.experiment!r} and {other.experiment!r}"
    elif run.config != other.config:
        names = sorted(run.config.keys() | other.config.keys())
        unlike = [name for name in names if run.config.get(name) != other.config.get(name)]
        what = ", ".join(
            f"{name} {run.config.get(name)!r} and {other.config.get(name)!r}" for name in unlike[:3]
        )
    elif run.data != other.data:
        what = f"data {run.data!r} and {other.data!r}"
    elif run.version != other.version:
        what = f"Trellis {run.version} and {other.version}, whose trainings may differ"
    else:
        return
    raise RunError(
        f"only runs of one configuration and version can be merged; {run.path} and {other.path} "
        f"have {what}. Start both with the same command, by the same version."
    )


if __name__ == "__main__":
    sys.exit(main())
