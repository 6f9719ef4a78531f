"""What a line of timings.jsonl says, as far as it is what a sweep writes."""

import math
from collections.abc import Mapping
from typing import Any


def number(value: Any) -> float:
    """A finite number from zero on; NaN for anything else.

    Example:
        >>> number(2), number("2"), number(-1)
        (2.0, nan, nan)
    """
    good = isinstance(value, int | float) and math.isfinite(value) and value >= 0
    return float(value) if good else math.nan


def step_seconds(line: Mapping[str, Any]) -> float:
    """Seconds that the steps of a line took, with evaluations, without compilation; NaN if unknown.

    A line from before these were written has the seconds of everything that a worker did for the
    trainings, from which those of compilation are taken away.

    Example:
        >>> step_seconds({"seconds": 9.0, "compile_seconds": 2.0, "step_seconds": 5.0})
        5.0
        >>> step_seconds({"seconds": 9.0, "compile_seconds": 2.0})
        7.0
    """
    took = number(line.get("step_seconds"))
    if not math.isnan(took):
        return took
    whole, compiling = number(line.get("seconds")), number(line.get("compile_seconds"))
    return whole if math.isnan(whole) or math.isnan(compiling) else max(0.0, whole - compiling)
