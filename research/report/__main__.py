"""Command line: `python -m research.report RUN` writes the report of a run and prints its path."""

import argparse
import sys
from collections.abc import Sequence

from research.errors import TrellisError
from research.report import build_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 with the path printed, 2 with a message where there is no report to make."""
    parser = argparse.ArgumentParser(
        prog="python -m research.report",
        description="Write report.html, figures/ and the tables of a run, from its records alone.",
    )
    parser.add_argument("run", metavar="RUN", help="runs/<experiment>/<recipe>-<id>")
    try:
        print(build_report(parser.parse_args(arguments).run))
    except TrellisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
